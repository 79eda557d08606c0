"""Stages of work as child processes, several side by side, each resumable and run once.

A stage whose proof file exists is finished and never repeated. Children run one thread each, in
sessions of their own: the parent alone hears Ctrl-C or SIGTERM, passes it on once, and waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from repro.exits import ENVIRONMENT, Interrupted, StageFailed
from repro.show import Show, clock

GRACE = 60.0  # seconds a child may take to save its checkpoint after a signal (chosen)


@dataclass(frozen=True)
class Stage:
    """One child process. proof: the file that exists once it has finished.

    pace: a file that grows by one line per unit of work, of `total` units, after `heading` lines.
    program: in place of the run's own, such as torchrun before several processes.
    """

    name: str
    argv: tuple[str, ...]
    proof: Path
    pace: Path
    total: int
    log: Path
    heading: int = 0
    program: tuple[str, ...] = ()


Chain = tuple[Stage, ...]  # stages that follow one another


@dataclass
class _Counter:
    """Lines of a growing file, read from where the last look ended."""

    path: Path
    lines: int = 0
    offset: int = 0

    def look(self) -> int:
        if not self.path.exists():
            return self.lines
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self.offset:
                self.lines = self.offset = 0  # a resumed run rewrote it
            file.seek(self.offset)
            new = file.read()
        self.offset += len(new)
        self.lines += new.count(b"\n")
        return self.lines


@dataclass
class _Child:
    stage: Stage
    rest: Chain
    process: subprocess.Popen[bytes]
    counter: _Counter
    device: str | None = None
    started: float = field(default_factory=time.monotonic)


def run(
    work: Sequence[Chain],
    jobs: int,
    show: Show,
    *,
    program: Sequence[str],
    poll: float = 0.3,
    grace: float = GRACE,
    devices: Sequence[str] = (),
) -> None:
    """Run every unfinished stage, `jobs` chains at a time; with `devices` as many as there are, and
    each chain sees one of them (CUDA_VISIBLE_DEVICES).

    Raises StageFailed at the first failing child, after the others were stopped (they resume), and
    KeyboardInterrupt or Interrupted once all children have saved and ended.
    """
    waiting = deque(left for chain in work if (left := _unfinished(chain, show)))
    running: list[_Child] = []
    free: deque[str | None] = deque(devices)
    if not free:
        free.extend([None] * jobs)
    with _hearing() as heard:
        try:
            while (waiting or running) and not heard:
                while waiting and free:
                    running.append(_start(waiting.popleft(), program, show, free.popleft()))
                time.sleep(poll)
                for child in list(running):
                    _look(child, show)
                    if child.process.poll() is None:
                        continue
                    running.remove(child)
                    free.appendleft(child.device)
                    _ended(child, show)
                    if child.rest:
                        waiting.appendleft(child.rest)
        finally:
            _stop(running, heard, grace)
    if heard:
        raise KeyboardInterrupt if heard[0] == signal.SIGINT else Interrupted


@contextmanager
def _hearing() -> Iterator[list[int]]:
    """Signals are noted, not obeyed at once: an exception between two lines could lose a child."""
    heard: list[int] = []
    before = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:  # nohup stays nohup
            before[signum] = signal.signal(signum, lambda number, frame: heard.append(number))
    try:
        yield heard
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _look(child: _Child, show: Show) -> None:
    stage = child.stage
    done = max(0, child.counter.look() - stage.heading)
    show.update(stage.name, min(done, stage.total), stage.total)


def _unfinished(chain: Chain, show: Show) -> Chain:
    for stage in chain:
        if stage.proof.exists():
            show.say(f"{stage.name}: finished earlier")
    return tuple(stage for stage in chain if not stage.proof.exists())


def _start(chain: Chain, program: Sequence[str], show: Show, device: str | None) -> _Child:
    stage, rest = chain[0], chain[1:]
    stage.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    with stage.log.open("ab") as log:
        process = subprocess.Popen(
            [*(stage.program or program), *stage.argv], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
    show.say(f"{stage.name}: started")
    return _Child(stage, rest, process, _Counter(stage.pace), device)


def _ended(child: _Child, show: Show) -> None:
    stage, code = child.stage, child.process.returncode
    show.drop(stage.name)
    if code == 0 and stage.proof.exists():
        show.say(f"{stage.name}: done in {clock(time.monotonic() - child.started)}")
        return
    last = last_line(stage.log)
    if code == 0:
        problem, code = f"ended without writing {stage.proof}", 1
    elif code == -signal.SIGKILL:
        problem, code = "was killed, most likely for want of memory; try --jobs 1", ENVIRONMENT
    elif code < 0:
        problem, code = f"was ended by {signal.Signals(-code).name}", 128 - code
    else:
        problem = f"failed: {last.removeprefix('error: ')}"
    raise StageFailed(f"{stage.name} {problem} (all it printed: {stage.log})", code)


def last_line(log: Path) -> str:
    """The last sentence of ours ("error: ..."), since torchrun has more to say after it; else the
    last line that is not blank, or a word that there is none."""
    lines = [x.strip() for x in log.read_text(errors="replace").splitlines() if x.strip()]
    ours = [line for line in lines if line.startswith("error: ")]
    return (ours or lines or ["it printed nothing"])[-1]


def _stop(running: Sequence[_Child], heard: Sequence[int], grace: float) -> None:
    """Asks the children to save and end; kills them when that takes too long, or is asked twice."""
    ask = signal.SIGINT if heard and heard[0] == signal.SIGINT else signal.SIGTERM
    for child in running:
        child.process.send_signal(ask)
    deadline, asked = time.monotonic() + grace, len(heard)
    while any(child.process.poll() is None for child in running):
        if time.monotonic() > deadline or len(heard) > asked:
            for child in running:
                child.process.kill()
        time.sleep(0.05)
