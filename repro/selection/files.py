"""The pool that is chosen from, and what a selection leaves in its folder.

decisions.jsonl            every sample: rewards of all tries, kept or not, and why
selected.jsonl, .ids       what to train on: `repro train --data`, or `data.ids` of a recipe
random, easiest, hardest   controls of the same size, in the same two forms
selection.json             counts, quotas, savings, rules, model
selection.html             plots
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evals import benchmarks, microworld
from evals.benchmarks import Benchmark
from evals.benchmarks.jsonl import TAGS, rows
from evals.errors import BadInput
from evals.metrics import mean
from evals.types import Sample
from repro.selection.rules import Decision, Rules, by_source, constant, variance

DECISIONS, SELECTED, SUMMARY, PAGE = (
    "decisions.jsonl", "selected", "selection.json", "selection.html"
)  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """Samples to choose from, the record behind each, and the folder their media start from."""

    benchmark: Benchmark
    records: Mapping[str, Mapping[str, Any]]
    root: Path

    def first(self, limit: int | None) -> Pool:
        """The first samples only."""
        return replace(
            self, benchmark=replace(self.benchmark, samples=self.benchmark.samples[:limit])
        )


def pool_of_records(data: Path, videos: Path | None) -> Pool:
    """The records of a file. Raises BadInput naming the record that cannot be used."""
    root = videos or data.parent
    benchmark = benchmarks.load("jsonl", data=data, root=root)
    return Pool(benchmark, _with_ids(rows(data), benchmark), root)


def pool_of_benchmark(name: str, split: str | None, root: Path | None) -> Pool:
    """The samples of a benchmark's split, by default train; microworld's keep their record, others
    get one.

    Raises BadInput for a sample that a record cannot describe.
    """
    if name == "microworld":
        folder = microworld.make(split or "train", cache=root)
        benchmark = benchmarks.load(name, split=split or "train", root=root)
        return Pool(benchmark, _with_ids(rows(folder / "records.json"), benchmark), folder)
    where = root or benchmarks.data_root(name)
    benchmark = benchmarks.load(name, split=split or "train", root=where)
    return Pool(benchmark, {s.id: record(s, name, where) for s in benchmark.samples}, where)


def _with_ids(
    records: Sequence[Mapping[str, Any]], benchmark: Benchmark
) -> dict[str, Mapping[str, Any]]:
    """A record without an id is known by its place, which a selection would move."""
    pairs = zip(records, benchmark.samples, strict=True)
    return {
        s.id: r if r.get("problem_id") is not None else {**r, "problem_id": s.id} for r, s in pairs
    }


def record(sample: Sample, name: str, root: Path) -> dict[str, Any]:
    """A sample in the fields of evals.benchmarks.jsonl."""
    if sample.span is not None or sample.stop is not None or sample.rate is not None:
        raise BadInput(
            f"question {sample.id} of {name} is about a part of its film, or about pictures, which "
            "a record cannot say; cut the films first"
        )
    path = None if sample.media is None else os.path.relpath(sample.media, root)
    return {
        "problem_id": sample.id,
        "problem": sample.question,
        "data_type": sample.modality,
        "problem_type": sample.kind,
        "options": list(sample.options) or None,
        "solution": f"<answer>{sample.gold}</answer>",
        "path": path,
        "data_source": sample.tags.get("data_source", name),
    }


def source(sample: Sample, name: str, by: str | None) -> str:
    """What a quota is given to: the tag `by`, else data_source, else the pool's own name."""
    if by is not None and by not in (*TAGS, "kind"):
        raise BadInput(f"no tag is called {by!r}; there are {', '.join((*TAGS, 'kind'))}")
    if by == "kind":
        return sample.kind
    return sample.tags.get(by or "data_source", name)


def read_ids(path: Path) -> tuple[str, ...]:
    """Ids of a file, one a line; empty lines and those that begin with # are skipped.

    Raises BadInput for a file without any and for an id that stands there twice.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").split("\n"))
    ids = tuple(line for line in lines if line and not line.startswith("#"))
    if not ids:
        raise BadInput(f"{path} names no sample")
    if len(set(ids)) < len(ids):
        raise BadInput(f"{path}: {next(i for i in ids if ids.count(i) > 1)} stands there twice")
    return ids


def only(benchmark: Benchmark, ids: Sequence[str], path: Path) -> Benchmark:
    """The samples with these ids, in the benchmark's order; the hash is of records and ids.

    Raises BadInput for an unknown id.
    """
    wanted = set(ids)
    if missing := sorted(wanted - {s.id for s in benchmark.samples}):
        raise BadInput(
            f"{path}: {benchmark.name} {benchmark.split} has no sample {missing[0]}"
            + (f" (and {len(missing) - 1} others)" if len(missing) > 1 else "")
        )
    own = hashlib.sha256("\n".join([benchmark.sha256, *sorted(wanted)]).encode()).hexdigest()
    samples = tuple(s for s in benchmark.samples if s.id in wanted)
    return replace(benchmark, samples=samples, sha256=own)


# --- writing -----------------------------------------------------------------------------------


def write(out: Path, pool: Pool, decisions: Sequence[Decision], others: Mapping[str, list[str]]
          ) -> None:  # fmt: skip
    """Decisions, the selected records and the controls."""
    _lines(out / DECISIONS, map(line, decisions))
    chosen = {SELECTED: [d.tried.id for d in decisions if d.kept], **others}
    for name, ids in chosen.items():
        _lines(out / f"{name}.jsonl", (pool.records[i] for i in ids))
        (out / f"{name}.ids").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")


def line(decision: Decision) -> dict[str, Any]:
    """A decision as data."""
    tried = decision.tried
    return {
        "id": tried.id,
        "source": tried.source,
        "kind": tried.kind,
        "kept": decision.kept,
        "fits": decision.fits,
        "reason": decision.reason,
        "score": round(decision.score, 6),
        "audited": tried.audited,
        "signals": {
            name: {
                "mean": round(mean(values), 6),
                "variance": round(variance(values), 6),
                "tries": [round(v, 6) for v in values],
            }
            for name, values in tried.signals.items()
        },
    }


def _lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)


# --- counting ----------------------------------------------------------------------------------


def summary(
    decisions: Sequence[Decision], law: Rules, quotas: Mapping[str, int], replies: int, tokens: int
) -> dict[str, Any]:
    """Counts of a selection. saved: share of the K x N replies that were not needed."""
    whole = law.tries * sum(not d.tried.lost for d in decisions)
    return {
        "pool": len(decisions),
        "lost": sum(bool(d.tried.lost) for d in decisions),
        "fits": sum(d.fits for d in decisions),
        "kept": sum(d.kept for d in decisions),
        "rules": asdict(law),
        "replies": {
            "spent": replies,
            "all_tries": whole,
            "saved": 1 - replies / whole if whole else 0.0,
            "tokens": tokens,
        },
        "audit": _audit(decisions, law),
        "flat": _flat(decisions, law),
        "sources": {
            name: _source(own, quotas.get(name)) for name, own in by_source(decisions).items()
        },
    }


def _source(own: Sequence[Decision], quota: int | None) -> dict[str, Any]:
    kept = [d for d in own if d.kept]
    reasons = Counter("lost" if d.tried.lost else d.reason for d in own)
    return {
        "pool": len(own),
        "fits": sum(d.fits for d in own),
        "quota": quota,
        "kept": len(kept),
        "least_score": {
            kind: round(min(d.score for d in kept if d.tried.kind == kind), 6)
            for kind in sorted({d.tried.kind for d in kept})
        },
        "reasons": dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
    }


def _audit(decisions: Sequence[Decision], law: Rules) -> dict[str, Any]:
    """What the screen loses: of the audited samples, those that all tries would have let in."""
    audited = [d for d in decisions if d.tried.audited]
    screened = sum(d.reason.startswith("screened out") for d in decisions) + len(audited)
    found = sum(d.fits for d in audited)
    lost = screened * found / len(audited) if audited else None
    kept = sum(d.kept for d in audited)
    return {
        "screened": screened, "audited": len(audited), "fit": found, "kept": kept,
        "lost_about": lost,
    }  # fmt: skip


def _flat(decisions: Sequence[Decision], law: Rules) -> dict[str, Any]:
    """Share of samples whose tries earned the same, a group without advantage: of the pool in the
    first tries, of the selected ones in the other tries, which did not decide the screen.
    """
    asked = [d.tried.signals for d in decisions if not d.tried.lost]
    kept = [d.tried.signals for d in decisions if d.kept]
    n, rest = law.first, law.tries - law.first
    return {
        "pool": {"group": n, "share": _constant(asked, slice(0, n))},
        "selected": {"group": rest, "share": _constant(kept, slice(n, None)) if rest else None},
    }


def _constant(signals: Sequence[Mapping[str, Sequence[float]]], part: slice) -> float | None:
    if not signals:
        return None
    return mean([float(constant({k: v[part] for k, v in own.items()})) for own in signals])
