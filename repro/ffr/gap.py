"""What patches are worth to a student at test time: a diagnosis, never a score.

    gap = accuracy with the patch of a teacher - accuracy without, greedy, same questions

python -m repro.ffr.gap FOLDER ... [--split test]     of checkpoints, in profile micro
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals import benchmarks
from evals.prompts import question_text
from evals.run import score
from evals.seeds import derive
from evals.types import Reply, Sample, VideoClip
from evals.video import Clips
from repro.core.types import NO_HINT, Hint
from repro.ffr.demonstrations import of
from repro.ffr.switches import Switches
from repro.ffr.teacher import Failure, Teacher, named
from repro.ffr.words import hint
from repro.recipe import Recipe

TEACHERS = ("oracle", "random_interval")
AT_ONCE = 48  # questions (chosen)


def gaps(
    folder: Path, recipe: Recipe, split: str, teachers: Sequence[str] = TEACHERS,
    limit: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """Greedy accuracy of a checkpoint on a split of the recipe's benchmark: `none`, and under every
    teacher's patches. limit: of questions."""
    from evals.vlm import load

    vlm, samples = load(folder), _samples(recipe, split)[:limit]
    switches = of(recipe)
    asked = {"none": None, **{name: named(name) for name in teachers}}
    return {name: _accuracy(vlm, recipe, samples, t, switches) for name, t in asked.items()}


def _samples(recipe: Recipe, split: str) -> Sequence[Sample]:
    return benchmarks.load(recipe.evaluation.benchmark, split=split).samples


def _accuracy(
    vlm: Any, recipe: Recipe, samples: Sequence[Sample], teacher: Teacher | None, s: Switches
) -> float:
    protocol = recipe.protocol(recipe.decoding(greedy=True))
    clips, total = Clips(protocol), 0.0
    for first in range(0, len(samples), AT_ONCE):
        part = samples[first : first + AT_ONCE]
        prompts = []
        for sample in part:
            clip = clips.load(sample)
            told = NO_HINT if teacher is None else _told(teacher, sample, clip, s)
            text = told.on(question_text(sample, protocol.prompt))
            prompts.append(vlm.encode(told.beside(clip), text, protocol))
        seeds = [derive("gap", sample.id) for sample in part]
        drawn = vlm.sample(prompts, replace(protocol.decoding, temperature=0.0), seeds)
        for sample, (reply,) in zip(part, drawn, strict=True):
            said = Reply(vlm.text(reply.ids), len(reply.ids), reply.finished)
            total += score(sample, said, 0, protocol).score
    return round(total / len(samples), 4)


def _told(teacher: Teacher, sample: Sample, clip: VideoClip | None, s: Switches) -> Hint:
    failure = Failure(sample, clip, "", None, 0.0, derive("gap", sample.id))
    patch = asyncio.run(teacher.patch(failure))
    return hint(patch, clip, s)


def main() -> None:
    """Print one line of JSON for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    recipe = Recipe.load("ffr")
    for folder in given.folders:
        found = gaps(folder, recipe, given.split, limit=given.limit)
        print(json.dumps({"checkpoint": str(folder), "split": given.split, **found}), flush=True)


if __name__ == "__main__":
    main()
