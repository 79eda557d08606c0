"""Items as records of evals.benchmarks.jsonl: the question with a mark per picture, the pictures in
that order, the answer as slot numbers. What the items were made of stands beside, in `mvp`.

| context    | the pictures around the gap are                                                    |
|------------|------------------------------------------------------------------------------------|
| `pictures` | further pictures in the question                                                   |
| `clip`     | a video in front of it, two grey pictures for the gap; the candidates stay pictures |

Qwen's towers fuse two frames of a video into one row: both sides of the gap are filled up to even
numbers by their last picture, or a row would hold both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from evals.types import IMAGE
from repro.mvp.synthesis.items import Item
from repro.mvp.synthesis.store import Film

Wording = Literal["full", "short"]
Context = Literal["pictures", "clip"]
GAP = 2  # grey pictures in a clip: one row


def question(item: Item, wording: Wording = "full", context: Context = "pictures") -> str:
    """The words (all chosen); `short` is for students of few tokens."""
    before, after = IMAGE * len(item.before), IMAGE * len(item.after)
    m, k = len(item.candidates), item.k
    if wording == "short":
        shown = " ".join(f"{n} {IMAGE}" for n in range(1, m + 1))
        gap = f"gap {k}" if context == "clip" else f"{before} gap {k} {after}"
        return f"{gap} pool {shown} Which fill the gap, in order?"
    shown = "\n".join(f"{n}: {IMAGE}" for n in range(1, m + 1))
    around = (
        f"The video has a part missing; grey stands where it was.\n[MISSING: {k} frames]\n"
        if context == "clip"
        else "The following pictures are from one video, in the order in which they were shown, "
        f"with a part missing.\nContext before the gap: {before}\n[MISSING: {k} frames]\n"
        f"Context after the gap: {after}\n"
    )
    return (
        f"{around}Candidates:\n{shown}\n"
        f"Exactly {item.k} of the {m} candidates belong in the gap; the others are from other "
        f"moments of the same video. Which {item.k} are they? List their numbers from the earliest "
        "to the latest."
    )


def name(picture: bytes) -> str:
    """A file name that says nothing but what is in the file."""
    return f"{hashlib.sha256(picture).hexdigest()[:24]}.jpg"


def shown(item: Item, context: Context = "pictures") -> tuple[int, ...]:
    """Picture numbers in the order of the question's marks."""
    return item.candidates if context == "clip" else (*item.before, *item.after, *item.candidates)


def clip(item: Item) -> tuple[int | None, ...]:
    """Picture numbers of the context as a video, None for a grey one."""
    before, after = (side + side[-1:] * (len(side) % 2) for side in (item.before, item.after))
    return (*before, *(None,) * GAP, *after)


def frame(place: int) -> str:
    """File name of a clip's picture; its place is no secret, unlike a candidate's."""
    return f"{place:02}.jpg"


def context_paths(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Paths of the pictures before and after the gap, whichever way they are shown."""
    before, after = (len(part) for part in record["mvp"]["context_seconds"])
    if "path" not in record:
        return record["images"][:before], record["images"][before : before + after]
    second = before + before % 2 + GAP
    places = (range(before), range(second, second + after))
    first, last = ([f"{record['path']}/{frame(n)}" for n in part] for part in places)
    return first, last


def record(
    item: Item, film: Film, video: str, paths: Mapping[int, str], keys: Mapping[str, Any],
    wording: Wording, folder: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """video: its path below --videos. paths: picture number -> path below the output folder.
    keys: of the settings, for `mvp`. folder: of the context's clip, where it is one."""
    context: Context = "pictures" if folder is None else "clip"
    when = {n: round(float(film.seconds[n]), 3) for n in shown(item)}
    filmed = {} if folder is None else {"path": folder, "rate": round(1 / item.gap, 4)}
    return {
        "problem_id": item.id,
        "problem": question(item, wording, context),
        "data_type": "image" if folder is None else "video",
        "problem_type": "ordering",
        "options": None,
        **filmed,
        "images": [paths[n] for n in shown(item, context)],
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
