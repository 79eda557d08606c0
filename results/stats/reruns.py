"""The error of (mean of our K scores minus one printed score) on the same items.

    Q    mean over pairs of runs of Σ_video (Σ_question (y - y'))², at least 3
    SE²  Q / (2n²) · (1 + 1/K) + h²/3                      K ≥ 2: only flips remain
    SE²  p̄(1 - p̄)(1/n + 1/n_paper) + h²/3                  K = 1, or another subset

h is half a unit of the printed last digit. With one question per video Q = n·D, where D is the
share of items whose correctness differs between two runs. Item difficulty cancels. The interval
of the fallback is Newcombe's (hybrid of two Wilson intervals), which has a width at 0 and 1 too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from results.stats.intervals import (
    Clusters,
    Delta,
    Interval,
    by_cluster,
    score_interval,
    t_quantile,
)

FLOOR = 3.0  # runs that never differed may still differ: the rule of three


def flips(runs: npt.NDArray[np.float64], clusters: Clusters) -> float:
    """Q of `runs` (K, n), item scores in [0, 1]; clusters: n labels. Raises ValueError if K < 2."""
    if len(runs) < 2:
        raise ValueError("the re-run variance needs at least two runs of the same items")
    squares = [
        float((by_cluster(runs[a] - runs[b], clusters)[0] ** 2).sum())
        for a, b in combinations(range(len(runs)), 2)
    ]
    return max(FLOOR, math.fsum(squares) / len(squares))


def discordance(runs: npt.NDArray[np.float64]) -> float:
    """D: share of items that differ, mean over pairs of `runs` (K, n); without the floor."""
    pairs = list(combinations(range(len(runs)), 2))
    return float(np.mean([(runs[a] != runs[b]).mean() for a, b in pairs]))


def variance_of_flips(q: float, n: int, count: int, half_unit: float = 0.0) -> float:
    """SE² for Q = `q` over n items and `count` runs; half_unit as a fraction."""
    return q / (2 * n * n) * (1 + 1 / count) + half_unit**2 / 3


def rerun_variance(
    runs: npt.NDArray[np.float64], clusters: Clusters, half_unit: float = 0.0
) -> float:
    """SE² of the mean of `runs` (K, n) minus one printed score on the same items, K ≥ 2."""
    count, n = runs.shape
    return variance_of_flips(flips(runs, clusters), n, count, half_unit)


def independent_variance(
    ours: float, paper: float, n: int, n_paper: int, half_unit: float = 0.0
) -> float:
    """SE² as if the items were drawn twice; the fallback for one run or another subset."""
    p = (ours + paper) / 2
    return p * (1 - p) * (1 / n + 1 / n_paper) + half_unit**2 / 3


@dataclass(frozen=True)
class IndependentDelta(Delta):
    """Two proportions as if drawn apart: p from the variance above, intervals by Newcombe."""

    ours: float = 0.0
    paper: float = 0.0
    n: int = 1
    n_paper: int = 1
    half_unit: float = 0.0

    def interval(self, level: float) -> Interval:
        """Newcombe's hybrid score interval, with the rounding of the printed value added."""
        z = t_quantile((1 + level) / 2, math.inf)
        low, high = score_interval(self.ours, self.n, z)
        low_paper, high_paper = score_interval(self.paper, self.n_paper, z)
        rounding = z * self.half_unit / math.sqrt(3)
        down = math.hypot(self.ours - low, high_paper - self.paper, rounding)
        up = math.hypot(high - self.ours, self.paper - low_paper, rounding)
        return Interval(self.estimate, self.estimate - down, self.estimate + up, level)


def independent_delta(
    ours: float, paper: float, n: int, n_paper: int, half_unit: float = 0.0
) -> Delta:
    """Ours minus the paper's score, for one run or another subset."""
    error = math.sqrt(independent_variance(ours, paper, n, n_paper, half_unit))
    return IndependentDelta(ours - paper, error, math.inf, ours, paper, n, n_paper, half_unit)
