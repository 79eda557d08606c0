"""MVP's table of micro runs: by hand for one, and the README's for the committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro import masked_table
from results import ledger
from results.ledger import Run
from results.schema import Row

ROOT = Path(__file__).parents[3]
RUNS = ROOT / "results" / "runs" / "mvp" / "microworld"


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return ledger.load(RUNS)


def row(n: int, kind: str, gold: str, said: str | None, score: float, family: str = "") -> Row:
    outcome = "unparsed" if said is None else "correct" if score else "wrong"
    return Row(
        id=f"{n:02}", k=0, cluster=str(n), kind=kind, gold=gold, prediction=said, outcome=outcome,
        score=score, tokens=1, tags={"family": family} if family else {},
    )  # fmt: skip


def test_numbers_by_hand(runs: list[Run]) -> None:
    """Of four items one right, one backwards, one with one hit, one that cannot be read."""
    rows = (
        row(0, "multiple choice", "A", "A", 1.0, "order"),
        row(1, "multiple choice", "A", "B", 0.0, "order"),
        row(2, "numerical", "2", "2", 1.0, "count"),
        row(3, "multiple choice", "A", "B", 0.0, "attribute"),
        row(4, "ordering", "4, 1", "4, 1", 1.0, "mvp 2+2"),
        row(5, "ordering", "4, 1", "1, 4", 0.0, "mvp 2+2"),
        row(6, "ordering", "4, 1", "4, 2", 0.0, "mvp 2+2"),
        row(7, "ordering", "2, 6, 4", None, 0.0, "mvp 3+3"),
    )
    found = masked_table.numbers(Run(runs[0].record, rows))
    assert found == pytest.approx({
        "questions": 0.5, "order": 0.5, "count": 1.0, "exact": 0.25, "sel": 2.5 / 4,
        "ord": 0.25, "K = 2": 1 / 3, "K = 3": 0.0, "backwards": 0.25,
    })  # fmt: skip


def test_the_readme_has_the_table_of_the_committed_runs() -> None:
    text = (ROOT / "repro" / "mvp" / "README.md").read_text(encoding="utf-8")
    assert masked_table.block(RUNS) in text, "python -m repro.masked_table writes it anew"


def test_every_arm_has_a_line_in_both_tables(runs: list[Run]) -> None:
    plain, _, probed = masked_table.markdown(runs).split("\n\n")
    arms = {run.record.arm for run in runs}
    assert {run.record.arm for run in runs if run.probe} == arms
    for table in (plain, probed):
        assert len(table.splitlines()) == 2 + len(arms)
        (start,) = [line for line in table.splitlines() if line.startswith("| cold start | 1 |")]
        assert "±" not in start
