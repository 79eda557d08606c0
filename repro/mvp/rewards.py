"""Rewards of masked video prediction: an ordered choice of K out of M candidates (mvp.md 11.3).

G = (g_1 .. g_K) is the true order, y the reply's. y is valid when it has exactly K entries, all
different, all in 1 .. M; anything else earns nothing, or listing every candidate would pay.

    sel   = |y & G| / K
    ord   = pairs of hits in the right order / (K (K - 1) / 2); K = 1: sel
    exact = 1 if y = G, else 0

| rule     | reward of a valid answer, in [0, 1]                                    |
|----------|------------------------------------------------------------------------|
| `graded` | 0.3 sel + 0.3 ord + 0.4 exact                                          |
| `exact`  | exact                                                                  |
| `slot`   | share of places that hold the right frame                              |
| `lcs`    | longest common subsequence / K                                         |
| `vj`     | 1 if exact, else 0.2 slot, the graded rule of Visual Jigsaw            |

The paper's own formula was not available: all is chosen, the weights are switches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

from evals.errors import BadInput
from evals.extract import Answer, extract, first_block, read
from repro.mvp.switches import Rule, Weights

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class Marks:
    """How good an answer is, each in [0, 1]; all 0 where it is not valid."""

    valid: float = 0.0
    sel: float = 0.0
    ord: float = 0.0
    exact: float = 0.0
    slot: float = 0.0
    lcs: float = 0.0


def parse(reply: str) -> tuple[int, ...] | None:
    """The numbers in the last answer block outside the thinking; None where there are none.

    Read as evaluation reads them (evals.extract, kind `ordering`, grader `strict`).
    """
    answer = extract(reply, "ordering", "strict")
    return numbers(answer.value) if isinstance(answer, Answer) else None


def numbers(text: str) -> tuple[int, ...]:
    """`3, 7, 1` -> (3, 7, 1), a gold. Raises BadInput."""
    answer = read(text, "ordering")
    if not isinstance(answer, Answer):
        raise BadInput(f"{text!r} is no ordering: {answer.reason}")
    return tuple(map(int, answer.value.split(", ")))


def marks(said: Sequence[int] | None, gold: Sequence[int], candidates: int) -> Marks:
    """Marks of an answer; gold: K different numbers in 1 .. candidates. Raises BadInput."""
    k = len(gold)
    if not k or len(set(gold)) < k or not all(1 <= g <= candidates for g in gold):
        raise BadInput(f"gold {list(gold)} is no ordered choice from 1 .. {candidates}")
    if said is None or len(said) != k or len(set(said)) < k:
        return Marks()
    if not all(1 <= y <= candidates for y in said):
        return Marks()
    rank = {g: i for i, g in enumerate(gold)}
    hits = [rank[y] for y in said if y in rank]
    pairs = sum(a < b for i, a in enumerate(hits) for b in hits[i + 1 :])
    sel = len(hits) / k
    return Marks(
        valid=1.0,
        sel=sel,
        ord=pairs / (k * (k - 1) / 2) if k > 1 else sel,
        exact=float(tuple(said) == tuple(gold)),
        slot=sum(a == b for a, b in zip(said, gold, strict=True)) / k,
        lcs=_rising(hits) / k,
    )


def _rising(ranks: Sequence[int]) -> int:
    """Length of the longest rising subsequence: the common one of answer and gold."""
    best: list[int] = []
    for i, rank in enumerate(ranks):
        best.append(1 + max((best[j] for j in range(i) if ranks[j] < rank), default=0))
    return max(best, default=0)


def parts(found: Marks, rule: Rule, weights: Weights) -> dict[str, float]:
    """The reward's parts for one answer, weighted: their sum is the reward but for its form."""
    if rule == "graded":
        shares = {
            "selection": weights.selection * found.sel,
            "order": weights.order * found.ord,
            "exact": weights.exact * found.exact,
        }
    else:
        shares = {rule: found.exact or 0.2 * found.slot} if rule == "vj" else {
            rule: getattr(found, rule)
        }  # fmt: skip
    return {name: weights.answer * share for name, share in shares.items()}


def form(completion: str) -> float:
    """1.0 iff the completion, but for white space around it, is one think block followed by one
    answer block, each tag once."""
    from repro.core.rewards import format_reward  # torch, which reading a recipe does without

    once = all(completion.count(tag) == 1 for tag in _TAGS)
    return format_reward(completion.strip()) if once else 0.0


def ordering_reward(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None = None,
    *,
    solution: Sequence[str],
    candidates: Sequence[int],
    rule: Rule = "graded",
    weights: Weights = Weights(),  # noqa: B008  (frozen)
    **columns: Any,
) -> list[float]:
    """The whole reward per completion, in TRL's signature; solution: `<answer>3, 1</answer>`."""
    from repro.core.rewards import completion_text

    rewards = []
    for completion, gold, m in zip(completions, solution, candidates, strict=True):
        text = completion_text(completion)
        found = marks(parse(text), numbers(first_block(gold) or ""), m)
        rewards.append(sum(parts(found, rule, weights).values()) + weights.form * form(text))
    return rewards


def chance(k: int, candidates: int) -> Marks:
    """Expected marks of a random valid answer (mvp.md 2.2), `lcs` left at 0: it has no short form.

    P(exact) = (M - K)! / M!, E sel = K / M, E slot = 1 / M, E ord = K (K - 1) / (2 M (M - 1)).
    """
    m = candidates
    both = k * (k - 1) / (2 * m * (m - 1)) if k > 1 else k / m
    return Marks(1.0, k / m, both, factorial(m - k) / factorial(m), 1 / m)
