"""Pictures of a video at a steady rate, by one sequential decode: for k = 0, 1, 2, ... the first
frame shown at or after k / fps seconds, upright, without black bars, and scaled by the decoder.

A row or column at an edge is part of a bar if it is dark in every key frame that is looked at:
the first, then each after twice the time of the last one and 4 s (chosen).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evals.errors import Undecodable
from evals.video import opened

PATCH = 28  # sides in whole patches of Qwen2.5-VL, so that its processor resizes nothing
_NOW = 1e-6  # seconds; what floating point may lose of a frame's time
#: Luma (0..255) up to which a pixel is dark, and the share of others that a bar may have (chosen).
_DARK, _SPECKS = 16, 0.01
_LEAST = 0.25  # of a frame must remain, or the film is dark and has no bars (chosen)


@dataclass(frozen=True)
class Filming:
    """How pass 1 looks at videos. fps: pictures a second (the only number known of the paper);
    pixels: of a picture at most; quality: of its JPEG; bars: keep black ones. All but the first are
    chosen."""

    fps: float = 1.0
    pixels: int = 128 * PATCH * PATCH
    quality: int = 90
    bars: bool = False

    @property
    def key(self) -> str:
        """First 12 hex digits of the sha256 of its values."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Part:
    """Of a stored frame, in pixels: where its picture begins, and its size."""

    left: int
    top: int
    width: int
    height: int


def pictures(path: Path, filming: Filming) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """(seconds from the first frame, (H, W, 3) uint8 RGB), ascending.

    What a damaged file still shows before it breaks off is given. Frames are known by their times,
    not by their numbers, so variable rates are no exception. Raises Undecodable where there is
    nothing to see.
    """
    with opened(path) as (container, stream):
        wanted, light = _wanted(container, stream, filming)
    with opened(path) as (container, stream):
        context = stream.codec_context
        context.thread_count = 1
        part = inside(light, context.width, context.height)
        shape = size_of(part.width, part.height, filming.pixels, _shape(stream))
        first, due, rate = min(wanted, default=0), 0, float(stream.average_rate or 25)
        for number, frame in enumerate(_decoded(container, stream, wanted)):
            known = bool(wanted) and frame.pts is not None
            seconds = float((frame.pts - first) * frame.time_base) if known else number / rate
            if seconds + _NOW < due / filming.fps:
                continue
            same = (frame.width, frame.height) == (context.width, context.height)
            shown = part if same else Part(0, 0, frame.width, frame.height)
            yield seconds, _upright(frame, shown, *shape)
            due = math.floor((seconds + _NOW) * filming.fps) + 1
    if not due:
        raise Undecodable(f"{path}: no frame of it can be decoded")


def _wanted(
    container: Any, stream: Any, filming: Filming
) -> tuple[frozenset[int], npt.NDArray[np.uint8] | None]:
    """Times of the frames that will be taken, from the heads of the packets; none where these do
    not say. And the most luma (H, W) that each place of a frame shows, None if not looked at."""
    times: list[int] = []
    light: npt.NDArray[np.uint8] | None = None
    due = math.inf if filming.bars else 0.0
    stream.codec_context.thread_count = 1
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                if packet.pts is None:
                    return frozenset(), None
                times.append(packet.pts)
                seconds = float((packet.pts - times[0]) * stream.time_base)
                if packet.is_keyframe and seconds >= due:
                    light, due = _lighter(light, stream.codec_context, packet), 2 * seconds + 4
    except av_error():
        pass  # decoding will come as far
    return _first_of_each(sorted(times), stream.time_base, filming.fps), light


def _first_of_each(times: Sequence[int], base: Any, fps: float) -> frozenset[int]:
    """Those that are the first at or after k / fps seconds, for some k."""
    found, due = set(), 0
    for time in times:
        seconds = float((time - times[0]) * base)
        if seconds + _NOW >= due / fps:
            found.add(time)
            due = math.floor((seconds + _NOW) * fps) + 1
    return frozenset(found)


def _lighter(
    light: npt.NDArray[np.uint8] | None, context: Any, packet: Any
) -> npt.NDArray[np.uint8] | None:
    """With a key frame that was decoded by itself; without it where that fails."""
    try:
        frames = [*context.decode(packet), *context.decode(None)]
    except av_error():
        frames = []
    context.flush_buffers()
    for frame in frames:
        grey = frame.to_ndarray(format="gray")
        if light is None:
            light = grey
        elif light.shape == grey.shape:
            light = np.maximum(light, grey)
    return light


def inside(light: npt.NDArray[np.uint8] | None, width: int, height: int) -> Part:
    """What is left of a frame of that size without its bars; all of it where they are not known."""
    if light is None or light.shape != (height, width):
        return Part(0, 0, width, height)
    lit = light > _DARK
    rows = np.flatnonzero(lit.mean(1) > _SPECKS)
    columns = np.flatnonzero(lit.mean(0) > _SPECKS)
    if not len(rows) or not len(columns):
        return Part(0, 0, width, height)
    left, top = int(columns[0]), int(rows[0])
    part = Part(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)
    whole = part.width * part.height < _LEAST * width * height
    return Part(0, 0, width, height) if whole else part


def _decoded(container: Any, stream: Any, wanted: frozenset[int]) -> Iterator[Any]:
    """Frames up to the end, or to where the stream breaks off.

    Of the frames that are not wanted, those that no other frame refers to are not decoded; this
    changes no pixel of the others.
    """
    context = stream.codec_context
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            spare = bool(wanted) and packet.pts is not None and packet.pts not in wanted
            context.skip_frame = "NONREF" if spare else "DEFAULT"
            frames = packet.decode()
        except (StopIteration, av_error()):
            return
        yield from frames


def av_error() -> type[Exception]:
    """What PyAV raises for a damaged file."""
    import av

    error: type[Exception] = av.FFmpegError
    return error


def _shape(stream: Any) -> float:
    """How much wider than high a stored pixel is shown."""
    ratio = stream.sample_aspect_ratio
    return float(ratio) if ratio else 1.0


def size_of(width: int, height: int, pixels: int, wider: float = 1.0) -> tuple[int, int]:
    """Width and height in whole patches, at most `pixels` together, enlarged only to one patch."""
    w, h = width * wider, float(height)
    scale = min(1.0, math.sqrt(pixels / (w * h)))
    return tuple(max(PATCH, int(side * scale) // PATCH * PATCH) for side in (w, h))  # type: ignore[return-value]


def _upright(frame: Any, part: Part, width: int, height: int) -> npt.NDArray[np.uint8]:
    """RGB of a part of a frame, width x height, turned as the file's display matrix says: phones
    store portrait films lying down. The whole frame is scaled, then cut."""
    across, down = width / part.width, height / part.height
    left, top = round(part.left * across), round(part.top * down)
    w, h = round(frame.width * across), round(frame.height * down)
    left, top = min(left, w - width), min(top, h - height)
    picture: npt.NDArray[np.uint8] = frame.to_ndarray(
        format="rgb24", width=w, height=h, interpolation="AREA"
    )
    picture = picture[top : top + height, left : left + width]
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns) if turns else picture)


def jpeg(picture: npt.NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG without any metadata."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=quality)
    return sink.getvalue()
