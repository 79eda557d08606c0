"""Films of scenes, for masked prediction: every few seconds another picture, drifting."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evals import microworld

Frames = npt.NDArray[np.uint8]


def scene(seed: int, width: int = 168, height: int = 112) -> Frames:
    """(height, width, 3): coarse random colours, smoothed."""
    rng = np.random.default_rng([7, seed])
    coarse = rng.integers(20, 236, (height // 28, width // 28, 3)).astype(np.uint8)
    from PIL import Image

    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def frames(
    seed: int, seconds: float = 60, fps: int = 2, *, shots: Sequence[int] | None = None,
    steps: tuple[int, int] = (1, 2), width: int = 168, height: int = 112, drift: int = 1,
) -> Frames:  # fmt: skip
    """(F, height, width, 3): shots of steps[0] to steps[1] seconds.

    drift: pixels a frame that each moves to the right. shots: which scene each shows, over and
    over; another one each time by default.
    """
    rng = np.random.default_rng([11, seed])
    out: list[Frames] = []
    shot = 0
    while len(out) < seconds * fps:
        which = shots[shot % len(shots)] if shots else 1000 * seed + shot
        picture = scene(which, width, height)
        length = int(rng.integers(steps[0], steps[1] + 1)) if not shots else steps[0]
        out += [np.roll(picture, i * drift, 1) for i in range(length * fps)]
        shot += 1
    return np.stack(out[: int(seconds * fps)])


def film(path: Path, seed: int, seconds: float = 60, fps: int = 2, **more: object) -> Path:
    """An mp4 of `frames`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    microworld.write_film(frames(seed, seconds, fps, **more), path, fps=fps)  # type: ignore[arg-type]
    return path


def numbered(number: int, bits: int = 8, cell: int = 28) -> Frames:
    """A picture that shows its number: one light or dark cell per bit."""
    lit = [(number >> bit) & 1 for bit in range(bits)]
    row = np.repeat(np.array(lit, np.uint8) * 200 + 20, cell)
    return np.broadcast_to(row[None, :, None], (2 * cell, bits * cell, 3)).copy()


def read_number(picture: Frames, bits: int = 8) -> int:
    """What `numbered` wrote."""
    cell = picture.shape[1] // bits
    grey = picture.mean(-1)
    means = [grey[:, b * cell + cell // 4 : (b + 1) * cell - cell // 4].mean() for b in range(bits)]
    return sum(1 << b for b, mean in enumerate(means) if mean > 110)


def timed(path: Path, pictures: Sequence[Frames], times: Sequence[float]) -> Path:
    """An mp4 whose frames are shown at these seconds: a variable rate."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"qp": "18", "g": "12", "bf": "2"}
        for picture, seconds in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def rotated(path: Path, to: Path) -> Path:
    """The same film, marked to be shown turned by a quarter clockwise, as phones do."""
    data = path.read_bytes()
    at = data.index(b"tkhd")
    identity = b"".join(n.to_bytes(4, "big") for n in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(
        (n & 0xFFFFFFFF).to_bytes(4, "big") for n in (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    )
    place = data.index(identity, at)
    to.write_bytes(data[:place] + turned + data[place + len(identity) :])
    return to


def sound(path: Path) -> Path:
    """A second of silence in an mp4 without pictures."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 8000
        out.mux(stream.encode(samples))
        out.mux(stream.encode())
    return path
