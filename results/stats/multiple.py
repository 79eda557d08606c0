"""Several tests at once.

Holm                 p(i) · (m - i + 1), made monotone: no false alarm among m with 1 - a
Benjamini-Hochberg   p(i) · m / i, made monotone: share of false discoveries at most q
intersection-union   all of m claims: the largest p, uncorrected
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values in the order given; reject where the adjusted value is below alpha."""
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(_ascending(p)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p values (q values) in the order given."""
    adjusted = [0.0] * len(p)
    smallest = 1.0
    for rank, index in reversed(list(enumerate(_ascending(p), 1))):
        smallest = min(smallest, p[index] * len(p) / rank)
        adjusted[index] = smallest
    return adjusted


def intersection_union(p: Sequence[float]) -> float:
    """p of "every claim holds": each must be shown at the full level. Raises without a claim."""
    return max(_checked(p))


def _ascending(p: Sequence[float]) -> list[int]:
    _checked(p)
    return sorted(range(len(p)), key=p.__getitem__)


def _checked(p: Sequence[float]) -> Sequence[float]:
    if not p or not all(0 <= value <= 1 for value in p):
        raise ValueError("p values lie in 0..1, and at least one is needed")
    return p
