"""FFR's table of micro runs: by hand for one, and the README's for the committed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro import folder
from repro import repaired_table as table
from repro.ffr import gap
from results import ledger
from results.ledger import Run

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "results" / "runs" / "ffr" / "microworld"


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return ledger.load(RUNS)


def test_rates_by_hand(runs: list[Run]) -> None:
    """Counts are summed before they are divided: a step of few failures counts little."""
    lines: Any = (
        {"step": 1, "n_failed": 30.0, "n_repaired": 30.0, "n_mended": 6.0, "repair_rate": 1.0},
        {"step": 2, "n_failed": 10.0, "n_repaired": 2.0, "n_mended": 2.0, "repair_rate": 0.2},
        {"step": 3, "n_rollouts": 64.0},
    )
    run = replace(runs[0], curves=lines)
    assert table.rates(run) == pytest.approx({"repaired": 0.8, "mended": 0.25})
    bare: Any = ({"step": 1, "n_rollouts": 64.0},)
    assert table.rates(replace(run, curves=bare)) == {}


def test_a_gap_stands_beside_the_arm_whose_weights_it_is_of(runs: list[Run]) -> None:
    (start,) = (run for run in runs if run.record.arm == "cold")
    other = next(run for run in runs if run.record.arm == "ffr")
    told = {"none": 0.4, "oracle": 0.5, "random_interval": 0.355}
    sha = other.record.model["sha256"]
    lines = table.markdown([start, other], {"x": {"sha256": sha, "sampled": told}}).splitlines()
    assert lines[2].endswith("|  |  |  |") and lines[2].startswith("| cold start | 1 |")
    assert lines[3].endswith("| 40.0 | +10.0 | -4.5 |") and lines[3].startswith("| FFR | 1 |")


def test_measured_gaps_are_kept_by_run(tmp_path: Path) -> None:
    """A second checkpoint joins the first; the start has no run's name."""
    at = tmp_path / "ffr-s0" / "final"
    at.mkdir(parents=True)
    (at / "model.safetensors").write_bytes(b"weights")
    gap.keep(tmp_path / "gaps.json", at, {"sampled": {}})
    gap.keep(tmp_path / "gaps.json", at.parent, {"sampled": {}})
    kept = folder.read_json(tmp_path / "gaps.json")
    assert list(kept) == ["cold", "ffr-s0"] and len(kept["ffr-s0"]["sha256"]) == 64


def test_the_readme_has_the_table_of_the_committed_runs() -> None:
    text = (ROOT / "repro" / "ffr" / "README.md").read_text(encoding="utf-8")
    assert table.block(RUNS) in text, "python -m repro.repaired_table writes it anew"


def test_every_measured_gap_is_of_a_committed_run(runs: list[Run]) -> None:
    """Which `gaps.json` names as the ledger does."""
    filed = {f"{r.record.arm}-s{r.record.seed}": r.record.model["sha256"] for r in runs}
    for name, own in folder.read_json(table.GAPS).items():
        assert filed["cold-s0" if name == "cold" else name] == own["sha256"]
