"""One number over papers and benchmarks: the interquartile mean, with a stratified bootstrap.

    IQM       mean of the middle half of all (seed, benchmark) scores; int(N/4) cut at either end
    interval  percentiles over draws; in each draw every benchmark draws its own seeds anew

rliable's rule (Agarwal et al. 2021), with a generator of its own instead of numpy's global one.
With five seeds or fewer every point is printed beside it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from results.stats.intervals import Interval


def iqm(scores: npt.NDArray[np.float64]) -> float:
    """Interquartile mean of all entries."""
    flat = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    cut = len(flat) // 4
    return float(flat[cut : len(flat) - cut].mean())


def iqm_interval(
    scores: npt.NDArray[np.float64], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Of scores (S seeds, B benchmarks); seeds are drawn with replacement within a benchmark.

    Raises ValueError without seeds or benchmarks, or when a score is not finite.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError("the IQM needs finite scores of shape (seeds, benchmarks)")
    seeds, benchmarks = array.shape
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, seeds, (draws, seeds, benchmarks))
    drawn = np.take_along_axis(array[None], picks, axis=1).reshape(draws, -1)
    drawn.sort(axis=1)
    cut = drawn.shape[1] // 4
    means = drawn[:, cut : drawn.shape[1] - cut].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(iqm(array), float(low), float(high), level)
