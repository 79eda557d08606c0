"""Saved replies, ours and other evaluators', as (question, reply) pairs to be scored again.

| file                                            | gold                    | question            |
|-------------------------------------------------|-------------------------|---------------------|
| rows `{"id", "reply"}`                          | the benchmark's         | the benchmark's     |
| rows `{"reply", "answer", "type", ["options"]}` | the row's               | the row's           |
| rows of our own runs (`gold`, `kind`)           | the row's               | the row's; of a     |
|                                                 |                         | choice: benchmark's |
| lmms-eval `*_samples_*.jsonl`                   | `target`                | `doc`               |
| VLMEvalKit .xlsx, .tsv                          | `answer`                | the other columns   |

evals.foreign says how questions of the last two are read. Files may be .json or .jsonl, also with
.gz; a reply that is a list is several replies.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from evals import foreign
from evals.benchmarks import OWNED, Benchmark
from evals.errors import BadInput, EnvironmentFault
from evals.types import LOST, Kind, Outcome, Reply, Sample

#: What the tools write instead of a reply when their API failed.
FAILURES = ("Failed to obtain answer via API.", "API Error")
_LARGEST = 2**30  # bytes of an unpacked spreadsheet (chosen)


@dataclass(frozen=True)
class Saved:
    """One saved reply and its question. `failed`: a failure was recorded instead of a reply."""

    sample: Sample
    reply: Reply
    failed: bool = False


@dataclass(frozen=True)
class Replies:
    """What a file holds: its pairs, and the evaluator that wrote it."""

    tool: str
    pairs: tuple[Saved, ...]


def read(
    path: Path,
    benchmark: str | None = None,
    questions: Callable[[], Benchmark] | None = None,
    kind: Kind | None = None,
) -> Replies:
    """The replies of a file.

    questions: loads the benchmark; only asked where rows of ours do not carry all that scoring
    takes, and name their question by id.
    benchmark: lmms-eval's documents are read by that benchmark's own file where it can. kind: of
    every question whose row does not name one. Raises BadInput naming the line or row that cannot
    be used.
    """
    tool, given = _records(path)
    records = list(given)
    whole = tool != "rows" or all(_whole(record, kind) for _, record in records)
    known = {s.id: s for s in questions().samples} if questions and not whole else None
    owner = foreign.Owner(benchmark) if tool == "lmms-eval" and benchmark in OWNED else None
    pairs: list[Saved] = []
    seen: Counter[str] = Counter()
    for where, record in records:
        if not isinstance(record, dict):
            raise BadInput(f"{where}: expected an object, not {json.dumps(record)[:40]}")
        if tool == "rows":
            sample, replies = _row(record, where, known, kind)
        elif tool == "lmms-eval":
            sample, replies = foreign.lmms_eval(record, where, owner, kind)
        else:
            sample, replies = foreign.vlmevalkit(record, where, kind)
        if tool != "rows":  # there, a line is a question; of ours it may be one more reply
            seen[sample.id] += 1
            if seen[sample.id] > 1:
                sample = replace(sample, id=f"{sample.id}#{seen[sample.id]}")
        cut = record.get("outcome") == Outcome.TRUNCATED
        lost = record.get("outcome") in LOST
        for text in replies:
            reply = Reply(text, tokens=0, finished=bool(record.get("finished", not cut)))
            pairs.append(Saved(sample, reply, failed=lost or text.strip() in FAILURES))
    if not pairs:
        raise BadInput(f"{path} holds no reply")
    return Replies(tool, tuple(pairs))


# --- files -------------------------------------------------------------------------------------


def _records(path: Path) -> tuple[str, Iterable[tuple[str, Any]]]:
    """Which evaluator wrote the file, and its records with their places."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if path.suffix == ".xlsx":
        return "VLMEvalKit", _sheet(path)
    text = _text(path)
    name = path.name.removesuffix(".gz")
    if name.endswith(".tsv"):
        return "VLMEvalKit", _tsv(path, text)
    records = list(_json(path, text, whole=name.endswith(".json")))
    first = records[0][1] if records else None
    lmms = isinstance(first, dict) and {"filtered_resps", "resps"} & first.keys()
    return ("lmms-eval" if lmms else "rows"), records


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file in UTF-8") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise BadInput(f"{path} is no complete gzip file ({error})") from error


def _json(path: Path, text: str, whole: bool) -> Iterator[tuple[str, Any]]:
    if whole:
        records = _parse(text, f"{path}")
        if not isinstance(records, list):
            raise BadInput(f"{path}: expected a list of records")
        yield from ((f"{path}, row {n}", record) for n, record in enumerate(records, 1))
        return
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, row {number}", _parse(line, f"{path}, line {number}")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not valid JSON ({error.msg})") from error
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{where}: JSON nested or numbers written beyond reason") from error


def _tsv(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(2**27)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    try:
        for number, row in enumerate(reader, 2):
            yield f"{path}, row {number}", row
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: {error}") from error


def _sheet(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of the first sheet; its first row names the columns."""
    try:
        import openpyxl
    except ImportError as error:
        raise EnvironmentFault(
            "reading .xlsx needs openpyxl: pip install 'reelproof[eval]'"
        ) from error
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > _LARGEST:
                raise BadInput(f"{path} unpacks to more than 1 GiB: save it as .tsv")
        # Not data_only: a reply that begins with "=" was stored as a formula.
        book = openpyxl.load_workbook(path, read_only=True)
        rows = book.worksheets[0].iter_rows(values_only=True)
        names = [str(name) for name in next(rows, ())]
        for number, cells in enumerate(rows, 2):
            if any(cell is not None for cell in cells):
                yield f"{path}, row {number}", dict(zip(names, cells, strict=False))
        book.close()
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as error:
        raise BadInput(f"{path} is no readable .xlsx file ({error})") from error


# --- rows --------------------------------------------------------------------------------------


def _whole(record: Any, kind: Kind | None) -> bool:
    """Whether a row says all that scoring takes: its gold, its kind and the options of a choice."""
    if not isinstance(record, dict) or record.get("answer", record.get("gold")) is None:
        return False
    of = record.get("type", record.get("kind", kind))
    return of is not None and (of not in ("multiple choice", "grounded qa") or "options" in record)


def _row(
    record: Mapping[str, Any], where: str, known: Mapping[str, Sample] | None, kind: Kind | None
) -> tuple[Sample, list[str]]:
    outcome = record.get("outcome")
    if outcome is not None and outcome not in LOST and record.get("reply") is None:
        raise BadInput(f"{where}: its reply was not kept; repro eval --save-replies keeps them")
    replies = [""] if outcome in LOST else foreign.texts(record.get("reply"), where, "reply")
    if known is not None:
        if str(record.get("id")) not in known:
            raise BadInput(f"{where}: the benchmark has no question {record.get('id')!r}")
        return known[str(record["id"])], replies
    said = record.get("type", record.get("kind", kind))
    gold = record.get("answer", record.get("gold"))
    if said not in get_args(Kind) or gold is None:
        raise BadInput(
            f"{where}: without --benchmark a row needs `answer` and a `type` out of "
            f"{', '.join(get_args(Kind))}"
        )
    options = record.get("options") or ()
    if not isinstance(options, list | tuple) or not all(isinstance(o, str) for o in options):
        raise BadInput(f'{where}: `options` must be a list of texts like "A. red"')
    return foreign.sample(record, where, said, str(gold), tuple(options)), replies
