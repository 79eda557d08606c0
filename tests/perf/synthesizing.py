"""Made 360p films, and the plain way of looking at one picture a second that ours is compared with:
one seek per picture, after which everything since the last key frame is decoded again."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from repro.mvp.synthesis import films
from repro.mvp.synthesis.films import Filming
from tests import scenes

RATE, WIDTH, HEIGHT = 25, 640, 360


def film(path: Path, seconds: int, seed: int = 0, gop: int = 250) -> Path:
    """Scenes of 2 seconds with fine texture, moving, under some grain: about 1 Mbit/s. Key frames
    stand where x264 sets them by default, every 250 frames, and not at the cuts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 3, (8, HEIGHT, WIDTH, 1))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.options = {"g": str(gop), "preset": "veryfast", "sc_threshold": "0"}
        for n in range(seconds * RATE):
            shot, at = divmod(n, 2 * RATE)
            if at == 0:
                wide = scenes.scene(1000 * seed + shot, 672, 364)[:HEIGHT, :WIDTH]
                picture = wide + rng.normal(0, 12, (HEIGHT, WIDTH, 1))
            shown = np.roll(picture, 2 * at, 1) + grain[n % 8]
            frame = av.VideoFrame.from_ndarray(shown.clip(0, 255).astype(np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def lengthened(path: Path, to: Path, times: int) -> Path:
    """The film again and again, its packets copied."""
    with av.open(str(to), "w") as out:
        copy, offset = None, 0
        for _ in range(times):
            with av.open(str(path)) as source:
                stream = source.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                length = stream.duration
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = copy
                    out.mux(packet)
            offset += length
    return to


def told_apart(path: Path, to: Path, number: int) -> None:
    """A copy that shows the same and has other bytes: a free atom at its end."""
    to.parent.mkdir(parents=True, exist_ok=True)
    free = (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")
    to.write_bytes(path.read_bytes() + free)


def by_seeking(path: Path, filming: Filming) -> Iterator[tuple[float, np.ndarray]]:
    """As films.pictures, one seek per picture."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        shape = films.Part(0, 0, WIDTH, HEIGHT), *films.size_of(WIDTH, HEIGHT, filming.pixels)
        for k in range(int(stream.duration * stream.time_base * filming.fps)):
            container.seek(int(k / filming.fps / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                seconds = float(frame.pts * stream.time_base)
                if seconds + 1e-6 >= k / filming.fps:
                    yield seconds, films._upright(frame, *shape)
                    break


def peak_of(program: str) -> float:
    """Most memory (MiB) that a Python program of its own held. Linux keeps in ru_maxrss what the
    process held before it became that program, so /proc is asked."""
    code = f"{program}\nprint(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split("VmHWM:")[1].split()[0]) / 1024


def children() -> float:
    """Processor seconds of finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
