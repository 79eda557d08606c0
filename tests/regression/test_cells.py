"""One test per cell of every paper: it fails where a measured number is below the printed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from results import ledger
from results.cells import Cell, cells, judge
from results.claims import NotComparable
from results.ledger import Run
from results.policy import load_policy
from results.reported import load_reported
from results.stats import Spread
from results.verdict import ledger_spread

ROOT = Path(__file__).resolve().parents[2]
CELLS = [
    cell
    for path in sorted(ROOT.glob("repro/*/reported.yaml"))
    for cell in cells(load_reported(path))
]
SKIPPED = ("not run", "not comparable", "failed")  # nothing was measured that could be compared
BAD = ("below", "reversed")


@pytest.fixture(scope="session")
def runs() -> list[Run]:
    """Every committed run."""
    return ledger.load(ROOT / "results" / "runs")


@pytest.fixture(scope="session")
def spread(runs: list[Run]) -> Spread | None:
    """Between training seeds, pooled over the ledger."""
    return ledger_spread(runs)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_cell(cell: Cell, runs: list[Run], spread: Spread | None) -> None:
    try:
        verdict = judge(cell, runs, load_policy(), spread=spread)
    except NotComparable as error:
        pytest.skip(f"not comparable: {error}")
    if verdict.word == "not run":
        pytest.skip(f"not run: {cell.reason}")
    if verdict.word in SKIPPED:
        pytest.skip(f"{verdict.word}: {verdict.reason}")
    assert verdict.word not in BAD, f"{verdict.word}: {verdict.reason}"
