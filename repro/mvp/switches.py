"""MVP's own switches; the body of the paper was not available, so all defaults are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from repro import recipe

Rule = Literal["graded", "exact", "slot", "lcs", "vj"]


@dataclass(frozen=True)
class Weights:
    """Of the parts of a reward: selection, order and exact share `answer`; `form` is the format's.

    Each is 0 or more; a right answer in the right form earns
    answer (selection + order + exact) + form.
    """

    selection: float = 0.3
    order: float = 0.3
    exact: float = 0.4
    answer: float = 0.9
    form: float = 0.1


@dataclass(frozen=True)
class Curriculum:
    """Which numbers K of missing frames are asked for, one tier after the other.

    tiers: ascending K. steps: of training per tier; the last one stays. carry: share of the prompts
    that still come from the tier before.
    """

    tiers: tuple[int, ...] = (2, 3, 4)
    steps: int = 150
    carry: float = 0.2

    def __post_init__(self) -> None:
        """Raises ValueError for a curriculum that no run could follow."""
        if not self.tiers or list(self.tiers) != sorted(set(self.tiers)) or self.tiers[0] < 1:
            raise ValueError(f"tiers must be ascending numbers from 1, not {self.tiers}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if not 0 <= self.carry < 1:
            raise ValueError(f"carry must lie in [0, 1), not {self.carry}")


@dataclass(frozen=True, kw_only=True)
class Switches(recipe.Switches):
    """rule: of the reward; `graded` is sel + ord + exact, the others are alternatives to compare
    with (repro.mvp.rewards). share: of masked-prediction prompts in a step, the rest is question
    answering; 0 trains on questions alone.
    """

    rule: Rule = "graded"
    weights: Weights = Weights()
    curriculum: Curriculum = Curriculum()
    share: float = 0.5

    methods: ClassVar[tuple[str, ...]] = (*recipe.Switches.methods, "mvp")

    def pictured(self, method: str) -> float:
        """The share of masked prediction."""
        return self.share if method == "mvp" else 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for a share that is none, and for a bonus that no reward here has."""
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], not {self.share}")
        if self.length_bonus.bonus:
            raise ValueError("mvp has no length bonus; set length_bonus.bonus: 0")
