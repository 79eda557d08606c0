"""The rules of a verdict, read strictly from policy.yaml: every value names its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: Numbers of policy.yaml and their type; 0.01 is one percentage point.
NUMBERS: Mapping[str, type] = {
    "alpha": float,
    "minimum_runs": int,
    "minimum_seeds": int,
    "power": float,
    "draws": int,
    "draw_seed": int,
    "margin_share": float,
    "margin_lowest": float,
    "margin_highest": float,
    "lost_share": float,
    "training_spread": float,
    "gate_alpha": float,
    "gate_drop": float,
}


@dataclass(frozen=True)
class Registered:
    """A comparison fixed before the runs. families: only questions of these, by the family's first
    word; none for all. A baseline `cold` is the checkpoint that training started from."""

    paper: str
    method: str
    baseline: str
    source: str
    families: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bound:
    """A collapse alarm: raised in a step whose `metric` lies below or above its bound."""

    name: str
    metric: str
    below: float | None
    above: float | None
    source: str

    def broken(self, value: float) -> bool:
        """Whether the alarm is raised."""
        low, high = self.below, self.above
        return (low is not None and value < low) or (high is not None and value > high)


@dataclass(frozen=True)
class Policy:
    """The rules; `sources` says where each number comes from.

    minimum_runs: re-scores K that count (question E). minimum_seeds: trained seeds S that count.
    margin_*: share of the claimed gain, and the limits of a margin. lost_share: undecodable or
    timed-out questions above which a run may fail. training_spread: prior s.d. between seeds.
    gate_alpha, gate_drop: both conditions of the regression gate.
    """

    alpha: float
    minimum_runs: int
    minimum_seeds: int
    power: float
    draws: int
    draw_seed: int
    margin_share: float
    margin_lowest: float
    margin_highest: float
    lost_share: float
    training_spread: float
    gate_alpha: float
    gate_drop: float
    claims: tuple[Registered, ...]
    alarms: tuple[Bound, ...]
    sources: Mapping[str, str]

    @property
    def level(self) -> float:
        """Confidence level of the intervals."""
        return 1 - self.alpha

    @property
    def equivalence_level(self) -> float:
        """Level of the interval that lies inside the margin when TOST succeeds at alpha."""
        return 1 - 2 * self.alpha

    def margin(self, gain: float) -> float:
        """Margin for a printed `gain` over the paper's strongest baseline, all as fractions:
        half of it, clipped, so that inside it more than half of the claim survives."""
        return min(self.margin_highest, max(self.margin_lowest, self.margin_share * abs(gain)))


def load_policy(path: Path | None = None) -> Policy:
    """policy.yaml, strictly: every value has a source, unknown and missing keys are errors."""
    path = path or Path(__file__).with_name("policy.yaml")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    _expect(data, {*NUMBERS, "claims", "alarms"}, str(path))
    for name, kind in NUMBERS.items():
        _expect(data[name], {"value", "source"}, f"{path}: {name}")
        if type(data[name]["value"]) is not kind:
            raise ValueError(f"{path}: {name}.value must be {kind.__name__}")
    for entry in data["claims"]:
        also = {"families"} & set(entry) if isinstance(entry, dict) else set()
        _expect(entry, {"paper", "method", "baseline", "source", *also}, f"{path}: claims")
    return Policy(
        **{name: data[name]["value"] for name in NUMBERS},
        claims=tuple(
            Registered(**{**entry, "families": tuple(entry.get("families", ()))})
            for entry in data["claims"]
        ),
        alarms=tuple(_bound(name, entry, str(path)) for name, entry in data["alarms"].items()),
        sources={name: data[name]["source"] for name in NUMBERS},
    )


def _bound(name: str, entry: Any, where: str) -> Bound:
    side = {"below", "above"} & set(entry) or {"below"}
    _expect(entry, {"metric", "source", *side}, f"{where}: alarms.{name}")
    return Bound(name, entry["metric"], entry.get("below"), entry.get("above"), entry["source"])


def _expect(data: Any, keys: set[str], where: str) -> None:
    if not isinstance(data, dict) or set(data) != keys:
        found = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{where} must have exactly {sorted(keys)}, found {found}")
