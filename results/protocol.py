"""The protocol a paper states beside the one we ran, field by field.

| state        | meaning                                                           | comparable |
|--------------|-------------------------------------------------------------------|------------|
| same         | the paper states it and we ran it                                 | yes        |
| assumed      | unstated; we ran a plausible value registered before the run      | yes        |
| differs      | stated, or assumed, and we ran another value                      | no         |
| unstated     | the paper is silent and no assumption was registered before       | no         |
| not recorded | the record does not say what we ran                               | no         |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from results.schema import Record

UNSTATED = "unstated"
State = Literal["same", "assumed", "differs", "unstated", "not recorded"]

#: Fields that a record leaves out where they have their ordinary value (evals.types.Protocol adds
#: them so that the first committed records keep their hashes), and that value.
LEFT_OUT: Mapping[str, Any] = {
    "wording": "",
    "system": None,
    "before": "",
    "prefix": "",
    "overlap": "iou",
    "sampling": "video-r1",
    "clipped": True,
    "total_pixels": 0,
    "subtitles": "none",
    "subset": "",
    "aggregation": "micro",
    "denominator": "all",
}

#: Spellings of one split.
SPLITS = {"validation": "val", "valid": "val"}

#: What papers call a field of evals.types.Protocol.
OURS = {"frames": "max_frames", "prompt_id": "prompt", "scorer": "grader"}


@dataclass(frozen=True)
class Assumed:
    """Plausible values of a field that the paper leaves unstated, registered on a day."""

    values: tuple[Any, ...]
    on: date
    source: str = ""


@dataclass(frozen=True)
class Field:
    """One line of the protocol table."""

    name: str
    paper: str
    ours: str
    state: State
    source: str = field(default="", compare=False)

    @property
    def comparable(self) -> bool:
        """Whether this field leaves the two scores comparable."""
        return self.state in ("same", "assumed")


def flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded protocol in one level: the fields of `decoding` beside the others, no seed, and
    what a record leaves out."""
    decoding = {key: value for key, value in protocol.get("decoding", {}).items() if key != "seed"}
    rest = {key: value for key, value in protocol.items() if key != "decoding"}
    return {**LEFT_OUT, **rest, **decoding}


def compare(
    stated: Mapping[str, Any],
    n: int | None,
    record: Record,
    assumed: Mapping[str, Assumed],
) -> tuple[Field, ...]:
    """Every field the paper is asked about, and the number of questions, against one record."""
    ours = {**flat(record.protocol), "n": record.n}
    ours["subset"] = ours["subset"] or record.split  # no part of it is the whole split
    ours["subset"] = ours["subset"] or record.split  # papers say "test", or name a part of it
    named = str(ours.get("id", "")).replace("@", "-")
    if named and named == stated.get("prompt"):
        ours["prompt"] = named  # where a whole protocol, system turn and all, is what a paper names
    paper = {**stated, "n": UNSTATED if n is None else n}
    started = datetime.fromisoformat(record.started).date()
    return tuple(_field(name, value, ours, assumed, started) for name, value in paper.items())


def _field(
    name: str, stated: Any, ours: Mapping[str, Any], assumed: Mapping[str, Assumed], started: date
) -> Field:
    own = OURS.get(name, name)
    known, run = own in ours, ours.get(own)
    if stated != UNSTATED:
        state: State = "same" if _agree(name, stated, run) else "differs"
        return Field(name, shown(stated), shown(run), state if known else "not recorded")
    guess = assumed.get(name)
    if guess is None or guess.on > started:
        late = f"assumed on {guess.on}, after the run" if guess else ""
        return Field(name, UNSTATED, shown(run) if known else "", "unstated", late)
    plausible = " or ".join(map(shown, guess.values))
    state = "assumed" if any(_agree(name, value, run) for value in guess.values) else "differs"
    text = f"{UNSTATED}, assumed {plausible}"
    return Field(name, text, shown(run), state if known else "not recorded", guess.source)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Fields in which two recorded protocols differ, as "max_frames 16 and 32"."""
    a, b = flat(one), flat(other)
    absent = object()
    return [
        f"{name} {shown(a.get(name))} and {shown(b.get(name))}"
        for name in sorted(a.keys() | b.keys())
        if not _equal(a.get(name, absent), b.get(name, absent))
    ]


def shown(value: Any) -> str:
    """A protocol value as text: numbers without a trailing .0, nothing as "none"."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def names(fields: Sequence[Field]) -> list[str]:
    """Names of the fields that are not comparable."""
    return [part.name for part in fields if not part.comparable]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    return bool(a == b)


def _agree(name: str, stated: Any, run: Any) -> bool:
    """Whether what a paper says of a field is what we ran."""
    if name == "subset" and isinstance(stated, str) and isinstance(run, str):
        return SPLITS.get(stated, stated) == SPLITS.get(run, run)
    return _equal(stated, run)
