"""Several pools as one, and a pool without the films of test sets (temporal_r1.md 7, A6)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals.benchmarks import Benchmark
from evals.errors import BadInput
from evals.types import Sample
from repro.selection.files import Pool


def together(pools: Sequence[Pool]) -> Pool:
    """One pool of all: ids begin with their pool's name, which is also the source (`data_source`)
    of records that name none; paths start from the folder that holds all the others.

    Raises BadInput where a split is named twice.
    """
    if len(pools) == 1:
        return pools[0]
    names = [pool.benchmark.name for pool in pools]
    labels = [
        pool.benchmark.name if names.count(pool.benchmark.name) == 1
        else f"{pool.benchmark.name}-{pool.benchmark.split}"
        for pool in pools
    ]  # fmt: skip
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise BadInput(f"the pool {twice} is named twice")
    root = Path(os.path.commonpath([pool.root.absolute() for pool in pools]))
    samples: list[Sample] = []
    records: dict[str, Mapping[str, Any]] = {}
    for label, pool in zip(labels, pools, strict=True):
        for sample in pool.benchmark.samples:
            own = f"{label}/{sample.id}"
            tags = {"data_source": label, **sample.tags}
            samples.append(replace(sample, id=own, tags=tags))
            moved = _moved(pool.records[sample.id], pool.root.absolute(), root)
            records[own] = {"data_source": label, **moved, "problem_id": own}
    hashes = "\n".join(pool.benchmark.sha256 for pool in pools)
    benchmark = Benchmark(
        "+".join(labels), "+".join(pool.benchmark.split for pool in pools), tuple(samples),
        "+".join(pool.benchmark.revision for pool in pools),
        hashlib.sha256(hashes.encode()).hexdigest(),
    )  # fmt: skip
    return Pool(benchmark, records, root)


def _moved(record: Mapping[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """A record whose paths start from another folder."""

    def path(name: str) -> str:
        return os.path.relpath(old / name, new)

    more: dict[str, Any] = {"path": path(record["path"])} if record.get("path") else {}
    if record.get("images"):
        more["images"] = [path(name) for name in record["images"]]
    return {**record, **more}


def without(pool: Pool, tests: Sequence[Benchmark]) -> tuple[Pool, dict[str, dict[str, int]]]:
    """The pool without the films of these benchmarks, and how many films and samples each cost.

    Films are the same whose files are, but for their folder, ending and ActivityNet's "v_". A film
    that a benchmark has cut into pieces of other names is not found.
    """
    left, counts = pool.benchmark.samples, {}
    for test in tests:
        shown = {film(s) for s in test.samples} - {None}
        hit = [s for s in left if film(s) in shown]
        counts[f"{test.name} {test.split}"] = {
            "films": len({film(s) for s in hit}), "samples": len(hit)
        }  # fmt: skip
        left = tuple(s for s in left if film(s) not in shown)
    if not left:
        raise BadInput("every sample of the pool is about a film that is to be left out")
    return replace(pool, benchmark=replace(pool.benchmark, samples=left)), counts


def film(sample: Sample) -> str | None:
    """A film's own name; None for a sample without one."""
    return None if sample.media is None else sample.media.stem.removeprefix("v_")
