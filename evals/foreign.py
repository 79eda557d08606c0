"""Questions out of other evaluators' files: lmms-eval's documents, VLMEvalKit's rows.

Options are read from whatever field holds them (`options`, `candidates`, `choices`, columns A to Z,
a0 to a9, or "A. text" lines of the question); an answer given as text or number of an option
becomes its letter. Where no kind is named it follows from the gold: with options multiple choice,
two numbers in brackets temporal grounding, a number numerical, else free-form.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from evals.benchmarks._records import Files
from evals.benchmarks._records import Record as OwnRecord
from evals.errors import BadInput
from evals.extract import intervals, option_texts, plain_float
from evals.types import Kind, Sample

Record = Mapping[str, Any]
_LABELLED = re.compile(r"\s*\(?([A-Z])[).:]\s*(.*)", re.DOTALL)
#: Fields that other tools' records use, the most telling first.
_IDS = ("id", "question_id", "Question ID", "problem_id", "qid", "index", "doc_id")
_VIDEOS = ("video_id", "videoID", "video ID", "video", "vid", "video_name", "video_path",
           "scene_name", "path")  # fmt: skip
_TAGS = ("duration", "domain", "task_type", "question_type", "Question Type", "dim", "category",
         "sub_category", "question_category")  # fmt: skip
_OPTIONS = ("options", "candidates", "choices", "Options", "option")


def texts(given: Any, where: str, name: str) -> list[str]:
    """One text or (nested) lists of texts, as a list. Raises BadInput, naming the field."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        return [text for part in given for text in texts(part, where, name)]
    raise BadInput(f"{where}: `{name}` is missing" if given is None else
                   f"{where}: `{name}` must be a text or a list of texts")  # fmt: skip


def sample(record: Record, where: str, kind: Kind, gold: str, options: tuple[str, ...]) -> Sample:
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


class Owner:
    """A benchmark's own reading of a record, as long as the first record is one of its owner's."""

    def __init__(self, benchmark: str | None):
        self.module: Any = importlib.import_module(f"evals.benchmarks.{benchmark}")
        self.files = _Nowhere(str(benchmark))
        self.works: bool | None = None

    def sample(self, doc: Record, where: str) -> Sample | None:
        """The question; None where the documents are not the owner's records."""
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


def lmms_eval(
    record: Record, where: str, owner: Owner | None, kind: Kind | None
) -> tuple[Sample, list[str]]:
    """Question and replies of one line of lmms-eval's samples."""
    doc = record.get("doc")
    doc = doc if isinstance(doc, dict) else {}
    sample = owner.sample(doc, where) if owner else None
    # `resps` is what the model wrote; it is left out where filtering changed nothing.
    name = "resps" if record.get("resps") is not None else "filtered_resps"
    replies = texts(record.get(name), where, name)
    if sample is not None:
        return sample, replies
    if "target" not in record:
        raise BadInput(f"{where}: `target` is missing")
    return _foreign({"doc_id": record.get("doc_id"), **doc}, record["target"], where, kind), replies


def vlmevalkit(record: Record, where: str, kind: Kind | None) -> tuple[Sample, list[str]]:
    """Question and prediction of one row of VLMEvalKit's."""
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
        return sample(record, where, "multiple choice", _letter(text, options, where), options)
    if kind is None:
        kind = (
            "temporal grounding" if len(intervals(text)) == 1
            else "numerical" if plain_float(text) is not None
            else "multiple choice" if re.fullmatch("[A-Z]", text.strip())
            else "free-form"
        )  # fmt: skip
    return sample(record, where, kind, text, options)


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
