"""Stages of the paper profile: what runs in which order, where, and what is known beforehand."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from evals.errors import BadInput, EnvironmentFault
from repro import children, machine, stages
from repro.children import Stage
from repro.cli import cli
from repro.grid import grid
from repro.recipe import Recipe
from repro.reproduce import Scope, reproduce
from repro.show import Lines

QUIET = Console(quiet=True)

#: Stands in for `repro train` and `repro eval --every-cell`.
PROGRAM = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    words = sys.argv[1:]
    out = Path(words[words.index("--out") + 1])
    out.mkdir(parents=True, exist_ok=True)
    root = Path(os.environ["CALLS"])
    model = words[words.index("--model") + 1] if "--model" in words else "-"
    with root.open("a") as file:
        file.write(f"{words[0]} {out.name} {model} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\\n")
    (out / ("cells.json" if words[0] == "eval" else "done.json")).write_text("{}")
    """
)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.load("ktr", "paper")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr("repro.reproduce.require_device", lambda recipe: None)
    return [sys.executable, str(path)]


def calls(tmp_path: Path) -> list[list[str]]:
    return [line.split(" ") for line in (tmp_path / "calls").read_text().splitlines()]


def test_nothing_begins_while_a_commit_is_open(
    recipe: Recipe, program: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for stage in ("score-released", "sft", "train", "eval"):
        with pytest.raises(BadInput, match="names no commit of "):
            reproduce(recipe, out, Scope(("ktr",), (0,), stages=frozenset({stage})), 1,
                      program=program, console=QUIET)  # fmt: skip
    assert not (tmp_path / "calls").exists() and not (out / "recipe.json").exists()


def test_stages_run_in_their_order_and_once(
    recipe: Recipe, program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "check", lambda *given: None)
    every = frozenset({"score-released", "sft", "train", "eval"})
    scope, out = Scope(("grpo", "ktr"), (0, 1), stages=every), tmp_path / "out"
    reproduce(recipe, out, scope, 1, program=program, console=QUIET)
    seen = calls(tmp_path)
    assert [c[:2] for c in seen[:5]] == [
        ["train", "sft-s0"], ["train", "grpo-s0"], ["train", "ktr-s0"], ["train", "grpo-s1"],
        ["train", "ktr-s1"],
    ]  # fmt: skip
    assert all(c[2] == str(out / "sft-s0" / "final") for c in seen[1:5])
    scored = [c for c in seen if c[1] != "cells" and c[0] == "eval"]
    assert [c[1] for c in scored] == [f"{arm}-s{k}" for arm in ("ktr", "cold") for k in range(3)]
    assert {c[2] for c in scored} == {
        "vllm:Video-KTR/Video-KTR-7B", "vllm:Video-R1/Qwen2.5-VL-7B-COT-SFT"
    }  # fmt: skip
    assert sum(c[1] == "cells" for c in seen) == 4 and len(seen) == 5 + 6 + 4
    reproduce(recipe, out, scope, 1, program=program, console=QUIET)
    assert calls(tmp_path) == seen


def test_without_a_cold_start_of_its_own_training_starts_from_the_recipe_s(
    recipe: Recipe, program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "check", lambda *given: None)
    scope = Scope(("ktr",), (0,), stages=frozenset({"train"}))
    reproduce(recipe, tmp_path / "out", scope, 1, program=program, console=QUIET)
    assert [c[2] for c in calls(tmp_path)] == ["-"]


def test_every_re_score_varies_seed_and_batch(recipe: Recipe, tmp_path: Path) -> None:
    chains = stages.score_chains(recipe, "ktr", tmp_path)
    told = [(s.argv[s.argv.index("--seed") + 1], s.argv[s.argv.index("--batch") + 1])
            for (s,) in chains]  # fmt: skip
    assert told == [("0", "64"), ("1", "48"), ("2", "32")] * 2
    assert {s.total for (s,) in chains} == {len(grid(recipe))}
    (short,) = stages.eval_chains(recipe, "ktr", tmp_path, ("grpo",), (0,), limit=5)[0]
    assert short.total == len(grid(recipe, "grpo")) and short.argv[-2:] == ("--limit", "5")


def test_a_card_for_each_chain(program: list[str], tmp_path: Path) -> None:
    chains = [
        (Stage(f"s{i}", ("eval", "--out", str(tmp_path / f"s{i}")), tmp_path / f"s{i}/cells.json",
               tmp_path / f"s{i}/cells.jsonl", 1, tmp_path / f"{i}.log"),)
        for i in range(4)
    ]  # fmt: skip
    children.run(chains, 9, Lines(QUIET), program=program, poll=0.02, devices=("0", "1"))
    seen = calls(tmp_path)
    assert len(seen) == 4 and {c[3] for c in seen} == {"0", "1"}


def test_torchrun_before_several_processes() -> None:
    assert stages.launcher(1) == ()
    assert stages.launcher(8)[-4:] == ("--nproc_per_node", "8", "-m", "repro")


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stages.needs, "require_resolved", lambda *given: None)
    monkeypatch.setattr(machine, "cards", lambda: [23.5])
    with pytest.raises(EnvironmentFault, match="does not fit"):
        stages.check(recipe, frozenset({"train"}), ("ktr",), Lines(QUIET))
    monkeypatch.setattr(machine, "gpu", lambda: "1 x small")
    done = CliRunner().invoke(
        cli, ["train", "ktr", "--profile", "paper", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 4 and "does not fit: arm ktr" in done.output


def test_the_commands_say_what_is_wrong(tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(cli, ["reproduce", "ktr", "--stage", "score-released", "--out", str(tmp_path / "a")])
    assert done.exit_code == 2 and "no stage score-released or sft" in done.output
    done = run(cli, ["eval", "--every-cell", "--model", "oracle"])
    assert done.exit_code == 2 and "needs --recipe" in done.output
    words = ["--recipe", "ktr", "--profile", "paper", "--benchmark", "mmvu"]
    done = run(cli, ["eval", "--every-cell", *words, "--model", "oracle"])
    assert done.exit_code == 2 and "leave --benchmark out" in done.output
    done = run(cli, ["eval", "--every-cell", "--recipe", "ktr", "--model", "oracle"])
    assert done.exit_code == 2 and "no section scoring in profile micro" in done.output


def test_every_cell_of_a_small_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle on two benchmarks, once; a second call asks nothing again."""
    from evals import made

    monkeypatch.setenv("REELPROOF_DATA", str(tmp_path / "data"))
    for name in ("mmvu", "video_holmes"):
        made.make(name, tmp_path / "data")
    paper = Recipe.load("ktr", "paper")
    assert paper.scoring
    few = replace(paper.scoring, benchmarks=("video_holmes", "mmvu/mc"), frames=(16,))
    monkeypatch.setattr(
        "repro.recipe.Recipe.load",
        classmethod(lambda cls, *given: replace(paper, scoring=few)),
    )
    out = tmp_path / "out"
    words = ["eval", "--recipe", "ktr", "--profile", "paper", "--every-cell", "--model", "oracle",
             "--out", str(out), "--no-cache"]  # fmt: skip
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 4 + 2 and {line["score"] for line in lines} == {1.0}
    assert (out / "video_holmes" / "16f-128px-own-prompt" / "record.json").is_file()
    assert json.loads((out / "cells.json").read_text()) == {"cells": 10}
    before = (out / "mmvu" / "16f-256px" / "record.json").stat().st_mtime_ns
    assert CliRunner().invoke(cli, words).exit_code == 2  # not without --resume
    assert CliRunner().invoke(cli, [*words, "--resume"]).exit_code == 0
    assert (out / "mmvu" / "16f-256px" / "record.json").stat().st_mtime_ns == before
