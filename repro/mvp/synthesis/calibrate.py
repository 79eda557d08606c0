"""`repro data calibrate mvp`: the kappa at which this embedder thins out this corpus as wanted.

    wanted: the median accepted step is 2 to 4 s, and 70 % of the videos of 60 s or more reach N

(chosen, mvp.md 11.1). Of several such kappas the one whose median is nearest to 3 s is proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro.mvp.synthesis.items import Sampling, Usable, walk
from repro.mvp.synthesis.store import Film

GRID = tuple(round(0.50 + 0.01 * i, 2) for i in range(50))
STEP, REACH, LONG = (2.0, 4.0), 0.70, 60.0


@dataclass(frozen=True)
class Point:
    """step: median accepted step in seconds, nan where nothing is accepted. reach: share of the
    long videos that reach N, nan where there are none. ok: as wanted."""

    kappa: float
    step: float
    reach: float

    @property
    def ok(self) -> bool:
        return STEP[0] <= self.step <= STEP[1] and self.reach >= REACH


def curve(films: Sequence[Film], sampling: Sampling, grid: Sequence[float] = GRID) -> list[Point]:
    """One point per kappa; every video is walked from its start to its end."""
    usable = [u for u in (Usable.of(film, sampling) for film in films) if len(u.seconds) > 1]
    points = []
    for kappa in grid:
        steps: list[float] = []
        reached: list[bool] = []
        for one in usable:
            kept = walk(one.vectors, 0, kappa, len(one.seconds))
            steps += np.diff(one.seconds[kept]).tolist()
            if one.length >= LONG * (1 - 2 * sampling.trim):
                reached.append(len(kept) >= sampling.frames)
        points.append(
            Point(
                kappa,
                float(np.median(steps)) if steps else float("nan"),
                float(np.mean(reached)) if reached else float("nan"),
            )
        )
    return points


def proposed(points: Sequence[Point]) -> Point | None:
    """None where no kappa does what is wanted."""
    fit = [point for point in points if point.ok]
    return min(fit, key=lambda p: (abs(p.step - sum(STEP) / 2), p.kappa), default=None)
