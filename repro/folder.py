"""Output folders: writable, empty unless resumed, and one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evals.errors import BadInput

LOCK = ".lock"


@contextmanager
def writing(
    path: Path, *, resume: bool = False, what: str = "--resume continues it"
) -> Iterator[Path]:
    """Hold `path` as this process's output folder, creating it.

    Raises BadInput if it cannot be written, is in use by another process, or holds anything and
    `resume` is off; `what` then tells the way out. The lock dies with the process.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("a")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise BadInput(f"cannot write to {path} ({error.strerror}); choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{path} is being written by another process") from None
        if not resume and any(entry.name != LOCK for entry in path.iterdir()):
            raise BadInput(f"{path} is not empty: {what}, or choose another --out")
        yield path


def write_json(path: Path, data: Any) -> None:
    """Replace `path` in one step, so that a reader sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Raises BadInput naming the file if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path} is not JSON ({error})") from None
