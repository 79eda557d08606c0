"""Which frames a model is shown: named laws (total, fps, duration) -> frame numbers and seconds.

N frames in all at `fps` frames per second, D = N / fps seconds, n = max_frames, r = target rate.

| law              | frame numbers                                                    | of        |
|------------------|------------------------------------------------------------------|-----------|
| `video-r1`       | round(linspace(0, N-1, m)), m = D r within [min, max], made even | qwen      |
| `fixed`          | the same with m = n, made even                                   | FFR       |
| `linspace-floor` | floor(linspace(0, N-1, n)): the last frame is always shown       | lmms-eval |
| `midpoint`       | int(s/2 + round(s i)), s = (N-1) / n: the middle of n segments   | MVBench   |
| `interior`       | int(i N / (n+1)), i = 1..n: neither end is shown                 | VLMEvalKit|
| `rate`           | int(i fps / r), i = 0..int(D r)-1                                | VLMEvalKit|
| `rate-tail`      | `rate`, then the last frame                                      | VLMEvalKit|
| `rate-capped`    | `rate` while it gives at most n frames, else `linspace-floor`    | common    |

`round` is to the nearest, ties to the even number. A law that asks for more frames than there are
repeats some, except `video-r1` and `fixed`, which show what there is. Seconds are number / fps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from evals.errors import BadInput
from evals.types import Protocol


class NoFrames(BadInput):
    """A question's part of its video holds no frame."""


@dataclass(frozen=True)
class Ask:
    """The numbers of a protocol that a law may use."""

    rate: float = 2.0
    least: int = 4
    most: int = 16


@dataclass(frozen=True)
class Shown:
    """Frame numbers of the source, ascending, and their seconds from its start.

    first, total: the part of the source that belongs to the question, its first frame number and
    its number of frames; all of it without a span.
    """

    indices: tuple[int, ...]
    seconds: tuple[float, ...]
    first: int
    total: int

    @property
    def own(self) -> tuple[int, ...]:
        """Frame numbers within that part: what a model is told, which sees no other."""
        return tuple(i - self.first for i in self.indices)


Law = Callable[[int, float, float, Ask], list[int]]


def _rounded(total: int, n: float) -> list[int]:
    m = max(int(n) // 2 * 2, 1)
    return [int(i) for i in np.round(np.linspace(0, total - 1, m))]


def _video_r1(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    return _rounded(total, min(max(duration * ask.rate, ask.least), ask.most, total))


def _fixed(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    return _rounded(total, min(ask.most, total))


def _linspace_floor(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    return [int(i) for i in np.linspace(0, total - 1, ask.most, dtype=int)]


def _midpoint(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    segment = (total - 1) / ask.most
    return [int(segment / 2 + np.round(segment * i)) for i in range(ask.most)]


def _interior(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    return [int(i * (total / (ask.most + 1))) for i in range(1, ask.most + 1)]


def _rate(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    step = fps / ask.rate
    return [min(int(i * step), total - 1) for i in range(max(int(duration * ask.rate), 1))]


def _rate_tail(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    numbers = _rate(total, fps, duration, ask)
    return numbers if numbers[-1] == total - 1 else [*numbers, total - 1]


def _rate_capped(total: int, fps: float, duration: float, ask: Ask) -> list[int]:
    numbers = _rate(total, fps, duration, ask)
    return numbers if len(numbers) <= ask.most else _linspace_floor(total, fps, duration, ask)


LAWS: Mapping[str, Law] = {
    "video-r1": _video_r1,
    "fixed": _fixed,
    "linspace-floor": _linspace_floor,
    "midpoint": _midpoint,
    "interior": _interior,
    "rate": _rate,
    "rate-tail": _rate_tail,
    "rate-capped": _rate_capped,
}


def choose(
    law: str,
    total: int,
    fps: float,
    ask: Ask,
    *,
    span: tuple[float, float] | None = None,
    stop: int | None = None,
) -> Shown:
    """Frames of a video of `total` frames at `fps` under a law.

    span: only these seconds belong to the question; stop: first frame never to be shown. Within
    them the law acts as on a video of its own. Raises BadInput for an unknown law, NoFrames for a
    part that holds no frame.
    """
    if law not in LAWS:
        raise BadInput(f"unknown frame law {law!r}; known: {', '.join(LAWS)}")
    first, end = 0, total if stop is None else min(total, stop)
    if span is not None:
        first, end = max(0, round(span[0] * fps)), min(end, round(span[1] * fps) + 1)
    if end <= first:
        raise NoFrames(f"no frame of {total} lies in the question's part of the video")
    own = end - first
    indices = tuple(first + i for i in LAWS[law](own, fps, own / fps, ask))
    return Shown(indices, tuple(i / fps for i in indices), first, own)


def shown(
    protocol: Protocol,
    total: int,
    fps: float,
    *,
    span: tuple[float, float] | None = None,
    stop: int | None = None,
) -> Shown:
    """`choose` with a protocol's law and numbers; the span only where the protocol clips."""
    ask = Ask(protocol.fps, protocol.min_frames, protocol.max_frames)
    return choose(
        protocol.sampling, total, fps, ask, span=span if protocol.clipped else None, stop=stop
    )


def frame_pixels(protocol: Protocol, frames: int) -> int:
    """Most pixels of one frame: `max_pixels`, or less where `total_pixels` must last for all.

    max(min(max_pixels, 2 total / frames), 1.05 min_pixels), by the rule of qwen_vl_utils: two
    frames make one temporal patch (temporal_r1.md 3.1).
    """
    if not protocol.total_pixels:
        return protocol.max_pixels
    share = 2 * protocol.total_pixels / frames
    return math.floor(max(min(protocol.max_pixels, share), protocol.min_pixels * 1.05))
