"""The three tools of a teacher, run on the original video (ffr.md 1.5).

| call, one a line                                          | gives                              |
|-----------------------------------------------------------|------------------------------------|
| `TOOL_CALL: get_frame(frame_index)`                       | that frame                         |
| `TOOL_CALL: zoom_region(frame_index, x1, y1, x2, y2)`     | that part of it, shares in 0..1    |
| `TOOL_CALL: get_temporal_segment(start, end, stride = 1)` | the frames from start to end       |

Frames are numbered from 0 in the question's part of the video, not among those that the student
saw. What cannot be done is an answer in words, so that the teacher can mend it; the budgets hold
for one failure. The release has no executor (D5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evals.errors import Failure as Fault
from evals.video import Exactly, Wanted
from repro.ffr.pictures import crop, jpeg
from repro.ffr.teacher import Failure, Read

#: How the protocol's text and the order of arguments are read; raised when either changes.
VERSION = 1

_CALL = re.compile(r"^[ \t]*TOOL_CALL:[ \t]*(\w{1,40})\((.{0,200})\)[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?")
_NAMES = {
    "get_frame": ("frame_index",),
    "zoom_region": ("frame_index", "x1", "y1", "x2", "y2"),
    "get_temporal_segment": ("start_frame", "end_frame", "stride"),
}


@dataclass(frozen=True)
class Budget:
    """Of one failure: tool calls, frames shown, pixels of one picture, pixels read at full size
    by one call (all chosen)."""

    calls: int = 8
    frames: int = 32
    pixels: int = 256 * 28 * 28
    read: int = 64 * 2**20


#: Every tool, in the order in which they are explained.
TOOLS = tuple(_NAMES)


def form(name: str) -> str:
    """A tool's call as a teacher is told it: `get_frame(frame_index)`."""
    return f"{name}({', '.join(_NAMES[name])})"


@dataclass(frozen=True)
class Call:
    """A tool's name and its arguments as written."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Picture:
    """A JPEG and what it shows."""

    label: str
    data: bytes


class NotPossible(Fault):
    """Why a call cannot be answered, in words for the teacher."""


def calls(reply: str) -> list[Call]:
    """The calls of a reply, in order; lines that are none are left out."""
    return [Call(name, arguments) for name, arguments in _CALL.findall(reply)]


class Tools:
    """The tools of one failure, with what is left of its budget. names: those that it may use."""

    def __init__(
        self, failure: Failure, read: Read, budget: Budget | None = None,
        names: Sequence[str] = TOOLS,
    ):  # fmt: skip
        assert failure.clip is not None
        self.names = names
        self.budget = budget or Budget()
        self.clip, self.wanted, self._read = failure.clip, Wanted.of(failure.record), read
        self.used = self.shown = 0

    @property
    def spent(self) -> bool:
        """Whether no further call will be answered."""
        return self.used >= self.budget.calls or self.shown >= self.budget.frames

    def run(self, call: Call) -> str | list[Picture]:
        """What a call gives, or in words why it gives nothing."""
        if self.spent:
            return "no more calls: the budget is spent"
        self.used += 1
        try:
            return self._run(call)
        except NotPossible as error:
            return f"{call.name}: {error}"
        except Fault:  # undecodable, or a decoder that took too long
            return f"{call.name}: these frames cannot be read"

    def _run(self, call: Call) -> list[Picture]:
        if call.name not in self.names:
            raise NotPossible(f"there is no such tool; there are {', '.join(self.names)}")
        given = _arguments(call)
        if call.name == "get_frame":
            return self._pictures([self._frame(given["frame_index"])])
        if call.name == "zoom_region":
            box = tuple(given[name] for name in ("x1", "y1", "x2", "y2"))
            if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
                raise NotPossible("x1 < x2 and y1 < y2 must lie within 0 and 1")
            return self._pictures([self._frame(given["frame_index"])], box)
        first, last = self._frame(given["start_frame"]), self._frame(given["end_frame"])
        stride = _whole(given.get("stride", 1.0), "stride")
        if last < first or stride < 1:
            raise NotPossible("start_frame <= end_frame and stride >= 1 are needed")
        return self._pictures(list(range(first, last + 1, stride)))

    def _frame(self, value: float) -> int:
        number = _whole(value, "a frame")
        if not 0 <= number < self.clip.total:
            raise NotPossible(f"frames are numbered from 0 to {self.clip.total - 1}")
        return number

    def _pictures(self, numbers: list[int], box: tuple[float, ...] = ()) -> list[Picture]:
        left = self.budget.frames - self.shown
        if len(numbers) > left:
            raise NotPossible(f"{len(numbers)} frames are too many, {left} are left: use a stride")
        height, width = self.clip.frames.shape[1:3]
        if len(numbers) * height * width > self.budget.read:
            raise NotPossible("too many pixels at once: ask for fewer frames")
        self.shown += len(numbers)
        found = self._read(self.wanted, Exactly(tuple(numbers))).frames
        return [self._picture(n, frame, box) for n, frame in zip(numbers, found, strict=True)]

    def _picture(
        self, number: int, frame: npt.NDArray[np.uint8], box: tuple[float, ...]
    ) -> Picture:
        label = f"video frame {number}, t={number / self.clip.fps:.2f} s"
        if box:
            frame = crop(frame, *box)
            label += ", part [" + ", ".join(f"{b:.2f}" for b in box) + "]"
        return Picture(label, jpeg(frame, label, self.budget.pixels))


def _arguments(call: Call) -> dict[str, float]:
    """By name; written by place, or as name=value. Raises NotPossible."""
    names = _NAMES[call.name]
    given: dict[str, float] = {}
    for place, part in enumerate(call.arguments.split(",")):
        name, equals, value = part.rpartition("=")
        name = name.strip() if equals else names[place] if place < len(names) else ""
        if name not in names or name in given or not _NUMBER.fullmatch(value.strip()):
            raise NotPossible(f"it takes {', '.join(names)}, all of them numbers")
        given[name] = float(value)
    needed = [n for n in names if n != "stride"]
    if any(name not in given for name in needed):
        raise NotPossible(f"it takes {', '.join(names)}, all of them numbers")
    return given


def _whole(value: float, what: str) -> int:
    if value != int(value):
        raise NotPossible(f"{what} must be a whole number")
    return int(value)
