"""What pass 1 keeps of a video: its pictures in one file, their times and brightness in another,
vectors of each embedder in a third.

    FOLDER/<filming>/ab/<sha256 of the video>.jpegs | .npz | .<embedder>.npy

The .npz is written last: a video is there, whole, or not there. Vectors are made from the stored
JPEGs, which a model will see, so another embedder needs no decoding either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from repro.mvp.synthesis.embed import Embedder, luma
from repro.mvp.synthesis.films import Filming, jpeg


@dataclass(frozen=True)
class Film:
    """A video after pass 1. F pictures; seconds (F,) ascending; vectors (F, D) of length 1;
    light (F, 2): mean and spread of the luma, 0..1; ends (F + 1,): bytes of the pictures."""

    id: str
    seconds: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float32]
    light: npt.NDArray[np.float32]
    ends: npt.NDArray[np.int64]


class Writer:
    """Takes the pictures of one video, one by one."""

    def __init__(self, sink: IO[bytes], filming: Filming):
        self._sink, self._filming = sink, filming
        self.seconds: list[float] = []
        self.light: list[tuple[float, float]] = []
        self.ends = [0]

    def add(self, seconds: float, picture: npt.NDArray[np.uint8]) -> None:
        """(H, W, 3) uint8 RGB, shown at `seconds`."""
        data = jpeg(picture, self._filming.quality)
        grey = luma(picture[::4, ::4].astype(np.float32) / np.float32(255))
        self._sink.write(data)
        self.seconds.append(seconds)
        self.light.append((float(grey.mean()), float(grey.std())))
        self.ends.append(self.ends[-1] + len(data))


class Store:
    """Videos by sha256. Several processes may share the folder."""

    def __init__(self, folder: Path, filming: Filming):
        self.folder, self.filming = folder / filming.key, filming

    def _path(self, film: str, ending: str) -> Path:
        return self.folder / film[:2] / f"{film}{ending}"

    def has(self, film: str, embedder: str | None = None) -> bool:
        """Whether the video's pictures are here; or their vectors, if an embedder is named."""
        return self._path(film, f".{embedder}.npy" if embedder else ".npz").exists()

    def length(self, film: str) -> float:
        """Seconds from the first picture to the last."""
        return float(self._index(film)["seconds"][-1])

    @contextmanager
    def writing(self, film: str) -> Iterator[Writer]:
        """The pictures of a video; kept only if the block ends well."""
        path = self._path(film, ".jpegs")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _aside(path) as sink:
            writer = Writer(sink, self.filming)
            yield writer
        with _aside(self._path(film, ".npz")) as sink:
            np.savez(
                sink,
                seconds=np.array(writer.seconds, np.float64),
                light=np.array(writer.light, np.float32).reshape(-1, 2),
                ends=np.array(writer.ends, np.int64),
            )

    def embed(self, film: str, embedder: Embedder) -> None:
        """Vectors of a video's pictures, unless they are here."""
        path = self._path(film, f".{embedder.name}.npy")
        if path.exists():
            return
        ends = self._index(film)["ends"]
        with self._path(film, ".jpegs").open("rb") as file:
            parts = [
                embedder([file.read(int(size)) for size in sizes])
                for sizes in np.array_split(np.diff(ends), max(1, len(ends) // 256))
                if len(sizes)
            ]
        with _aside(path) as sink:
            np.save(sink, np.concatenate(parts), allow_pickle=False)

    def load(self, film: str, embedder: str) -> Film:
        """A video that `embed` has seen."""
        index = self._index(film)
        vectors = np.load(self._path(film, f".{embedder}.npy"), allow_pickle=False)
        return Film(film, index["seconds"], vectors, index["light"], index["ends"])

    def _index(self, film: str) -> dict[str, Any]:
        with np.load(self._path(film, ".npz"), allow_pickle=False) as found:
            return dict(found)

    def pictures(self, film: Film, numbers: Sequence[int]) -> list[bytes]:
        """JPEGs by number."""
        with self._path(film.id, ".jpegs").open("rb") as file:
            found = []
            for n in numbers:
                file.seek(int(film.ends[n]))
                found.append(file.read(int(film.ends[n + 1] - film.ends[n])))
        return found


@contextmanager
def _aside(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as sink:
            yield sink
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
