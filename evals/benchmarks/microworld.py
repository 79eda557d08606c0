"""The embedded benchmark: films made on first use, the same on every machine.

Test: 1,280 questions on 320 films; score: share of correct answers, clustered by film.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evals import microworld
from evals.benchmarks import Benchmark, file_hash
from evals.benchmarks.jsonl import read
from evals.errors import BadInput


def load(*, split: str, root: Path | None, data: Path | None) -> Benchmark:
    """root: where films are cached, by default ~/.cache/reelproof."""
    if split not in microworld.SIZES:
        raise BadInput(f"microworld has no split {split!r}; it has {', '.join(microworld.SIZES)}")
    folder = microworld.make(split, cache=root)
    # A film and its twin share their pictures, so they form one cluster.
    samples = tuple(
        replace(s, cluster=min(s.cluster, f"films/{s.tags['twin']}.mp4")) if "twin" in s.tags else s
        for s in read(folder / "records.json", folder)
    )
    revision = f"v{microworld.VERSION}-s0"
    return Benchmark("microworld", split, samples, revision, file_hash(folder / "records.json"))
