"""Statistics of runs, as pure functions; every random draw takes a seed.

    seed interval       mean ± t(1-a/2, S-1) · s / √S          the training seed is the unit
    clustered interval  percentiles of Σ y* / Σ n* over videos drawn with replacement
    sign flip           P(|Σ ± y_video| ≥ |Σ y_video|)         two given checkpoints
    re-run variance     Q / (2n²) · (1 + 1/K) + h²/3           Q: squared flips summed by video

Scores and differences are fractions (0.01 is one percentage point); levels are probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Values = Sequence[float] | npt.NDArray[np.float64]
Clusters = Sequence[str] | npt.NDArray[Any]
Side = Literal["two-sided", "greater", "less"]

_CELLS = 4_000_000  # draws x clusters held in memory at once


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


def t_quantile(probability: float, df: int) -> float:
    """Quantile of Student's t with `df` degrees of freedom (scipy.special.stdtrit)."""
    return float(stdtrit(df, probability))


def seed_interval(differences: Values, level: float = 0.95) -> Interval:
    """t interval of the mean of S paired seed differences (statistics of a trained method).

    One seed has no spread, so its interval is infinite. Raises ValueError without seeds.
    """
    values = _vector(differences)
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, -math.inf, math.inf, level)
    half = t_quantile((1 + level) / 2, count - 1) * _spread(values) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, level)


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
    sums, sizes = _by_cluster(values, clusters)
    mean = float(sums.sum() / sizes.sum())
    if len(sums) == 1:
        return Interval(mean, -math.inf, math.inf, level)
    blocks = _picks(len(sums), draws, seed)
    means = np.concatenate([sums[at].sum(axis=1) / sizes[at].sum(axis=1) for at in blocks])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level)


def sign_flip_p(
    differences: Values,
    clusters: Clusters,
    draws: int = 10_000,
    seed: int = 0,
    side: Side = "two-sided",
) -> float:
    """Permutation p of "no difference": each video's summed difference may change its sign.

    Exchangeable under the null for two given checkpoints, not for two trained arms (there the
    seed is the unit). The observed labelling counts as one draw, so p is never 0.
    """
    sums, _ = _by_cluster(differences, clusters)
    rng = np.random.default_rng(seed)
    observed, slack = float(sums.sum()), 1e-12 * float(np.abs(sums).sum())
    extreme = done = 0
    while done < draws:
        size = min(draws - done, max(1, _CELLS // len(sums)))
        totals = (rng.integers(0, 2, (size, len(sums))) * 2.0 - 1.0) @ sums
        extreme += int(_extreme(totals, observed, slack, side).sum())
        done += size
    return (extreme + 1) / (draws + 1)


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion; to draw a bar, never to compare with a paper."""
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"wilson needs 0 <= k <= n and n >= 1, got k={k}, n={n}")
    z = float(stdtrit(math.inf, (1 + level) / 2))
    p, z2 = k / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Interval(p, low, high, level)


def mcnemar_exact(gained: int, lost: int, side: Side = "two-sided") -> float:
    """Exact McNemar p: of the discordant items, `gained` ~ Binomial(gained + lost, 1/2)."""
    if gained < 0 or lost < 0:
        raise ValueError(f"counts of items cannot be negative: gained={gained}, lost={lost}")
    n = gained + lost
    smaller = {"two-sided": min(gained, lost), "greater": lost, "less": gained}[side]
    tail = sum(math.comb(n, i) for i in range(smaller + 1))
    p: float = (2 if side == "two-sided" else 1) * tail / 2**n
    return min(1.0, p)


def seeds_needed(
    differences: Values,
    level: float = 0.95,
    power: float = 0.8,
    minimum: int = 3,
    limit: int = 1000,
) -> int | None:
    """Seeds at which the t interval would exclude 0 with probability `power`, if the mean and
    the spread are as measured: the smallest S with |mean| ≥ (t(1-a/2) + t(power)) · s / √S.

    None when one seed shows no spread, or when even `limit` seeds would not do.
    """
    values = _vector(differences)
    if len(values) < 2:
        return None
    mean, spread = abs(math.fsum(values) / len(values)), _spread(values)
    for count in range(max(2, minimum), limit + 1):
        factor = t_quantile((1 + level) / 2, count - 1) + t_quantile(power, count - 1)
        if mean > 0 and mean >= factor * spread / math.sqrt(count):
            return count
    return None


def rerun_variance(
    runs: npt.NDArray[np.float64], clusters: Clusters, half_unit: float = 0.0
) -> float:
    """Variance of (mean of our K scores minus one printed score) on the same n items.

    runs: (K, n) item scores in [0, 1], K ≥ 2. half_unit: half a unit of the printed last digit,
    as a fraction. Q = mean over pairs of runs of Σ_video (Σ_q (y - y'))², at least 3.
    """
    count, n = runs.shape
    if count < 2:
        raise ValueError("the re-run variance needs at least two runs of the same items")
    squares = [
        float((_by_cluster(runs[a] - runs[b], clusters)[0] ** 2).sum())
        for a, b in combinations(range(count), 2)
    ]
    q = max(3.0, math.fsum(squares) / len(squares))
    return float(q / (2 * n * n) * (1 + 1 / count) + half_unit**2 / 3)


def _vector(values: Values) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError("at least one value is needed, in one dimension")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite")
    return array


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Unbiased standard deviation."""
    return float(values.std(ddof=1))


def _by_cluster(
    values: Values, clusters: Clusters
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums (C,) and sizes (C,) per cluster, clusters in sorted order."""
    array = _vector(values)
    if len(clusters) != len(array):
        raise ValueError(f"{len(array)} values but {len(clusters)} cluster labels")
    _, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(inverse, weights=array).astype(np.float64)
    return sums, np.bincount(inverse).astype(np.float64)


def _picks(clusters: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """Bootstrap indices in blocks (b, C); small ones are kept, as a report asks for them often."""
    if clusters * draws <= _CELLS:
        yield _kept_picks(clusters, draws, seed)
        return
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // clusters)
    for start in range(0, draws, block):
        yield rng.integers(0, clusters, (min(block, draws - start), clusters), dtype=np.intp)


@lru_cache(maxsize=4)
def _kept_picks(clusters: int, draws: int, seed: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng(seed).integers(0, clusters, (draws, clusters), dtype=np.intp)


def _extreme(
    totals: npt.NDArray[np.float64], observed: float, slack: float, side: Side
) -> npt.NDArray[np.bool_]:
    if side == "greater":
        return totals >= observed - slack
    if side == "less":
        return totals <= observed + slack
    return np.abs(totals) >= abs(observed) - slack
