"""Printed numbers as data: what a paper says it measured, with its unit, protocol and source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

Role = Literal["method", "baseline", "ablation", "other"]
Unit = Literal["percent", "fraction", "points"]
Verified = Literal[
    "paper", "readme", "authors_table_image", "authors_data", "figure_estimate", "third_party"
]
Setting = str | int | float

ROLES: tuple[Role, ...] = ("method", "baseline", "ablation", "other")
GREEN: tuple[Verified, ...] = ("paper", "readme", "authors_table_image", "authors_data")
VERIFIED: tuple[Verified, ...] = (*GREEN, "figure_estimate", "third_party")
#: What a printed value of each unit is divided by, and the largest that makes sense.
UNITS: Mapping[Unit, int] = {"percent": 100, "fraction": 1, "points": 100}
UNSTATED = "unstated"
NOT_APPLICABLE = "not applicable"  # a field that does not exist for a benchmark, and is left out
#: The protocol fields of a reported number: each a value or `unstated`.
FIELDS = ("frames", "max_pixels", "prompt", "temperature", "subtitles", "subset", "grader")
#: Metrics computed from other printed numbers: kept, but they measure nothing of their own.
DERIVED = ("relative_gain_vs_start", "point_difference")


@dataclass(frozen=True)
class Baseline:
    """The strongest of the paper's own baselines on a benchmark: name, number as printed, id."""

    name: str
    printed: str
    fraction: float
    id: str

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.printed)


@dataclass(frozen=True)
class Model:
    """A printed name: its part in the paper, the recipe's arm and public weights, where there are.

    baseline_of: the arms that the paper compares it with.
    """

    name: str
    role: Role
    size: str | None = None
    arm: str | None = None
    weights: str | None = None
    baseline_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reported:
    """One printed number; what results.verdict.decide compares a run with.

    n: questions of the public set behind it, None where unknown. category: a part of the
    benchmark, such as a question type. baseline: the strongest of the paper's own there.
    """

    paper: str
    table: str
    model: Model
    benchmark: str
    category: str | None
    metric: str
    printed: str
    unit: Unit
    n: int | None
    protocol: Mapping[str, Setting]
    source: str
    verified: Verified
    checked: date
    registered: bool
    baseline: Baseline | None = None
    note: str = ""

    @property
    def id(self) -> str:
        """paper/table/model[@frames]/benchmark[.category]/metric, unique."""
        frames = self.protocol.get("frames", UNSTATED)
        at = "" if isinstance(frames, str) else f"@{frames}"
        part = f".{slug(self.category)}" if self.category else ""
        name = f"{self.paper}/{self.table}/{slug(self.model.name)}{at}"
        return f"{name}/{self.benchmark}{part}/{slug(self.metric)}"

    @property
    def arm(self) -> str | None:
        """The recipe's arm, None where no recipe has it."""
        return self.model.arm

    @property
    def value(self) -> float:
        """The number as printed, in `unit`."""
        return float(self.printed)

    @property
    def decimals(self) -> int:
        """Printed digits after the point."""
        return len(self.printed.partition(".")[2])

    @property
    def fraction(self) -> float:
        """The number on the ledger's scale, 0..1 for a score."""
        return float(Decimal(self.printed) / UNITS[self.unit])

    @property
    def half_digit(self) -> float:
        """Half a unit of the last printed digit, as a fraction: h in the error of a re-score."""
        return float(Decimal(5).scaleb(-self.decimals - 1) / UNITS[self.unit])

    @property
    def may_turn_green(self) -> bool:
        """Whether the source is good enough for the word `reproduced`."""
        return self.verified in GREEN

    @property
    def derived(self) -> bool:
        """Computed by the paper from other numbers in this file."""
        return self.metric in DERIVED


@dataclass(frozen=True)
class Diagnostic:
    """A printed number that is no score: a share, a norm, hours. `unit` is free text."""

    table: str
    item: str
    printed: str
    unit: str
    n: int | None
    source: str
    verified: Verified
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A training curve of the paper: points (step, value)."""

    name: str
    points: tuple[tuple[float, float], ...]
    source: str
    verified: Verified
    note: str = ""


@dataclass(frozen=True)
class About:
    """What a paper's file says of a benchmark: n and where it is from, protocol fields, a note."""

    n: int | None = None
    source: str = ""
    protocol: Mapping[str, Setting] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper with everything it printed that could be had. status: what could not, and why."""

    id: str
    title: str
    arxiv: str
    repository: str | None
    commit: str | None
    checked: date
    status: str
    missing: tuple[str, ...]
    about: Mapping[str, About]
    numbers: tuple[Reported, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    curves: tuple[Curve, ...] = ()

    @property
    def told(self) -> str:
        """`status`, and of a paper without any number the tables that can't be run against."""
        if self.numbers or not self.missing:
            return self.status
        return f"{self.status} Not run, not available: {', '.join(self.missing)}."


def slug(text: str) -> str:
    """Lower case, everything but letters, digits, dots and signs as one dash."""
    return re.sub(r"[^a-z0-9.@+]+", "-", text.lower()).strip("-")
