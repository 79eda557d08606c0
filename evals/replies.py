"""Replies on disk, found again by everything that made them.

The key of reply k is the sha256 of: weights, processor, engine and its version, the rendered
prompt, the pixels with their frame numbers and time base, what of the protocol shapes the model's
input, and the decoding arguments with the seed, the number of replies and k. Graders are no part
of it: replies may be scored again and again. Greedy replies have no seed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evals.errors import EnvironmentFault
from evals.types import Decoding, Protocol, Reply, VideoClip

#: Raised when the same seed begins to draw otherwise.
SAMPLER = 1
#: Fields of a protocol that only name it or judge replies.
_AFTERWARDS = ("id", "grader", "iou", "overlap", "aggregation", "denominator", "subset", "decoding")


def pixels(clip: VideoClip | None) -> str:
    """sha256 of a clip: frames, their numbers, time base, pictures; "" without one."""
    if clip is None:
        return ""
    said = [clip.frames.shape, clip.indices, clip.fps, clip.total, clip.modality]
    found = hashlib.sha256(json.dumps(said).encode())
    found.update(clip.frames.data if clip.frames.flags.c_contiguous else clip.frames.tobytes())
    for image in clip.images:
        found.update(json.dumps(image.shape).encode() + image.tobytes())
    return found.hexdigest()


def keys(
    identity: Mapping[str, str], prompt: str, clip: str, protocol: Protocol, decoding: Decoding,
    seed: int,
) -> list[str]:  # fmt: skip
    """One key per reply. identity: weights, processor, engine. clip: what `pixels` says."""
    view = {k: v for k, v in protocol.as_dict().items() if k not in _AFTERWARDS}
    drawn = asdict(replace(decoding, seed=0 if decoding.temperature == 0 else seed))
    said = [SAMPLER, dict(identity), prompt, clip, view, drawn]
    return [
        hashlib.sha256(json.dumps([*said, k], sort_keys=True).encode()).hexdigest()
        for k in range(decoding.samples)
    ]


class ReplyCache:
    """Replies by key in one SQLite file; a context manager. Several processes may share it.

    Each `put` is durable against a killed process when it returns.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS replies "
                "(key TEXT PRIMARY KEY, text TEXT, tokens INTEGER, finished INTEGER)"
            )
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._db.close()

    def get(self, keys: Sequence[str]) -> list[Reply] | None:
        """The replies under all these keys, or None if one is missing."""
        found = []
        for key in keys:
            row = self._run("SELECT text, tokens, finished FROM replies WHERE key = ?", (key,))
            if row is None:
                return None
            found.append(Reply(json.loads(row[0]), row[1], bool(row[2])))
        return found

    def put(self, keys: Sequence[str], replies: Sequence[Reply]) -> None:
        """Keep replies; what is there already stays."""
        with self._db:
            for key, reply in zip(keys, replies, strict=True):
                self._run(
                    "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)",
                    (key, json.dumps(reply.text), reply.tokens, int(reply.finished)),
                )

    def _run(self, statement: str, values: tuple[Any, ...]) -> Any:
        try:
            return self._db.execute(statement, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> EnvironmentFault:
        return EnvironmentFault(
            f"the cache of replies {self.path} cannot be used ({error}): delete it, or add "
            "--no-cache"
        )
