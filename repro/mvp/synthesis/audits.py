"""Shortcut audits of records: what a guesser scores that sees no gap, or sees only pixels.

| guesser   | its answer                                                                      |
|-----------|---------------------------------------------------------------------------------|
| `slots`   | 1, 2, .. K                                                                      |
| `names`   | the K first file names, in order                                                |
| `sizes`   | the K largest files, in order                                                   |
| `nearest` | the K candidates nearest in pixels to a picture at the gap's edge, in the order |
|           | of their nearness to the first edge                                             |

The first three know nothing of time: with n items their `sel` must lie within 4 standard errors of
K / M. `nearest` may use that neighbours look alike, which is what the model learns too: its sel may
be 0.15 above chance (mvp.md 11.6) before distractors count as too easy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from evals.seeds import derive
from repro.mvp.rewards import chance, marks, numbers
from repro.mvp.synthesis.embed import small
from repro.mvp.synthesis.records import context_paths

AUDITED = 200  # items per K (chosen)
NEAREST, ERRORS, RARE = 0.15, 4.0, 1e-3  # bounds; the last on the p-value of the slots
_SIDE = 16
Record = Mapping[str, Any]


def audit(records: Sequence[Record], root: Path) -> list[dict[str, Any]]:
    """One row per K and guesser, and one per K on where the gold lies. root: of the media."""
    rows: list[dict[str, Any]] = []
    for k in sorted({r["mvp"]["k"] for r in records}):
        mine = [r for r in records if r["mvp"]["k"] == k]
        rng = np.random.default_rng(derive("audit", k))
        some = [mine[i] for i in sorted(rng.permutation(len(mine))[:AUDITED])]
        p = uniform(mine)
        rows.append({"k": k, "audit": "slots of the gold", "n": len(mine), "p": round(p, 6),
                     "ok": p >= RARE})  # fmt: skip
        rows += [_row(k, name, guess, some, root) for name, guess in GUESSERS.items()]
    return rows


def _row(
    k: int, name: str, guess: Callable[[Record, Path], list[int]], records: Sequence[Record],
    root: Path,
) -> dict[str, Any]:  # fmt: skip
    m = records[0]["candidates"]
    found = [marks(guess(r, root), gold(r), m) for r in records]
    sel, expected = fmean(x.sel for x in found), chance(k, m)
    # Hits are hypergeometric: K drawn from M of which K count.
    error = math.sqrt((1 - k / m) * (m - k) / ((m - 1) * m * len(records))) if m > 1 else 0.0
    bound = NEAREST if name == "nearest" else ERRORS * error
    over = sel - expected.sel
    return {
        "k": k, "audit": name, "n": len(records), "sel": round(sel, 4),
        "chance": round(expected.sel, 4), "exact": round(fmean(x.exact for x in found), 4),
        "bound": round(bound, 4), "ok": (over if name == "nearest" else abs(over)) <= bound + 1e-9,
    }  # fmt: skip


def gold(record: Record) -> tuple[int, ...]:
    """The answer of a record."""
    return numbers(record["solution"].removeprefix("<answer>").removesuffix("</answer>"))


def uniform(records: Sequence[Record]) -> float:
    """p-value of chi-square tests that each masked picture is equally often in each slot; the
    smallest over the K of them, times K. Against the statistic's own distribution, drawn 20,000
    times: a small corpus has too few items for the asymptotic one."""
    answers = np.array([gold(r) for r in records])
    m, k = records[0]["candidates"], answers.shape[1]
    counts = [np.bincount(answers[:, rank] - 1, minlength=m) for rank in range(k)]
    even = len(answers) / m
    drawn = np.random.default_rng(derive("uniform", m, len(answers))).multinomial(
        len(answers), [1 / m] * m, size=20_000
    )
    worst = max(float(np.square(count - even).sum()) for count in counts)
    rarer = int((np.square(drawn - even).sum(1) >= worst - 1e-9).sum())
    share: float = k * (1 + rarer) / (1 + len(drawn))
    return min(1.0, share)


def _candidates(record: Record) -> list[str]:
    names: list[str] = record["images"][-record["candidates"] :]
    return names


def _slots(record: Record, root: Path) -> list[int]:
    return list(range(1, record["mvp"]["k"] + 1))


def _names(record: Record, root: Path) -> list[int]:
    names = [Path(name).name for name in _candidates(record)]
    return [int(i) + 1 for i in np.argsort(names)[: record["mvp"]["k"]]]


def _sizes(record: Record, root: Path) -> list[int]:
    sizes = [(root / name).stat().st_size for name in _candidates(record)]
    return [int(i) + 1 for i in np.argsort(sizes)[::-1][: record["mvp"]["k"]]]


def _nearest(record: Record, root: Path) -> list[int]:
    before, after = context_paths(record)
    edges = _pixels([before[-1], after[0]], root)
    pool = _pixels(_candidates(record), root)
    far = np.linalg.norm(pool[:, None] - edges[None], axis=-1)  # (M, 2)
    chosen = np.argsort(far.min(1), kind="stable")[: record["mvp"]["k"]]
    along = far[chosen, 0] / np.maximum(far[chosen].sum(1), 1e-9)
    return [int(chosen[i]) + 1 for i in np.argsort(along, kind="stable")]


def _pixels(names: Sequence[str], root: Path) -> npt.NDArray[np.float32]:
    return np.stack([small((root / name).read_bytes(), _SIDE).ravel() for name in names])


GUESSERS: Mapping[str, Callable[[Record, Path], list[int]]] = {
    "slots": _slots, "names": _names, "sizes": _sizes, "nearest": _nearest
}  # fmt: skip
