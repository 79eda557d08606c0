"""Video-KTR's own switches: where the paper and its released code differ on which tokens count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from repro import recipe
from repro.recipe import LengthBonus


@dataclass(frozen=True)
class Ratios:
    """Share of tokens each signal selects; 0 turns the signal off, 1 keeps every token."""

    entropy: float
    visual: float
    temporal: float


@dataclass(frozen=True, kw_only=True)
class Switches(recipe.Switches):
    """sign: of the visual and temporal scores. scope: tokens compete within a completion or within
    the group. rule: exact top ceil(r n), or every score at or above the (1 - r) quantile.
    at_least_one: a completion that no signal selects from keeps its best token. The shared ones
    have no default here: each is a difference between paper and code.
    """

    sign: Literal["absolute", "signed"]
    scope: Literal["completion", "group"]
    rule: Literal["top", "quantile"]
    at_least_one: bool
    ratios: Ratios
    precision: Literal["fp32", "model"] = field()
    masked_positions: Literal["kept", "collapsed"] = field()
    shuffle: Literal["frame", "group"] = field()
    identity: Literal["excluded", "allowed"] = field()
    normaliser: Literal["valid", "selected"] = field()
    kl_on: Literal["selected", "valid"] = field()
    length_bonus: LengthBonus = field()

    methods: ClassVar[tuple[str, ...]] = (*recipe.Switches.methods, "ktr", "random")

    def passes(self, method: str) -> frozenset[str]:
        """Of the signals that are on; the random control counts what KTR would keep."""
        ratios = {"visual": self.ratios.visual, "temporal": self.ratios.temporal}
        wanted = frozenset(name for name, ratio in ratios.items() if ratio > 0)
        return wanted if method in ("ktr", "random") else frozenset()
