"""Items as records of evals.benchmarks.jsonl: the question with a mark per picture, the pictures in
that order, the answer as slot numbers. What the items were made of stands beside, in `mvp`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from evals.types import IMAGE
from repro.mvp.synthesis.items import Item
from repro.mvp.synthesis.store import Film

Wording = Literal["full", "short"]


def question(item: Item, wording: Wording = "full") -> str:
    """The words (all chosen); `short` is for students of few tokens."""
    before, after = IMAGE * len(item.before), IMAGE * len(item.after)
    m = len(item.candidates)
    if wording == "short":
        shown = " ".join(f"{n} {IMAGE}" for n in range(1, m + 1))
        return f"{before} gap {item.k} {after} pool {shown} Which fill the gap, in order?"
    shown = "\n".join(f"{n}: {IMAGE}" for n in range(1, m + 1))
    return (
        "The following pictures are from one video, in the order in which they were shown, with a "
        f"part missing.\nContext before the gap: {before}\n[MISSING: {item.k} frames]\n"
        f"Context after the gap: {after}\nCandidates:\n{shown}\n"
        f"Exactly {item.k} of the {m} candidates belong in the gap; the others are from other "
        f"moments of the same video. Which {item.k} are they? List their numbers from the earliest "
        "to the latest."
    )


def name(picture: bytes) -> str:
    """A file name that says nothing but what is in the file."""
    return f"{hashlib.sha256(picture).hexdigest()[:24]}.jpg"


def shown(item: Item) -> tuple[int, ...]:
    """Picture numbers in the order of the question's marks."""
    return (*item.before, *item.after, *item.candidates)


def record(
    item: Item, film: Film, video: str, paths: Mapping[int, str], keys: Mapping[str, Any],
    wording: Wording,
) -> dict[str, Any]:  # fmt: skip
    """video: its path below --videos. paths: picture number -> path below the output folder.
    keys: of the settings, for `mvp`."""
    when = {n: round(float(film.seconds[n]), 3) for n in shown(item)}
    return {
        "problem_id": item.id,
        "problem": question(item, wording),
        "data_type": "image",
        "problem_type": "ordering",
        "options": None,
        "images": [paths[n] for n in shown(item)],
        "solution": f"<answer>{', '.join(map(str, item.answer))}</answer>",
        "candidates": len(item.candidates),
        "data_source": "mvp",
        "family": f"mvp {item.k}+{len(item.candidates) - item.k}",
        "film": video,
        "mvp": {
            **keys,
            "video": film.id,
            "k": item.k,
            "number": item.number,
            "context_seconds": [[when[n] for n in item.before], [when[n] for n in item.after]],
            "candidate_seconds": [when[n] for n in item.candidates],
            "sources": list(item.sources),
            "step_seconds": round(item.gap, 3),
            "alike": dict(zip(("pool", "pool_mean", "context"), item.alike, strict=True)),
        },
    }
