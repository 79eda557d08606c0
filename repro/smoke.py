"""From installed to a verdict in a minute: every path once, with results known beforehand.

| check  | expected                                                            |
|--------|---------------------------------------------------------------------|
| oracle | answers the gold, so anything under 100 % is an evaluator's error   |
| parrot | always says A or 0: no better than chance                           |
| random | draws an answer: chance, within four standard errors                |
| train  | two KTR steps: finite loss, moving weights, no blind-forward alarm  |
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evals import benchmarks, models
from evals.benchmarks import Benchmark
from evals.run import evaluate, summary
from evals.types import Sample
from repro.arm import train_arm
from repro.recipe import Recipe
from repro.show import Show

QUESTIONS, STEPS = 200, 2  # chosen


@dataclass(frozen=True)
class Check:
    """One line of the verdict table."""

    name: str
    expected: str
    found: str
    ok: bool


def smoke(out: Path, show: Show) -> list[Check]:
    """Run the four checks; training writes below `out`, which must be empty."""
    recipe = Recipe.load("ktr")
    benchmark = benchmarks.load("microworld", split="validation")
    checks = [_scripted(name, recipe, benchmark, show) for name in ("oracle", "parrot", "random")]
    return [*checks, _trained(recipe, out, show)]


def _scripted(name: str, recipe: Recipe, benchmark: Benchmark, show: Show) -> Check:
    protocol = recipe.protocol(recipe.decoding(greedy=True))
    rows = evaluate(models.load(name), benchmark, protocol, limit=QUESTIONS)
    score = float(summary(rows)["score"])
    low, high = (1.0, 1.0) if name == "oracle" else _chance(benchmark.samples[:QUESTIONS])
    show.say(f"{name}: {len(rows)} questions")
    expected = "100 %" if name == "oracle" else f"{100 * low:.0f} to {100 * high:.0f} %"
    return Check(name, expected, f"{100 * score:.1f} %", low <= score <= high)


def _chance(samples: Sequence[Sample]) -> tuple[float, float]:
    """Bounds of a blind guesser's score: mean chance of a question, plus or minus four errors."""
    shares = [_share(sample) for sample in samples]
    mean = sum(shares) / len(shares)
    error = math.sqrt(sum(p * (1 - p) for p in shares)) / len(shares)
    return max(0.0, mean - 4 * error), min(1.0, mean + 4 * error)


def _share(sample: Sample) -> float:
    """Chance of the scripted models on one question: a letter, a number out of 0 to 4, or none."""
    if sample.kind == "multiple choice":
        return 1 / len(sample.options)
    return 0.2 if sample.kind == "numerical" else 0.0


def _trained(recipe: Recipe, out: Path, show: Show) -> Check:
    train_arm(
        recipe, "ktr", 0, out / "ktr-s0", steps=STEPS,
        progress=lambda row: show.say(f"train: step {row['step']}, reward {row['reward']:.2f}"),
    )  # fmt: skip
    lines = (out / "ktr-s0" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    finite = all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    alarms = sorted({alarm for row in rows for alarm in row["alarms"]})
    found = f"{len(rows)} steps, loss {'finite' if finite else 'broken'}"
    found += f", alarms: {', '.join(alarms)}" if alarms else ""
    return Check(
        "train", f"{STEPS} steps, finite", found,
        len(rows) == STEPS and finite and "mismatch" not in alarms,
    )  # fmt: skip
