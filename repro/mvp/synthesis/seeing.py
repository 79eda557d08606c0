"""Pass 1 over many videos: workers that can be killed, and a journal of what became of each file.

| outcome      | meaning                                                                  |
|--------------|--------------------------------------------------------------------------|
| `no video`   | readable, but sound alone                                                |
| `unreadable` | not a video, of a refused codec, or nothing of it can be decoded         |
| `timeout`    | it took longer than 60 s + 5 s per MB (chosen); its worker was killed    |
| `too large`  | it took more than 4 GiB                                                  |

The journal knows a file by path, size and time of change, so a second run hashes nothing again.
What took too long, or ended its worker, is tried in two runs.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evals.decoding import Died, Limits, Worker
from evals.errors import BadInput, EnvironmentFault
from repro.mvp.synthesis.embed import BUILT_IN, embedder
from repro.mvp.synthesis.films import Filming
from repro.mvp.synthesis.store import Store

ENDINGS = frozenset({
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
})  # fmt: skip
_TRIES = 2
_MEMORY = 4 * 2**30
_PASSING = ("timeout", "ended its worker")  # worth a second try


@dataclass(frozen=True)
class Seen:
    """What became of a file: `sha256` is in the store, or `lost` says why not."""

    video: str
    sha256: str | None = None
    lost: str | None = None
    why: str = ""
    seconds: float = 0.0
    tries: int = 1
    cost: dict[str, float] = field(default_factory=dict)


def listed(folder: Path) -> list[Path]:
    """Videos below a folder by their ending, sorted by path, hidden ones left out.

    Raises BadInput where there is none.
    """
    found = sorted(
        path for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )  # fmt: skip
    if not found:
        raise BadInput(f"{folder} holds no video ({', '.join(sorted(ENDINGS))})")
    return found


class Journal:
    """One JSON line per file that was seen; a line cut short by a kill is no line."""

    def __init__(self, path: Path):
        self.path, self.known = path, dict[str, Seen]()
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self.known[entry["file"]] = Seen(**entry["seen"])
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue

    def add(self, file: str, seen: Seen) -> None:
        self.known[file] = seen
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as sink:
            sink.write("\n" * _broken(self.path))
            sink.write(json.dumps({"file": file, "seen": asdict(seen)}) + "\n")


def _broken(path: Path) -> bool:
    """Whether the last line of a file has no end."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read() != b"\n"


def _file(path: Path) -> str:
    stat = path.stat()
    return json.dumps([str(path.absolute()), stat.st_size, stat.st_mtime_ns])


def see(
    folder: Path,
    cache: Path,
    filming: Filming,
    name: str,
    *,
    workers: int = 1,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    most: int | None = None,
) -> list[Seen]:
    """Every video of a folder, in the order of their paths, seen and embedded by embedder `name`;
    of the first `most` alone.

    Raises BadInput for a folder without videos and for an unknown embedder, EnvironmentFault where
    the store cannot be written.
    """
    vectors = embedder(name)
    paths, store = listed(folder)[:most], Store(cache, filming)
    journal = Journal(store.folder / "journal.jsonl")
    files = {path: _file(path) for path in paths}

    def known(path: Path) -> bool:
        seen = journal.known.get(files[path])
        if seen is None or (seen.lost in _PASSING and seen.tries < _TRIES):
            return False
        return seen.sha256 is None or (
            store.has(seen.sha256) and (name != BUILT_IN or store.has(seen.sha256, name))
        )

    left = [path for path in paths if not known(path)]
    progress("videos", len(paths) - len(left), len(paths))
    for done, (path, reply) in enumerate(_replies(left, store, name, workers), 1):
        before = journal.known.get(files[path])
        again = before.tries + 1 if before is not None and before.lost else 1
        journal.add(files[path], Seen(path.relative_to(folder).as_posix(), tries=again, **reply))
        progress("videos", len(paths) - len(left) + done, len(paths))
    found = [journal.known[files[path]] for path in paths]
    _embed([s.sha256 for s in found if s.sha256], store, vectors, progress)
    names = [path.relative_to(folder).as_posix() for path in paths]  # another folder's may differ
    return [_renamed(seen, video) for seen, video in zip(found, names, strict=True)]


def _renamed(seen: Seen, video: str) -> Seen:
    return Seen(**{**asdict(seen), "video": video})


def _embed(films: Sequence[str], store: Store, vectors: Any, progress: Callable[..., None]) -> None:
    """What no worker could embed: a network that one process should hold."""
    left = [film for film in dict.fromkeys(films) if not store.has(film, vectors.name)]
    for done, film in enumerate(left, 1):
        store.embed(film, vectors)
        progress("embeddings", done, len(left))


def _replies(
    paths: Sequence[Path], store: Store, name: str, workers: int
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """As they come; the workers end with the iterator."""
    seats: queue.SimpleQueue[_Seat] = queue.SimpleQueue()
    every = [_Seat(store, name) for _ in range(min(workers, max(1, len(paths))))]
    for seat in every:
        seats.put(seat)

    def ask(path: Path) -> dict[str, Any]:
        seat = seats.get()
        try:
            return seat.ask(path)
        finally:
            seats.put(seat)

    threads = ThreadPoolExecutor(len(every), thread_name_prefix="seeing")
    try:
        asked = {threads.submit(ask, path): path for path in paths}
        for future in as_completed(asked):
            yield asked[future], future.result()
    finally:
        for seat in every:
            seat.end()
        threads.shutdown(wait=True, cancel_futures=True)


class _Seat:
    """A worker, begun when first needed and again when one was lost."""

    def __init__(self, store: Store, name: str):
        self.store, self.name = store, name
        self.worker: Worker | None = None
        self.over = False

    def ask(self, path: Path) -> dict[str, Any]:
        if self.over:
            return {"lost": "timeout", "why": "stopped"}  # nobody hears it
        limit = 60 + 5e-6 * path.stat().st_size
        request = {
            "path": str(path.absolute()), "store": str(self.store.folder.parent.absolute()),
            "filming": asdict(self.store.filming), "limit": limit,
            "embedder": self.name if self.name == BUILT_IN else None,
        }  # fmt: skip
        if self.worker is None:
            self.worker = Worker(
                Limits(seconds=limit, memory=_MEMORY), "repro.mvp.synthesis.worker"
            )
        try:
            reply, _ = self.worker.ask(request, time.monotonic() + limit)
        except TimeoutError:
            self.worker = None
            return {"lost": "timeout", "why": f"{path}: it took more than {limit:.0f} s"}
        except Died as end:
            self.worker = None
            if self.over:
                return {"lost": "timeout", "why": "stopped"}  # nobody hears it
            return {"lost": "ended its worker", "why": f"{path}: {end}"}
        if "stop" in reply:
            raise EnvironmentFault(
                f"the pictures of {path} could not be kept in {self.store.folder}: "
                f"{reply['stop']}; make room, or name another --cache"
            )
        return reply

    def end(self) -> None:
        self.over = True
        if self.worker is not None:
            self.worker.kill()
