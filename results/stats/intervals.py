"""Intervals: of a difference with a known error, of a mean over videos, of a proportion.

Δ ± t(1-a/2, df) · SE                     df infinite where SE is not estimated from seeds
percentiles of Σ y* / Σ n*                whole videos drawn with replacement
Wilson                                    to draw a bar, never to compare with a paper
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Values = Sequence[float] | npt.NDArray[np.float64]
Clusters = Sequence[str] | npt.NDArray[Any]

CELLS = 4_000_000  # draws x clusters held in memory at once


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; infinite ends say "cannot be told"."""

    estimate: float
    low: float
    high: float
    level: float

    @property
    def above(self) -> bool:
        """Entirely above zero."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Entirely below zero."""
        return self.high < 0

    @property
    def half_width(self) -> float:
        """Half of the length; infinite when either end is."""
        return (self.high - self.low) / 2

    def inside(self, margin: float) -> bool:
        """Whether it lies in (-margin, +margin): at level 1 - 2a this is TOST at a."""
        return -margin < self.low and self.high < margin


@dataclass(frozen=True)
class Delta:
    """A difference with its standard error, and the degrees of freedom behind that error."""

    estimate: float
    error: float
    df: float = math.inf

    def interval(self, level: float) -> Interval:
        """Two-sided; an error without degrees of freedom gives infinite ends."""
        if self.df <= 0:
            return Interval(self.estimate, -math.inf, math.inf, level)
        half = t_quantile((1 + level) / 2, self.df) * self.error
        return Interval(self.estimate, self.estimate - half, self.estimate + half, level)

    @property
    def p(self) -> float:
        """Two-sided p of "no difference"."""
        return min(1.0, 2 * self._tail(-abs(self.estimate)))

    def tost_p(self, margin: float) -> float:
        """p of "the difference is at least `margin`": the larger of two one-sided tests."""
        return max(self._tail(self.estimate - margin), self._tail(-margin - self.estimate))

    def _tail(self, distance: float) -> float:
        if self.df <= 0:
            return 1.0
        if self.error == 0:
            return 0.0 if distance < 0 else 0.5 if distance == 0 else 1.0
        return float(stdtr(self.df, distance / self.error))


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t; normal where `df` is infinite (scipy.special.stdtrit)."""
    return float(stdtrit(df, probability))


def clustered_interval(
    values: Values,
    clusters: Clusters,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean of `values` (n,), whole clusters drawn with replacement.

    clusters: n labels, the videos. One cluster has no spread, so its interval is infinite.
    Raises ValueError when empty, not finite, or of unequal lengths.
    """
    sums, sizes = by_cluster(values, clusters)
    mean = float(sums.sum() / sizes.sum())
    if len(sums) == 1:
        return Interval(mean, -math.inf, math.inf, level)
    blocks = _picks(len(sums), draws, seed)
    means = np.concatenate([sums[at].sum(axis=1) / sizes[at].sum(axis=1) for at in blocks])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level)


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion."""
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"wilson needs 0 <= k <= n and n >= 1, got k={k}, n={n}")
    low, high = score_interval(k / n, n, t_quantile((1 + level) / 2, math.inf))
    return Interval(k / n, 0.0 if k == 0 else low, 1.0 if k == n else high, level)


def score_interval(p: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's ends for a share `p` of n, z standard errors wide."""
    z2 = z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return centre - half, centre + half


def vector(values: Values) -> npt.NDArray[np.float64]:
    """As a one-dimensional array. Raises ValueError when empty or not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError("at least one value is needed, in one dimension")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite")
    return array


def by_cluster(
    values: Values, clusters: Clusters
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums (C,) and sizes (C,) per cluster, clusters in sorted order."""
    array = vector(values)
    if len(clusters) != len(array):
        raise ValueError(f"{len(array)} values but {len(clusters)} cluster labels")
    _, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(inverse, weights=array).astype(np.float64)
    return sums, np.bincount(inverse).astype(np.float64)


def _picks(clusters: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """Bootstrap indices in blocks (b, C); small ones are kept, as a report asks for them often."""
    if clusters * draws <= CELLS:
        yield _kept_picks(clusters, draws, seed)
        return
    rng = np.random.default_rng(seed)
    block = max(1, CELLS // clusters)
    for start in range(0, draws, block):
        yield rng.integers(0, clusters, (min(block, draws - start), clusters), dtype=np.intp)


@lru_cache(maxsize=4)
def _kept_picks(clusters: int, draws: int, seed: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng(seed).integers(0, clusters, (draws, clusters), dtype=np.intp)
