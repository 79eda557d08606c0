"""Two given sets of weights on the same questions: exact McNemar, and sign flips by video.

McNemar     of the discordant items, gained ~ Binomial(gained + lost, 1/2)
sign flip   P(|Σ ± y_video| ≥ |Σ y_video|)
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from results.stats import intervals
from results.stats.intervals import Clusters, Values, by_cluster

Side = Literal["two-sided", "greater", "less"]


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
    sums, _ = by_cluster(differences, clusters)
    rng = np.random.default_rng(seed)
    observed, slack = float(sums.sum()), 1e-12 * float(np.abs(sums).sum())
    extreme = done = 0
    while done < draws:
        size = min(draws - done, max(1, intervals.CELLS // len(sums)))
        totals = (rng.integers(0, 2, (size, len(sums))) * 2.0 - 1.0) @ sums
        extreme += int(_extreme(totals, observed, slack, side).sum())
        done += size
    return (extreme + 1) / (draws + 1)


def mcnemar_exact(gained: int, lost: int, side: Side = "two-sided") -> float:
    """Exact McNemar p: of the discordant items, `gained` ~ Binomial(gained + lost, 1/2)."""
    if gained < 0 or lost < 0:
        raise ValueError(f"counts of items cannot be negative: gained={gained}, lost={lost}")
    n = gained + lost
    smaller = {"two-sided": min(gained, lost), "greater": lost, "less": gained}[side]
    tail = sum(math.comb(n, i) for i in range(smaller + 1))
    p: float = (2 if side == "two-sided" else 1) * tail / 2**n
    return min(1.0, p)


def _extreme(
    totals: npt.NDArray[np.float64], observed: float, slack: float, side: Side
) -> npt.NDArray[np.bool_]:
    if side == "greater":
        return totals >= observed - slack
    if side == "less":
        return totals <= observed + slack
    return np.abs(totals) >= abs(observed) - slack
