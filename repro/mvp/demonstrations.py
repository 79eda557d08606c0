"""Demonstrations for MVP's cold start, which goes on from the student of ktr.

1. blind: what is in the pool is told in words, and the answer has to be found in them;
2. with pictures: the student says itself what is in the pool, and then does the same. Some of the
   questions, which it can answer already, are among the items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from repro.core.demonstrations import Demonstration
from repro.mvp.method import KIND
from repro.recipe import Recipe

#: What the student of ktr would spell letter by letter, and numbers of one token wherever they
#: stand, so that a slot can be copied (chosen).
TOKENS = (" gap", " pool", "Which fill the gap, in order?", *(f" {n}" for n in range(1, 7)))
#: Share of the questions that is shown (chosen: it forgets nothing and leaves RL something).
ASKED = 0.2
SEE = "<think>I see"


def shown(read: Sequence[Demonstration], recipe: Recipe, seed: int) -> list[Demonstration]:
    """Items and a share of the questions, drawn under `seed`, in the order of the split."""
    draw = np.random.default_rng([seed, 11]).random(len(read))
    items = (d.sample.kind == KIND for d in read)
    return [
        replace(d, completion=d.completion.replace("<answer>", "<answer> ")) if item else d
        for d, r, item in zip(read, draw, items, strict=True)
        if item or r < ASKED
    ]


def blind(shown: Sequence[Demonstration]) -> list[Demonstration]:
    """The items without pictures: what the thought says of the pool stands in the question, so that
    what is learned is to find the answer in it."""
    return [_told(d) for d in shown if d.sample.kind == KIND]


def _told(shown: Demonstration) -> Demonstration:
    pool, _, gap = shown.completion.removeprefix(SEE).partition(" gap ")
    k = len(shown.sample.gold.split(","))
    told = replace(
        shown.sample, question=f" pool{pool} gap {k}", images=(), modality="text", media=None
    )
    return replace(shown, sample=told, completion=f"{SEE} {gap}")
