"""What a run would take, before it starts: steps, time, memory, downloads, and what is unknown.

wall time = ceil(chains / jobs) * (steps * step_seconds + evaluations * evaluation_seconds)
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from repro.recipe import Recipe


@dataclass(frozen=True)
class Forecast:
    """rollouts: completions over all arms and seeds. minutes: wall time, None if unknown."""

    paper: str
    profile: str
    fingerprint: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    rollouts: int
    jobs: int
    minutes: float | None
    hardware: str
    memory_gib: float | None
    download_gib: float | None
    unknown: tuple[str, ...]


def forecast(recipe: Recipe, arms: tuple[str, ...], seeds: tuple[int, ...], jobs: int) -> Forecast:
    """The cost of training and evaluating `arms` x `seeds`."""
    trainers = [recipe.arm(name).trainer for name in arms]
    each = [t.max_steps * t.prompts_per_step * t.num_generations for t in trainers]
    return Forecast(
        paper=recipe.paper,
        profile=recipe.profile_name,
        fingerprint=recipe.fingerprint[:12],
        arms=arms,
        seeds=seeds,
        steps=max(t.max_steps for t in trainers),
        rollouts=sum(each) * len(seeds),
        jobs=jobs,
        minutes=_minutes(recipe, arms, seeds, jobs),
        hardware=recipe.cost.hardware,
        memory_gib=recipe.cost.memory_gib,
        download_gib=recipe.cost.download_gib,
        unknown=tuple(_unknown(recipe)),
    )


def _minutes(
    recipe: Recipe, arms: tuple[str, ...], seeds: tuple[int, ...], jobs: int
) -> float | None:
    cost, passes = recipe.cost, 1 + recipe.evaluation.greedy
    if cost.step_seconds is None or cost.evaluation_seconds is None:
        return None
    steps = max(recipe.arm(name).trainer.max_steps for name in arms)
    one = steps * cost.step_seconds + passes * cost.evaluation_seconds
    cold = passes * cost.evaluation_seconds if recipe.evaluation.cold else 0.0
    return (math.ceil(len(arms) * len(seeds) / jobs) * one + cold) / 60


def _unknown(recipe: Recipe) -> list[str]:
    """Dotted keys whose value is unresolved, or a cost that nobody has measured."""
    found = [f"cost.{key}" for key, value in asdict(recipe.cost).items() if value is None]
    for name, section in (("model", recipe.model), ("data", recipe.data)):
        found += [f"{name}.{key}" for key, v in asdict(section).items() if v == UNRESOLVED]
    return found
