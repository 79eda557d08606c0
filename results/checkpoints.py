"""Question C for two given checkpoints, no training behind the question: two released models.

    Δ          mean over questions of (mean of the K method re-scores - mean of the baseline's)
    interval   whole videos drawn with replacement
    p          exact McNemar where every video has one whole question, else sign flips by video
    holds      p < alpha and the interval above 0; reversed the mirror; else undecided

It says which of two given models is better here, never which method is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from results.claims import Claim, Word, comparable
from results.compare import paired_p
from results.ledger import Run
from results.policy import Policy
from results.stats import Interval, clustered_interval, t_quantile


def checkpoint_claim(
    method_runs: Sequence[Run],
    baseline_runs: Sequence[Run],
    policy: Policy,
    *,
    method: str,
    baseline: str,
) -> Claim:
    """Method minus baseline for the re-scores of two checkpoints; partial runs are left out.

    Of several protocols the first under which both were scored decides. Raises NotComparable when
    the two were asked different questions, or under no shared protocol.
    """
    sides = [_whole(runs) for runs in (method_runs, baseline_runs)]
    if not all(sides):
        missing = method if not sides[0] else baseline
        return Claim(method, baseline, "not run", f"no whole run of {missing}")
    keys = [{run.record.protocol_hash for run in runs} for runs in sides]
    shared = sorted(keys[0] & keys[1])
    chosen = shared[0] if shared else None
    left, right = (
        [run for run in runs if chosen in (None, run.record.protocol_hash)] for runs in sides
    )
    comparable([*left, *right])
    clusters = left[0].items.clusters
    delta = _mean(left) - _mean(right)
    interval = clustered_interval(delta, clusters, policy.level, policy.draws, policy.draw_seed)
    p, test = paired_p(delta, clusters, policy)
    word: Word = "undecided"
    if p < policy.alpha and (interval.above or interval.below):
        word = "holds" if interval.above else "reversed"
    return Claim(
        method=method,
        baseline=baseline,
        word=word,
        reason=_reason(word, interval, p, test, len(delta), policy),
        delta=float(delta.mean()),
        item_interval=interval,
        items=len(delta),
        clusters=len(set(clusters.tolist())),
        p=p,
        test=test,
    )


def _whole(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if not run.record.partial and not run.probe]


def _mean(runs: Sequence[Run]) -> npt.NDArray[np.float64]:
    scores: npt.NDArray[np.float64] = np.mean([run.items.scores for run in runs], axis=0)
    return scores


def _reason(word: Word, interval: Interval, p: float, test: str, n: int, policy: Policy) -> str:
    """What decided, or how many questions like these would, at the policy's power."""
    shown = f"{test} p = {p:.1g}" if p >= 1e-4 else f"{test} p < 0.0001"
    if word != "undecided":
        return shown
    effect, half = abs(interval.estimate), interval.half_width
    if effect == 0 or not math.isfinite(half):
        return f"{shown}; no number of questions would decide"
    z, power = t_quantile((1 + policy.level) / 2, math.inf), t_quantile(policy.power, math.inf)
    needed = math.ceil(n * ((z + power) / z * half / effect) ** 2)
    return f"{shown}; about {needed:,} such questions would decide"
