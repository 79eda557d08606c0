"""What patches are worth to a student at test time: a diagnosis, never a score.

    gap = accuracy with the patch of a teacher - accuracy without, greedy, same questions

python -m repro.ffr.gap FOLDER ... [--split test]     of checkpoints, in profile micro
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
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
    teacher's patches; the same `.._shown`, over the questions to which the first teacher shows
    anything, and `shown`, their share. limit: of questions."""
    from evals.vlm import load

    vlm, samples = load(folder), _samples(recipe, split)[:limit]
    clips, switches = Clips(recipe.training_protocol), of(recipe)
    hints = {
        name: [_told(named(name), s, clips.load(s), switches) for s in samples] for name in teachers
    }
    seen = [place for place, told in enumerate(hints[teachers[0]]) if told]
    found = {"shown": round(len(seen) / len(samples), 4)}
    for name, told in {"none": [NO_HINT] * len(samples), **hints}.items():
        scores = _scores(vlm, recipe, samples, told, clips)
        found[name] = _mean(scores)
        found[f"{name}_shown"] = _mean([scores[place] for place in seen])
    return found


def _mean(scores: Sequence[float]) -> float:
    return round(sum(scores) / max(1, len(scores)), 4)


def _samples(recipe: Recipe, split: str) -> Sequence[Sample]:
    return benchmarks.load(recipe.evaluation.benchmark, split=split).samples


def _scores(
    vlm: Any, recipe: Recipe, samples: Sequence[Sample], hints: Sequence[Hint], clips: Clips
) -> list[float]:
    protocol, found = recipe.protocol(recipe.decoding(greedy=True)), []
    for first in range(0, len(samples), AT_ONCE):
        part = samples[first : first + AT_ONCE]
        prompts = []
        for sample, told in zip(part, hints[first : first + AT_ONCE], strict=True):
            text = told.on(question_text(sample, protocol.prompt))
            prompts.append(vlm.encode(told.beside(clips.load(sample)), text, protocol))
        seeds = [derive("gap", sample.id) for sample in part]
        drawn = vlm.sample(prompts, protocol.decoding, seeds)
        for sample, (reply,) in zip(part, drawn, strict=True):
            said = Reply(vlm.text(reply.ids), len(reply.ids), reply.finished)
            found.append(score(sample, said, 0, protocol).score)
    return found


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
