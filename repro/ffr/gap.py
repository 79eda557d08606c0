"""What patches are worth to a student at test time: a diagnosis, never a score.

    gap = accuracy with the patch of a teacher - accuracy without, on the same questions

python -m repro.ffr.gap FOLDER ... [--split test] [--save FILE]     of checkpoints, in micro
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
from evals.types import Protocol, Reply, Sample, VideoClip
from evals.video import Clips
from repro import folder
from repro.core.checkpoint import weights_sha256
from repro.core.types import NO_HINT, Hint
from repro.ffr.demonstrations import of
from repro.ffr.switches import Switches
from repro.ffr.teacher import Failure, Teacher, named
from repro.ffr.words import hint
from repro.recipe import Recipe
from repro.stages import COLD as START

TEACHERS = ("oracle", "random_interval")
AT_ONCE, SAMPLES = 96, 4  # replies at once, and of a question (chosen)


def gaps(
    at: Path, recipe: Recipe, split: str, teachers: Sequence[str] = TEACHERS,
    limit: int | None = None,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Accuracy of a checkpoint on a split of the recipe's benchmark, `none` and under every
    teacher's patches: `sampled` as the recipe asks, avg@4, and `greedy`. limit: of questions."""
    from evals.vlm import load

    vlm, samples = load(at), _samples(recipe, split)[:limit]
    clips, switches = Clips(recipe.training_protocol), of(recipe)
    hints: dict[str, list[Hint]] = {"none": [NO_HINT] * len(samples)}
    for name in teachers:
        teacher = named(name)
        hints[name] = [_told(teacher, s, clips.load(s), switches) for s in samples]
    drawn = replace(recipe.decoding(), samples=SAMPLES)
    found = {}
    for how, decoding in (("sampled", drawn), ("greedy", recipe.decoding(greedy=True))):
        protocol = recipe.protocol(decoding)
        found[how] = {
            name: round(_accuracy(vlm, protocol, samples, told, clips), 4)
            for name, told in hints.items()
        }
    return found


def _samples(recipe: Recipe, split: str) -> Sequence[Sample]:
    return benchmarks.load(recipe.evaluation.benchmark, split=split).samples


def _accuracy(
    vlm: Any, protocol: Protocol, samples: Sequence[Sample], hints: Sequence[Hint], clips: Clips
) -> float:
    total, size = 0.0, max(1, AT_ONCE // protocol.decoding.samples)
    for first in range(0, len(samples), size):
        part = samples[first : first + size]
        prompts = []
        for sample, told in zip(part, hints[first : first + size], strict=True):
            text = told.on(question_text(sample, protocol.prompt))
            prompts.append(vlm.encode(told.beside(clips.load(sample)), text, protocol))
        seeds = [derive("gap", sample.id) for sample in part]
        drawn = vlm.sample(prompts, protocol.decoding, seeds)
        for sample, replies in zip(part, drawn, strict=True):
            said = [Reply(vlm.text(r.ids), len(r.ids), r.finished) for r in replies]
            total += sum(score(sample, r, 0, protocol).score for r in said) / len(said)
    return total / len(samples)


def _told(teacher: Teacher, sample: Sample, clip: VideoClip | None, s: Switches) -> Hint:
    failure = Failure(sample, clip, "", None, 0.0, derive("gap", sample.id))
    patch = asyncio.run(teacher.patch(failure))
    return hint(patch, clip, s)


def keep(file: Path, at: Path, found: dict[str, Any]) -> None:
    """Add a checkpoint to the file, under its run's name: ffr-s0 of ffr-s0/final."""
    name = at.parent.name if at.name == "final" else START
    kept = folder.read_json(file) if file.exists() else {}
    kept[name] = {"sha256": weights_sha256(at), **found}
    folder.write_json(file, dict(sorted(kept.items())))


def main() -> None:
    """Print one line of JSON for each checkpoint; --save adds it to a file, by the checkpoint's
    sha256, which a ledger's record has too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    recipe = Recipe.load("ffr")
    for at in given.folders:
        found = {
            "split": given.split, "limit": given.limit,
            **gaps(at, recipe, given.split, limit=given.limit),
        }  # fmt: skip
        print(json.dumps({"checkpoint": str(at), **found}), flush=True)
        if given.save:
            keep(given.save, at, found)


if __name__ == "__main__":
    main()
