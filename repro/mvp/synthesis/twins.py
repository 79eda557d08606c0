"""Videos that show the same as another: the same bytes, or the same pictures encoded again.

    same bytes      equal sha256
    same pictures   lengths within 5 % and 1 s, mean vectors alike, and 90 % of the pictures of the
                    shorter one are like one that the other shows within 1.5 s of the same moment

(all numbers chosen). Copies that are cut, mirrored or framed otherwise are not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from repro.mvp.synthesis.seeing import Seen
from repro.mvp.synthesis.store import Film, Store

ALIKE, SHARE, NEAR, LONGER = 0.97, 0.90, 1.5, 0.05
_BLOCK = 1024  # videos whose means are compared at once


def without_twins(
    seen: Sequence[Seen], excluded: Sequence[Seen], store: Store, embedder: str
) -> list[Seen]:
    """The videos in their order: of those that show the same all but the first are `duplicate`, and
    what shows the same as one of `excluded` is `excluded`."""
    barred = list(dict.fromkeys(s.sha256 for s in excluded if s.sha256))
    films = list(dict.fromkeys([*barred, *(s.sha256 for s in seen if s.sha256)]))
    same = _same(films, store, embedder)
    names = {s.sha256: s.video for s in (*reversed(seen), *reversed(excluded))}
    met: set[str] = set()
    found = []
    for one in seen:
        if one.sha256 is None:
            found.append(one)
            continue
        first = same[one.sha256]
        how = (
            "the same bytes as"
            if one.sha256 in met or one.sha256 in barred
            else "shows the same as"
        )
        if first in barred:
            found.append(_lost(one, "excluded", f"{how} {names[first]} of the excluded ones"))
        elif first in met:
            found.append(_lost(one, "duplicate", f"{how} {names[first]}"))
        else:
            found.append(one)
        met |= {first, one.sha256}
    return found


def _lost(one: Seen, reason: str, why: str) -> Seen:
    return replace(one, sha256=None, lost=reason, why=why, seconds=0.0, cost={})


def _same(films: Sequence[str], store: Store, embedder: str) -> dict[str, str]:
    """Video -> the first one that shows the same; itself, where none does."""
    means, lengths = _summary(films, store, embedder)
    first = dict(zip(films, films, strict=True))
    for start in range(0, len(films), _BLOCK):
        near = means[start : start + _BLOCK] @ means.T >= ALIKE
        for i, j in zip(*np.nonzero(near), strict=True):
            one, other = films[start + i], films[j]
            if j >= start + i or first[one] != one or first[other] != other:
                continue
            a, b = lengths[start + i], lengths[j]
            if abs(a - b) <= LONGER * max(a, b) + 1 and shows_the_same(
                store.load(one, embedder), store.load(other, embedder)
            ):
                first[one] = other
    return first


def _summary(
    films: Sequence[str], store: Store, embedder: str
) -> tuple[npt.NDArray[np.float32], list[float]]:
    """Mean vectors (F, D) of length 1, and seconds."""
    means, lengths = [], []
    for name in films:
        film = store.load(name, embedder)
        mean = film.vectors.mean(0)
        means.append(mean / max(float(np.linalg.norm(mean)), 1e-6))
        lengths.append(float(film.seconds[-1]))
    return np.array(means, np.float32).reshape(len(films), -1), lengths


def shows_the_same(one: Film, other: Film) -> bool:
    """Whether two videos of about one length do, picture by picture."""
    a, b = sorted((one, other), key=lambda film: len(film.seconds))
    stretch = b.seconds[-1] / a.seconds[-1] if a.seconds[-1] else 1.0
    near = np.abs(a.seconds[:, None] * stretch - b.seconds[None]) <= NEAR
    products = np.where(near, a.vectors @ b.vectors.T, -1.0)
    return float((products.max(1) >= ALIKE).mean()) >= SHARE
