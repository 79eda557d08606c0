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
RATE = "learning_rate"
LIKE = 0.10  # a reference's learning rate may be off by this share at a checked step (chosen)
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
    """Hold `lines`, perhaps of a run under way, against reference runs.

    steps: that the run is planned for; its shares are of these, so a reference may be longer.
    Only points that the run and every reference have reached are checked, and only where their
    learning rates agree within a tenth: another schedule learns otherwise. Raises LedgerError when
    a reference is not measured near a point.
    """
    raised = alarms(lines, policy)
    seeds = len(references)
    if seeds < policy.minimum_seeds:
        reason = f"{seeds} reference seeds, and a band needs {policy.minimum_seeds}"
        return Envelope("no reference", reason, seeds, (), raised)
    metrics = [m for m in METRICS if all(_has(each, m) for each in references)]
    if not metrics:  # supervised fine-tuning has no rewards
        reason = f"the references measure none of {', '.join(METRICS)}"
        return Envelope("no reference", reason, seeds, (), raised)
    at = points(steps)
    known = [s for s in at if all(each[-1]["step"] >= s for each in references)]
    alike = [s for s in known if _same_rate(lines, references, s, steps)]
    if not alike:
        why = "trained with another learning rate" if known else f"end before step {at[0]}"
        return Envelope("no reference", f"the references {why}", seeds, (), raised)
    reached = lines[-1]["step"] if lines else 0
    found = [
        _check(lines, references, metric, step, steps, policy)
        for metric in metrics
        if _has(lines, metric)
        for step in alike
        if step <= reached
    ]
    if not found:
        return Envelope("inside", "no checked step reached yet", seeds, (), raised)
    adjusted = holm([check.p for check in found])
    checks = tuple(
        Check(c.metric, c.step, c.value, c.band, p, p < policy.alpha)
        for c, p in zip(found, adjusted, strict=True)
    )
    return _worded(checks, seeds, raised, [s for s in at if s not in alike])


def points(steps: int) -> tuple[int, ...]:
    """The steps at which a run of `steps` steps is checked."""
    return tuple(math.ceil(share * steps) for share in SHARES)


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


def _same_rate(lines: Lines, references: Sequence[Lines], step: int, steps: int) -> bool:
    """Whether the learning rates near `step` agree; a run that has not got there is believed."""
    rates = []
    for each in (lines, *references):
        if not _has(each, RATE):
            return True
        if each[-1]["step"] >= step:
            rates.append(_value(each, RATE, step, steps))
    return max(rates) <= (1 + LIKE) * min(rates)


def _worded(
    checks: tuple[Check, ...], seeds: int, raised: dict[str, tuple[int, ...]], left_out: list[int]
) -> Envelope:
    beside = ""
    if left_out:
        beside = f"; step {' and '.join(map(str, left_out))} not compared: no such reference"
    out = [check for check in checks if check.outside]
    if not out:
        last = max(check.step for check in checks)
        text = f"inside the band up to step {last}{beside}"
        return Envelope("inside", text, seeds, checks, raised)
    first = min(out, key=lambda check: check.step)
    reason = (
        f"{first.metric} is {first.value:.3g} at step {first.step}, the references predict "
        f"{first.band.low:.3g} to {first.band.high:.3g}{beside}"
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
