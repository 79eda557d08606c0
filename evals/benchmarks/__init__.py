"""One file here is one benchmark; its name is the benchmark's id."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path

from evals.errors import BadInput
from evals.types import Sample

NAMES = ("jsonl", "microworld")


@dataclass(frozen=True)
class Benchmark:
    """Samples of one split. `revision` names the data's version, `sha256` hashes its records."""

    name: str
    split: str
    samples: tuple[Sample, ...]
    revision: str
    sha256: str


def load(
    name: str,
    *,
    split: str = "test",
    root: Path | None = None,
    data: Path | None = None,
) -> Benchmark:
    """Load a benchmark by id. root: folder of the media; data: annotation file (jsonl only).

    Raises BadInput for an unknown benchmark or unreadable annotations.
    """
    if name not in NAMES:
        raise BadInput(f"unknown benchmark {name!r}; known: {', '.join(NAMES)}")
    module = importlib.import_module(f"evals.benchmarks.{name}")
    benchmark: Benchmark = module.load(split=split, root=root, data=data)
    return benchmark


def file_hash(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
