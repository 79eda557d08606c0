"""Decoded frames on disk, losslessly, so that a film is decoded once for all runs.

A file holds the sha256 of what follows, then the frames as .npy; its name is the sha256 of (video's
sha256, frame numbers, height, width, decoder and version). A frame law enters by the frame numbers
it chose. The files used longest ago are deleted to stay within a budget.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

BUDGET = 20 * 2**30  # bytes (chosen)
_DIGEST = 32


def key(video: str, indices: Sequence[int], height: int, width: int, decoder: str) -> str:
    """video: sha256 of the file. decoder: name and version."""
    said = json.dumps([video, list(indices), height, width, decoder])
    return hashlib.sha256(said.encode()).hexdigest()


class FrameStore:
    """Frames by key. Damaged files are deleted and count as absent; a full disk only stops
    storing. Several processes may share a folder. `full`: whether the disk was."""

    def __init__(self, folder: Path, budget: int = BUDGET):
        self.folder, self.budget, self.full = folder, budget, False
        self._lock = Lock()
        self._total: int | None = None  # bytes, known after the first look

    def get(self, key: str) -> npt.NDArray[np.uint8] | None:
        """(F, H, W, 3) uint8, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)  # used last
        except FileNotFoundError:
            return None
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            path.unlink(missing_ok=True)
            return None
        frames: npt.NDArray[np.uint8] = np.load(io.BytesIO(data[_DIGEST:]), allow_pickle=False)
        return frames

    def put(self, key: str, frames: npt.NDArray[np.uint8]) -> None:
        """Keep frames, unless they alone exceed the budget or the disk is full."""
        buffer = io.BytesIO()
        np.save(buffer, frames, allow_pickle=False)
        data = buffer.getvalue()
        path = self._path(key)
        if self.full or len(data) > self.budget or path.exists():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as draft:
                try:
                    draft.write(hashlib.sha256(data).digest() + data)
                    draft.close()
                    os.replace(draft.name, path)
                finally:
                    Path(draft.name).unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            self.full = True
            return
        self._make_room(len(data) + _DIGEST, path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _make_room(self, added: int, keep: Path) -> None:
        with self._lock:
            known = self._total
            self._total = None if known is None else known + added
            if self._total is not None and self._total <= self.budget:
                return
            files = self._files()
            total = sum(size for _, size, _ in files)
            for _, size, path in files:
                if total > self.budget and path != keep:
                    path.unlink(missing_ok=True)
                    total -= size
            self._total = total

    def _files(self) -> list[tuple[int, int, Path]]:
        """(time of last use, bytes, path), oldest first."""
        found = []
        for path in self.folder.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            found.append((stat.st_mtime_ns, stat.st_size, path))
        return sorted(found)
