"""Temporal-R1's table of micro runs: by hand for one, and the README's for the committed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro import timed_table
from results import ledger
from results.ledger import Run

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "results" / "runs" / "temporal_r1" / "microworld"


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return ledger.load(RUNS)


def answered(run: Run, said: list[tuple[str, str, str | None, float]]) -> Run:
    """The run with these rows alone: kind, gold, prediction, score."""
    rows = tuple(
        replace(run.rows[0], id=str(i), kind=kind, gold=gold, prediction=prediction, score=score)
        for i, (kind, gold, prediction, score) in enumerate(said)
    )
    return replace(run, rows=rows)


def test_numbers_by_hand(runs: list[Run]) -> None:
    """IoU 1, 0.6 and none; one of two options right; a quarter of the groups flat."""
    run = answered(
        runs[0],
        [
            ("temporal grounding", "[1.0, 2.0]", "[1.0, 2.0]", 1.0),
            ("temporal grounding", "[0.0, 1.5]", "[0.0, 2.5]", 1.0),
            ("grounded qa", "A [1.0, 2.0]", None, 0.0),
            ("multiple choice", "A", "A", 1.0),
            ("multiple choice", "A", "B", 0.0),
        ],
    )
    lines: Any = ({"step": 1, "zero_std": 0.5}, {"step": 2, "zero_std": 0.0})
    found = timed_table.numbers(replace(run, curves=lines))
    assert found == pytest.approx({
        "accuracy": 0.5, "mIoU": 1.6 / 3, "R1@0.3": 2 / 3, "R1@0.5": 2 / 3, "R1@0.7": 1 / 3,
        "signal": 0.75,
    })  # fmt: skip
    bare: Any = ({"step": 1, "loss": 0.5},)
    assert "signal" not in timed_table.numbers(replace(run, curves=bare))


def test_the_readme_has_the_table_of_the_committed_runs() -> None:
    text = (ROOT / "repro" / "temporal_r1" / "README.md").read_text(encoding="utf-8")
    assert timed_table.block(RUNS) in text, "python -m repro.timed_table writes it anew"


def test_every_arm_has_a_line_and_one_seed_has_no_spread(runs: list[Run]) -> None:
    lines = timed_table.markdown(runs).splitlines()[2:]
    assert len(lines) == len({run.record.arm for run in runs})
    (start,) = [line for line in lines if line.startswith("| cold start | 1 |")]
    assert "±" not in start
