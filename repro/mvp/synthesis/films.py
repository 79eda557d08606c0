"""Pictures of a video at a steady rate, by one sequential decode: for k = 0, 1, 2, ... the first
frame shown at or after k / fps seconds, upright and scaled by the decoder.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evals.errors import Undecodable
from evals.video import opened

PATCH = 28  # sides in whole patches of Qwen2.5-VL, so that its processor resizes nothing
_NOW = 1e-6  # seconds; what floating point may lose of a frame's time


@dataclass(frozen=True)
class Filming:
    """How pass 1 looks at videos. fps: pictures a second (the only number known of the paper);
    pixels: of a picture at most; quality: of its JPEG. The last two are chosen."""

    fps: float = 1.0
    pixels: int = 128 * PATCH * PATCH
    quality: int = 90

    @property
    def key(self) -> str:
        """First 12 hex digits of the sha256 of its values."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


def pictures(path: Path, filming: Filming) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """(seconds from the first frame, (H, W, 3) uint8 RGB), ascending.

    What a damaged file still shows before it breaks off is given. Frames are known by their times,
    not by their numbers, so variable rates are no exception. Raises Undecodable where there is
    nothing to see.
    """
    with opened(path) as (container, stream):
        wanted = _wanted(container, stream, filming.fps)
    with opened(path) as (container, stream):
        context = stream.codec_context
        context.thread_count = 1
        shape = size_of(context.width, context.height, filming.pixels, _shape(stream))
        first, due, rate = min(wanted, default=0), 0, float(stream.average_rate or 25)
        for number, frame in enumerate(_decoded(container, stream, wanted)):
            known = bool(wanted) and frame.pts is not None
            seconds = float((frame.pts - first) * frame.time_base) if known else number / rate
            if seconds + _NOW < due / filming.fps:
                continue
            yield seconds, _upright(frame, *shape)
            due = math.floor((seconds + _NOW) * filming.fps) + 1
    if not due:
        raise Undecodable(f"{path}: no frame of it can be decoded")


def _wanted(container: Any, stream: Any, fps: float) -> frozenset[int]:
    """Times of the frames that will be taken, from the heads of the packets; none where these do
    not say."""
    times: list[int] = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                if packet.pts is None:
                    return frozenset()
                times.append(packet.pts)
    except av_error():
        pass  # decoding will come as far
    times.sort()
    found, due = set(), 0
    for time in times:
        seconds = float((time - times[0]) * stream.time_base)
        if seconds + _NOW >= due / fps:
            found.add(time)
            due = math.floor((seconds + _NOW) * fps) + 1
    return frozenset(found)


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


def _upright(frame: Any, width: int, height: int) -> npt.NDArray[np.uint8]:
    """RGB, turned as the file's display matrix says: phones store portrait films lying down."""
    picture: npt.NDArray[np.uint8] = frame.to_ndarray(
        format="rgb24", width=width, height=height, interpolation="AREA"
    )
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def jpeg(picture: npt.NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG without any metadata."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=quality)
    return sink.getvalue()
