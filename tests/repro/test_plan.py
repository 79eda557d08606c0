"""The plan of the paper profile: stages, cells, what does not fit, and the README's table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.errors import BadInput, EnvironmentFault
from repro import plantext
from repro.cli import cli
from repro.core.memory import GIB
from repro.grid import grid
from repro.plan import Hardware, bill, forecast, require_fits
from repro.recipe import Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper() -> Recipe:
    return Recipe.load("ktr", "paper")


def test_the_grid_holds_every_plausible_protocol(paper: Recipe) -> None:
    asked = grid(paper)
    assert len({a.name for a in asked}) == len({(a.benchmark, a.protocol.hash) for a in asked})
    holmes = [a.protocol for a in asked if a.benchmark == "video_holmes"]
    assert {p.max_frames for p in holmes} == {16, 32, 64}
    assert {(p.prompt, p.grader) for p in holmes} == {
        (prompt, grader)
        for prompt in ("video-r1", "video-holmes-official")
        for grader in ("video-r1", "official:video_holmes")
    }
    assert len(holmes) == 3 * 2 * 4 and len(asked) == len(holmes) + 4 * 3 * 2
    assert {a.protocol.max_frames for a in grid(paper, "grpo")} == {32}
    assert grid(paper, "ktr") == asked and grid(Recipe.load("ktr")) == []
    assert {a.benchmark: a.questions for a in asked}["mmvu"] == 625


def test_stages_add_up(paper: Recipe) -> None:
    found = bill(paper, ("grpo", "ktr"), (0, 1, 2), Hardware(rate=2.0))
    names = [stage.stage for stage in found.stages]
    assert names == ["score-released", "sft", "train", "train", "eval"]
    counted = [stage for stage in found.stages if stage.stage != "sft"]
    assert found.gpu_hours == pytest.approx(sum(s.gpu_hours for s in counted))
    assert found.price == pytest.approx(2 * found.gpu_hours)
    grpo, ktr = (s for s in found.stages if s.stage == "train")
    assert grpo.exaflop < ktr.exaflop and grpo.tokens < ktr.tokens
    for stage in ("score-released", "eval"):
        (own,) = (s for s in found.stages if s.stage == stage)
        cells = [c for c in found.cells if c.stage == stage]
        assert own.gpu_hours == pytest.approx(sum(c.gpu_hours for c in cells))
        assert own.tokens == pytest.approx(sum(c.work.tokens for c in cells))
    runs = sum(c.runs for c in found.cells if c.stage == "score-released")
    assert runs == 2 * 3 * len(grid(paper))


def test_more_cards_hold_less_each_and_take_less_time(paper: Recipe) -> None:
    few, many = (bill(paper, ("ktr",), (0,), Hardware(gpus=n)) for n in (4, 8))
    (a,), (b,) = ([s for s in x.stages if s.stage == "train"] for x in (few, many))
    assert many.moments["sample"]["cache"] > 0 and many.moments["policy"]["logits"] > 0
    assert sum(many.moments[b.peak].values()) == pytest.approx(b.memory_gib)
    assert b.memory_gib < a.memory_gib and b.hours < a.hours
    vllm = replace(paper.arms["ktr"], trainer=replace(paper.arms["ktr"].trainer, use_vllm=True))
    faster = bill(replace(paper, arms={"ktr": vllm}), ("ktr",), (0,), Hardware())
    assert next(s for s in faster.stages if s.stage == "train").hours < b.hours


def test_a_model_that_does_not_fit_is_refused(paper: Recipe) -> None:
    require_fits(paper, ("ktr",), 79.1, 8)
    with pytest.raises(EnvironmentFault, match=r"does not fit: arm ktr needs \d+ GiB on each of 1"):
        require_fits(paper, ("ktr",), 79.1, 1)
    require_fits(Recipe.load("ktr"), ("ktr",), 1.0, 1)  # micro: nothing is computed
    trainer = replace(
        paper.arms["ktr"].trainer, use_peft=True, gradient_accumulation_steps=32, deepspeed=2
    )
    lora = replace(paper, arms={"ktr": replace(paper.arms["ktr"], trainer=trainer)})
    require_fits(lora, ("ktr",), 79.1, 1)
    unknown = replace(paper, model=replace(paper.model, architecture="Qwen9-VL"))
    with pytest.raises(BadInput, match="no sizes of 'Qwen9-VL'"):
        require_fits(unknown, ("ktr",), 79.1, 1)


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["plan", *words])
    return done.exit_code, done.stdout, done.stderr


def test_the_command() -> None:
    code, said, _ = run("ktr", "--profile", "paper", "--rate", "2", "--cells")
    assert code == 0
    for words in ("score-released", "GPU-hours, ", "at 2 a GPU-hour", "left out", "unresolved"):
        assert words in said
    code, said, error = run("ktr", "--profile", "paper", "--gpus", "1")
    assert code == 4 and "DOES NOT FIT" in said
    assert error.startswith("error: ") and "on each h100; more --gpus" in error
    code, _, error = run("ktr", "--profile", "paper", "--gpu", "h1000")
    assert code == 2 and "unknown GPU 'h1000'" in error
    code, said, _ = run("ktr", "--profile", "paper", "--json")
    assert json.loads(said)["bill"]["gpus"] == 8
    code, _, error = run("ktr", "--markdown")
    assert code == 2 and "no costs to compute" in error


def test_the_readme_s_table_is_the_plan_s(paper: Recipe) -> None:
    text = (ROOT / "README.md").read_text()
    found = forecast(paper, paper.run, paper.seeds, 1)
    begin, end = text.index(plantext.BEGIN), text.index(plantext.END) + len(plantext.END)
    assert text[begin:end] == plantext.markdown(found), (
        "repro plan ktr --profile paper --markdown prints the README's table again"
    )


def test_the_paper_s_own_readme_has_every_cell(paper: Recipe) -> None:
    text = (ROOT / "repro" / "ktr" / "README.md").read_text()
    block = plantext.cells_markdown(forecast(paper, paper.run, paper.seeds, 1))
    assert block in text, "repro plan ktr --profile paper --cells --markdown prints it again"
    code, said, _ = run("ktr", "--profile", "paper", "--cells", "--markdown")
    assert (code, said.strip()) == (0, block)


def test_unknowns_are_named(paper: Recipe) -> None:
    unknown = forecast(paper, paper.run, paper.seeds, 1).unknown
    assert "model.revision" in unknown and any("Video-MME" in u for u in unknown)
    assert "questions of Video-R1's file of videomme" in unknown
    gib = bill(paper, ("ktr",), (0,), Hardware()).disk_gib
    assert gib * GIB > 3 * 16e9
