"""The cold starts that ship in the tree are those of the manifest, small, and leave room for RL."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro.recipe import Recipe, papers
from repro.tiny import build

MANIFEST: dict[str, Any] = json.loads((build.HERE / "manifest.json").read_text())


def test_every_shipped_folder_is_in_the_manifest() -> None:
    shipped = {p.parent.name for p in build.HERE.glob("*/config.json")}
    assert shipped == MANIFEST.keys() <= build.variants().keys()
    wanted = {Recipe.load(name).model.id.removeprefix("tiny/") for name in papers()}
    assert wanted <= shipped, "a recipe starts from a student that is not here"


def test_all_variants_together_stay_small() -> None:
    sizes = [p.stat().st_size for p in build.HERE.glob("**/*.safetensors")]
    assert sizes and sum(sizes) <= 20 * 2**20


@pytest.mark.parametrize("name", MANIFEST)
def test_the_manifest_describes_what_is_shipped(name: str) -> None:
    from safetensors import safe_open

    entry, folder = MANIFEST[name], build.HERE / name
    weights = folder / "model.safetensors"
    assert entry["command"] == f"repro tiny build --for {name}"
    assert entry["seed"] == build.SEED
    assert entry["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    with safe_open(weights, "np") as file:
        sizes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    assert sum(map(math.prod, sizes)) == entry["parameters"] < 8_000_000


@pytest.mark.parametrize("name", MANIFEST)
def test_it_leaves_room_for_reinforcement(name: str) -> None:
    """Format at least 95 %, accuracy 45 to 70 %, and pass@8 twenty points above pass@1. The student
    of FFR sees less, so that patches are worth something, and starts lower; that of MVP has just
    begun to fill gaps, so it errs there in form too."""
    found = MANIFEST[name]["validation"]
    least = {"ffr": 0.33, "mvp": 0.40}.get(name, 0.45)
    assert found["format"] >= (0.80 if name == "mvp" else 0.95)
    assert least <= found["greedy"] <= 0.70 and least <= found["avg@8"] <= 0.70
    assert found["pass@8"] - found["avg@8"] >= 0.20
    assert found["pass@8"] - found["greedy"] >= 0.20


def test_the_student_of_mvp_answers_questions_and_fills_some_gaps() -> None:
    """Questions about as well as the student of ktr; items above a guesser's mean of 1 in 12 and 1
    in 120, which is 4.6 %."""
    found = MANIFEST["mvp"]["validation"]
    assert 0.45 <= found["questions avg@8"] <= 0.65
    assert 0.10 <= found["items avg@8"] < found["items greedy"] <= 0.60


def test_patches_are_worth_ten_points_to_the_student_of_ffr_and_a_wrong_place_is_not() -> None:
    """Before any reinforcement, on validation, sampled as training samples; greedily it is just
    under ten."""
    found = MANIFEST["ffr"]["patched"]
    sampled, greedy = found["sampled"], found["greedy"]
    assert (
        sampled["oracle"] - sampled["none"] >= 0.10 > sampled["random_interval"] - sampled["none"]
    )
    assert greedy["oracle"] - greedy["none"] >= 0.09 > greedy["random_interval"] - greedy["none"]
    assert greedy["none"] == MANIFEST["ffr"]["validation"]["greedy"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", MANIFEST)
def test_the_accuracies_are_those_of_the_manifest(name: str) -> None:
    found, said = build.measure(build.HERE / name, Recipe.load(name)), MANIFEST[name]["validation"]
    assert found == pytest.approx(said, abs=0.02)  # another CPU rounds a few draws otherwise


def test_the_shipped_student_reads_films(tmp_path: Path) -> None:
    """The first 80 validation questions, greedily: far above the 30 % of a blind guesser."""
    from evals import benchmarks, models
    from evals.run import evaluate, summary

    benchmark = benchmarks.load("microworld", split="validation", root=tmp_path)
    greedy = replace(build.student.PROTOCOL.decoding, temperature=0.0, samples=1)
    protocol = replace(build.student.PROTOCOL, decoding=greedy)
    rows = evaluate(models.load(build.HERE / "ktr"), benchmark, protocol, limit=80)
    assert summary(rows)["score"] > 0.42
