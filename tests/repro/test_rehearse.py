"""A paper profile rehearsed: what is made, what is refused, and (slow) every stage of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from evals import benchmarks
from evals.errors import BadInput
from repro import needs
from repro.cli import cli
from repro.recipe import Recipe
from repro.rehearse import CUTS, NOT_REHEARSED, _data_in, _Rehearsal, rehearse
from results import filing, ledger
from results.schema import LedgerError
from tests.repro.test_grid import run_of

QUIET = Console(quiet=True)


def test_what_a_rehearsal_makes_before_it_runs(tmp_path: Path) -> None:
    paper = Recipe.load("ktr", "paper")
    rehearsal = _Rehearsal(paper, tmp_path, QUIET, 1)
    with _data_in(tmp_path / "data"):
        rehearsal.weights()
        assert "6, 2 parts" in rehearsal.data()
        rehearsal.recipe_file()
        assert rehearsal.commits().startswith("refused (ktr --profile rehearsal names no commit")
        made = rehearsal.recipe
        assert benchmarks.load("videommmu", subset="video-r1-eval").samples
    assert (made.paper, made.profile_name, made.profiles) == ("ktr", "rehearsal", ("rehearsal",))
    assert made.trainer.num_generations == paper.trainer.num_generations
    assert (made.trainer.deepspeed, made.view) == (paper.trainer.deepspeed, paper.view)
    assert made.scoring and paper.scoring
    assert made.scoring.benchmarks == paper.scoring.benchmarks
    assert made.scoring.max_pixels == paper.scoring.max_pixels
    needs.require_resolved(made, ("train", "score-released", "eval"))
    raw = yaml.safe_load(paper.file.read_text())["profiles"]["paper"]
    for key in CUTS:  # every cut is of a value that the paper's file has, or may have
        section = raw
        for part in key.split(".")[:-1]:
            section = section[part]
        assert key.split(".")[-1] in {*section, "max_new_tokens"}, key


def test_a_rehearsal_of_ffr_needs_no_teacher_s_server(tmp_path: Path) -> None:
    paper = Recipe.load("ffr", "paper")
    rehearsal = _Rehearsal(paper, tmp_path, QUIET, 1)
    with _data_in(tmp_path / "data"):
        rehearsal.weights()
        assert "9, 3 parts" in rehearsal.data()  # three of each known parent
        rehearsal.recipe_file()
        assert rehearsal.commits().startswith("refused (ffr --profile rehearsal names no commit")
        made = rehearsal.recipe
    assert {made.arm(name).switches.teacher for name in ("grpo", "ffr", "ffr_retry")} == {"retry"}
    assert made.arm("ffr").switches.patch_words == "paper" and made.view == paper.view
    assert made.scoring and paper.scoring and made.scoring.benchmarks == paper.scoring.benchmarks


def test_a_profile_without_cells_has_nothing_to_rehearse(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no section scoring in profile micro"):
        rehearse("ktr", "micro", tmp_path / "out", QUIET)


def test_a_rehearsal_is_filed_nowhere_but_in_its_own_ledger(tmp_path: Path) -> None:
    paper = Recipe.load("ktr", "paper")
    from repro.grid import grid

    (protocol,) = {a.protocol for a in grid(paper) if a.name == "mmvu/32f-256px"}
    run = run_of("mmvu", protocol, 0, model="m", arm="ktr")
    from dataclasses import asdict, fields

    from results.schema import Record

    data = {f.name: getattr(run.record, f.name) for f in fields(Record)}
    kept = {k: v for k, v in data.items() if k not in filing.COMPUTED}
    ledger.write({**kept, "profile": "rehearsal"}, [asdict(r) for r in run.rows], tmp_path / "a")
    ledger.write(kept, [asdict(r) for r in run.rows], tmp_path / "b")
    with pytest.raises(LedgerError, match="a rehearsal: random weights on made data"):
        filing.add(tmp_path / "a", tmp_path / "ledger")
    with pytest.raises(LedgerError, match="is no rehearsal"):
        filing.add(tmp_path / "b", tmp_path / "ledger", rehearsal=True)
    assert filing.add(tmp_path / "a", tmp_path / "own", rehearsal=True)[0].word == "filed"


@pytest.mark.slow
@pytest.mark.timeout(2400)  # some three hundred evaluations, perhaps on a busy machine
def test_the_paper_profile_of_ktr_through_every_stage(tmp_path: Path) -> None:
    out = tmp_path / "rehearsal"
    done = CliRunner().invoke(cli, ["rehearse", "ktr", "--out", str(out), "--json"])
    assert done.exit_code == 0, (done.stderr, done.exception)
    found = json.loads(done.stdout)
    seen = {check["name"]: check["seen"] for check in found["checks"]}
    assert "killed after step 1" in seen["train, killed"]
    assert seen["train, continued"] == "grpo 2 steps, ktr 2 steps, each once"
    assert "marked rehearsal; every cell of the paper: not run" in seen["ledger"]
    assert found["not_rehearsed"] == list(NOT_REHEARSED)
    assert (out / "runs" / "report.html").stat().st_size > 10_000
    records = ledger.load(out / "ledger")
    assert {run.record.profile for run in records} == {"rehearsal"}
    assert {run.record.benchmark for run in records} == {
        "video_holmes", "videommmu", "mmvu", "tempcompass", "videomme"
    }  # fmt: skip
    assert {run.record.seed for run in records if run.record.arm == "cold"} == {0, 1}
    resumed = (out / "runs" / "logs" / "grpo-s0-train.log").read_text()
    assert "Traceback" not in resumed
