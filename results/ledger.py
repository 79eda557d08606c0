"""The ledger: one strict JSON record per run, its rows beside it, nothing that can execute.

    <run>/record.json     what was measured, of which model, under which protocol (schema.py)
    <run>/rows.jsonl.gz   one row per reply, sorted by (id, k); the record carries its sha256
    <run>/metrics.jsonl   one line per optimizer step, when the run trained a model
    <run>/tokens.json     a few completions with the scores of every token
    <run>/strips.json     films of a few located questions, for the report's timeline

A score is the mean over questions of the mean over a question's replies, a fraction in 0..1.
The record is written last, so a directory holds a whole run or none. Writers of one directory
take turns; readers wait for nobody and read again what changed under their eyes.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import math
import os
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from results.schema import (
    OUTCOMES,
    UNKNOWN,
    VERSION,
    LedgerError,
    Record,
    Row,
    curves_from,
    decode,
    lines,
    parse,
    record_from,
    rows_from,
    strips_from,
    temperature,
    tokens_from,
)

RECORD, ROWS, CURVES, TOKENS = "record.json", "rows.jsonl.gz", "metrics.jsonl", "tokens.json"
STRIPS = "strips.json"  # no number comes from it: the record does not name it
LOST = ("undecodable", "timeout")  # such a question was never asked: one row stands for it
LOCK = ".record.lock"  # of writers; gone when the last one leaves
TOLERANCE = 5e-7  # a score stored with six decimals still verifies
ROWS_LIMIT = 512 * 2**20  # bytes of rows after decompression; a guard against zip bombs


@dataclass(frozen=True)
class Summary:
    """What a record must say about its rows."""

    n: int
    samples: int
    score: float
    outcomes: dict[str, int]
    by_tag: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Run:
    """A record with its rows, its curves (step order, a gap is None), token view and films."""

    record: Record
    rows: tuple[Row, ...]
    curves: tuple[Mapping[str, Any], ...] = ()
    tokens: tuple[Mapping[str, Any], ...] = ()
    directory: Path | None = None
    strips: tuple[Mapping[str, Any], ...] = ()

    @property
    def temperature(self) -> float:
        """Of the decoding; 0 is greedy."""
        return temperature(self.record.protocol)

    @property
    def probe(self) -> str:
        """What the questions were asked under instead of as they are ("no-video"), else "". The
        evaluator puts it behind a + of the protocol's id; such a run never counts as a score."""
        return str(self.record.protocol.get("id", "")).partition("+")[2]

    @property
    def greedy(self) -> bool:
        """Decoded at temperature 0."""
        return self.temperature == 0

    @cached_property
    def items(self) -> Items:
        """Mean score and cluster of every question, ids sorted."""
        return by_item(self.rows)


@dataclass(frozen=True)
class Items:
    """ids, scores (n,), clusters (n,) and tags of the questions of one run, ids sorted."""

    ids: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    clusters: npt.NDArray[np.str_]
    tags: tuple[Mapping[str, str], ...]


# --- what rows say -------------------------------------------------------------------------


def by_item(rows: Sequence[Row]) -> Items:
    """Mean score of every question over its replies. rows: sorted by id, not empty."""
    starts = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1].id != row.id]
    sizes = np.diff([*starts, len(rows)])
    scores = np.add.reduceat(np.array([row.score for row in rows]), starts) / sizes
    first = [rows[i] for i in starts]
    return Items(
        ids=tuple(row.id for row in first),
        scores=scores,
        clusters=np.array([row.cluster for row in first]),
        tags=tuple(row.tags for row in first),
    )


def summarise(rows: Sequence[Row]) -> Summary:
    """n, samples, score, outcome counts of replies, and scores by tag, from sorted rows."""
    if not rows:
        raise LedgerError("a run without rows measures nothing")
    items = by_item(rows)
    tagged: dict[str, dict[str, list[float]]] = {}
    for tags, score in zip(items.tags, items.scores, strict=True):
        for tag, value in tags.items():
            tagged.setdefault(tag, {}).setdefault(value, []).append(float(score))
    outcomes = Counter(row.outcome for row in rows)
    return Summary(
        n=len(items.ids),
        samples=max(Counter(row.id for row in rows).values()),
        score=_mean(items.scores.tolist()),
        outcomes={name: outcomes[name] for name in OUTCOMES if outcomes[name]},
        by_tag={
            tag: {v: {"n": len(s), "score": _mean(s)} for v, s in sorted(values.items())}
            for tag, values in sorted(tagged.items())
        },
    )


def verify(run: Run) -> list[str]:
    """Differences between a record and its rows, one sentence each; empty when they agree."""
    record, truth = run.record, summarise(run.rows)
    found = []
    if record.n != truth.n:
        found.append(f"n is {record.n}, rows give {truth.n}")
    if abs(record.score - truth.score) > TOLERANCE:
        found.append(f"score is {record.score:.6f}, rows give {truth.score:.6f}")
    for name in OUTCOMES:
        said, counted = record.outcomes.get(name, 0), truth.outcomes.get(name, 0)
        if said != counted:
            found.append(f"outcomes.{name} is {said}, rows give {counted}")
    said_tags, true_tags = _flat(record.by_tag), _flat(truth.by_tag)
    for key in sorted(said_tags.keys() | true_tags.keys()):
        a, b = said_tags.get(key), true_tags.get(key)
        if a is None or b is None or abs(a - b) > TOLERANCE:
            found.append(f"by_tag.{key} is {_shown(a)}, rows give {_shown(b)}")
    replies = Counter(row.id for row in run.rows)
    lost = {row.id for row in run.rows if row.outcome in LOST and replies[row.id] == 1}
    uneven = [item for item, k in replies.items() if k != record.samples and item not in lost]
    if uneven and not record.partial:
        found.append(
            f"samples is {record.samples}, but {len(uneven)} questions have another number of "
            f"replies (first: {uneven[0]} with {replies[uneven[0]]})"
        )
    return found


# --- reading -------------------------------------------------------------------------------


def load(directory: Path | str, *, only: Callable[[Record], bool] | None = None) -> list[Run]:
    """Every run under `directory`, sorted by path; one that is just being replaced is no run.

    only: whose rows to read at all. Raises LedgerError naming the file.
    """
    found = []
    for path in sorted(Path(directory).rglob(RECORD)):
        with suppress(FileNotFoundError):
            if only is None or only(_record(path, path.read_bytes())):
                found.append(read(path.parent))
    return found


def read(directory: Path | str) -> Run:
    """The run in `directory`; the sha256 of rows and curves must be the recorded ones.

    A writer that replaces the run meanwhile is no damage: whoever finds another record than the
    one it began with begins again. Raises LedgerError, FileNotFoundError without a record.
    """
    folder = Path(directory)
    while True:
        content = (folder / RECORD).read_bytes()
        try:
            return _read(folder, content)
        except LedgerError:
            if (folder / RECORD).is_file() and (folder / RECORD).read_bytes() == content:
                raise


def _record(path: Path, content: bytes) -> Record:
    return record_from(parse(decode(content, str(path)), str(path)), str(path))


def _read(folder: Path, content: bytes) -> Run:
    record = _record(folder / RECORD, content)
    rows_path = folder / record.rows["path"]
    text = _unzip(_checked(rows_path, record.rows["sha256"]), str(rows_path))
    rows = rows_from((parse(line, str(rows_path)) for line in lines(text)), str(rows_path))
    if not rows:
        raise LedgerError(f"{rows_path} holds no row")
    curves: tuple[Mapping[str, Any], ...] = ()
    tokens: tuple[Mapping[str, Any], ...] = ()
    if record.curves is not None:
        at = folder / record.curves["path"]
        curves = curves_from(decode(_checked(at, record.curves["sha256"]), str(at)), str(at))
    if record.tokens is not None:
        at = folder / record.tokens["path"]
        tokens = tokens_from(decode(_content(at), str(at)), str(at))
    at = folder / STRIPS
    strips = strips_from(decode(_content(at), str(at)), str(at)) if at.is_file() else ()
    return Run(record, rows, curves, tokens, folder, strips)


# --- writing -------------------------------------------------------------------------------


def write(
    record: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    directory: Path | str,
    *,
    curves: Path | None = None,
    tokens: Path | None = None,
    strips: Sequence[Mapping[str, Any]] = (),
) -> Run:
    """File a run atomically and return it as read back; returns the same bytes for the same run.

    record: the fields of Record; `schema`, `n`, `samples`, `score`, `outcomes`, `by_tag`, `rows`,
    `curves` and `tokens` are computed here, and where given they must agree with the rows. What a
    host cannot tell (batch, image, gpu_hours, finished, the driver) may be left out.
    curves, tokens: a metrics.jsonl and a tokens.json to keep beside it. strips: what strips.json
    holds (schema.strips_from).
    Raises LedgerError before anything is written.
    """
    folder = Path(directory)
    ordered = rows_from(rows)
    packed = _zip(ordered)
    data: dict[str, Any] = {**asdict(summarise(ordered)), **UNKNOWN, **record, "schema": VERSION}
    if isinstance(data.get("machine"), dict):
        data["machine"] = {"driver": None, **data["machine"]}
    files = {ROWS: packed}
    data["rows"] = {"path": ROWS, "sha256": _sha256(packed)}
    data["curves"] = data["tokens"] = None
    if curves is not None:
        files[CURVES] = curves.read_bytes()
        curves_from(decode(files[CURVES], str(curves)), str(curves))
        data["curves"] = {"path": CURVES, "sha256": _sha256(files[CURVES])}
    if tokens is not None:
        files[TOKENS] = tokens.read_bytes()
        tokens_from(decode(files[TOKENS], str(tokens)), str(tokens))
        data["tokens"] = {"path": TOKENS}
    if strips:
        films = json.dumps(list(strips))
        strips_from(films)
        files[STRIPS] = films.encode("ascii")
    checked = record_from(data)
    if differences := verify(Run(checked, ordered)):
        raise LedgerError(f"the record contradicts its rows: {'; '.join(differences)}")
    text = json.dumps({f.name: data[f.name] for f in fields(Record)}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    with turn(folder):
        for old in (RECORD, STRIPS):  # a half-replaced run must not look whole
            (folder / old).unlink(missing_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
        write_atomically(folder / RECORD, (text + "\n").encode("ascii"))
        return _read(folder, (folder / RECORD).read_bytes())


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into `folder`; the lock dies with its holder."""
    path = folder / LOCK
    while True:
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_still(path, lock.fileno()):
                continue  # its last holder removed it while this one waited
            try:
                yield
            finally:
                path.unlink()
            return


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` in one step: a reader sees the old bytes or the new ones, never a mix."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _zip(rows: Sequence[Row]) -> bytes:
    """gzip without time or name, so equal rows give equal bytes; absent texts are left out."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed:
        for row in rows:
            data = asdict(row)
            for name in ("reply", "detail"):
                if data[name] is None:
                    del data[name]
            packed.write((json.dumps(data) + "\n").encode("ascii"))
    return buffer.getvalue()


def _unzip(packed: bytes, where: str) -> str:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            content = file.read(ROWS_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:  # damage shows as any of the three
        raise LedgerError(f"{where} is not a whole gzip file: {error}") from error
    if len(content) > ROWS_LIMIT:
        raise LedgerError(f"{where} unpacks to more than {ROWS_LIMIT >> 20} MiB")
    return decode(content, where)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise LedgerError(f"{path} is missing, but its record names it") from None


def _checked(path: Path, sha256: str) -> bytes:
    content = _content(path)
    if _sha256(content) != sha256:
        raise LedgerError(f"{path} has changed: its sha256 is not the recorded {sha256[:12]}…")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _flat(by_tag: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    return {
        f"{tag}.{value}.{name}": number
        for tag, values in by_tag.items()
        for value, cell in values.items()
        for name, number in cell.items()
    }


def _shown(value: float | None) -> str:
    return "absent" if value is None else f"{value:.6g}"
