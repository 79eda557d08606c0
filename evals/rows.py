"""Rows on their way to a finished run: a head line, then one JSON line per reply, appended.

Each batch is handed to the operating system as soon as it is scored, so a killed process loses at
most the batch in flight; it is forced to the disk at most once a second and at the end, so a
machine that loses power loses at most the last second too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evals.errors import BadInput
from evals.types import LOST, Row

SYNC = 1.0  # seconds between two fsyncs (chosen)
_NAMES = tuple(f.name for f in fields(Row))


def complete(rows: Iterable[Row], samples: int) -> dict[str, list[Row]]:
    """Question -> its rows, for questions with all `samples` replies or whose clip was lost."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.id, []).append(row)
    return {
        key: own
        for key, own in found.items()
        if len(own) == samples or [r.outcome in LOST for r in own] == [True]
    }


class RowFile:
    """The file `path` of rows made under `head`; a context manager.

    Raises BadInput if the file was begun under another head. `kept`: rows of the questions that
    were completely answered; opening rewrites the file to hold just these.
    """

    def __init__(self, path: Path, head: dict[str, Any], samples: int):
        self.path = path
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        if lines and lines[0] and _parsed(lines[0]) != head:
            raise BadInput(
                f"{path} was begun with another model, protocol or seed; choose another --out"
            )
        self._known = complete(_whole(lines[1:]), samples)
        self.kept: Sequence[Row] = [row for rows in self._known.values() for row in rows]
        draft = path.with_suffix(".tmp")
        draft.write_text("".join([json.dumps(head) + "\n", *map(_line, self.kept)]), "utf-8")
        draft.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with self._file:
            self._sync()

    def add(self, rows: Iterable[Row]) -> None:
        """Append what is not in the file yet."""
        self._file.writelines(_line(row) for row in rows if row.id not in self._known)
        self._file.flush()
        if time.monotonic() - self._synced >= SYNC:
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _line(row: Row) -> str:
    # Not dataclasses.asdict: it copies every value, at four times the price of writing the line.
    data = {name: getattr(row, name) for name in _NAMES} | {"tags": dict(row.tags)}
    return json.dumps(data) + "\n"  # ASCII, so that even half a surrogate pair can be written


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _whole(lines: Sequence[str]) -> list[Row]:
    """Rows up to the first line that a kill cut short."""
    rows = []
    for line in lines:
        data = _parsed(line)
        if not isinstance(data, dict):
            break
        rows.append(Row(**{name: data[name] for name in _NAMES}))
    return rows
