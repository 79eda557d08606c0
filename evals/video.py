"""From a file to a `VideoClip`: probe, choose frames by law, decode, remember.

Which frames, evals/frames.py says. A question may own a part of its video only: the clip is then
that part, with frame numbers of its own.

PyAV probes every file and says how many frames it has. Either decoder then reads the frames asked
for, and both give the same bytes; decord is used only where it counts as many frames as PyAV.
evals/decoding.py does all this in processes that can be killed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from evals import archive
from evals.errors import Failure, TimedOut, Undecodable
from evals.frames import NoFrames, Shown, shown
from evals.types import Modality, Protocol, Sample, VideoClip

#: What FFmpeg would also open: texts that name other files, text drawn as pictures, pictures.
_NOT_FILMS = ("concat", "dash", "hls", "image2", "imf", "sdp", "tty")
#: The only decoders that FFmpeg may start: old and rare ones are where files break out (chosen).
CODECS = ("av1", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9")
_DECODERS = ",".join((*CODECS, "libdav1d", "aac", "mp3"))
#: Pixels of a frame: 4096 x 4096 (chosen).
_LARGEST = 2**24
#: The vision tower's resizing refuses pictures that are longer than this times their other side.
_SLIMMEST = 200
_PICTURES = (".jpg", ".jpeg", ".png")
#: Codecs whose packets are not all shown, so that only decoding can count the frames.
_UNCOUNTED = ("vp8",)
#: Frames of a skipped stretch from which seeking beats decoding through it (chosen).
_WORTH_SEEKING = 32

_FEW = 8  # clips read ahead before their size is known (chosen)
_ALBUMS = 64  # samples of several pictures that stay one object (chosen); the pixels are counted
#: The clip of a sample that shows pictures only.
NOTHING = VideoClip(np.zeros((0, 1, 1, 3), np.uint8), (), 1.0, 1, "image")

Decoder = Literal["pyav", "decord"]


class NoPictures(Undecodable):
    """A readable file without a video stream, such as sound alone."""


@dataclass(frozen=True)
class Probe:
    """What the container says: codec name, frame count, frames per second, pixels."""

    codec: str
    frames: int
    fps: float
    width: int
    height: int


def _open(path: Path) -> Any:
    import av

    # The prefix keeps FFmpeg from reading the "a:" of "a:b.mp4" as the name of a protocol.
    options = {"codec_whitelist": _DECODERS, "protocol_whitelist": "file"}
    return av.open(f"file:{path}", options=options)


@dataclass(frozen=True)
class Contents:
    """What is in a file: its probe, and where to find each shown frame.

    times: presentation times of the shown frames, ascending, in the stream's time base; empty
    where packets do not say. keys: numbers of the frames that need no earlier one.
    """

    probe: Probe
    times: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()


def probe(path: Path) -> Probe:
    """Read the container. Raises Undecodable: missing, not a video, no frames, or cut short."""
    return contents(path).probe


def contents(path: Path) -> Contents:
    """Read the container and the heads of its packets; raises Undecodable as `probe` does."""
    with opened(path) as (container, stream):
        fps = float(stream.average_rate or 0)
        context = stream.codec_context
        times, keys, frames = _shown(container, stream, path)
        if frames < 1 or fps <= 0:
            raise Undecodable(f"{path}: a video of {frames} frames at {fps:g} frames/s")
        found = Probe(context.name, frames, fps, context.width, context.height)
        return Contents(found, times, keys)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its first video stream, of a kind and size that may be decoded.

    Raises Undecodable, NoPictures, also for what FFmpeg says of the file inside the block.
    """
    import av

    exists(path)
    try:
        with _open(path) as container:
            kind = container.format.name
            if kind in _NOT_FILMS or kind.endswith("_pipe"):
                raise Undecodable(f"{path}: not a video but what FFmpeg calls {kind}")
            if not container.streams.video:
                raise NoPictures(f"{path}: no video stream")
            stream = container.streams.video[0]
            _fit(stream.codec_context, path)
            yield container, stream
    except av.FFmpegError as error:
        raise Undecodable(f"{path}: not a readable video ({error.strerror})") from error


def _fit(context: Any, path: Path) -> None:
    """Raises Undecodable before anything is decoded by a codec, or at a size, that is refused."""
    name = context.codec.canonical_name if context else "of an unknown codec"
    if name not in CODECS:
        raise Undecodable(f"{path}: {name} video is not opened; only {', '.join(CODECS)} are")
    if context.width * context.height > _LARGEST:
        raise Undecodable(f"{path}: frames of {context.width} x {context.height} are too large")


def _shown(container: Any, stream: Any, path: Path) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Times, keys and number of the frames that a player would show: a trimmed mp4 also stores
    frames that its edit list hides."""
    packets = [  # their heads alone: together they would be the whole file
        (p.pts, p.is_keyframe, p.is_discard)
        for p in container.demux(stream)
        if p.size and not p.is_corrupt
    ]
    if len(packets) < stream.frames:
        raise Undecodable(f"{path}: cut short, {len(packets)} of {stream.frames} frames are there")
    shown = [(time, key) for time, key, hidden in packets if not hidden]
    unsure = not stream.frames and stream.codec_context.name in _UNCOUNTED
    times = sorted(time for time, _ in shown if time is not None)
    if unsure or not shown or len(set(times)) < len(shown):  # then only their order tells
        return (), (), len(shown) if stream.frames else _decoded(path)
    keys = tuple(i for i, (_, key) in enumerate(sorted(shown)) if key)
    return tuple(times), keys, len(times)


def _decoded(path: Path) -> int:
    with _open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def decode(
    path: Path, indices: tuple[int, ...], known: Contents | None = None
) -> npt.NDArray[np.uint8]:
    """(F, H, W, 3) uint8 RGB of the given ascending frame numbers, by PyAV.

    Long stretches between them are skipped by seeking to a key frame; frames are known by their
    presentation times, and where those do not fit the file is read from its start in one pass.
    Raises Undecodable when the stream breaks off before the last frame asked for.
    """
    import av

    try:
        known = known or contents(path)
        frames = _by_seeking(path, indices, known) or _in_one_pass(path, indices)
    except av.FFmpegError as error:
        raise Undecodable(f"{path}: decoding failed ({error.strerror})") from error
    if len(frames) < len(set(indices)):
        raise Undecodable(f"{path}: broke off before frame {indices[-1]} of the reported count")
    return np.stack([frames[i] for i in indices])


def _in_one_pass(path: Path, indices: tuple[int, ...]) -> dict[int, npt.NDArray[np.uint8]]:
    wanted, frames = set(indices), {}
    with _open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                frames[number] = frame.to_ndarray(format="rgb24")
            if number == indices[-1]:
                break
    return frames


def _by_seeking(
    path: Path, indices: tuple[int, ...], known: Contents
) -> dict[int, npt.NDArray[np.uint8]] | None:
    """The frames, or None where seeking would not pay or did not land where it should."""
    before = (-1, *indices[:-1])
    if not any(
        _key(known.keys, i) - last > _WORTH_SEEKING for i, last in zip(indices, before, strict=True)
    ):
        return None
    number_at = {time: number for number, time in enumerate(known.times)}
    frames: dict[int, npt.NDArray[np.uint8]] = {}
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        decoder, last = container.decode(stream), -1
        for wanted in indices:
            if wanted in frames:  # some laws show a frame twice
                continue
            key = _key(known.keys, wanted)
            if key - last > _WORTH_SEEKING:
                container.seek(known.times[key], stream=stream, backward=True, any_frame=False)
                decoder = container.decode(stream)
            for frame in decoder:
                last = number_at.get(frame.pts, wanted + 1)
                if last >= wanted:
                    break
            if last != wanted or frame.is_corrupt:
                return None
            frames[wanted] = frame.to_ndarray(format="rgb24")
    return frames


def _key(keys: tuple[int, ...], wanted: int) -> int:
    """The last key frame at or before `wanted`; -1 if there is none."""
    place = bisect_right(keys, wanted)
    return keys[place - 1] if place else -1


def decode_with_decord(
    path: Path, indices: tuple[int, ...], known: Contents
) -> npt.NDArray[np.uint8] | None:
    """As `decode`, by decord; None where decord fails or counts other frames than PyAV.

    The frames are PyAV's, bit for bit, where every GOP stands alone. After seeking into an open
    GOP or between intra-refreshed frames, decord shows damaged pictures without a word; and it can
    hang for ever where a container promises frames it lacks (decord#373). So it is for data of
    known origin, and for a process that can be killed.
    """
    from decord import DECORDError, VideoReader, cpu

    try:
        reader = VideoReader(f"file:{path}", ctx=cpu(0), num_threads=1)
        if len(reader) != known.probe.frames:
            return None
        frames: npt.NDArray[np.uint8] = reader.get_batch(list(indices)).asnumpy()
    except (DECORDError, RuntimeError):
        return None
    return frames


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """(1, H, W, 3) uint8 RGB. Raises Undecodable."""
    from PIL import Image, UnidentifiedImageError

    exists(path)
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))[None]
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise Undecodable(f"{path}: not a readable image") from error


def exists(path: Path) -> None:
    """Raises Undecodable unless there is a file with something in it."""
    try:
        if not path.is_file():
            raise Undecodable(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise Undecodable(f"{path}: the file is empty")
    except OSError as error:  # a name that is too long, a folder one may not enter
        raise Undecodable(f"{path}: {error.strerror}") from error


def shapely(path: Path, height: int, width: int) -> None:
    """Raises Undecodable for a picture that the vision tower's resizing refuses."""
    if max(height, width) > _SLIMMEST * min(height, width):
        raise Undecodable(f"{path}: {width} x {height} pixels is too slim a picture to be encoded")


@dataclass(frozen=True)
class Wanted:
    """What to read: a file, what it should be, and which part of it belongs to the question (as in
    Sample). Questions that want the same share a clip. `path` may lead through an archive.
    """

    path: Path
    modality: Modality
    span: tuple[float, float] | None = None
    stop: int | None = None
    rate: float | None = None

    @classmethod
    def of(cls, sample: Sample) -> Wanted:
        """Raises Undecodable for a sample that names no file."""
        if sample.media is None:
            raise Undecodable(f"sample {sample.id} names no file")
        return cls(sample.media, sample.modality, sample.span, sample.stop, sample.rate)


_ANY = Protocol("any", clipped=True)  # only the part that it finds is looked at


@dataclass(frozen=True)
class Exactly:
    """Frames by number, ascending, within the question's part of a video; in a law's place."""

    numbers: tuple[int, ...]


def shown_of(info: Probe, wanted: Wanted, law: Protocol | Exactly) -> Shown:
    """What is shown of a video under a protocol's frame law.

    Raises Undecodable where the question's part of the video holds no frame, or not all that were
    asked for by number.
    """
    try:
        if isinstance(law, Exactly):
            part = shown(_ANY, info.frames, info.fps, span=wanted.span, stop=wanted.stop)
            asked = law.numbers
            if not asked or list(asked) != sorted({i for i in asked if 0 <= i < part.total}):
                raise Undecodable(
                    f"{wanted.path}: frames asked for by number must ascend within 0 to "
                    f"{part.total - 1}"
                )
            indices = tuple(part.first + i for i in law.numbers)
            return Shown(indices, tuple(i / info.fps for i in indices), part.first, part.total)
        return shown(law, info.frames, info.fps, span=wanted.span, stop=wanted.stop)
    except NoFrames as error:
        raise Undecodable(f"{wanted.path}: {error}") from error


def read_pictures(wanted: Wanted, law: Protocol | Exactly) -> VideoClip:
    """A folder of pictures as a video at `wanted.rate` frames per second. Raises Undecodable."""
    assert wanted.rate is not None
    files = [p for p in archive.listing(wanted.path) if p.suffix.lower() in _PICTURES]
    if not files:
        raise Undecodable(f"{wanted.path}: no folder with pictures")
    chosen = shown_of(Probe("pictures", len(files), wanted.rate, 0, 0), wanted, law)
    frames = {i: read_image(archive.local(files[i]))[0] for i in set(chosen.indices)}
    if len({frame.shape for frame in frames.values()}) > 1:
        raise Undecodable(f"{wanted.path}: pictures of different sizes")
    shapely(wanted.path, *frames[chosen.indices[0]].shape[:2])
    pixels = np.stack([frames[i] for i in chosen.indices])
    return VideoClip(pixels, chosen.own, wanted.rate, chosen.total)


def read_clip(wanted: Wanted, law: Protocol | Exactly) -> VideoClip:
    """Probe and decode in this process, by PyAV. Raises Undecodable."""
    if wanted.rate is not None:
        return read_pictures(wanted, law)
    path = archive.local(wanted.path)
    if wanted.modality == "image":
        image = read_image(path)
        shapely(path, *image.shape[1:3])
        return VideoClip(image, (0,), 1.0, 1, "image")
    known = contents(path)
    info = known.probe
    shapely(path, info.height, info.width)
    chosen = shown_of(info, wanted, law)
    return VideoClip(decode(path, chosen.indices, known), chosen.own, info.fps, chosen.total)


Read = Callable[[Wanted, Protocol], VideoClip]


class Clips:
    """Reads each clip once: the clips used last stay in memory, up to `keep` bytes of pixels.

    read: how a file becomes a clip (evals.decoding reads in workers). ahead: where `prefetch` may
    read before anyone asks; without it nothing is prefetched. `decodes` counts files read, for the
    tests and for cost.
    """

    def __init__(
        self,
        protocol: Protocol,
        keep: int = 2**30,
        *,
        read: Read = read_clip,
        ahead: Executor | None = None,
    ):
        self.protocol, self.keep, self.decodes = protocol, keep, 0
        self._read, self._ahead = read, ahead
        self._clips: OrderedDict[Wanted, VideoClip] = OrderedDict()
        self._coming: dict[Wanted, Future[VideoClip]] = {}
        self._lost: dict[Wanted, Failure] = {}
        self._albums: OrderedDict[tuple[Wanted | None, tuple[Path, ...]], VideoClip] = OrderedDict()
        self._bytes = self._largest = 0

    def load(self, sample: Sample) -> VideoClip | None:
        """The sample's clip under the protocol's frame law; None for a text-only sample.

        Raises Undecodable, and TimedOut where reading has a time limit.
        """
        if sample.modality == "text":
            return None
        if sample.images:
            return self._album(sample)
        return self._one(Wanted.of(sample))

    def _album(self, sample: Sample) -> VideoClip:
        """The sample's clip with its pictures beside it; one object for all who ask for these."""
        wanted = None if sample.media is None else Wanted.of(sample)
        key = (wanted, sample.images)
        if key not in self._albums:
            images = (self._one(Wanted(path, "image")).frames[0] for path in sample.images)
            clip = NOTHING if wanted is None else self._one(wanted)
            self._albums[key] = replace(clip, images=tuple(images))
        self._albums.move_to_end(key)
        while len(self._albums) > _ALBUMS:
            self._albums.popitem(last=False)
        return self._albums[key]

    def _one(self, wanted: Wanted) -> VideoClip:
        if wanted in self._clips:
            self._clips.move_to_end(wanted)
            return self._clips[wanted]
        if wanted in self._lost:  # it may have taken a minute to find out
            lost = self._lost[wanted]
            raise type(lost)(str(lost))
        try:
            clip = self._wait(wanted)
        except (Undecodable, TimedOut) as error:
            self._lost[wanted] = error
            raise
        self._clips[wanted] = clip
        self._bytes += clip.frames.nbytes
        self._largest = max(self._largest, clip.frames.nbytes)
        while self._bytes > self.keep:
            self._bytes -= self._clips.popitem(last=False)[1].frames.nbytes
        return clip

    def _wait(self, wanted: Wanted) -> VideoClip:
        coming = self._coming.pop(wanted, None)
        if coming is not None:
            return coming.result()
        self.decodes += 1
        return self._read(wanted, self.protocol)

    def prefetch(self, samples: Iterable[Sample]) -> None:
        """Begin to read what these samples need and what is neither here nor on its way: as many
        clips as fit into `keep` if all are like the largest so far, at first `_FEW`."""
        if self._ahead is None:
            return
        room = max(2, self.keep // self._largest) if self._largest else _FEW
        for sample in samples:
            if len(self._coming) >= room:
                return
            if sample.modality == "text":
                continue
            parts = [Wanted(path, "image") for path in sample.images]
            parts += [Wanted.of(sample)] if sample.media is not None else []
            for wanted in parts:
                if not any(wanted in known for known in (self._clips, self._coming, self._lost)):
                    self.decodes += 1
                    self._coming[wanted] = self._ahead.submit(self._read, wanted, self.protocol)
