"""Patches that were paid for: a file that survives restarts and takes several writers at once.

    key = sha256 of (teacher id, pixels and times shown, question, options, gold, the failure)

where the failure is the whole reply (`exact`) or only the answer read from it (`by_answer`, which
saves most calls where a question has few wrong answers). The teacher's id holds its sampling and
the version of its prompt. Only accepted patches stay for good, to be judged again by whoever takes
them; that there was none is remembered for `negative` seconds, under the gate it was so under.
SQLite, so that a kill loses at most the entry being written (ffr.md 6.5).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evals.errors import BadInput, EnvironmentFault
from evals.types import VideoClip
from repro.ffr.patch import BadPatch, Patch, as_json, parse
from repro.ffr.teacher import Failure, Repair, Status

Match = Literal["exact", "by_answer"]
VERSION = 1
#: Seconds for which "no patch" is remembered (chosen).
NEGATIVE = 3600.0
#: Outcomes that say something about the failure, not about the server.
KEPT: tuple[Status, ...] = ("none", "invalid", "leak_rejected", "refused")
#: Clips whose digest is remembered, and seconds to wait for another writer (chosen).
_CLIPS, _PATIENCE = 16, 60.0
_TABLE = """CREATE TABLE IF NOT EXISTS repairs (
    key TEXT PRIMARY KEY, teacher TEXT NOT NULL, record TEXT NOT NULL, status TEXT NOT NULL,
    patch TEXT, made REAL NOT NULL, expires REAL, shown TEXT NOT NULL)"""

_PUT = """INSERT INTO repairs VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
    status = excluded.status, patch = excluded.patch, made = excluded.made,
    expires = excluded.expires WHERE excluded.patch IS NOT NULL OR patch IS NULL"""


@dataclass(frozen=True)
class Entry:
    """A kept repair. made, expires: seconds since 1970; patches do not expire.
    record: its id. shown: the clip's frame numbers, frames per second and number of frames."""

    key: str
    teacher: str
    record: str
    status: Status
    patch: Patch | None
    made: float
    expires: float | None
    shown: tuple[tuple[int, ...], float, int]


class Cache:
    """See above. path: an SQLite file, made if missing; readonly: it must exist and stays as it is.

    Raises BadInput for a file that is no such cache, EnvironmentFault where it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        match: Match = "exact",
        negative: float = NEGATIVE,
        readonly: bool = False,
        clock: Callable[[], float] = time.time,
    ):
        self.path, self.match, self.negative, self.readonly = path, match, negative, readonly
        self._clock, self._lock = clock, threading.Lock()
        self._digests: OrderedDict[int, tuple[VideoClip, str]] = OrderedDict()
        if readonly and not path.is_file():
            raise BadInput(f"{path}: no such cache of patches")
        if not readonly:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._trouble():
            mode = "ro" if readonly else "rwc"
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE,
                isolation_level=None, check_same_thread=False,
            )  # fmt: skip
            if not readonly:
                self._db.execute(_TABLE)
            self._db.execute("SELECT key, shown FROM repairs LIMIT 1")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def key(self, teacher: str, failure: Failure) -> str:
        """64 hex digits. Secrets are no part of it; the gold is, since a patch depends on it."""
        record, clip = failure.record, failure.clip
        exact = self.match == "exact" or failure.answer is None
        parts = [
            VERSION, teacher, self._digest(clip) if clip else "", record.question,
            list(record.options), record.kind, record.gold, self.match,
            failure.reply if exact else ["answer", failure.answer],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @staticmethod
    def refusal(key: str, gate: str) -> str:
        """The key under which it is kept that a gate of that id got no patch for a failure."""
        return f"{key} {gate}"

    def _digest(self, clip: VideoClip) -> str:
        """Of the pixels and times shown, not of the file's name."""
        with self._lock:
            known = self._digests.get(id(clip))
        if known is not None and known[0] is clip:
            return known[1]
        pictures = (clip.frames, *clip.images)
        shown = [[p.shape for p in pictures], clip.indices, clip.fps, clip.total]
        digest = hashlib.sha256(json.dumps(shown).encode())
        for picture in pictures:
            digest.update(picture.tobytes())
        with self._lock:
            self._digests[id(clip)] = (clip, digest.hexdigest())
            while len(self._digests) > _CLIPS:
                self._digests.popitem(last=False)
        return digest.hexdigest()

    def get(self, key: str) -> Entry | None:
        """What is kept under a key; None for nothing, or for something that has expired."""
        with self._trouble(), self._lock:
            row = self._db.execute("SELECT * FROM repairs WHERE key = ?", (key,)).fetchone()
        entry = _entry(row) if row else None
        if entry is None or (entry.expires is not None and entry.expires <= self._clock()):
            return None
        return entry

    def put(self, key: str, repair: Repair, teacher: str, failure: Failure) -> None:
        """Keep an accepted patch, or for a while that there is none; other outcomes are not kept.

        A patch is never overwritten by the want of one.
        """
        if self.readonly or repair.status not in ("ok", *KEPT):
            return
        now = self._clock()
        text = as_json(repair.patch) if repair.patch else None
        expires = None if repair.patch else now + self.negative
        shown = json.dumps(_shown(failure))
        row = (key, teacher, failure.record.id, repair.status, text, now, expires, shown)
        with self._trouble(), self._lock:
            self._db.execute(_PUT, row)

    def entries(self) -> Iterator[Entry]:
        """All that is kept, expired or not, oldest first."""
        with self._trouble(), self._lock:
            rows = self._db.execute("SELECT * FROM repairs ORDER BY made, key").fetchall()
        return map(_entry, rows)

    def __len__(self) -> int:
        with self._trouble(), self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM repairs").fetchone()[0])

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                raise BadInput(f"{self.path} is not a cache of patches: {error}") from error
            raise EnvironmentFault(
                f"the cache of patches {self.path} cannot be used ({error}): see to the disk, or "
                "name another file; what is in it stays"
            ) from error
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{self.path} is not a cache of patches; delete or rename it") from error


def _shown(failure: Failure) -> tuple[tuple[int, ...], float, int]:
    clip = failure.clip
    return (clip.indices, clip.fps, clip.total) if clip else ((), 1.0, 0)


def _entry(row: tuple[str, str, str, Status, str | None, float, float | None, str]) -> Entry:
    key, teacher, record, status, text, made, expires, shown = row
    try:
        indices, fps, total = json.loads(shown)
        patch = parse(text) if text else None
    except (ValueError, BadPatch) as error:
        raise BadInput(
            f"the cache of patches holds no patch under {key}: delete the file"
        ) from error
    return Entry(key, teacher, record, status, patch, made, expires, (tuple(indices), fps, total))


class Replay:
    """A teacher that only repeats what a cache holds for `teacher`; a miss is no patch."""

    second_try, stores = False, False

    def __init__(self, cache: Cache, teacher: str | None = None):
        self.cache = cache
        known = sorted({e.teacher for e in cache.entries()})
        if teacher is None and len(known) > 1:
            raise BadInput(f"{cache.path} holds patches of {', '.join(known)}: name one of them")
        self.teacher = teacher or (known[0] if known else "")
        self.id = f"replay of {self.teacher}"

    async def patch(self, failure: Failure) -> Patch | None:
        entry = self.cache.get(self.cache.key(self.teacher, failure))
        return entry.patch if entry else None
