"""From a file to a `VideoClip`: probe, choose frames by law, decode, remember.

The frame law is Video-R1's: n = min(max(fps * duration, min_frames), max_frames) rounded down to
an even number, frame numbers round(linspace(0, total - 1, n)).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evals.errors import Undecodable
from evals.types import Protocol, Sample, VideoClip

#: What FFmpeg would also open: texts that name other files, text drawn as pictures, pictures.
_NOT_FILMS = ("concat", "dash", "hls", "image2", "imf", "sdp", "tty")
#: The vision tower's resizing refuses pictures that are longer than this times their other side.
_SLIMMEST = 200


@dataclass(frozen=True)
class Probe:
    """What the container says: codec name, frame count, frames per second, pixels."""

    codec: str
    frames: int
    fps: float
    width: int
    height: int


def frame_indices(
    total: int, fps: float, *, target_fps: float, min_frames: int, max_frames: int
) -> tuple[int, ...]:
    """Frame numbers by the law above; a clip shorter than the law's count gives what it has."""
    n = min(max(total / fps * target_fps, min_frames), max_frames, total)
    n = max(int(n) // 2 * 2, 1)
    return tuple(int(i) for i in np.round(np.linspace(0, total - 1, n)))


def _open(path: Path) -> Any:
    import av

    # The prefix keeps FFmpeg from reading the "a:" of "a:b.mp4" as the name of a protocol.
    return av.open(f"file:{path}")


def probe(path: Path) -> Probe:
    """Read the container. Raises Undecodable: missing, not a video, no frames, or cut short."""
    import av

    _exists(path)
    try:
        with _open(path) as container:
            kind = container.format.name
            if kind in _NOT_FILMS or kind.endswith("_pipe"):
                raise Undecodable(f"{path}: not a video but what FFmpeg calls {kind}")
            if not container.streams.video:
                raise Undecodable(f"{path}: no video stream")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 0)
            frames = _shown(container, stream, path)
            if frames < 1 or fps <= 0:
                raise Undecodable(f"{path}: a video of {frames} frames at {fps:g} frames/s")
            context = stream.codec_context
            return Probe(context.name, frames, fps, context.width, context.height)
    except av.FFmpegError as error:
        raise Undecodable(f"{path}: not a readable video ({error.strerror})") from error


def _shown(container: Any, stream: Any, path: Path) -> int:
    """Frames a player would show: a trimmed mp4 also stores frames that its edit list hides."""
    if not stream.frames:
        return sum(1 for _ in container.decode(stream))
    hidden = [p.is_discard for p in container.demux(stream) if p.size and not p.is_corrupt]
    if len(hidden) < stream.frames:
        raise Undecodable(f"{path}: cut short, {len(hidden)} of {stream.frames} frames are there")
    return hidden.count(False)


def decode(path: Path, indices: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """(F, H, W, 3) uint8 RGB of the given ascending frame numbers, read in one pass.

    Raises Undecodable when the stream breaks off before the last of them.
    """
    import av

    wanted, frames = set(indices), {}
    try:
        with _open(path) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    frames[number] = frame.to_ndarray(format="rgb24")
                if number == indices[-1]:
                    break
    except av.FFmpegError as error:
        raise Undecodable(f"{path}: decoding failed ({error.strerror})") from error
    if len(frames) < len(wanted):
        raise Undecodable(f"{path}: broke off before frame {indices[-1]} of the reported count")
    return np.stack([frames[i] for i in indices])


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """(1, H, W, 3) uint8 RGB. Raises Undecodable."""
    from PIL import Image, UnidentifiedImageError

    _exists(path)
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))[None]
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise Undecodable(f"{path}: not a readable image") from error


def _exists(path: Path) -> None:
    try:
        if not path.is_file():
            raise Undecodable(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise Undecodable(f"{path}: the file is empty")
    except OSError as error:  # a name that is too long, a folder one may not enter
        raise Undecodable(f"{path}: {error.strerror}") from error


def _shapely(path: Path, height: int, width: int) -> None:
    if max(height, width) > _SLIMMEST * min(height, width):
        raise Undecodable(f"{path}: {width} x {height} pixels is too slim a picture to be encoded")


class Clips:
    """Decodes each clip once: the clips used last stay in memory, up to `keep` bytes of pixels.

    `decodes` counts files read, for the tests and for cost.
    """

    def __init__(self, protocol: Protocol, keep: int = 2**30):
        self.protocol, self.keep, self.decodes = protocol, keep, 0
        self._clips: OrderedDict[Path, VideoClip] = OrderedDict()
        self._bytes = 0

    def load(self, sample: Sample) -> VideoClip | None:
        """The sample's clip under the protocol's frame law; None for a text-only sample."""
        if sample.modality == "text":
            return None
        if sample.media is None:
            raise Undecodable(f"sample {sample.id} names no file")
        if sample.media in self._clips:
            self._clips.move_to_end(sample.media)
            return self._clips[sample.media]
        clip = self._read(sample.media, sample.modality)
        self._clips[sample.media] = clip
        self._bytes += clip.frames.nbytes
        while self._bytes > self.keep:
            self._bytes -= self._clips.popitem(last=False)[1].frames.nbytes
        return clip

    def _read(self, path: Path, modality: str) -> VideoClip:
        self.decodes += 1
        if modality == "image":
            image = read_image(path)
            _shapely(path, *image.shape[1:3])
            return VideoClip(image, (0,), 1.0, 1, "image")
        info, law = probe(path), self.protocol
        _shapely(path, info.height, info.width)
        indices = frame_indices(
            info.frames,
            info.fps,
            target_fps=law.fps,
            min_frames=law.min_frames,
            max_frames=law.max_frames,
        )
        return VideoClip(decode(path, indices), indices, info.fps, info.frames)
