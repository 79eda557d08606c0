"""The schema of the ledger: what a record, a row, a curve and a token view must look like.

    record   identity (paper, profile, arm, benchmark, split, metric, seed), what was found
             (n, samples, score, outcomes, by_tag), with what (model, protocol, dataset, engine),
             where, when and at what cost (git, image, machine, seconds, gpu_hours, started,
             finished, who), and the files beside it
    row      one scored reply: id, k, cluster, kind, gold, prediction, outcome, score, tokens, tags

Unknown keys are rejected, missing ones named, and a score above 1 is refused as a percentage.
Version 2 added what a GPU host can tell: batch, image, driver, gpu_hours, finished; a record of
version 1 is read with these unknown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

OUTCOMES = ("correct", "wrong", "unparsed", "truncated", "undecodable", "timeout")
UNSCORED = frozenset(OUTCOMES[2:])  # no answer was read, so the score must be 0
VERSION = 2
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


class LedgerError(ValueError):
    """A record, its rows or its curves break the schema; the message names file and field."""


@dataclass(frozen=True)
class Record:
    """One run, as stored. Field order is the order in the file."""

    schema: int
    paper: str
    profile: str
    arm: str
    benchmark: str
    split: str
    metric: str
    n: int  # questions
    samples: int  # replies per question
    score: float
    outcomes: Mapping[str, int]  # counts of replies
    by_tag: Mapping[str, Mapping[str, Mapping[str, float]]]  # tag -> value -> {n, score}
    model: Mapping[str, str | None]
    protocol: Mapping[str, Any]
    protocol_hash: str
    dataset: Mapping[str, str | None]
    seed: int
    engine: Mapping[str, str]
    batch: int | None  # questions answered at once; it can flip answers
    git: Mapping[str, Any]
    image: str | None  # digest of the container, "sha256:..."
    machine: Mapping[str, str | None]  # cpu, gpu (count and name), driver
    seconds: float  # of wall time
    gpu_hours: float | None
    started: str
    finished: str | None
    rows: Mapping[str, str]
    curves: Mapping[str, str] | None
    tokens: Mapping[str, str] | None
    partial: bool
    who: str


@dataclass(frozen=True, slots=True)
class Row:
    """One scored reply. `k` numbers the replies of one question, `cluster` is its video."""

    id: str
    k: int
    cluster: str
    kind: str
    gold: str
    prediction: str | None
    outcome: str
    score: float
    tokens: int
    tags: Mapping[str, str]
    reply: str | None = None
    detail: str | None = None


# --- checks --------------------------------------------------------------------------------

Check = Callable[[Any, str], None]


def _is(kind: type, *, nullable: bool = False) -> Check:
    def check(value: Any, where: str) -> None:
        if value is None and nullable:
            return
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise LedgerError(f"{where} must be {kind.__name__}, not {type(value).__name__}")

    return check


def _fraction(value: Any, where: str) -> None:
    _is(float)(value, where)
    if not 0 <= value <= 1:
        raise LedgerError(f"{where} is {value}: scores are fractions in 0..1, not percentages")


def _count(value: Any, where: str) -> None:
    _is(int)(value, where)
    if value < 0:
        raise LedgerError(f"{where} is {value}: a count cannot be negative")


def _positive(value: Any, where: str) -> None:
    _count(value, where)
    if value == 0:
        raise LedgerError(f"{where} is 0: nothing was measured")


def _duration(value: Any, where: str) -> None:
    _is(float)(value, where)
    if not (math.isfinite(value) and value >= 0):
        raise LedgerError(f"{where} is {value}: seconds are finite and not negative")


def _hex(length: int, *, nullable: bool = False) -> Check:
    def check(value: Any, where: str) -> None:
        _is(str, nullable=nullable)(value, where)
        if value is not None and (len(value) != length or set(value) - set("0123456789abcdef")):
            raise LedgerError(f"{where} must be {length} lower-case hex digits, not {value!r}")

    return check


def _moment(value: Any, where: str) -> None:
    _is(str)(value, where)
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise LedgerError(f"{where} is not an ISO date and time: {value!r}") from error


def _maybe(check: Check) -> Check:
    def optional(value: Any, where: str) -> None:
        if value is not None:
            check(value, where)

    return optional


def _name(value: Any, where: str) -> None:
    """A part of a path: records come from other hosts."""
    _is(str)(value, where)
    if not _NAME.fullmatch(value):
        raise LedgerError(f"{where} must be a plain name (letters, digits, _ . -), not {value!r}")


def _digest(value: Any, where: str) -> None:
    _is(str)(value, where)
    if not re.fullmatch("sha256:[0-9a-f]{64}", value):
        raise LedgerError(f"{where} must be sha256: and 64 lower-case hex digits, not {value!r}")


def _file(value: Any, where: str) -> None:
    _is(str)(value, where)
    if value != Path(value).name or value.startswith(".") or "\\" in value:
        raise LedgerError(f"{where} must be a file name beside the record, not {value!r}")


def _one_of(*allowed: Any) -> Check:
    def check(value: Any, where: str) -> None:
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            raise LedgerError(f"{where} is {value!r}, expected {' or '.join(map(str, allowed))}")

    return check


def _keys(
    spec: Mapping[str, Check],
    *,
    optional: Sequence[str] = (),
    nullable: bool = False,
    more: bool = False,
) -> Check:
    def check(value: Any, where: str) -> None:
        if value is None and nullable:
            return
        _is(dict)(value, where)
        missing = [key for key in spec if key not in value and key not in optional]
        unknown = [key for key in value if key not in spec and not more]
        if missing:
            raise LedgerError(f"{where} lacks {', '.join(missing)}")
        if unknown:
            raise LedgerError(f"{where} has unknown keys: {', '.join(map(str, unknown))}")
        for key, part in value.items():
            if key in spec:
                spec[key](part, f"{where}.{key}")

    return check


def _mapping(each: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _is(dict)(value, where)
        for key, part in value.items():
            _is(str)(key, f"{where}: key {key!r}")
            each(part, f"{where}.{key}")

    return check


def _anything(value: Any, where: str) -> None:
    """Plain JSON data; the protocol's own hash stands for its content."""


def _protocol(value: Any, where: str) -> None:
    _mapping(_anything)(value, where)
    temperature(value, where)


_TEXT, _MAYBE = _is(str), _is(str, nullable=True)
_STORED = {"path": _file, "sha256": _hex(64)}

SCHEMA: Mapping[str, Check] = {
    "schema": _one_of(VERSION),
    "paper": _name,
    "profile": _name,
    "arm": _name,
    "benchmark": _name,
    "split": _name,
    "metric": _TEXT,
    "n": _positive,
    "samples": _positive,
    "score": _fraction,
    "outcomes": _keys(dict.fromkeys(OUTCOMES, _count), optional=OUTCOMES),
    "by_tag": _mapping(_mapping(_keys({"n": _positive, "score": _fraction}))),
    "model": _keys({"id": _TEXT, "revision": _MAYBE, "sha256": _hex(64, nullable=True)}),
    "protocol": _protocol,
    "protocol_hash": _hex(8),
    "dataset": _keys({"revision": _MAYBE, "sha256": _hex(64, nullable=True)}),
    "seed": _is(int),
    "engine": _keys({"name": _TEXT, "version": _TEXT}),
    "batch": _maybe(_positive),
    "git": _keys({"commit": _hex(40, nullable=True), "dirty": _is(bool, nullable=True)}),
    "image": _maybe(_digest),
    "machine": _keys({"cpu": _MAYBE, "gpu": _MAYBE, "driver": _MAYBE}),
    "seconds": _duration,
    "gpu_hours": _maybe(_duration),
    "started": _moment,
    "finished": _maybe(_moment),
    "rows": _keys(_STORED),
    "curves": _keys(_STORED, nullable=True),
    "tokens": _keys({"path": _file}, nullable=True),
    "partial": _is(bool),
    "who": _TEXT,
}

#: What version 2 added, as unknown; a writer may leave these out.
UNKNOWN: Mapping[str, None] = dict.fromkeys(("batch", "image", "gpu_hours", "finished"))

FIRST_SCHEMA: Mapping[str, Check] = {
    **{name: check for name, check in SCHEMA.items() if name not in UNKNOWN},
    "schema": _one_of(1),
    "machine": _keys({"cpu": _MAYBE, "gpu": _MAYBE}),
}

ROW_SCHEMA: Mapping[str, Check] = {
    "id": _TEXT,
    "k": _count,
    "cluster": _TEXT,
    "kind": _TEXT,
    "gold": _TEXT,
    "prediction": _MAYBE,
    "outcome": _one_of(*OUTCOMES),
    "score": _fraction,
    "tokens": _count,
    "tags": _mapping(_TEXT),
    "reply": _MAYBE,
    "detail": _MAYBE,
}


def record_from(data: Any, where: str = "record") -> Record:
    """A validated Record. Raises LedgerError naming what is missing, unknown or out of range."""
    if isinstance(data, dict) and data.get("schema") == 1:
        _keys(FIRST_SCHEMA)(data, where)
        data = {**data, **UNKNOWN, "machine": {**data["machine"], "driver": None}}
    else:
        _keys(SCHEMA)(data, where)
    return Record(**data)


def rows_from(data: Iterable[Any], where: str = "rows") -> tuple[Row, ...]:
    """Validated rows sorted by (id, k). Raises LedgerError, also for duplicates, for a question
    whose replies disagree about cluster, gold or tags, and for unanswered replies with a score."""
    check = _keys(ROW_SCHEMA, optional=("reply", "detail"))
    rows: list[Row] = []
    for number, item in enumerate(data, 1):
        if not plain(item):
            check(item, f"{where}, row {number}")
        rows.append(Row(**item))
    rows.sort(key=lambda row: (row.id, row.k))
    for before, row in zip([None, *rows], rows, strict=False):
        if row.outcome in UNSCORED and row.score != 0:
            raise LedgerError(f"{where}: {row.id} is {row.outcome} but scores {row.score}")
        if before is None or before.id != row.id:
            continue
        if before.k == row.k:
            raise LedgerError(f"{where}: reply {row.k} of {row.id} appears twice")
        if (before.cluster, before.gold, before.tags) != (row.cluster, row.gold, row.tags):
            raise LedgerError(f"{where}: replies of {row.id} disagree about cluster, gold or tags")
    return tuple(rows)


_ROW = frozenset(ROW_SCHEMA)
_NEEDED = _ROW - {"reply", "detail"}
_NAMED = frozenset(OUTCOMES)


def plain(row: Any) -> bool:
    """Whether a row is sound at first sight: never true for one that ROW_SCHEMA refuses, and a
    fifth of the time. Runs have ten thousand rows; what is odd is left to the schema to name."""
    if type(row) is not dict or not _NEEDED <= row.keys() <= _ROW:
        return False
    tags, prediction = row["tags"], row["prediction"]
    return (
        all(type(row[name]) is str for name in ("id", "cluster", "kind", "gold"))
        and type(row["k"]) is int
        and type(row["tokens"]) is int
        and row["k"] >= 0 <= row["tokens"]
        and type(row["outcome"]) is str
        and row["outcome"] in _NAMED
        and type(row["score"]) is float
        and 0 <= row["score"] <= 1
        and (prediction is None or type(prediction) is str)
        and type(tags) is dict
        and all(type(key) is str and type(value) is str for key, value in tags.items())
        and all(type(row.get(name)) in (str, type(None)) for name in ("reply", "detail"))
    )


# --- texts ---------------------------------------------------------------------------------


def curves_from(text: str, where: str = "metrics.jsonl") -> tuple[Mapping[str, Any], ...]:
    """Lines of metrics.jsonl: objects with an ascending integer `step`. A number that is not
    finite becomes None, a gap in the drawn line."""
    steps: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines(text), 1):
        item = parse(line, f"{where}, line {number}", gaps=True)
        _metrics(item, f"{where}, line {number}")
        if steps and item["step"] <= steps[-1]["step"]:
            raise LedgerError(f"{where}, line {number}: step {item['step']} does not ascend")
        steps.append(item)
    return tuple(steps)


def _metrics(line: Any, where: str) -> None:
    """A step, the names of its alarms, and numbers; a gap is null."""
    _is(dict)(line, where)
    _is(int)(line.get("step"), f"{where}.step")
    for key, value in line.items():
        if key == "alarms":
            _is(list)(value, f"{where}.alarms")
            for name in value:
                _TEXT(name, f"{where}.alarms")
        else:
            _is(float, nullable=True)(value, f"{where}.{key}")


def tokens_from(text: str, where: str = "tokens.json") -> tuple[Mapping[str, Any], ...]:
    """Completions of tokens.json; every token has text, scores or null, and a list of signals."""
    number = _is(float, nullable=True)
    scores = {"entropy": number, "visual": number, "temporal": number}
    token = _keys({"text": _TEXT, **scores, "signals": _is(list)}, more=True)
    texts = {"question": _TEXT, "gold": _TEXT, "reward": number, "advantage": number}
    completion = _keys({**texts, "tokens": _is(list)}, more=True)
    data = parse(text, where, gaps=True)
    _is(list)(data, where)
    for index, item in enumerate(data, 1):
        completion(item, f"{where}, completion {index}")
        for part in item["tokens"]:
            token(part, f"{where}, completion {index}, token")
            for signal in part["signals"]:
                _TEXT(signal, f"{where}, completion {index}, signal")
    return tuple(data)


STRIPS_LIMIT = 256 * 1024  # bytes of strips.json, so that a report stays small


def strips_from(text: str, where: str = "strips.json") -> tuple[Mapping[str, Any], ...]:
    """Films of a few located questions: how long, the true intervals in seconds, the right letter
    ("" without one), and small WebP pictures in base64, evenly spread over the film.
    """
    if len(text) > STRIPS_LIMIT:
        raise LedgerError(f"{where} is larger than {STRIPS_LIMIT >> 10} KiB")
    item = _keys(
        {"id": _TEXT, "question": _TEXT, "letter": _is(str), "seconds": _is(float),
         "truths": _is(list), "pictures": _is(list)}
    )  # fmt: skip
    data = parse(text, where)
    _is(list)(data, where)
    for index, film in enumerate(data, 1):
        at = f"{where}, film {index}"
        item(film, at)
        if not film["seconds"] > 0 or not film["truths"]:
            raise LedgerError(f"{at} needs seconds above 0 and a true interval")
        for truth in film["truths"]:
            _is(list)(truth, f"{at}.truths")
            if len(truth) != 2:
                raise LedgerError(f"{at}.truths: an interval has two ends, not {len(truth)}")
            for end in truth:
                _is(float)(end, f"{at}.truths")
        for picture in film["pictures"]:
            _is(str)(picture, f"{at}.pictures")
            if not _BASE64.fullmatch(picture):
                raise LedgerError(f"{at}.pictures must be base64")
    return tuple(data)


_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def parse(text: str, where: str, *, gaps: bool = False) -> Any:
    """JSON without duplicate keys; NaN and infinities are refused, or None where `gaps`."""

    try:
        return (_WITH_GAPS if gaps else _STRICT).decode(text)
    except json.JSONDecodeError as error:
        raise LedgerError(f"{where} is not JSON: {error}") from error
    except LedgerError as error:
        raise LedgerError(f"{where} {error}") from None


def _pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(found)
    if len(data) < len(found):
        raise LedgerError("has a key twice")
    return data


def _constant(name: str) -> None:
    raise LedgerError(f"holds {name}, which is not a number of JSON")


def _gap(name: str) -> None:
    """NaN and infinities as None."""


_STRICT = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
_WITH_GAPS = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_gap)


def decode(content: bytes, where: str) -> str:
    """UTF-8 text. Raises LedgerError naming the file otherwise."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LedgerError(f"{where} is not UTF-8 text: {error}") from error


def lines(text: str) -> list[str]:
    """Lines of a JSONL text. Not str.splitlines, which would also cut at U+2028 inside a string."""
    return [line for line in text.split("\n") if line.strip()]


def temperature(protocol: Mapping[str, Any], where: str = "protocol") -> float:
    """Of the decoding; 0 is greedy. Raises LedgerError where the protocol does not say."""
    decoding = protocol.get("decoding")
    if not isinstance(decoding, dict) or not isinstance(decoding.get("temperature"), (int, float)):
        raise LedgerError(f"{where}.decoding.temperature is missing: sampled or greedy is unknown")
    return float(decoding["temperature"])
