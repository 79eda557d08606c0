"""Progress of long work: bars with the time left on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_QUIET = 30.0  # seconds between two progress lines of one piece of work (chosen)


class Show(Protocol):
    """What long work tells: events, and how far each named piece is."""

    def say(self, text: str) -> None:
        """One line about something that happened."""

    def update(self, name: str, done: int, total: int) -> None:
        """`name` has done so much; the first call opens it, `done == total` closes it."""

    def drop(self, name: str) -> None:
        """`name` ended, whole or not."""


class Bars:
    """Rich progress bars; each shows the time left at its own measured speed."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def update(self, name: str, done: int, total: int) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total, completed=done)
        self._progress.update(self._bars[name], completed=done)

    def drop(self, name: str) -> None:
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))


@dataclass
class _Pace:
    started: float
    from_: int
    told: float


class Lines:
    """Plain lines, for logs and pipes: at most one per piece of work and half a minute."""

    def __init__(self, console: Console):
        self._console = console
        self._paces: dict[str, _Pace] = {}

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, name: str, done: int, total: int) -> None:
        if done == 0:  # loading is not working: the pace is measured from the first unit
            return
        now = time.monotonic()
        pace = self._paces.setdefault(name, _Pace(now, done, now))
        if now - pace.told < _QUIET or done <= pace.from_:
            return
        pace.told = now
        left = (now - pace.started) / (done - pace.from_) * (total - done)
        self.say(f"{name}: {done}/{total}, {clock(left)} left")

    def drop(self, name: str) -> None:
        self._paces.pop(name, None)


def clock(seconds: float) -> str:
    """`1:05` or `2:03:04`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


@contextmanager
def showing(console: Console) -> Iterator[Show]:
    """Bars if the console is a terminal, lines otherwise."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
