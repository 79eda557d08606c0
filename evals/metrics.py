"""Scores of answers and means of scores.

| metric             | formula                                                                  |
|--------------------|--------------------------------------------------------------------------|
| MRA                | share of t in {0.50, 0.55, .., 0.95} with |p - g| / |g| <= 1 - t         |
| tIoU               | overlap / union of two time intervals                                    |
| R@m                | share of questions with tIoU >= m                                        |
| pass@k             | 1 - C(n - c, k) / C(n, k), n replies of which c are right                |
| avg@k              | mean over questions of the mean over k replies                           |
| WER                | word edits / words of the truth                                          |
| ROUGE              | mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, stemmed                         |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from evals.errors import BadInput
from evals.extract import Answer, Unparsed, plain_float, read

Interval = tuple[float, float]


def grade(
    answer: Answer | Unparsed,
    gold: str,
    kind: str,
    options: Sequence[str] = (),
    iou: float = 0.5,
    grader: str = "reelproof",
) -> float:
    """Score in [0, 1] of an extracted answer; `Unparsed` scores 0.

    Letters must be equal; numerical answers equal after rounding to 2 decimals; regression is
    MRA; OCR is 1 - WER; free-form is ROUGE; an interval counts if tIoU >= iou; grounded qa needs
    letter and interval. `video-r1` scores as the released evaluator does (`grade_video_r1`).
    Raises BadInput for a gold that cannot be read.
    """
    if isinstance(answer, Unparsed):
        return 0.0
    if grader == "video-r1" and kind not in ("temporal grounding", "grounded qa"):
        return grade_video_r1(answer.value, gold.strip(), kind)
    truth = read(gold, kind, options)
    if isinstance(truth, Unparsed):
        raise BadInput(f"gold {gold!r} of a {kind} question cannot be read: {truth.reason}")
    if kind == "numerical":
        return float(_rounded(answer) == _rounded(truth))
    if kind == "regression":
        return mra(_number(answer), _number(truth), "official")
    if kind == "OCR":
        return max(0.0, 1.0 - word_error_rate(truth.value, answer.value))
    if kind == "free-form":
        return rouge(truth.value, answer.value)
    right = kind == "temporal grounding" or answer.letter == truth.letter
    if kind == "multiple choice":
        return float(right)
    return float(right and tiou(_span(answer), _span(truth)) >= iou)


def grade_video_r1(said: str, gold: str, kind: str) -> float:
    """The released evaluator of the Video-R1 family (ktr.md 4.1) on two stripped strings.

    Exact letter; numerical behind the decimal gate; MRA with strict `<`; everything else 0.
    """
    if kind == "multiple choice":
        return float(said == gold)
    if kind == "numerical":
        return float(same_number_video_r1(said, gold))
    if kind == "regression":
        prediction, truth = plain_float(said), plain_float(gold)
        if truth is None:
            raise BadInput(f"gold {gold!r} of a regression question is not a number")
        return 0.0 if prediction is None else mra(prediction, truth, "video-r1")
    return 0.0


def same_number_video_r1(said: str, gold: str) -> bool:
    """Equal after removing commas and rounding to 2 decimals, but only if both strings or
    neither contain "." or "," ("3.0" is not "3"). Text that is no number equals nothing.
    """
    if any(c in said for c in ".,") != any(c in gold for c in ".,"):
        return False
    a, b = plain_float(said), plain_float(gold)
    return a is not None and b is not None and round(a, 2) == round(b, 2)


def _number(answer: Answer) -> float:
    assert answer.number is not None, "numerical answers carry a number"
    return answer.number


def _rounded(answer: Answer) -> float:
    return round(_number(answer), 2)


def _span(answer: Answer) -> Interval:
    assert answer.interval is not None, "grounded answers carry an interval"
    return answer.interval


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
