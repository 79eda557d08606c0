"""The service that answers a recipe's teacher during training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from evals.errors import BadInput
from evals.microworld import default_cache
from repro.ffr.cache import Cache
from repro.ffr.gate import BOUND, Blind, Gate
from repro.ffr.service import Limits, Service
from repro.ffr.switches import Switches
from repro.ffr.teacher import Failure, Repair, named

URL, CACHE = "REELPROOF_TEACHER_URL", "patches.sqlite"


class Pending(Protocol):
    """Calls under way."""

    def result(self, deadline: float) -> list[Repair]:
        """One repair per failure, in order, after at most `deadline` seconds."""


class Answers(Protocol):
    """Starts calls; never waits for them. counts: what has happened so far, by name."""

    counts: dict[str, int]

    def start(self, failures: Sequence[Failure]) -> Pending:
        """Returns at once."""


def opened(s: Switches, blind: Blind | None = None) -> Service:
    """The service of a recipe's switches, its thread running; patches of a model are kept in
    `$REELPROOF_CACHE`. blind: the blind test's student, where the switches want one. Raises
    BadInput for an unknown teacher and for one without an address."""
    bound = BOUND if s.blind_gain is None else s.blind_gain
    gate = None if s.leak_gate == "off" else Gate(blind, bound, audit=s.leak_gate == "audit")
    teacher = named(told(addressed(s.teacher), s))
    cache = Cache(default_cache() / CACHE) if teacher.stores else None
    return Service(teacher, gate, cache, Limits(parallel=s.parallel))


def addressed(teacher: str) -> str:
    """The name of a teacher; `openai:MODEL` alone gets the address in $REELPROOF_TEACHER_URL."""
    if not teacher.startswith("openai:") or "@" in teacher:
        return teacher
    url = os.environ.get(URL)
    if not url:
        raise BadInput(
            f"the teacher {teacher} needs a server: set {URL} to its address, as in "
            "http://localhost:8000/v1, or name another teacher in the recipe"
        )
    return f"{teacher}@{url}"


def told(teacher: str, s: Switches) -> str:
    """The name of a teacher with what the switches say it is told and may use. One without a model
    is told nothing in any case. Raises BadInput for a teacher elsewhere, whose server decides."""
    kind = teacher.partition(":")[0]
    if kind == "openai":
        tools = ",".join(s.teacher_tools) or "0"
        more = f"gold={s.teacher_gold:d}&options={s.teacher_options:d}&tools={tools}"
        return f"{teacher}{'&' if '?' in teacher.partition('@')[2] else '?'}{more}"
    if kind == "remote" and (s.teacher_gold, s.teacher_options, s.teacher_tools) != (
        True,
        True,
        (),
    ):
        raise BadInput(
            "what a remote teacher is told is said where it is served (repro teacher serve "
            "--teacher 'openai:MODEL@URL?gold=0&tools=1'): leave teacher_gold and teacher_options "
            "true and teacher_tools empty"
        )
    return teacher
