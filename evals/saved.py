"""Saved replies, ours and other evaluators', as (question, reply) pairs to be scored again.

| file                                            | gold                    | question            |
|-------------------------------------------------|-------------------------|---------------------|
| rows `{"id", "reply"}`                          | the benchmark's         | the benchmark's     |
| rows `{"reply", "answer", "type", ["options"]}` | the row's               | the row's           |
| rows of our own runs (`gold`, `kind`)           | the row's               | the benchmark's     |
| lmms-eval `*_samples_*.jsonl`                   | `target`                | `doc`               |
| VLMEvalKit .xlsx, .tsv                          | `answer`                | the other columns   |

Of the last two, options are read from whatever field holds them (`options`, `candidates`,
`choices`, columns A to Z, a0 to a9, or "A. text" lines of the question); an answer given as text or
number of an option becomes its letter. Where no type is named it follows from the gold: with
options multiple choice, two numbers in brackets temporal grounding, a number numerical, else
free-form. .json, .jsonl and both with .gz are read; a reply that is a list is several replies.
"""

from __future__ import annotations

import ast
import csv
import gzip
import importlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, get_args

from evals.benchmarks import OWNED, Benchmark
from evals.benchmarks._records import Files
from evals.benchmarks._records import Record as OwnRecord
from evals.errors import BadInput, EnvironmentFault
from evals.extract import intervals, option_texts, plain_float
from evals.types import Kind, Reply, Sample

Record = Mapping[str, Any]
#: What the tools write instead of a reply when their API failed.
FAILURES = ("Failed to obtain answer via API.", "API Error")
_LARGEST = 2**30  # bytes of an unpacked spreadsheet (chosen)
_LABELLED = re.compile(r"\s*\(?([A-Z])[).:]\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Saved:
    """One saved reply and its question. `failed`: the tool recorded a failure of its API."""

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

    questions: loads the benchmark; only asked for rows of ours, which name their question by id.
    benchmark: lmms-eval's documents are read by that benchmark's own file where it can. kind: of
    every question whose row does not name one. Raises BadInput naming the line or row that cannot
    be used.
    """
    tool, records = _records(path)
    known = {s.id: s for s in questions().samples} if questions and tool == "rows" else None
    owner = _Owner(benchmark) if tool == "lmms-eval" and benchmark in OWNED else None
    pairs: list[Saved] = []
    for where, record in records:
        if not isinstance(record, dict):
            raise BadInput(f"{where}: expected an object, not {json.dumps(record)[:40]}")
        if tool == "rows":
            sample, replies = _row(record, where, known, kind)
        elif tool == "lmms-eval":
            sample, replies = _lmms_eval(record, where, owner, kind)
        else:
            sample, replies = _vlmevalkit(record, where, kind)
        for text in replies:
            reply = Reply(text, tokens=0, finished=bool(record.get("finished", True)))
            pairs.append(Saved(sample, reply, failed=text.strip() in FAILURES))
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


def _row(
    record: Record, where: str, known: Mapping[str, Sample] | None, kind: Kind | None
) -> tuple[Sample, list[str]]:
    replies = _replies(record.get("reply"), where, "reply")
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
    return _sample(record, where, said, str(gold), tuple(options)), replies


def _replies(given: Any, where: str, name: str) -> list[str]:
    """One text or (nested) lists of texts."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        return [text for part in given for text in _replies(part, where, name)]
    raise BadInput(f"{where}: `{name}` is missing" if given is None else
                   f"{where}: `{name}` must be a text or a list of texts")  # fmt: skip


def _sample(record: Record, where: str, kind: Kind, gold: str, options: tuple[str, ...]) -> Sample:
    try:
        option_texts(options)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    name = next((record[key] for key in _IDS if record.get(key) is not None), where)
    video = next((record[key] for key in _VIDEOS if record.get(key) is not None), name)
    tags = {key: str(record[key]) for key in _TAGS if isinstance(record.get(key), str)}
    if isinstance(record.get("tags"), dict):
        tags |= {str(key): str(value) for key, value in record["tags"].items()}
    return Sample(
        id=str(name), question=str(record.get("question", "")), kind=kind, gold=gold,
        modality="text", media=None, options=options, cluster=str(record.get("cluster", video)),
        tags=tags,
    )  # fmt: skip


#: Fields that other tools' records use, the most telling first.
_IDS = ("id", "question_id", "Question ID", "problem_id", "qid", "index", "doc_id")
_VIDEOS = ("video_id", "videoID", "video ID", "video", "vid", "video_name", "video_path",
           "scene_name", "path")  # fmt: skip
_TAGS = ("duration", "domain", "task_type", "question_type", "Question Type", "dim", "category",
         "sub_category", "question_category")  # fmt: skip
_OPTIONS = ("options", "candidates", "choices", "Options", "option")


# --- other evaluators --------------------------------------------------------------------------


class _Nowhere(Files):
    """Stands for the data of a benchmark where only records are at hand, and no video is opened."""

    def __init__(self, name: str):
        self.name, self.root = name, Path(name)
        self.read: list[Path] = []

    def holds(self, path: Path) -> bool:
        return False

    def media(self, name: str) -> Path:
        return self.root / name

    def video(self, stem: str) -> Path:
        return self.root / f"{stem}.mp4"


class _Owner:
    """A benchmark's own reading of a record, as long as the first record is one of its owner's."""

    def __init__(self, benchmark: str | None):
        self.module: Any = importlib.import_module(f"evals.benchmarks.{benchmark}")
        self.files = _Nowhere(str(benchmark))
        self.works: bool | None = None

    def sample(self, doc: Record, where: str) -> Sample | None:
        if self.works is False:
            return None
        try:
            found: Sample = self.module.sample(OwnRecord(doc, where), self.files)
        except BadInput:
            if self.works:
                raise
            self.works = False
            return None
        self.works = True
        return found


def _lmms_eval(
    record: Record, where: str, owner: _Owner | None, kind: Kind | None
) -> tuple[Sample, list[str]]:
    doc = record.get("doc")
    doc = doc if isinstance(doc, dict) else {}
    sample = owner.sample(doc, where) if owner else None
    # `resps` is what the model wrote; it is left out where filtering changed nothing.
    name = "resps" if record.get("resps") is not None else "filtered_resps"
    replies = _replies(record.get(name), where, name)
    if sample is not None:
        return sample, replies
    if "target" not in record:
        raise BadInput(f"{where}: `target` is missing")
    return _foreign({"doc_id": record.get("doc_id"), **doc}, record["target"], where, kind), replies


def _vlmevalkit(record: Record, where: str, kind: Kind | None) -> tuple[Sample, list[str]]:
    for column in ("prediction", "answer"):
        if column not in record:
            raise BadInput(f"{where}: there is no column `{column}`")
    if record["answer"] is None:
        raise BadInput(f"{where}: `answer` is empty")
    said = record["prediction"]
    return _foreign(record, record["answer"], where, kind), ["" if said is None else str(said)]


def _foreign(record: Record, gold: Any, where: str, kind: Kind | None) -> Sample:
    options = _lettered(_given_options(record))
    text = _number(gold)
    if options and kind in (None, "multiple choice"):
        return _sample(record, where, "multiple choice", _letter(text, options, where), options)
    if kind is None:
        kind = (
            "temporal grounding" if len(intervals(text)) == 1
            else "numerical" if plain_float(text) is not None
            else "multiple choice" if re.fullmatch("[A-Z]", text.strip())
            else "free-form"
        )  # fmt: skip
    return _sample(record, where, kind, text, options)


def _number(value: Any) -> str:
    """A spreadsheet's 3.0 is the 3 that was written."""
    return f"{value:g}" if isinstance(value, float) and value == int(value) else str(value).strip()


def _given_options(record: Record) -> list[str]:
    """Texts of the options, labels included where they have them; [] where there are none."""
    for name in _OPTIONS:
        given = _literal(record.get(name))
        if isinstance(given, dict):
            return [f"{label}. {text}" for label, text in sorted(given.items())]
        if isinstance(given, list) and given:
            return [str(option) for option in given]
    for labels in (ascii_uppercase, [f"a{n}" for n in range(10)]):
        texts = [str(record[c]) for c in labels if record.get(c) not in (None, "")]
        if len(texts) > 1:
            return texts
    question = record.get("question")
    lines = question.split("\n") if isinstance(question, str) else []
    found = [line.strip() for line in lines if _LABELLED.fullmatch(line)]
    labels_found = [line.lstrip("(")[0] for line in found]
    return found if len(found) > 1 and labels_found == list(ascii_uppercase[: len(found)]) else []


def _literal(value: Any) -> Any:
    """A list or object that a spreadsheet keeps as text."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{") or len(value) > 10**6:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def _lettered(texts: Sequence[str]) -> tuple[str, ...]:
    """Printed lines, "A. red"; own labels are kept where all have the expected one."""
    found = [_LABELLED.fullmatch(text) for text in texts]
    own = all(m and m[1] == letter for m, letter in zip(found, ascii_uppercase, strict=False))
    plain = [m[2] if own and m else text for m, text in zip(found, texts, strict=True)]
    return tuple(f"{c}. {text}" for c, text in zip(ascii_uppercase, plain, strict=False))


def _letter(gold: str, options: Sequence[str], where: str) -> str:
    """The letter of a gold given as letter, labelled line, text, or number from 0."""
    texts = option_texts(options)
    if gold in texts:
        return gold
    labelled = _LABELLED.fullmatch(gold)
    if labelled and labelled[1] in texts:
        return labelled[1]
    named = [letter for letter, text in texts.items() if text == gold]
    if len(named) == 1:
        return named[0]
    if not named and gold.isascii() and gold.isdigit() and int(gold[:9]) < len(texts):
        return list(texts)[int(gold[:9])]
    raise BadInput(f"{where}: the answer {gold[:40]!r} is not one of {len(texts)} options")
