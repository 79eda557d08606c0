"""Score saved replies again, with any grader and without a model.

| row                                         | gold comes from        |
|---------------------------------------------|------------------------|
| `{"id", "reply"}`                           | the benchmark          |
| `{"reply", "answer", "type", ["options"]}`  | the row                |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from evals.benchmarks import Benchmark
from evals.benchmarks.jsonl import rows as read_rows
from evals.errors import BadInput
from evals.run import score, summary
from evals.types import Kind, Protocol, Reply, Sample


def rescore(
    file: Path, benchmark: Benchmark | None, graders: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Grader -> n, score, outcomes, by_tag (evals.run.summary). Raises BadInput naming the row."""
    known = {sample.id: sample for sample in benchmark.samples} if benchmark else None
    pairs = [_pair(row, f"{file}, row {n}", known) for n, row in enumerate(read_rows(file), 1)]
    if not pairs:
        raise BadInput(f"{file} holds no reply")
    return {grader: summary(_rows(pairs, Protocol("saved", grader=grader))) for grader in graders}


def _rows(pairs: Sequence[tuple[Sample, Reply]], protocol: Protocol) -> list[Any]:
    seen: Counter[str] = Counter()
    rows = []
    for sample, reply in pairs:
        rows.append(score(sample, reply, seen[sample.id], protocol))
        seen[sample.id] += 1
    return rows


def _pair(
    row: Mapping[str, Any], where: str, known: Mapping[str, Sample] | None
) -> tuple[Sample, Reply]:
    if not isinstance(row, dict) or not isinstance(row.get("reply"), str):
        raise BadInput(f"{where}: `reply` is missing")
    reply = Reply(row["reply"], tokens=0, finished=bool(row.get("finished", True)))
    if known is not None:
        if str(row.get("id")) not in known:
            raise BadInput(f"{where}: the benchmark has no question {row.get('id')!r}")
        return known[str(row["id"])], reply
    if row.get("type") not in get_args(Kind) or "answer" not in row:
        raise BadInput(
            f"{where}: without --benchmark a row needs `answer` and a `type` out of "
            f"{', '.join(get_args(Kind))}"
        )
    sample = Sample(
        id=str(row.get("id", where)), question="", kind=row["type"], gold=str(row["answer"]),
        modality="text", media=None, options=tuple(row.get("options") or ()),
    )  # fmt: skip
    return sample, reply
