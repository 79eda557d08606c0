"""Demonstrations that teach a student to use a patch: some of them carry the oracle's.

A student that never saw a patch cannot use one; the others keep it able to answer without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evals.seeds import derive
from evals.types import Sample, VideoClip
from evals.video import Clips
from repro.core.demonstrations import Demonstration
from repro.core.types import Hint
from repro.ffr.switches import Switches
from repro.ffr.teacher import Failure, Teacher, named
from repro.ffr.words import hint
from repro.recipe import Recipe


def shown(read: Sequence[Demonstration], recipe: Recipe, seed: int) -> list[Demonstration]:
    """The demonstrations, a share of them with the oracle's patch as the recipe's first FFR arm
    shows patches."""
    share = recipe.sft.patched if recipe.sft else 0.0
    draw = np.random.default_rng([seed, 7]).random(len(read))
    clips, oracle, switches = Clips(recipe.training_protocol), named("oracle"), of(recipe)
    found = []
    for d, r in zip(read, draw, strict=True):
        told = (
            _told(oracle, d.sample, clips.load(d.sample), switches, seed) if r < share else Hint()
        )
        found.append(replace(d, hint=told))
    return found


def of(recipe: Recipe) -> Switches:
    """The switches of the recipe's first arm with the method ffr."""
    found = next(arm.switches for arm in recipe.arms.values() if arm.method == "ffr")
    assert isinstance(found, Switches)
    return found


def _told(teacher: Teacher, sample: Sample, clip: VideoClip | None, s: Switches, seed: int) -> Hint:
    """What a teacher that needs no model says about a question that nobody has answered yet."""
    failure = Failure(sample, clip, "", None, 0.0, derive(seed, "hint", sample.id))
    patch = asyncio.run(teacher.patch(failure))
    return hint(patch, clip, s)


def probed(folder: Path, recipe: Recipe) -> dict[str, float]:
    """For the manifest of a cold start: greedy accuracy on validation without a patch and with
    those of `oracle` and `random_interval`. A tenth apart, or the start cannot use patches."""
    from repro.ffr.gap import gaps

    return gaps(folder, recipe, "validation")
