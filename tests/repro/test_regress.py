"""The regression's judgement, and the watch over a training, on the committed runs themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evals.errors import BadInput, EnvironmentFault
from evals.types import Protocol
from repro import regress
from repro.measure import Label, noting_failure
from repro.watch import watch
from results import filing, ledger
from results.policy import load_policy

ROOT = Path(__file__).resolve().parents[2]
MICRO = ROOT / "results" / "runs" / "ktr" / "microworld"


@pytest.fixture(scope="module")
def paper() -> Any:
    return regress._papers(["ktr"], load_policy())[0]


def test_what_is_done_again(paper: Any) -> None:
    assert paper.arms == ("grpo", "ktr") and paper.steps == 200 and paper.seed == 5
    stage = regress._training(paper, "ktr", Path("out"))
    assert "--until" in stage.argv and stage.total == 50 and "200" in stage.argv
    assert stage.proof == Path("out/ktr-s5/checkpoint-50")


def again(paper: Any, out: Path, shift: float = 0.0) -> list[regress.Finding]:
    """Findings as if the committed rows and a reference's first 50 steps had come out again."""
    for name in ("cold-s0", "cold-s0-greedy"):
        if not (out / name).exists():
            shutil.copytree(MICRO / name, out / name)
    for arm in paper.arms:
        lines = [json.loads(x) for x in (MICRO / f"{arm}-s2" / ledger.CURVES).open()][:50]
        shifted = [{**x, "reward": x["reward"] - shift} for x in lines]
        (out / f"{arm}-s5").mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(x) + "\n" for x in shifted)
        (out / f"{arm}-s5" / ledger.CURVES).write_text(text)
    return regress._judge(paper, out, load_policy())


def test_equal_rows_and_a_healthy_curve_pass(paper: Any, tmp_path: Path) -> None:
    found = again(paper, tmp_path)
    assert [(f.part, f.word) for f in found] == [
        ("scores", "ok"), ("scores", "ok"), ("curves", "inside"), ("curves", "inside"),
    ]  # fmt: skip
    assert all(f.ok for f in found) and "8 checks" in found[2].reason


def test_a_curve_that_does_not_learn_is_a_regression(paper: Any, tmp_path: Path) -> None:
    found = again(paper, tmp_path, shift=0.5)
    assert [f.ok for f in found] == [True, True, False, False]
    assert "the references predict" in found[3].reason


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="no folder of ours"):
        regress._empty(tmp_path)
    (tmp_path / "thesis.txt").unlink()
    regress._empty(tmp_path)
    (tmp_path / "old").mkdir()
    regress._empty(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [regress.MARK]


def test_a_training_is_told_how_it_does(tmp_path: Path) -> None:
    said: list[str] = []
    shutil.copy(MICRO / "grpo-s1" / ledger.CURVES, tmp_path / ledger.CURVES)
    seen = watch("ktr", "micro", "grpo", 1, 200, tmp_path, said.append)
    for step in (1, 19, 20, 21, 50, 100, 200):
        seen(step)
    assert len(said) == 3 and said[0].startswith("grpo-s1 step 20: inside; ")
    quiet = watch("ktr", "paper", "grpo", 1, 200, tmp_path, said.append)
    quiet(20)
    assert len(said) == 3, "without references nothing is said"


def test_an_environment_error_becomes_a_failure(tmp_path: Path) -> None:
    label = Label("ktr", "paper", "released", 0)
    with (
        pytest.raises(EnvironmentFault),
        noting_failure(tmp_path, label, "X/Y", "mmvu", Protocol("p", max_frames=32)),
    ):
        raise EnvironmentFault("CUDA out of memory; 3 rows are kept")
    (failure,) = filing.failures(tmp_path)
    assert (failure.reason, failure.frames, failure.model) == ("CUDA out of memory", 32, "X/Y")
    (filed,) = filing.add(tmp_path, tmp_path / "ledger")
    assert filed.path == tmp_path / "ledger" / "ktr" / "mmvu" / "released-s0-32f-failed"
    assert filing.failures(filed.path) == [failure]


def test_what_a_host_tells_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro import machine

    monkeypatch.delenv("REPRO_IMAGE", raising=False)
    assert machine.image() is None
    monkeypatch.setenv("REPRO_IMAGE", f"sha256:{'ab' * 32}")
    assert machine.image() == f"sha256:{'ab' * 32}"
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build"
    monkeypatch.setattr(machine, "_text", lambda path: line)
    assert machine.driver() == "580.82.07"
    monkeypatch.setattr(machine, "_text", lambda path: "")
    assert machine.driver() is None
