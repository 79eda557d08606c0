"""A set shaped like Video-Holmes (1,837 questions on 270 films, about 7 a film) and the plain ways
of evaluating it that ours is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np

from evals import benchmarks, video
from evals.benchmarks import Benchmark
from evals.models import Checkpoint
from evals.probes import Probe
from evals.run import evaluate
from evals.types import Protocol, Row
from evals.video import Clips
from evals.vlm import VLM

PER_FILM = 7


def shaped(folder: Path) -> Benchmark:
    """The records of a microworld folder, seven questions a film: its own four, and three of them
    again with their options moved on."""
    own = benchmarks.load("jsonl", data=folder / "records.json", root=folder).samples
    films: dict[object, list[int]] = {}
    for place, sample in enumerate(own):
        films.setdefault(sample.media, []).append(place)
    moved = Probe("rotate-options", own)
    samples = []
    for places in films.values():
        mine = [own[place] for place in places]
        again = [replace(moved.sample(s), id=f"{s.id}-moved") for s in mine]
        samples += [*mine, *again][:PER_FILM]
    return Benchmark("shaped", "test", tuple(samples), "r", "0" * 64)


def ours(vlm: VLM, benchmark: Benchmark, protocol: Protocol) -> list[Row]:
    """As `repro eval` does, without its workers and caches on disk."""
    return evaluate(Checkpoint(vlm, "ours"), benchmark, protocol, batch=64, save_replies=True)


def plain(vlm: VLM, benchmark: Benchmark, protocol: Protocol) -> list[Row]:
    """One question at a time: the film is decoded, encoded and prefilled for each."""
    model, rows = Checkpoint(vlm, "plain", shared=False), []
    for sample in benchmark.samples:
        one = replace(benchmark, samples=(sample,))
        rows += evaluate(model, one, protocol, batch=1, clips=Clips(protocol), save_replies=True)
    return rows


def appended(rows: Sequence[Row], path: Path) -> None:
    """A plain loop that appends the rows, known beforehand, one line each."""
    with path.open("a") as file:
        for row in rows:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()


def per_index(path: Path, indices: Sequence[int]) -> np.ndarray:
    """Every frame on its own: open, decode up to it, keep it."""
    frames = []
    for wanted in indices:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(video=0)):
                if number == wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                    break
    return np.stack(frames)


def one_pass(path: Path, indices: tuple[int, ...]) -> np.ndarray:
    """From the first frame to the last, keeping those asked for."""
    frames = video._in_one_pass(path, indices)
    return np.stack([frames[i] for i in indices])


Decode = Callable[[Path, tuple[int, ...]], np.ndarray]
DECODERS: dict[str, Decode] = {
    "ours": video.decode,
    "one pass": one_pass,
    "decord": lambda path, indices: video.decode_with_decord(  # type: ignore[dict-item,return-value]
        path, indices, video.contents(path)
    ),
    "per index": per_index,
}
