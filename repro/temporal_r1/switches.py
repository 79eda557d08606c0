"""Temporal-R1's own switches: which reward terms count, on which records, and whose standard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from repro import recipe


@dataclass(frozen=True)
class Terms:
    """Weight of each reward term. 0 turns a term off: `accuracy` is the semantic reward, `tiou` the
    temporal one; `form` is earned by every kind of question. Of a grounded question the released
    weights give half to each content term (repro.temporal_r1.rewards)."""

    accuracy: float
    tiou: float
    form: float


@dataclass(frozen=True, kw_only=True)
class Switches(recipe.Switches):
    """reading: how a completion is read and its form judged (repro.temporal_r1.rewards). terms:
    factors of the preset's own weights. records: all; those that `repro data select` kept
    (selected.ids); or as many of every family and kind, drawn at random under the seed.
    """

    reading: Literal["released", "paper"]
    terms: Terms
    records: Literal["all", "selected", "random"]

    methods: ClassVar[tuple[str, ...]] = ("temporal_r1", "sft")
