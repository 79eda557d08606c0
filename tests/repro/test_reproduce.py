"""The chain of `repro reproduce`, with small real programs in place of training and evaluation."""

from __future__ import annotations

import functools
import io
import json
import sys
import textwrap
from pathlib import Path

import pytest
from rich.console import Console

from evals import microworld
from evals.errors import BadInput, EnvironmentFault
from repro import children
from repro.exits import StageFailed
from repro.recipe import Recipe
from repro.reproduce import Scope, chains, reproduce

#: Stands in for `repro train` and `repro eval`: the same options, files and order of writing.
PROGRAM = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from results import ledger
    command, words = sys.argv[1], sys.argv[2:]
    option = {w[2:]: words[i + 1] for i, w in enumerate(words[:-1]) if w.startswith("--")}
    out, arm, seed = Path(option["out"]), option["arm"], int(option["seed"])
    out.mkdir(parents=True, exist_ok=True)
    (out.parent / "calls").open("a").write(f"{command} {out.name}\\n")
    if (out.parent / f"break-{command}-{arm}").exists():
        print("error: no space left on the disk", file=sys.stderr)
        sys.exit(4)
    if command == "train":
        (out / "metrics.jsonl").write_text('{"step": 1, "reward": 1.0}\\n')
        (out / "final").mkdir(exist_ok=True)
        (out / "done.json").write_text("{}")
        sys.exit()
    greedy = "--greedy" in words
    samples = 1 if greedy else 8
    right = {"cold": 3, "random": 4, "grpo": 5, "ktr": 6}[arm]
    rows = [
        {"id": f"q{i}", "k": k, "cluster": f"film{i % 5}", "kind": "numerical", "gold": "1",
         "prediction": "1" if (i + seed) % 10 < right else "2",
         "outcome": "correct" if (i + seed) % 10 < right else "wrong",
         "score": float((i + seed) % 10 < right), "tokens": 5, "tags": {}}
        for i in range(10) for k in range(samples)
    ]
    record = {
        "paper": "ktr", "profile": "micro", "arm": arm, "seed": seed, "benchmark": "microworld",
        "split": "test", "metric": "accuracy",
        "model": {"id": arm, "revision": None, "sha256": None},
        "protocol": {"decoding": {"temperature": 0.0 if greedy else 1.0}},
        "protocol_hash": "0000000" + str(samples), "samples": samples,
        "dataset": {"revision": None, "sha256": None}, "engine": {"name": "x", "version": "1"},
        "git": {"commit": None, "dirty": None}, "machine": {"cpu": "x", "gpu": None},
        "seconds": 1.0, "started": "2026-01-01T00:00:00+00:00", "partial": "--limit" in words,
        "who": "test",
    }
    ledger.write(record, rows, out)
    """
)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stand-in, and a microworld small enough to be made here."""
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "committed"))
    for split in ("train", "test"):
        monkeypatch.setitem(microworld.SIZES, split, 4)
    monkeypatch.setattr("repro.reproduce.run", functools.partial(children.run, poll=0.02))
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "ktr-micro"


SCOPE = Scope(arms=("grpo", "ktr"), seeds=(0, 1))


def go(out: Path, program: list[str], scope: Scope = SCOPE, *, fresh: bool = False) -> str:
    """What `reproduce` prints where there is no terminal."""
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    reproduce(Recipe.load("ktr"), out, scope, 2, fresh=fresh, program=program, console=console)
    return printed.getvalue()


def calls(out: Path) -> list[str]:
    return (out / "calls").read_text().splitlines()


def test_from_nothing_to_a_claim(out: Path, program: list[str]) -> None:
    said = go(out, program)
    assert (out / "report.html").stat().st_size > 10_000
    assert "ktr-s1 train: done in" in said and "undecided" in said
    assert str(out / "report.html") in said
    arms = {f"{arm}-s{seed}" for arm in SCOPE.arms for seed in (0, 1)}
    evaluated = {*arms, "cold-s0"}
    assert {p.parent.name for p in out.glob("*/record.json")} == (
        evaluated | {f"{name}-greedy" for name in evaluated}
    )
    assert {p.parent.name for p in out.glob("*/done.json")} == arms
    assert json.loads((out / "recipe.json").read_text())["paper"] == "ktr"


def test_again_repeats_nothing(out: Path, program: list[str]) -> None:
    go(out, program)
    first = calls(out)
    assert len(first) == len(set(first)) == 4 + 10
    said = go(out, program)
    assert calls(out) == first and "grpo-s0 train: finished earlier" in said
    more = Scope(arms=("t_grpo", "ktr"), seeds=(0, 2), stages=frozenset({"train"}))
    go(out, program, more)
    new = {"train t_grpo-s0", "train t_grpo-s2", "train ktr-s2"}
    assert set(calls(out)) - set(first) == new


def test_a_failure_stops_and_the_next_run_continues(out: Path, program: list[str]) -> None:
    out.mkdir(parents=True)
    (out / "recipe.json").write_text(json.dumps(_remembered()))
    (out / "break-eval-ktr").touch()
    with pytest.raises(StageFailed) as caught:
        go(out, program)
    assert caught.value.code == 4 and "no space left on the disk" in str(caught.value)
    assert str(out / "logs" / "ktr-s0-eval.log") in str(caught.value)
    (out / "break-eval-ktr").unlink()
    assert "undecided" in go(out, program)
    assert calls(out).count("train ktr-s0") == 1


def _remembered() -> dict[str, object]:
    recipe = Recipe.load("ktr")
    return {
        "paper": "ktr", "profile": "micro", "fingerprint": recipe.fingerprint, "steps": None,
        "limit": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [("fingerprint", "0" * 64), ("steps", 3), ("profile", "paper")]
)
def test_another_recipe_is_refused(out: Path, program: list[str], key: str, value: object) -> None:
    out.mkdir(parents=True)
    (out / "recipe.json").write_text(json.dumps({**_remembered(), key: value}))
    (out / "old").mkdir()
    with pytest.raises(BadInput, match=rf"another recipe \({key} changed\): --fresh"):
        go(out, program)
    go(out, program, Scope(("grpo",), (0,), stages=frozenset({"train"})), fresh=True)
    assert not (out / "old").exists() and (out / "grpo-s0" / "done.json").exists()


def test_a_folder_that_is_not_ours_is_left_alone(out: Path, program: list[str]) -> None:
    out.mkdir(parents=True)
    (out / "thesis.tex").touch()
    for fresh in (False, True):
        with pytest.raises(BadInput, match="no run of ours"):
            go(out, program, fresh=fresh)
    assert (out / "thesis.tex").exists()


def test_a_limited_run_claims_nothing(out: Path, program: list[str]) -> None:
    said = go(out, program, Scope(arms=("grpo", "ktr"), seeds=(0,), limit=2))
    assert "no claim" in said and not (out / "report.html").exists()


def test_report_without_runs(out: Path, program: list[str]) -> None:
    with pytest.raises(BadInput, match="holds no whole run"):
        go(out, program, Scope(("grpo",), (0,), stages=frozenset({"report"})))


def test_probes_are_asked_beside_the_plain_questions(out: Path) -> None:
    """In one call, which is done when the last probe's record is there."""
    recipe = Recipe.load("mvp")
    (cold,), (train, asked) = chains(recipe, out, Scope(("qa",), (0,)), 7)
    assert recipe.evaluation.probes == ("reversed",)
    for stage, name in ((cold, "cold-s0"), (asked, "qa-s0")):
        assert stage.argv[-2:] == ("--probe", "reversed")
        assert stage.proof == out / name / "reversed" / "record.json"
    assert "--probe" not in train.argv


def test_commands_of_the_children(out: Path) -> None:
    recipe = Recipe.load("ktr")
    cold, first = chains(recipe, out, Scope(("ktr",), (3,), steps=5, limit=7), 7)
    assert [stage.name for stage in (*cold, *first)] == [
        "cold-s0 eval", "cold-s0-greedy eval", "ktr-s3 train", "ktr-s3 eval", "ktr-s3-greedy eval"
    ]  # fmt: skip
    which = ("--profile", "micro", "--arm", "ktr", "--seed", "3")
    assert first[0].argv == (
        "train", "ktr", *which, "--out", str(out / "ktr-s3"), "--resume", "--steps", "5"
    )  # fmt: skip
    assert first[2].argv == (
        "eval", "--recipe", "ktr", *which, "--model", str(out / "ktr-s3" / "final"),
        "--out", str(out / "ktr-s3-greedy"), "--resume", "--no-cache", "--greedy", "--limit", "7",
    )  # fmt: skip
    assert "--model" not in cold[0].argv, "the recipe's start checkpoint"
    assert first[1].total == 7 * recipe.evaluation.samples and first[2].total == 7


def test_commands_parse(out: Path) -> None:
    """What the driver asks for is what the command line understands."""
    from repro.cli import cli

    for stage in (s for chain in chains(Recipe.load("ktr"), out, SCOPE, 4) for s in chain):
        command = cli.commands[stage.argv[0]]
        command.make_context(stage.argv[0], list(stage.argv[1:]), resilient_parsing=False)


def test_a_gpu_recipe_does_not_fall_back(out: Path, program: list[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(EnvironmentFault, match="no CUDA device"):
        reproduce(Recipe.load("ktr", "paper"), out, SCOPE, 1, program=program)
    assert not out.exists()
