"""One arm's folder: a mistake before the first step leaves it free for the corrected command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from evals.errors import BadInput
from repro.arm import start_checkpoint, train_arm
from repro.recipe import Recipe


def test_a_broken_start_leaves_the_folder_free(films: Callable[..., Path], tmp_path: Path) -> None:
    recipe, records = Recipe.load("ktr"), films("train", n=8)
    small = replace(recipe.trainer, prompts_per_step=2, num_generations=2, max_completion_length=4)
    arm = replace(recipe.arm("grpo"), trainer=small)
    recipe = replace(recipe, arms={"grpo": arm})
    broken, out = tmp_path / "broken", tmp_path / "out"
    shutil.copytree(start_checkpoint(recipe), broken)
    weights = load_file(broken / "model.safetensors")
    weights.popitem()
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    asked = {"steps": 1, "data": records / "records.json", "videos": records}
    with pytest.raises(BadInput, match="lacks 1 weights"):
        train_arm(recipe, "grpo", 0, out, model=broken, **asked)
    train_arm(recipe, "grpo", 0, out, **asked)
    assert json.loads((out / "done.json").read_text())["steps"] == 1
