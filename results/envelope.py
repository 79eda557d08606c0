"""The training envelope: does a new run learn as the reference seeds did, and did it collapse?

    band      mean ± t(.975, S-1) · s · √(1 + 1/S) over the reference seeds' curves
    checked   reward, accuracy, length and KL at 10, 25 and 50 % of the steps
    outside   after Holm over all checks of the run, so that a healthy run fails in 5 % of cases

A curve's value at a step is its mean over the last tenth of the run's whole length (never before
the first step): one step alone is mostly the luck of its prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from results.policy import Policy
from results.schema import LedgerError
from results.stats import Delta, Interval, holm, prediction_interval, training_delta

Word = Literal["inside", "outside", "no reference"]
Lines = Sequence[Mapping[str, Any]]  # of one metrics.jsonl, steps ascending

METRICS = ("reward", "accuracy", "length", "kl")
SHARES = (0.10, 0.25, 0.50)
WINDOW = 0.10  # of the planned steps, that a value is averaged over
_LEAST = 1e-9  # references that agree exactly still differ by rounding


@dataclass(frozen=True)
class Check:
    """One metric at one step: the run's value, the band of the references, p after Holm."""

    metric: str
    step: int
    value: float
    band: Interval
    p: float
    outside: bool


@dataclass(frozen=True)
class Envelope:
    """A new run held against its references."""

    word: Word
    reason: str
    seeds: int
    checks: tuple[Check, ...]
    alarms: Mapping[str, tuple[int, ...]]

    @property
    def outside(self) -> tuple[Check, ...]:
        """What left the band."""
        return tuple(check for check in self.checks if check.outside)


def check(lines: Lines, references: Sequence[Lines], steps: int, policy: Policy) -> Envelope:
    """Hold `lines`, perhaps of a run under way, against whole reference runs of `steps` steps.

    Only points that the run has reached are checked. Raises LedgerError when a reference run is
    shorter than `steps`, or measures none of the metrics.
    """
    raised = alarms(lines, policy)
    if len(references) < policy.minimum_seeds:
        reason = f"{len(references)} reference seeds, and a band needs {policy.minimum_seeds}"
        return Envelope("no reference", reason, len(references), (), raised)
    for reference in references:
        if not reference or reference[-1]["step"] < steps:
            raise LedgerError(f"a reference run ends before step {steps}")
    reached = lines[-1]["step"] if lines else 0
    points = [
        (metric, step)
        for metric in METRICS
        for step in (math.ceil(share * steps) for share in SHARES)
        if step <= reached and all(_has(each, metric) for each in (lines, *references))
    ]
    if not points:
        if any(all(_has(each, metric) for each in references) for metric in METRICS):
            return Envelope("inside", "no checked step reached yet", len(references), (), raised)
        raise LedgerError(f"the reference runs measure none of {', '.join(METRICS)}")
    found = [_check(lines, references, metric, step, steps, policy) for metric, step in points]
    adjusted = holm([check.p for check in found])
    checks = tuple(
        Check(c.metric, c.step, c.value, c.band, p, p < policy.alpha)
        for c, p in zip(found, adjusted, strict=True)
    )
    return _worded(checks, len(references), raised)


def band(
    references: Sequence[Lines], metric: str, step: int, steps: int, policy: Policy
) -> Interval:
    """Where a further run's value would lie at `step`."""
    return prediction_interval(_values(references, metric, step, steps), policy.level)


def alarms(lines: Lines, policy: Policy) -> dict[str, tuple[int, ...]]:
    """Steps at which each collapse alarm holds: as the trainer raised it, or by policy.yaml."""
    found: dict[str, list[int]] = {}
    for line in lines:
        names = {str(name) for name in line.get("alarms") or ()}
        for bound in policy.alarms:
            value = line.get(bound.metric)
            if value is not None and bound.broken(value):
                names.add(bound.name)
        for name in names:
            found.setdefault(name, []).append(line["step"])
    return {name: tuple(at) for name, at in sorted(found.items())}


def _check(
    lines: Lines, references: Sequence[Lines], metric: str, step: int, steps: int, policy: Policy
) -> Check:
    values = _values(references, metric, step, steps)
    own = _value(lines, metric, step, steps)
    delta = training_delta(values, own)
    delta = Delta(delta.estimate, max(delta.error, _LEAST), delta.df)
    wide = prediction_interval(values, policy.level)
    return Check(metric, step, own, wide, delta.p, False)


def _worded(checks: tuple[Check, ...], seeds: int, raised: dict[str, tuple[int, ...]]) -> Envelope:
    out = [check for check in checks if check.outside]
    if not out:
        last = max(check.step for check in checks)
        return Envelope("inside", f"inside the band up to step {last}", seeds, checks, raised)
    first = min(out, key=lambda check: check.step)
    reason = (
        f"{first.metric} is {first.value:.3g} at step {first.step}, the references predict "
        f"{first.band.low:.3g} to {first.band.high:.3g}"
    )
    return Envelope("outside", reason, seeds, checks, raised)


def _values(references: Sequence[Lines], metric: str, step: int, steps: int) -> list[float]:
    return [_value(lines, metric, step, steps) for lines in references]


def _value(lines: Lines, metric: str, step: int, steps: int) -> float:
    """Mean of `metric` over the window that ends at `step`."""
    first = step - max(1, math.ceil(WINDOW * steps)) + 1
    near = [
        line[metric]
        for line in lines
        if first <= line["step"] <= step and line.get(metric) is not None
    ]
    if not near:
        raise LedgerError(f"no {metric} between steps {max(1, first)} and {step}")
    return math.fsum(near) / len(near)


def _has(lines: Lines, metric: str) -> bool:
    return any(line.get(metric) is not None for line in lines)
