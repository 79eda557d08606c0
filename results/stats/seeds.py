"""Training seeds as units: intervals of a mean, of a further run, and how many seeds would do.

mean of S differences   mean ± t(1-a/2, S-1) · s / √S
a further run           mean ± t(1-a/2, df) · s · √(1 + 1/S)
pooled s                √(Σ (S_c - 1) s_c² / Σ (S_c - 1)),  df = Σ (S_c - 1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from results.stats.intervals import Delta, Interval, Values, t_quantile, vector


@dataclass(frozen=True)
class Spread:
    """Standard deviation between training seeds, and the degrees of freedom behind it."""

    s: float
    df: float


def seed_interval(differences: Values, level: float = 0.95) -> Interval:
    """t interval of the mean of S paired seed differences (statistics of a trained method).

    One seed has no spread, so its interval is infinite. Raises ValueError without seeds.
    """
    values = vector(differences)
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, -math.inf, math.inf, level)
    half = t_quantile((1 + level) / 2, count - 1) * _spread(values) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, level)


def seed_p(differences: Values) -> float:
    """Two-sided p of "the mean over seeds is 0" (one-sample t); 1 for a single seed."""
    values = vector(differences)
    if len(values) == 1:
        return 1.0
    mean = math.fsum(values) / len(values)
    return Delta(mean, _spread(values) / math.sqrt(len(values)), len(values) - 1).p


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
    values = vector(differences)
    if len(values) < 2:
        return None
    mean, spread = abs(math.fsum(values) / len(values)), _spread(values)
    for count in range(max(2, minimum), limit + 1):
        factor = t_quantile((1 + level) / 2, count - 1) + t_quantile(power, count - 1)
        if mean > 0 and mean >= factor * spread / math.sqrt(count):
            return count
    return None


def pooled_spread(groups: Sequence[Values]) -> Spread | None:
    """s over several cells, each with its own mean; None when no cell has two seeds."""
    arrays = [vector(group) for group in groups]
    df = sum(len(array) - 1 for array in arrays)
    if df == 0:
        return None
    squares = math.fsum(float(((array - array.mean()) ** 2).sum()) for array in arrays)
    return Spread(math.sqrt(squares / df), df)


def training_delta(scores: Values, reported: float, spread: Spread | None = None) -> Delta:
    """Mean over S seeds minus one printed run, which is itself one draw: SE = s √(1 + 1/S).

    spread: pooled over the ledger, or a registered prior; without it the seeds' own. One seed
    without a spread has no degrees of freedom.
    """
    values = vector(scores)
    if spread is None:
        spread = Spread(_spread(values) if len(values) > 1 else 0.0, len(values) - 1)
    mean = math.fsum(values) / len(values)
    return Delta(mean - reported, spread.s * math.sqrt(1 + 1 / len(values)), spread.df)


def prediction_interval(
    scores: Values, level: float = 0.95, spread: Spread | None = None
) -> Interval:
    """Where a further run would fall (CORE-Bench's rule); infinite for one seed alone."""
    return training_delta(scores, 0.0, spread).interval(level)


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Unbiased standard deviation."""
    return float(values.std(ddof=1))
