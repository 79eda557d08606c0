"""Who repairs: the `Teacher` protocol, and the teachers that need no model.

| teacher           | gives                                                                      |
|-------------------|----------------------------------------------------------------------------|
| `oracle`          | the annotated evidence: interval and region, never the answer              |
| `random_interval` | the same form, a wrong place: does the place matter, or any hint?          |
| `retry`           | no patch, but a second try is wanted: what is that alone worth?            |
| `null`            | nothing: FFR without a teacher                                             |
| `leaky`           | the answer in plain words: the leak gate must stop it                      |
| `replay:FILE`     | what a cache holds and nothing else; a miss is no patch                    |
| `openai:MODEL@URL`| any OpenAI-compatible server (openai_teacher.py)                           |
| `remote:URL`      | a `repro teacher serve` elsewhere (remote.py)                              |

ffr.md 6.5 and 10.2; the paper has none of these controls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from evals.errors import BadInput
from evals.errors import Failure as Fault
from evals.seeds import derive
from evals.types import Protocol as FrameLaw
from evals.types import Sample, VideoClip
from evals.video import Exactly, Wanted, read_clip
from repro.ffr.patch import MOST_FRAMES, Patch, Region

Status = Literal[
    "ok", "cached", "retry", "none", "timeout", "backend_error", "invalid", "leak_rejected",
    "refused", "circuit_open",
]  # fmt: skip

Read = Callable[[Wanted, FrameLaw | Exactly], VideoClip]

#: A wide window's length in lengths of the evidence and in shares of the clip; from this share on
#: it says nothing and no patch is given (chosen).
WIDER, HALF, NOTHING = 2.0, 0.5, 0.9
#: Kinds whose answer is the interval itself.
ASKS_WHEN = ("temporal grounding", "grounded qa")


@dataclass(frozen=True)
class Failure:
    """One wrong rollout of a student.

    clip: what the student is shown; patches number its frames. answer: what was read from `reply`,
    None if nothing could. rejected: why the gate refused an earlier patch for it, "" at first.
    """

    record: Sample
    clip: VideoClip | None
    reply: str
    answer: str | None
    score: float
    seed: int
    rejected: str = ""


@dataclass(frozen=True)
class Repair:
    """What became of one failure. A patch only with `ok` and `cached`; with `retry` the student
    tries again without one. usage: calls, tokens, tool calls; seconds: from start to end."""

    status: Status
    patch: Patch | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def again(self) -> bool:
        """Whether a second answer is to be sampled."""
        return self.status in ("ok", "cached", "retry")


class TeacherFault(Fault):
    """A teacher gave nothing; `status` is the repair's. `retryable`: asking again may help."""

    exit_code = 4
    status: ClassVar[Status] = "backend_error"

    def __init__(self, message: str, *, retryable: bool = False, wait: float = 0.0):
        super().__init__(message)
        self.retryable, self.wait = retryable, wait


class Down(TeacherFault):
    """The server cannot be used. wait: seconds it asked to be left alone."""


class Busy(Down):
    """The server works, and wants to be asked less often: it is asked again later."""

    def __init__(self, message: str, *, wait: float = 0.0):
        super().__init__(message, retryable=True, wait=wait)


class Late(TeacherFault):
    """No reply in time."""

    status = "timeout"


class Invalid(TeacherFault):
    """A reply that is no patch."""

    status = "invalid"


class Refused(TeacherFault):
    """The teacher would not help with this one."""

    status = "refused"


class Leaks(TeacherFault):
    """Every patch gave the answer away."""

    status = "leak_rejected"


class Ended(TeacherFault):
    """Another service already did what could be done; `status` is what it found."""

    def __init__(self, status: Status):
        super().__init__(status)
        self.status = status  # type: ignore[misc]


class Teacher(Protocol):
    """Gives one patch for one failure, or None for none. Raises TeacherFault, nothing else.

    id: name, revision, sampling and prompt version: what a cached patch depends on. second_try:
    the student is to try again even without a patch. stores: whether its patches are worth a cache.
    """

    id: str
    second_try: bool
    stores: bool

    async def patch(self, failure: Failure) -> Patch | None: ...


_spent: ContextVar[Counter[str] | None] = ContextVar("spent", default=None)


def spend(**amounts: int) -> None:
    """Called by teachers: add to the usage of the failure at hand."""
    counter = _spent.get()
    if counter is not None:
        counter.update(amounts)


def counting() -> Counter[str]:
    """A new usage counter for what this asyncio task spends from here on."""
    counter: Counter[str] = Counter()
    _spent.set(counter)
    return counter


# --- teachers without a model --------------------------------------------------------------------


class Oracle:
    """The annotated evidence. It never reads the gold; where the question asks for the interval
    itself, it gives a wider window around it, at a place that does not tell where in it.

    Evidence is in seconds of the clip as shown.
    """

    id, second_try, stores = "oracle@1", False, False

    async def patch(self, failure: Failure) -> Patch | None:
        clip, evidence = failure.clip, failure.record.evidence
        if clip is None or not clip.indices or evidence is None:
            return None
        span = evidence.interval
        if failure.record.kind in ASKS_WHEN:
            rng = np.random.default_rng(derive("window", failure.record.id))
            wide = wider(span, clip.duration, rng)
            return None if wide is None else pointing(clip, wide, evidence.region)
        return pointing(clip, span, evidence.region)


class RandomInterval:
    """As `Oracle` in form and size, but elsewhere: in time if there is room, and in the frame."""

    id, second_try, stores = "random_interval@1", False, False

    async def patch(self, failure: Failure) -> Patch | None:
        clip, evidence = failure.clip, failure.record.evidence
        if clip is None or not clip.indices or evidence is None:
            return None
        rng = np.random.default_rng(derive(failure.seed, "random_interval", failure.record.id))
        span: tuple[float, float] | None = evidence.interval
        if failure.record.kind in ASKS_WHEN:
            span = wider(evidence.interval, clip.duration, rng)
        if span is None:
            return None
        return pointing(clip, elsewhere(span, clip.duration, rng), displaced(evidence.region, rng))


class Retry:
    """No patch; the second sample is drawn all the same."""

    id, second_try, stores = "retry@1", True, False

    async def patch(self, failure: Failure) -> Patch | None:
        return None


class Null:
    """No patch and no second sample."""

    id, second_try, stores = "null@1", False, False

    async def patch(self, failure: Failure) -> Patch | None:
        return None


class Leaky:
    """States the gold answer: the gate's positive control."""

    id, second_try, stores = "leaky@1", False, False

    async def patch(self, failure: Failure) -> Patch | None:
        return Patch("misconception", (), (), (), f"The answer is {failure.record.gold}.")


def wider(
    span: tuple[float, float], duration: float, rng: np.random.Generator
) -> tuple[float, float] | None:
    """A window of twice the span or half the clip that holds the span at a random place; None if
    that is nearly the whole clip. Seconds."""
    length = max(WIDER * (span[1] - span[0]), HALF * duration)
    if length >= NOTHING * duration:
        return None
    low, high = max(0.0, span[1] - length), min(span[0], duration - length)
    start = float(rng.uniform(low, max(low, high)))
    return start, start + length


def elsewhere(
    span: tuple[float, float], duration: float, rng: np.random.Generator
) -> tuple[float, float]:
    """An interval of the same length at another place, apart from the span where there is room."""
    start, end = max(0.0, span[0]), min(duration, span[1])
    length = end - start
    rooms = [(0.0, start - length), (end, duration - length)]
    rooms = [(low, high) for low, high in rooms if high >= low]
    if rooms:
        sizes = np.array([high - low + 1e-9 for low, high in rooms])
        low, high = rooms[int(rng.choice(len(rooms), p=sizes / sizes.sum()))]
        start = float(rng.uniform(low, high))
    else:  # at the end that is farther away
        start = 0.0 if start > duration - end else max(0.0, duration - length)
    return start, start + length


def displaced(
    box: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """A box of the same size in another corner; the same box if it fills the frame."""
    width, height = box[2] - box[0], box[3] - box[1]
    corners = [(x, y) for x in (0.0, 1.0 - width) for y in (0.0, 1.0 - height)]
    far = [(x, y) for x, y in corners if abs(x - box[0]) + abs(y - box[1]) > 0.25]
    if not far:
        return box
    x, y = far[int(rng.integers(len(far)))]
    return x, y, x + width, y + height


def pointing(
    clip: VideoClip, span: tuple[float, float], box: tuple[float, float, float, float]
) -> Patch:
    """A patch that names the frames of [start, end) and a box of the middle one, in fixed words.

    A span that covers every frame is not told as a time, nor a box that fills the frame.
    """
    seconds = clip.seconds
    inside = [i for i, t in enumerate(seconds) if span[0] - 1e-6 <= t < span[1] - 1e-6]
    middle = sum(span) / 2
    frames = inside or [min(range(len(seconds)), key=lambda i: abs(seconds[i] - middle))]
    everything = len(frames) == len(seconds)
    markers = () if everything else (f"{span[0]:.2f} s to {span[1]:.2f} s",)
    regions: tuple[Region, ...] = ()
    if (box[2] - box[0]) * (box[3] - box[1]) < 1 - 1e-6:
        regions = (Region(frames[len(frames) // 2], *map(float, box)),)
    told = frames if len(frames) <= MOST_FRAMES else frames[:: -(-len(frames) // MOST_FRAMES)]
    kind: Literal["temporal", "spatial"] = "spatial" if everything else "temporal"
    return Patch(kind, tuple(told), markers, regions, GUIDANCE)


#: The fixed sentence of `oracle` and `random_interval` (chosen).
GUIDANCE = "Look again at the listed frames and regions, and go by what they show."

#: Teachers that need no model, by name.
OFFLINE: Mapping[str, Callable[[], Teacher]] = {
    "oracle": Oracle,
    "random_interval": RandomInterval,
    "retry": Retry,
    "null": Null,
    "leaky": Leaky,
}


def named(text: str, read: Read | None = None) -> Teacher:
    """A teacher by the name that recipes and the command line use. Raises BadInput.

    read: how its tools read videos, by default in this process.
    """
    kind, _, rest = text.partition(":")
    if kind in OFFLINE and not rest:
        return OFFLINE[kind]()
    if kind == "openai":
        from repro.ffr.openai_teacher import OpenAITeacher

        return OpenAITeacher.named(rest, read or read_clip)
    if kind == "remote":
        from repro.ffr.remote import Remote

        return Remote(rest)
    if kind == "replay" and rest:
        from repro.ffr.cache import Cache, Replay

        return Replay(Cache(Path(rest), readonly=True))
    raise BadInput(
        f"unknown teacher {text!r}; known: {', '.join(OFFLINE)}, replay:FILE, openai:MODEL@URL, "
        "remote:URL"
    )
