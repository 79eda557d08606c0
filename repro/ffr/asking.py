"""The service that answers a recipe's teacher during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from repro.ffr.gate import Gate
from repro.ffr.service import Limits, Service
from repro.ffr.switches import Switches
from repro.ffr.teacher import Failure, Repair, named


class Pending(Protocol):
    """Calls under way."""

    def result(self, deadline: float) -> list[Repair]:
        """One repair per failure, in order, after at most `deadline` seconds."""


class Answers(Protocol):
    """Starts calls; never waits for them. counts: what has happened so far, by name."""

    counts: dict[str, int]

    def start(self, failures: Sequence[Failure]) -> Pending:
        """Returns at once."""


def opened(s: Switches) -> Service:
    """The service of a recipe's switches, its thread running. Raises BadInput for an unknown
    teacher."""
    gate = None if s.leak_gate == "off" else Gate(audit=s.leak_gate == "audit")
    return Service(named(s.teacher), gate, limits=Limits(parallel=s.parallel))
