"""What selecting does where the true chances are known: made pools, the same rules.

| kind of question   | one try earns                                                            |
|--------------------|--------------------------------------------------------------------------|
| multiple choice    | 1 with chance p, else 0; p ~ Beta(0.4, 0.4), mostly always or never      |
| temporal grounding | 0 with chance z ~ Beta(0.4, 0.4), else Beta(2, 2), a tIoU                |

A group of G has no advantage with chance p^G + (1 - p)^G, or z^G. All numbers are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from evals.metrics import mean
from repro.selection import rules
from repro.selection.rules import Rules, Tried

SHAPE = 0.4


@dataclass(frozen=True)
class Simulated:
    """flat: subset -> true share of groups without advantage. saved: share of K x N tries."""

    flat: dict[str, float]
    kept: int
    saved: float


def simulate(n: int, law: Rules, budget: int, group: int = 8) -> Simulated:
    """Select `budget` out of `n` made samples, half of each kind; `group` completions in training.

    Deterministic by `law.seed`.
    """
    rng = np.random.default_rng(law.seed)
    chance = rng.beta(SHAPE, SHAPE, n)
    tried, spent, flat = [], 0, {}
    for i, p in enumerate(chance):
        name, grounding = str(i), i % 2 == 1
        values = (rng.random(law.tries) >= p) if grounding else (rng.random(law.tries) < p)
        earned = values * rng.beta(2, 2, law.tries) if grounding else values.astype(float)
        flat[name] = float(p**group if grounding else p**group + (1 - p) ** group)
        kind = "temporal grounding" if grounding else "multiple choice"
        signal = "tiou" if grounding else "accuracy"
        whole = tuple(float(v) for v in earned)
        begun = Tried(name, kind, kind, {signal: whole[: law.first]})
        on = rules.tries_on(begun, law)
        tried.append(replace(begun, signals={signal: whole}) if on else begun)
        spent += law.tries if on else law.first
    decisions = [rules.decide(t, law) for t in tried]
    decisions = rules.choose(decisions, rules.quotas(decisions, budget, {}), law.seed)
    subsets = {
        "all": list(flat),
        "selected": [d.tried.id for d in decisions if d.kept],
        **rules.controls(decisions, law.seed),
    }
    shares = {name: mean([flat[i] for i in ids]) for name, ids in subsets.items()}
    return Simulated(shares, len(subsets["selected"]), 1 - spent / (law.tries * n))
