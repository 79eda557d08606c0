"""How good answers to masked-prediction questions are, by number of missing pictures, from the rows
of a run: what `repro eval` scores is `exact` alone.

A row's K is the length of its gold, its M stands in its family (`... K+l`). An answer that is not
valid has marks 0; rows that were never asked are left out and counted by their run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from evals.types import LOST
from repro.mvp.method import KIND
from repro.mvp.rewards import Marks, chance, marks, numbers

NAMES = ("valid", "sel", "ord", "exact")


class Row(Protocol):
    """What is read of a row, the ledger's or the evaluator's."""

    @property
    def kind(self) -> str: ...
    @property
    def gold(self) -> str: ...
    @property
    def prediction(self) -> str | None: ...
    @property
    def outcome(self) -> str: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Tier:
    """Mean marks of n replies to questions of K out of M pictures, and those of a guesser."""

    k: int
    m: int
    n: int
    found: Marks
    chance: Marks


def by_tier(rows: Iterable[Row]) -> list[Tier]:
    """Of the ordering questions among the rows, ascending."""
    tiers: dict[tuple[int, int], list[Marks]] = defaultdict(list)
    for row in rows:
        if row.kind != KIND or row.outcome in LOST:
            continue
        k, m, found = of_row(row)
        tiers[k, m].append(found)
    return [
        Tier(k, m, len(found), _mean(found), chance(k, m))
        for (k, m), found in sorted(tiers.items())
    ]


def of_row(row: Row) -> tuple[int, int, Marks]:
    """K, M and marks of one reply to an ordering question."""
    gold = numbers(row.gold)
    m = len(gold) + int(row.tags["family"].rpartition("+")[2])
    said = numbers(row.prediction) if row.prediction else None
    return len(gold), m, marks(said, gold, m)


def _mean(found: list[Marks]) -> Marks:
    return Marks(*(fmean(getattr(f, name) for f in found) for name in Marks.__dataclass_fields__))
