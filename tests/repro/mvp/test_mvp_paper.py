"""The paper profile of MVP: what is chosen, its grid, its plan, its records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evals.errors import BadInput
from repro import needs, plan, training
from repro.cli import cli
from repro.core import cost
from repro.grid import grid
from repro.plan import Hardware
from repro.recipe import Recipe
from repro.training import Manifest

PAPER = Recipe.load("mvp", "paper")
KNOWN = ("abstract", "third-party")


def test_what_the_body_would_say_is_chosen() -> None:
    """One key each, so that it can be filled in; what is known says from where."""
    said = {k: s for k, s in PAPER.sources.items() if k.startswith(("profiles.paper", "presets"))}
    assert {s.split(":")[0] for s in said.values()} <= {*KNOWN, "chosen"}
    for key in (
        "presets.chosen.weights.selection", "presets.chosen.weights.order",
        "presets.chosen.weights.exact", "profiles.paper.switches.curriculum.tiers",
        "profiles.paper.model.id", "profiles.paper.trainer.learning_rate",
        "profiles.paper.trainer.num_generations", "profiles.paper.trainer.prompts_per_step",
        "profiles.paper.trainer.max_steps", "profiles.paper.trainer.beta",
        "profiles.paper.view.max_frames", "profiles.paper.scoring.benchmarks",
        "profiles.paper.view.prompt",
    ):  # fmt: skip
        assert said[key].startswith("chosen"), key
    assert said["profiles.paper.trainer.scale_rewards"].startswith("third-party")


def test_nobody_released_weights() -> None:
    assert PAPER.scoring is not None and PAPER.scoring.released is None
    assert PAPER.scoring.public == (("video_r1", "Video-R1/Video-R1-7B"),)
    keys = [need.key for need in needs.needs(PAPER)]
    assert [k for k in keys if k.startswith("model:")] == [
        "model:Qwen/Qwen2.5-VL-7B-Instruct", "model:Video-R1/Video-R1-7B"
    ]  # fmt: skip


def test_the_family_s_benchmarks_are_asked() -> None:
    asked = grid(PAPER)
    assert {a.benchmark for a in asked} == {
        "vsibench", "videommmu", "mmvu", "mvbench", "tempcompass", "videomme", "lvbench"
    }  # fmt: skip
    assert {a.protocol.max_frames for a in asked} == {16, 32, 64} and len(asked) == 21
    assert {a.protocol.max_frames for a in grid(PAPER, "qa")} == {16}
    assert {a.protocol.max_pixels for a in asked} == {256 * 28 * 28}


def test_the_plan_counts_pictures_and_films() -> None:
    found = plan.forecast(PAPER, ("qa", "mvp", "mvp_qa"), (0,), 1)
    assert found.bill is not None and found.rollouts == 3 * 450 * 64 * 8
    qa, mvp, both = (s for s in found.bill.stages if s.stage == "train")
    assert both.tokens == pytest.approx((qa.tokens + mvp.tokens) / 2)
    assert both.exaflop == pytest.approx((qa.exaflop + mvp.exaflop) / 2)
    album = plan._album(PAPER)
    assert (album.rows, album.tokens) == (20, 20 * 120)  # 224 x 420 of a film of 1080p
    assert mvp.tokens > qa.tokens
    made = found.synthesis
    assert made is not None and made.pictures == 540_000
    assert made.core_hours == pytest.approx(150 / 70)
    clip = 2 * 302e6 * 257  # weights of its layers, tokens
    assert clip < cost.CLIP_PICTURE < 1.1 * clip
    assert plan.forecast(Recipe.load("ktr", "paper"), ("ktr",), (0,), 1).synthesis is None
    less = replace(PAPER, cost=replace(PAPER.cost, pictures=None))
    plain = plan.forecast(less, ("qa",), (0,), 1, Hardware())
    assert plain.bill is not None and plain.bill.stages[1].memory_gib < qa.memory_gib
    said = CliRunner().invoke(cli, ["plan", "mvp", "--profile", "paper"]).stdout
    assert "150 h of film in 2.1 core-hours" in said and "model.revision" in said


# --- records -----------------------------------------------------------------------------------


def question(number: int) -> dict[str, Any]:
    return {"problem_id": number, "problem": "Which?", "data_type": "video", "path": "a.mp4",
            "problem_type": "multiple choice", "options": ["A. red", "B. blue"],
            "solution": "<answer>A</answer>"}  # fmt: skip


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"problem_id": f"ab-2-{number}", "problem": "gap <image> pool <image> <image> <image>",
            "data_type": "image", "problem_type": "ordering", "images": [f"m/{i}.jpg" for i in
            range(4)], "solution": "<answer>2, 1</answer>", "candidates": 3, **more}  # fmt: skip


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_questions_and_items_in_one_file(tmp_path: Path) -> None:
    manifest = Manifest.load("mvp")
    questions = lines(tmp_path / "questions.jsonl", [question(1), question(2)])
    filmed = item(1, data_type="video", path="c/1", rate=0.5)
    lines(tmp_path / "all/masked/records.jsonl", [item(0), filmed])
    out = tmp_path / "all/records.json"
    built = training.build(manifest, out, published=questions, masked=tmp_path / "all/masked")
    assert (built.records, built.lacks) == (4, ())
    rows = json.loads(out.read_text())
    assert [r["problem_id"] for r in rows] == [
        "questions/1", "questions/2", "masked/ab-2-0", "masked/ab-2-1"
    ]  # fmt: skip
    assert rows[2]["images"][0] == "masked/m/0.jpg" and "path" not in rows[2]
    assert (rows[3]["path"], rows[0]["path"]) == ("masked/c/1", "a.mp4")
    alone = training.build(manifest, out, masked=tmp_path / "all/masked")
    assert alone.records == 2 and "15,000 records of questions" in alone.lacks[0]


def test_what_cannot_be_put_together_is_said(tmp_path: Path) -> None:
    lines(tmp_path / "masked/records.jsonl", [item(0)])
    out = tmp_path / "all/records.json"
    with pytest.raises(BadInput, match=r"must lie below .*synthesize into .*all/masked"):
        training.build(Manifest.load("mvp"), out, masked=tmp_path / "masked")
    with pytest.raises(BadInput, match="Video-R1-Holmes-16k has no part masked"):
        training.build(Manifest.load("ktr"), out, masked=tmp_path / "masked")
    with pytest.raises(BadInput, match=r"--masked"):
        training.build(Manifest.load("mvp"), out)
