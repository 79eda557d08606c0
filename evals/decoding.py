"""Decoding under supervision: workers with limits, a list of files not to try again, a store.

| limit      | value         | a file that exceeds it is                                    |
|------------|---------------|--------------------------------------------------------------|
| `seconds`  | 120 wall clock| `timeout`; its worker is killed                              |
| `memory`   | 4 GiB         | `undecodable`                                                |
| `frames`   | 2,000,000     | `undecodable` (18 hours at 30 frames/s)                      |
| `pixels`   | 2 GiB decoded | `undecodable`                                                |

All values are chosen. A file that hangs, kills or exhausts its worker enters a quarantine list by
its sha256 and is not tried again under the same limits; where decord fails, PyAV is tried first.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from evals import archive, framestore, video
from evals.decoder_process import versions
from evals.errors import BadInput, TimedOut, Undecodable
from evals.framestore import FrameStore
from evals.types import Protocol, VideoClip

_PIPE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one file may cost; see the table above. pixels: bytes of the decoded frames."""

    seconds: float = 120.0
    memory: int = 4 * 2**30
    frames: int = 2_000_000
    pixels: int = 2 * 2**30


class Died(Exception):
    """The worker ended by itself."""


class _Closed(Exception):
    """Nobody waits for this reply any more."""


class Worker:
    """One decoder process. `ask` raises TimeoutError or Died, and then there is no process.

    module: what it runs, given the limits on memory and seconds as arguments.
    """

    def __init__(self, limits: Limits, module: str = "evals.decoder_process"):
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in paths if p),
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(limits.memory),
             str(limits.seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True, bufsize=0,
        )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        self._out = self.process.stdout.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, _PIPE)

    def ask(
        self, request: dict[str, Any], deadline: float
    ) -> tuple[dict[str, Any], npt.NDArray[np.uint8] | None]:
        """A reply and its pixels by `deadline` (time.monotonic). Raises Undecodable."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._died() from None
        reply, rest = self._line(deadline)
        if "undecodable" in reply:
            why = str(reply["undecodable"])
            raise Undecodable(why if request["path"] in why else f"{request['path']}: {why}")
        if "bytes" not in reply:
            return reply, None
        pixels = np.empty(reply["bytes"], np.uint8)
        pixels[: len(rest)] = np.frombuffer(rest, np.uint8)
        at = len(rest)
        while at < len(pixels):
            self._wait(deadline)
            read = os.readv(self._out, [pixels.data[at:]])
            if not read:
                raise self._died()
            at += read
        return reply, pixels.reshape(reply["shape"])

    def _line(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        data = b""
        while b"\n" not in data:
            self._wait(deadline)
            block = os.read(self._out, _PIPE)
            if not block:
                raise self._died()
            data += block
        line, _, rest = data.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply, rest

    def _wait(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._out], [], [], left)[0]:
            self.kill()
            raise TimeoutError

    def _died(self) -> Died:
        self.kill()
        code = self.process.returncode
        return Died(f"signal {-code}" if code < 0 else f"exit code {code}")

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


class Quarantine:
    """Files that cost a worker, by sha256 and limits: one JSON line each, or in memory only."""

    def __init__(self, path: Path | None):
        self.path, self._known, self._lock = path, dict[str, dict[str, str]](), Lock()
        if path and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[entry["key"]] = entry
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # cut short by a kill: that file will be tried again

    def check(self, key: str, path: Path) -> None:
        """Raises what the file was quarantined for."""
        if entry := self._known.get(key):
            kind = TimedOut if entry["outcome"] == "timeout" else Undecodable
            where = f"; listed in {self.path}" if self.path else ""
            raise kind(f"{path}: {entry['why']}{where}")

    def add(self, key: str, path: Path, outcome: str, why: str) -> None:
        """List a file."""
        entry = {"key": key, "outcome": outcome, "why": why, "path": str(path)}
        with self._lock:
            self._known[key] = entry
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")


class Decoding:
    """Reads clips in `workers` processes; a context manager that ends them.

    decoder: for files of known origin `decord`, else `pyav`. cache: folder of the frame store and
    of the quarantine list, None for neither. worth: seconds of decoding from which frames are
    stored. counts: decoded, stored (read from the store), rescued (decord failed, PyAV did not),
    killed, quarantined.
    """

    def __init__(
        self,
        *,
        decoder: video.Decoder = "pyav",
        workers: int = 1,
        limits: Limits | None = None,
        cache: Path | None = None,
        budget: int = framestore.BUDGET,
        worth: float = 0.05,
    ):
        self.versions = versions()
        if decoder not in self.versions:
            raise BadInput(f"{decoder} is not installed here; use the decoder pyav")
        self.decoder, self.limits, self.worth = decoder, limits or Limits(), worth
        self.store = FrameStore(cache / "frames", budget) if cache else None
        self.quarantine = Quarantine(cache / "quarantine.jsonl" if cache else None)
        self.counts: Counter[str] = Counter()
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="decoding")
        self.closing = False
        self._lock = Lock()
        self._alive: set[Worker] = set()
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)  # started when first needed

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.closing = True
        self.threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for worker in self._alive:
                worker.process.kill()  # whoever waits for it sees its end
        self.threads.shutdown(wait=True)
        for worker in self._alive:
            worker.kill()

    def clips(self, protocol: Protocol, keep: int = 2**30) -> video.Clips:
        """A reader for one protocol, decoding ahead in these workers."""
        return video.Clips(protocol, keep, read=self.read, ahead=self.threads)

    def read(self, wanted: video.Wanted, law: Protocol | video.Exactly) -> VideoClip:
        """As `evals.video.read_clip`; also raises TimedOut."""
        if wanted.rate is not None:  # pictures need no decoder that could hang
            return video.read_pictures(wanted, law)
        with self._worker() as seat:
            deadline = time.monotonic() + self.limits.seconds
            path = archive.local(wanted.path)
            sha256 = seat.ask({"do": "digest", "path": str(path)}, deadline)[0]["sha256"]
            key = f"{sha256} {json.dumps(asdict(self.limits))}"
            with self._counting_quarantine():
                self.quarantine.check(key, path)
            seat.file = (key, path)
            if wanted.modality == "image":
                return self._image(seat, path, deadline)
            info = video.Probe(**seat.ask({"do": "probe", "path": str(path)}, deadline)[0])
            video.shapely(path, info.height, info.width)
            chosen = video.shown_of(info, wanted, law)
            self._within(path, info, len(chosen.indices))
            frames = self._frames(seat, path, sha256, info, chosen.indices, deadline)
            return VideoClip(frames, chosen.own, info.fps, chosen.total)

    def _image(self, seat: _Seat, path: Path, deadline: float) -> VideoClip:
        _, pixels = seat.ask({"do": "image", "path": str(path)}, deadline)
        assert pixels is not None
        video.shapely(path, *pixels.shape[1:3])
        self.count("decoded")
        return VideoClip(pixels, (0,), 1.0, 1, "image")

    def _within(self, path: Path, info: video.Probe, shown: int) -> None:
        if info.frames > self.limits.frames:
            raise Undecodable(
                f"{path}: {info.frames} frames are more than the limit of {self.limits.frames}"
            )
        if shown * info.height * info.width * 3 > self.limits.pixels:
            raise Undecodable(
                f"{path}: {shown} frames of {info.width} x {info.height} pixels are more than "
                f"{self.limits.pixels / 2**30:g} GiB"
            )

    def _frames(
        self, seat: _Seat, path: Path, sha256: str, info: video.Probe, indices: tuple[int, ...],
        deadline: float,
    ) -> npt.NDArray[np.uint8]:  # fmt: skip
        key = framestore.key(sha256, indices, info.height, info.width, self.versions[self.decoder])
        if self.store and (stored := self.store.get(key)) is not None:
            self.count("stored")
            return stored
        began = time.monotonic()
        request = {"do": "decode", "path": str(path), "indices": indices, "decoder": self.decoder}
        frames = seat.decode(request, deadline)
        self.count("decoded")
        if self.store and time.monotonic() - began >= self.worth:
            self.store.put(key, frames)
        return frames

    def start(self) -> Worker:
        """A new worker. Raises _Closed after the end."""
        with self._lock:
            if self.closing:
                raise _Closed
            worker = Worker(self.limits)
            self._alive.add(worker)
            return worker

    def lost(self, worker: Worker) -> None:
        """A worker hung or died. Raises _Closed where this object itself ended it."""
        if self.closing:
            raise _Closed
        self.count("killed")
        with self._lock:
            self._alive.discard(worker)

    def count(self, name: str) -> None:
        """Add one to `counts[name]`."""
        with self._lock:
            self.counts[name] += 1

    @contextmanager
    def _counting_quarantine(self) -> Iterator[None]:
        try:
            yield
        except (TimedOut, Undecodable):
            self.count("quarantined")
            raise

    @contextmanager
    def _worker(self) -> Iterator[_Seat]:
        seat = _Seat(self, self._idle.get())
        try:
            yield seat
        finally:
            self._idle.put(seat.worker)


class _Seat:
    """A place for a worker, refilled when one was lost; turns its loss into a named failure."""

    def __init__(self, owner: Decoding, worker: Worker | None):
        self.owner, self.worker = owner, worker
        self.file: tuple[str, Path] | None = None  # quarantine key and path, once known

    def ask(
        self, request: dict[str, Any], deadline: float
    ) -> tuple[dict[str, Any], npt.NDArray[np.uint8] | None]:
        limits = self.owner.limits
        try:
            return self._ask(request, deadline)
        except TimeoutError:
            why = f"reading it took more than {limits.seconds:g} s"
            self._list("timeout", why)
            raise TimedOut(f"{request['path']}: {why}") from None
        except Died as end:
            why = f"reading it ended the decoder ({end})"
            self._list("undecodable", why)
            raise Undecodable(f"{request['path']}: {why}") from None

    def decode(self, request: dict[str, Any], deadline: float) -> npt.NDArray[np.uint8]:
        """Pixels; where decord hangs or dies, PyAV gets the same time again."""
        if request["decoder"] == "decord":
            try:
                _, frames = self._ask(request, deadline)
                assert frames is not None
                return frames
            except (TimeoutError, Died):
                self.owner.count("rescued")
                request = {**request, "decoder": "pyav"}
                deadline = time.monotonic() + self.owner.limits.seconds
        _, frames = self.ask(request, deadline)
        assert frames is not None
        return frames

    def _ask(
        self, request: dict[str, Any], deadline: float
    ) -> tuple[dict[str, Any], npt.NDArray[np.uint8] | None]:
        if self.worker is None:
            self.worker = self.owner.start()
        try:
            return self.worker.ask(request, deadline)
        except (TimeoutError, Died):
            self.owner.lost(self.worker)
            self.worker = None
            raise

    def _list(self, outcome: str, why: str) -> None:
        if self.file:
            self.owner.quarantine.add(*self.file, outcome, why)
