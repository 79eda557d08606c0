"""Every question set of a recipe's `scoring`: benchmark x frames x pixels, some in two wordings.

<benchmark>/<frames>f-<pixels of a 28 x 28 tile>px[-variant][-own-prompt][-own-grader]
<benchmark>/<variant>     where a variant is asked as it is: verdicts know it by its id
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from evals import protocols
from evals.benchmarks import card
from evals.extract import resolve
from evals.types import Protocol
from repro.recipe import Recipe, Scoring

TILE = 28 * 28
#: What `repro eval --every-cell` writes: a line for each finished cell, and a file after the last.
CELLS, DONE = "cells.jsonl", "cells.json"


@dataclass(frozen=True)
class Asking:
    """One benchmark under one protocol. questions: of the card, None where nobody has counted."""

    benchmark: str
    protocol: Protocol
    questions: int | None

    @property
    def name(self) -> str:
        """Its folder below a run: benchmark, frames, pixels, wording."""
        return f"{self.benchmark}/{self.protocol.id.partition('@')[2]}"


def grid(recipe: Recipe, arm: str | None = None) -> list[Asking]:
    """In the order in which they are asked: of released weights, or of a trained arm; empty for a
    recipe without `scoring`."""
    s = recipe.scoring
    if s is None:
        return []
    return [
        _asking(s, *asked.partition("/")[::2], frames, pixels, variant, prompt, grader)
        for asked in s.benchmarks
        for frames in (s.frames if arm in (None, s.arm) else s.trained_frames)
        for pixels in s.max_pixels
        for variant in s.variants or ("",)
        for prompt, grader in _wordings(s, asked)
    ]


def _wordings(s: Scoring, asked: str) -> list[tuple[str, str]]:
    """Prompt and grader, "" for the protocol's; every pair, since any may be the paper's."""
    if asked not in s.own_words:
        return [("", "")]
    return list(product(("", s.own_prompt), ("", s.own_grader)))


def _asking(
    s: Scoring, name: str, subset: str, frames: int, pixels: int, variant: str, prompt: str,
    grader: str,
) -> Asking:  # fmt: skip
    base = protocols.load(f"{s.protocol}@{variant}" if variant else s.protocol, name)
    label = f"{frames}f-{pixels // TILE}px" + (f"-{variant}" if variant else "")
    label += ("-own-prompt" if prompt else "") + ("-own-grader" if grader else "")
    asked = prompt or base.prompt
    protocol = replace(
        base,
        id=f"{s.protocol}@{label}",
        prompt=asked,
        wording=protocols.wording_hash(asked),
        grader=resolve(grader, name) if grader else base.grader,
        max_frames=frames,
        max_pixels=pixels,
        subset=subset,
        decoding=replace(
            base.decoding, max_new_tokens=s.max_new_tokens or base.decoding.max_new_tokens
        ),
    )
    if variant and replace(protocol, id=base.id) == base:
        protocol = base
    return Asking(name, protocol, _questions(name, subset))


def _questions(name: str, subset: str) -> int | None:
    from evals.benchmarks import source

    known = card(name)
    if not subset:
        return next(iter(known.splits.values()))
    found: int | None = source(name, subset).CARD.subsets[subset]
    return found
