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
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import product
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

#: "2,048 visual tokens per video": a budget over all frames; a token is 28 x 28 pixels.
_BUDGET = re.compile(r"([\d,]+) visual tokens per video")
TOKEN = 28 * 28

#: What papers call a field of evals.types.Protocol.
OURS = {"frames": "max_frames", "prompt_id": "prompt", "scorer": "grader"}


@dataclass(frozen=True)
class Assumed:
    """Plausible values of a field that the paper leaves unstated, registered on a day.

    follows: another field, whose first plausible value goes with the first one here, and so on.
    """

    values: tuple[Any, ...]
    on: date
    source: str = ""
    follows: str = ""


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
    ours = told(record, stated, assumed)
    paper = {**stated, "n": UNSTATED if n is None else n}
    started = datetime.fromisoformat(record.started).date()
    return tuple(_field(name, value, ours, assumed, started) for name, value in paper.items())


def told(
    record: Record, stated: Mapping[str, Any], assumed: Mapping[str, Assumed]
) -> dict[str, Any]:
    """What a record says, in the paper's words where these name the same thing: a whole protocol,
    system turn and all, as `prompt`; a budget of visual tokens as `max_pixels`; no part of a split
    is the whole of it.
    """
    ours = {**flat(record.protocol), "n": record.n}
    ours["subset"] = ours["subset"] or record.split
    own = str(ours.get("id", ""))
    named, guess = own.replace("@", "-"), assumed.get("prompt")
    plausible = guess.values if guess and "@" in own else ()  # a bare name may be of the words only
    if named and named in (stated.get("prompt"), *plausible):
        ours["prompt"] = named
    budget = _BUDGET.fullmatch(str(stated.get("max_pixels")))
    if budget and ours["total_pixels"] == TOKEN * int(budget[1].replace(",", "")):
        ours["max_pixels"] = stated["max_pixels"]
    return ours


def combinations(open_fields: Mapping[str, Assumed]) -> list[dict[str, Any]]:
    """Every plausible protocol in the fields left open; a value that follows another field comes
    only with its own."""
    found = []
    for values in product(*(guess.values for guess in open_fields.values())):
        wanted = dict(zip(open_fields, values, strict=True))
        if all(
            guess.follows not in wanted or _follows(guess, wanted, open_fields) == wanted[name]
            for name, guess in open_fields.items()
        ):
            found.append(wanted)
    return found


def _follows(guess: Assumed, run: Mapping[str, Any], assumed: Mapping[str, Assumed]) -> Any:
    """The value that goes with what was run of the followed field; None where that is unknown."""
    lead = assumed[guess.follows].values
    value = run.get(OURS.get(guess.follows, guess.follows), run.get(guess.follows))
    return guess.values[lead.index(value)] if value in lead else None


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
    values = guess.values
    if guess.follows in assumed and (own_value := _follows(guess, ours, assumed)) is not None:
        values = (own_value,)
    plausible = " or ".join(map(shown, values))
    state = "assumed" if any(_agree(name, value, run) for value in values) else "differs"
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
