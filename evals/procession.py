"""Masked prediction in the world of coloured shapes: some pictures of a film are missing.

A procession lasts twelve seconds, a picture a second. In one row, a new shape comes into the left
quadrant and the shape before it moves on to the right one; colours take turns, red, green, blue,
yellow, three times over. The gap begins with the second green, so the colours tell roughly what is
missing, and in which order; that neighbours in time share a shape tells it for sure.

    before   SIDE pictures                    gap    K pictures
    after    SIDE pictures                    pool   the K and as many from outside, shuffled

The pictures are drawn, not read from a video (`repro data synthesize mvp` does that), by the same
rules: all are different, no distractor was shown inside the gap or next to it, and two or more come
from both sides of it. All numbers are chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evals import microworld
from evals.microworld import COLOURS, SHAPES, VERSION, State, paint
from evals.types import IMAGE

PICTURES = 12
SIDE = 1
GAP = 5  # the first missing picture
TIERS = (2, 3)  # K: every procession is asked about at each
FAMILY = "mvp"


@dataclass(frozen=True)
class Procession:
    """names: shapes in the order in which they come, one more than there are pictures. row: 0 or 1,
    upper or lower."""

    names: tuple[str, ...]
    row: int

    def states(self, t: int) -> tuple[State, State]:
        """What picture t shows: the shape that came last, and the one before it."""
        return _state(self.names[t + 1], 0.0, self.row), _state(self.names[t], 1.0, self.row)

    def bucket(self) -> int:
        """0..19."""
        key = json.dumps([self.names, self.row])
        return hashlib.sha256(key.encode()).digest()[0] * 20 // 256


def _state(name: str, x: float, row: int) -> State:
    colour, shape = name.split()
    return State(colour, shape, x, float(row))


def compose(rng: np.random.Generator) -> Procession:
    """All twelve shapes, their colours in turn, before the first the one that comes last: no two
    pictures are alike and each has one successor."""
    turns = {colour: rng.permutation(SHAPES) for colour in COLOURS}
    names = [f"{colour} {turns[colour][n]}" for n in range(len(SHAPES)) for colour in COLOURS]
    return Procession((names[-1], *names), int(rng.integers(2)))


@dataclass(frozen=True)
class Item:
    """Numbers of pictures. answer: 1-based slots of the missing ones in the pool, in order."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    pool: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def missing(self) -> tuple[int, ...]:
        """Pictures that the answer names, in order."""
        return tuple(self.pool[slot - 1] for slot in self.answer)


def mask(rng: np.random.Generator, k: int) -> Item:
    """K missing pictures, drawn as the module says."""
    first, last = GAP - SIDE, GAP + k + SIDE
    earlier, later = np.arange(first), np.arange(last, PICTURES)
    sides = [list(rng.permutation(side)) for side in (earlier, later)]
    ends = rng.permutation([int(side[0]) for side in sides])[:k]  # of both sides, where k allows
    rest = [int(p) for side in sides for p in side[1:]]
    others = [*ends, *rng.permutation(rest)[: max(0, k - 2)]]
    shown = np.array([*range(GAP, GAP + k), *others])
    order = rng.permutation(2 * k)
    return Item(
        before=tuple(range(first, GAP)),
        after=tuple(range(GAP + k, last)),
        pool=tuple(int(p) for p in shown[order]),
        answer=tuple(int(slot) + 1 for slot in np.argsort(order)[:k]),
    )


def question(item: Item) -> str:
    """Few words, for a student of few tokens; a mark for every picture."""
    before, after = IMAGE * len(item.before), IMAGE * len(item.after)
    shown = " ".join(f"{n} {IMAGE}" for n in range(1, len(item.pool) + 1))
    k = len(item.answer)
    return f"{before} gap {k} {after} pool {shown} Which fill the gap, in order?"


def thought(made: Procession, item: Item) -> str:
    """What comes in in every picture of the pool, and its slot; then what is missing, and its slot
    once more."""
    came = {t: f"{made.names[t + 1]} {n}" for n, t in enumerate(item.pool, start=1)}
    return f"{' '.join(came.values())} gap {', then '.join(came[t] for t in item.missing)}"


def processions(split: str, n: int, seed: int) -> Iterator[tuple[str, Procession]]:
    """(name, procession), deterministic, all different and in the split's content buckets."""
    buckets, seen, draws = microworld.buckets(split), set[Procession](), 0
    while len(seen) < n:
        made = compose(np.random.default_rng([seed, VERSION, draws, 2]))
        draws += 1
        if made.bucket() in buckets and made not in seen:
            yield f"procession-{split}-{len(seen):05d}", made
            seen.add(made)


def records(split: str, n: int, seed: int, root: Path, first: int) -> list[dict[str, Any]]:
    """An item of each tier about each of n processions, numbered from `first`; their pictures go
    into root/pictures under names that say what is in them and nothing else."""
    folder = root / "pictures"
    folder.mkdir()
    found: list[dict[str, Any]] = []
    for index, (name, made) in enumerate(processions(split, n, seed)):
        rng = np.random.default_rng([seed, VERSION, index, 3])
        paths = [_write(paint(made.states(t)), folder) for t in range(PICTURES)]
        for k in TIERS:
            item = mask(rng, k)
            found.append(
                {
                    "problem_id": first + len(found),
                    "problem": question(item),
                    "data_type": "image",
                    "problem_type": "ordering",
                    "options": None,
                    "images": [paths[t] for t in (*item.before, *item.after, *item.pool)],
                    "candidates": len(item.pool),
                    "process": f"<think>I see {thought(made, item)}</think>",
                    "solution": f"<answer>{', '.join(map(str, item.answer))}</answer>",
                    "data_source": FAMILY,
                    "family": f"{FAMILY} {k}+{len(item.pool) - k}",
                    "film": name,
                }
            )
    return found


def _write(picture: npt.NDArray[np.uint8], folder: Path) -> str:
    from PIL import Image

    name = f"{hashlib.sha256(picture.tobytes()).hexdigest()[:24]}.png"
    if not (folder / name).exists():
        Image.fromarray(picture).save(folder / name)
    return f"{folder.name}/{name}"
