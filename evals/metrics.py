"""Scores of answers and means of scores.

| metric             | formula                                                                  |
|--------------------|--------------------------------------------------------------------------|
| MRA                | share of t in {0.50, 0.55, .., 0.95} with |p - g| / |g| <= 1 - t         |
| tIoU               | overlap / union of two time intervals                                    |
| IoP                | overlap / length of the predicted interval                               |
| R@m                | share of questions with tIoU >= m                                        |
| knowledge gain     | (after - before) / (1 - before), two accuracies                          |
| pass@k             | 1 - C(n - c, k) / C(n, k), n replies of which c are right                |
| avg@k              | mean over questions of the mean over k replies                           |
| WER                | word edits / words of the truth                                          |
| ROUGE              | mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, stemmed                         |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

Interval = tuple[float, float]


# --- one answer --------------------------------------------------------------------------------


def mra(prediction: float, truth: float, rule: Literal["official", "video-r1"]) -> float:
    """Mean relative accuracy, in [0, 1]; the ten thresholds of VSI-Bench (benchmarks.md 2.7).

    official: float64 and `<=`, relative to |truth|; with truth 0 only an exact hit scores
    (chosen: the owner's code divides by zero). video-r1: float32, `<`, 1e-8 added to |truth|.
    A prediction that is not finite scores 0. Raises ValueError for a truth that is not finite.
    """
    if not math.isfinite(truth):
        raise ValueError(f"truth must be finite, got {truth}")
    if not math.isfinite(prediction):
        return 0.0
    thresholds = np.linspace(0.5, 0.95, 10)
    if rule == "official":
        error = abs(prediction - truth)
        relative = error / abs(truth) if truth else (math.inf if error else 0.0)
        return float(np.mean(relative <= 1 - thresholds))
    if rule == "video-r1":
        # What float32 cannot hold becomes inf or nan, which meets no threshold.
        with np.errstate(over="ignore", invalid="ignore"):
            p, g = np.float32(prediction), np.float32(truth)
            relative32 = np.abs(p - g) / (np.abs(g) + np.float32(1e-8))
        return float(np.mean(relative32 < np.float32(1) - thresholds.astype(np.float32)))
    raise ValueError(f"unknown MRA rule {rule!r}; known: official, video-r1")


def tiou(a: Interval, b: Interval) -> float:
    """Temporal IoU of two intervals `(start, end)`, symmetric, in [0, 1].

    An interval that is reversed, of zero length or not finite is empty, and so is the overlap
    with it: 0.0, also against itself. Where two intervals overlap, their union is their hull.
    """
    if not all(map(math.isfinite, (*a, *b))):
        return 0.0
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    return overlap / (max(a[1], b[1]) - min(a[0], b[0])) if overlap > 0 else 0.0


def iop(prediction: Interval, truth: Interval) -> float:
    """Intersection over the length of the prediction, in [0, 1] (NExT-GQA).

    A prediction of zero length inside the truth counts 1, as in the owner's routine; one that is
    reversed or not finite counts 0.
    """
    if not all(map(math.isfinite, (*prediction, *truth))):
        return 0.0
    length = prediction[1] - prediction[0]
    if length == 0:
        return float(truth[0] <= prediction[0] <= truth[1])
    overlap = min(prediction[1], truth[1]) - max(prediction[0], truth[0])
    return min(overlap / length, 1.0) if length > 0 and overlap > 0 else 0.0


def golds(gold: str, kind: str) -> tuple[str, ...]:
    """The right answers in a gold text: for the two grounded kinds `A [1, 2] or [5, 9]` holds
    `A [1, 2]` and `A [5, 9]`; any other gold is one.
    """
    if kind not in ("temporal grounding", "grounded qa"):
        return (gold,)
    head, bracket, rest = gold.partition("[")
    return tuple(f"{head}{part}" for part in f"{bracket}{rest}".split(" or "))


def best(
    measure: Callable[[Interval, Interval], float], prediction: Interval, truths: Sequence[Interval]
) -> float:
    """The highest value over the true windows. Raises ValueError when there are none."""
    return max(measure(prediction, truth) for truth in truths)


def word_error_rate(truth: str, said: str) -> float:
    """Word edits (insert, delete, replace) that turn `said` into `truth`, over max(1, words of
    truth); words are separated by white space. 0 is perfect, there is no upper bound.
    """
    reference, words = truth.split(), said.split()
    row = list(range(len(words) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(words, 1):
            replaced = diagonal + (word != expected)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, replaced)
    return row[-1] / max(1, len(reference))


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score import rouge_scorer  # type: ignore[import-untyped,unused-ignore]

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def rouge(truth: str, said: str) -> float:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L with stemming, in [0, 1] (package rouge-score)."""
    scores = _rouge_scorer().score(truth, said)
    return float(sum(score.fmeasure for score in scores.values()) / len(scores))


# --- many answers ------------------------------------------------------------------------------


def recall_at(ious: Sequence[float], threshold: float) -> float:
    """Share of tIoU values >= threshold (R1@m). Raises ValueError when there are none."""
    return mean([float(iou >= threshold) for iou in ious])


def knowledge_gain(after: float, before: float) -> float:
    """Share of what was not known before that was learnt: (after - before) / (1 - before).

    Two accuracies in [0, 1]; Video-MMMU prints 100 times this. With nothing left to learn it is
    0.0 (chosen: the owner's formula divides by zero).
    """
    return (after - before) / (1 - before) if before < 1 else 0.0


def mean(scores: Sequence[float]) -> float:
    """Plain mean; raises ValueError when there is nothing to average."""
    if not scores:
        raise ValueError("the mean of no scores is not a number to report")
    return math.fsum(scores) / len(scores)


def macro_mean(groups: Mapping[str, Sequence[float]]) -> float:
    """Mean of the groups' means, each group counting once. Raises ValueError if any is empty."""
    return mean([mean(scores) for scores in groups.values()])


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of n replies, drawn without replacement, hold one of the c right ones:
    the unbiased estimator of pass@k (Chen et al. 2021, equation 1). Needs 0 <= c <= n, 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def avg_at_k(scores: Sequence[Sequence[float]]) -> float:
    """Mean over questions of the mean score of their k replies.

    scores: one sequence of k scores per question. Raises ValueError if the numbers of replies
    differ: a question with missing replies would weigh its remaining ones more.
    """
    if len({len(replies) for replies in scores}) > 1:
        raise ValueError("avg@k needs the same number of replies for every question")
    return mean([mean(replies) for replies in scores])
