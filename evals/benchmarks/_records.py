"""What the benchmark files share: a user's copy of the data, its records, and options as printed.

Annotations may be .json, .jsonl, .parquet, .csv or .tsv, on disk or in an archive below the root;
media are found by the end of their path, so it does not matter whether an archive was unpacked.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any

from evals import archive
from evals.errors import BadInput

VIDEO = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".MP4")
_TABLES = (".json", ".jsonl", ".parquet", ".csv", ".tsv")
_LABEL = re.compile(r"\(?([A-Z])[).:]\s*")


class BadGold(BadInput):
    """A record's right answer is none of its options."""


class Record(dict[str, Any]):
    """One record as its owner wrote it; `where` says which, for messages."""

    def __init__(self, data: Mapping[str, Any], where: str):
        super().__init__(data)
        self.where = where

    def fail(self, message: str) -> BadInput:
        """The error to raise about this record."""
        return BadInput(f"{self.where}: {message}")

    def bad_gold(self, message: str) -> BadGold:
        """The error to raise about a right answer that is none of the options."""
        return BadGold(f"{self.where}: {message}")

    def need(self, *keys: str) -> Any:
        """The value of the first of these fields that is there and not null."""
        for key in keys:
            if self.get(key) is not None:
                return self[key]
        raise self.fail(f"`{keys[0]}` is missing")

    def text(self, *keys: str) -> str:
        """A text that is not empty; a number is written out."""
        value = self.need(*keys)
        if isinstance(value, (dict, list)) or not str(value).strip():
            raise self.fail(f"`{keys[0]}` must be a text, not {str(value)[:40]!r}")
        return str(value)

    def texts(self, *keys: str) -> list[str]:
        """A list of texts (or the values of an object), each of which may be empty."""
        value = self.need(*keys)
        value = list(value.values()) if isinstance(value, dict) else value
        if not isinstance(value, list) or any(isinstance(v, (dict, list)) for v in value):
            raise self.fail(f"`{keys[0]}` must be a list of texts")
        return ["" if v is None else str(v) for v in value]

    def number(self, *keys: str) -> float:
        """A finite number."""
        try:
            value = float(self.need(*keys))
        except (TypeError, ValueError, OverflowError) as error:
            raise self.fail(f"`{keys[0]}` must be a number") from error
        if not math.isfinite(value):
            raise self.fail(f"`{keys[0]}` must be a finite number")
        return value

    def inner(self, key: str) -> Record:
        """An object inside the record, as a record."""
        value = self.need(key)
        if not isinstance(value, dict):
            raise self.fail(f"`{key}` must be an object")
        return Record(value, self.where)

    def objects(self, key: str) -> list[dict[str, Any]]:
        """A list of objects inside the record; none where the field is missing."""
        value = self.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.fail(f"`{key}` must be a list of objects")
        return value

    def index(self, options: Sequence[str], *keys: str) -> str:
        """The letter of a right option that is given by its number, from 0."""
        value = self.number(*keys)
        if value != int(value) or not 0 <= value < len(options):
            raise self.bad_gold(f"`{keys[0]}` {value:g} is not one of {len(options)} options")
        return ascii_uppercase[int(value)]

    def letter(self, options: Sequence[str], *keys: str) -> str:
        """The letter of a right option that is given as letter ("B", "(B)", "B. red")."""
        said = self.text(*keys).strip()
        match = re.fullmatch(r"\(?([A-Za-z])(?:[).:].*)?", said, re.DOTALL)
        letter = match[1].upper() if match else ""
        if letter not in {option[0] for option in options}:
            raise self.bad_gold(f"`{keys[0]}` {said[:40]!r} is not one of {len(options)} options")
        return letter

    def matching(self, options: Sequence[str], *keys: str) -> str:
        """The letter of the one option whose text is given."""
        said = self.text(*keys)
        named = [option[0] for option in options if option[3:].strip() == said.strip()]
        if len(named) != 1:
            raise self.bad_gold(f"`{keys[0]}` {said[:40]!r} is the text of {len(named)} options")
        return named[0]

    def spans(self, *keys: str) -> list[tuple[float, float]]:
        """One or more `[start, end]` in seconds. One whose end is before its start stays: nothing
        overlaps it, so its question counts and cannot be won (evals.metrics.tiou)."""
        value = self.need(*keys)
        pairs = (
            value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
        )
        try:
            found = [(float(start), float(end)) for start, end in pairs]
        except (TypeError, ValueError, OverflowError) as error:
            raise self.fail(f"`{keys[0]}` must be [start, end] in seconds") from error
        for start, end in found:
            if not (math.isfinite(start) and math.isfinite(end) and min(start, end) >= 0):
                raise self.fail(f"`{keys[0]}` [{start:g}, {end:g}] is not a time span")
        return found


def lettered(texts: Iterable[str]) -> tuple[str, ...]:
    """Printed option lines, "A. red"; a label that a text already has is not doubled."""
    lines = []
    for letter, text in zip(ascii_uppercase, texts, strict=False):
        match = _LABEL.match(text)
        own = match is not None and match[1] == letter
        lines.append(f"{letter}. {text[match.end() :] if own and match else text}")
    return tuple(lines)


def written(spans: Iterable[tuple[float, float]]) -> str:
    """Spans as a gold text, "[1, 2.5] or [7, 9]"."""
    return " or ".join(f"[{start:.15g}, {end:.15g}]" for start, end in spans)


def asked(caption: str) -> str:
    """A caption as a question, for prompts that need one (chosen wording)."""
    return f'When does "{caption}" happen in the video?'


class Files:
    """A user's copy of a data set: what lies below `root`, unpacked or in archives."""

    def __init__(self, name: str, root: Path):
        if not root.is_dir():
            raise BadInput(f"{root}: no such folder; it should hold the data of {name}")
        self.name, self.root = name, root
        self.read: list[Path] = []
        self._index: dict[str, list[tuple[str, Path]]] = {}
        self.archives: list[Path] = []
        self._folders: dict[str, dict[str, Path]] = {}
        for relative, path in self._walk():
            parent, _, name = relative.rpartition("/")
            self._index.setdefault(name, []).append((relative, path))
            self._folders.setdefault(parent.rpartition("/")[2], {})[parent] = path.parent

    def _walk(self) -> Iterator[tuple[str, Path]]:
        seen = set()
        for folder, inner, names in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link led back
                inner.clear()
                continue
            seen.add(real)
            inner[:] = sorted(d for d in inner if not d.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if archive.kind(path) is None:
                    yield path.relative_to(self.root).as_posix(), path
                elif archive.parts(path)[0] == path:
                    self.archives.append(path)
        for path in self.archives:
            for member in archive.members(path):
                if not any(part.startswith((".", "__MACOSX")) for part in member.split("/")):
                    yield member, path / member

    def find(self, *patterns: str) -> list[Path]:
        """Files that match the first pattern that any file matches ("json/*.json"), in order.

        A pattern is compared with the end of a path. Files on disk win over those in archives.
        """
        for pattern in patterns:
            found = sorted(
                {relative: path for entries in self._index.values() for relative, path in
                 reversed(entries) if _ends(relative, pattern)}.items()
            )  # fmt: skip
            if found:
                return [path for _, path in found]
        return []

    def media(self, name: str) -> Path:
        """The file whose path ends in `name`; where there is none, the path it should have.

        Raises BadInput when several files do.
        """
        entries = self._index.get(PurePosixPath(name).name, [])
        found = [p for relative, p in entries if relative == name or relative.endswith(f"/{name}")]
        found = [p for p in found if p.exists()] or found
        if len(found) > 1:  # the one whose whole path is asked for
            whole = [p for relative, p in entries if relative == name and p in found]
            found = whole if len(whole) == 1 else found
        if len(found) > 1:
            raise BadInput(f"{name} is both {found[0]} and {found[1]}; keep one of them")
        return found[0] if found else self._missing(name)

    def video(self, stem: str) -> Path:
        """As `media` for a name without its ending: .mp4, or another that videos have."""
        for ending in VIDEO:
            if PurePosixPath(stem + ending).name in self._index:
                return self.media(stem + ending)
        return self._missing(f"{stem}.mp4")

    def folder(self, name: str) -> Path:
        """The folder whose path ends in `name`, as far as its files are known; see `media`."""
        for relative, path in self._folders.get(PurePosixPath(name).name, {}).items():
            if relative == name or relative.endswith(f"/{name}"):
                return path
        return self._missing(name)

    def _missing(self, name: str) -> Path:
        """Where a file should have been: below the root, whatever a record says."""
        return self.root.joinpath(
            *(p for p in PurePosixPath(name).parts if p not in ("/", "//", ".."))
        )

    def holds(self, path: Path) -> bool:
        """Whether `media` found this file."""
        return any(path == p for _, p in self._index.get(path.name, ()))

    def rows(self, *patterns: str, key: str = "") -> list[Record]:
        """Records of the annotation files that match (see `find`); `key` holds the list in JSON.

        Raises BadInput when no file matches, and naming file and line when one cannot be read.
        """
        paths = [path for path in self.find(*patterns) if path.suffix in _TABLES]
        if not paths:
            raise BadInput(f"{self.root}: no annotations of {self.name} ({' or '.join(patterns)})")
        self.read += [path for path in paths if path not in self.read]
        return [
            Record(data, f"{path}, record {n}")
            for path in paths
            for n, data in enumerate(_table(path, key), start=1)
        ]

    def lines(self, *patterns: str) -> list[tuple[str, str]]:
        """The lines of one text file that hold anything, each with its place. Raises BadInput."""
        paths = self.find(*patterns)
        if not paths:
            raise BadInput(f"{self.root}: no {' or '.join(patterns)}")
        self.read += [path for path in paths[:1] if path not in self.read]
        text = _text(paths[0]).split("\n")
        return [(t.strip(), f"{paths[0]}, record {n}") for n, t in enumerate(text, 1) if t.strip()]

    def json(self, *patterns: str) -> dict[str, Any]:
        """The object in one JSON file. Raises BadInput."""
        paths = self.find(*patterns)
        if not paths:
            raise BadInput(f"{self.root}: no {' or '.join(patterns)}")
        self.read += [path for path in paths[:1] if path not in self.read]
        found = _json(_text(paths[0]), paths[0], 1)
        if not isinstance(found, dict):
            raise BadInput(f"{paths[0]}: expected an object")
        return found

    def sha256(self) -> str:
        """Of the annotation file read, or over the hashes of several in their order."""
        hashes = [hashlib.sha256(archive.read(path)).hexdigest() for path in self.read]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def revision(self) -> str:
        """The commit that huggingface_hub wrote beside the first annotation file, or ""."""
        for path in self.read[:1]:
            note = (
                self.root
                / ".cache/huggingface/download"
                / f"{path.relative_to(self.root)}.metadata"
            )
            if note.is_file():
                return note.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        return ""


def _ends(relative: str, pattern: str) -> bool:
    parts = relative.split("/")
    return fnmatch("/".join(parts[-(pattern.count("/") + 1) :]), pattern)


def _text(path: Path) -> str:
    try:
        return archive.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file in UTF-8") from error


def _json(text: str, path: Path, first: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first + error.lineno - 1
        raise BadInput(f"{path}, line {line}: not valid JSON ({error.msg})") from error


def _table(path: Path, key: str) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return _parquet(path)
    text = _text(path)
    if path.suffix in (".csv", ".tsv"):
        return _csv(text, path)
    if path.suffix == ".jsonl":
        # Not splitlines(): U+2028 and its like may stand inside a JSON string.
        lines = enumerate(text.split("\n"), start=1)
        data: Any = [_json(line, path, number) for number, line in lines if line.strip()]
    else:
        data = _json(text, path, 1)
        if key and isinstance(data, dict):
            data = data.get(key)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise BadInput(f"{path}: expected a list of records")
    return data


def _csv(text: str, path: Path) -> list[dict[str, Any]]:
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    try:
        rows = list(reader)
    except csv.Error as error:
        raise BadInput(f"{path} is no whole table ({error})") from error
    for row in rows:
        if None in row or None in row.values():
            raise BadInput(f"{path}: a line has more or fewer fields than the header")
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(archive.read(path)))
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{path} is not a readable parquet file; download it again") from error
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
