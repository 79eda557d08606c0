"""`repro reproduce all`: every paper once, each in its folder, and one scoreboard."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from repro.cli import cli
from repro.everything import reproduce_all, scoreboard
from repro.recipe import papers

RUNS = Path(__file__).parents[2] / "results" / "runs"


def test_every_paper_runs_once_in_its_own_folder(tmp_path: Path) -> None:
    seen: list[tuple[str, str, Path]] = []
    text = reproduce_all(lambda r, at: seen.append((r.paper, r.profile_name, at)), tmp_path)
    assert seen == [(name, "micro", tmp_path / f"{name}-micro") for name in papers()]
    assert text.splitlines()[0].split()[:2] == ["paper", "claim"]


def test_the_scoreboard_has_every_claim_beside_the_committed_word() -> None:
    lines = scoreboard([RUNS / "ktr"]).splitlines()
    assert all(len(line) <= 100 for line in lines)
    (line,) = [x for x in lines if "KTR − GRPO" in x]
    assert line.split()[0] == "ktr" and line.count("undecided (5 seeds)") == 2


def test_all_takes_no_arms_and_no_other_profile() -> None:
    for words in (["--arms", "grpo"], ["--profile", "paper"], ["--stage", "eval"]):
        done = CliRunner().invoke(cli, ["reproduce", "all", *words])
        assert done.exit_code == 2 and "only the micro profile" in done.output
