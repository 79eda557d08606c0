"""Evaluate: every question asked, every reply scored, every failure named and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from evals.benchmarks import Benchmark
from evals.errors import Undecodable
from evals.extract import Unparsed, extract
from evals.grade import grade
from evals.metrics import mean
from evals.models import Model
from evals.types import Outcome, Protocol, Reply, Row, Sample

Progress = Callable[[int, int], None]
#: Tags that say where a sample comes from; no score is broken down by them.
_UNREPORTED = frozenset({"film", "twin", "data_source"})


def evaluate(
    model: Model,
    benchmark: Benchmark,
    protocol: Protocol,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    save_replies: bool = False,
    resume_rows: Sequence[Row] = (),
    batch: int = 32,
) -> list[Row]:
    """Rows in benchmark order, `protocol.decoding.samples` per question.

    limit: ask only the first questions (the run is then partial). resume_rows: rows of an earlier
    call, kept for every question they answer completely. seed: of the draws.
    """
    return [
        row
        for rows in stream(
            model, benchmark, protocol, limit=limit, seed=seed, progress=progress,
            save_replies=save_replies, resume_rows=resume_rows, batch=batch,
        )
        for row in rows
    ]  # fmt: skip


def stream(
    model: Model,
    benchmark: Benchmark,
    protocol: Protocol,
    *,
    limit: int | None,
    seed: int,
    progress: Progress,
    save_replies: bool,
    resume_rows: Sequence[Row],
    batch: int,
) -> Iterator[list[Row]]:
    """As `evaluate`, a list of rows per batch as soon as it is scored.

    Batches are the same with and without resuming, so that the draws are too.
    """
    samples = benchmark.samples[:limit]
    decoding = replace(protocol.decoding, seed=seed)
    known: dict[str, list[Row]] = {}
    for row in resume_rows:
        known.setdefault(row.id, []).append(row)
    for first in range(0, len(samples), batch):
        part = samples[first : first + batch]
        if all(_complete(s, known, decoding.samples) for s in part):
            yield [row for s in part for row in known[s.id]]
        else:
            replies = model.answer(part, protocol, decoding)
            yield [
                row
                for sample, answer in zip(part, replies, strict=True)
                for row in _rows(sample, answer, protocol, save_replies)
            ]
        progress(min(first + batch, len(samples)), len(samples))


def _complete(sample: Sample, known: dict[str, list[Row]], replies: int) -> bool:
    rows = known.get(sample.id, [])
    return len(rows) == replies or [r.outcome for r in rows] == [Outcome.UNDECODABLE]


def _rows(
    sample: Sample, answer: list[Reply] | Undecodable, protocol: Protocol, save: bool
) -> list[Row]:
    if isinstance(answer, Undecodable):
        lost = _row(sample, 0, None, Outcome.UNDECODABLE, 0.0, 0)
        return [replace(lost, detail=str(answer))]
    return [score(sample, reply, k, protocol, save) for k, reply in enumerate(answer)]


def score(sample: Sample, reply: Reply, k: int, protocol: Protocol, save: bool = False) -> Row:
    """One reply as a row: its answer extracted, graded, and named."""
    reading = extract(reply.text, sample.kind, protocol.grader, sample.options)
    if isinstance(reading, Unparsed):
        outcome = Outcome.UNPARSED if reply.finished else Outcome.TRUNCATED
        row = _row(sample, k, None, outcome, 0.0, reply.tokens)
        row = replace(row, detail=reading.reason)
    else:
        value = grade(
            reading, sample.gold, sample.kind, sample.options, iou=protocol.iou,
            grader=protocol.grader, overlap=protocol.overlap,
        )  # fmt: skip
        outcome = Outcome.CORRECT if value >= 1 else Outcome.WRONG
        row = _row(sample, k, reading.value, outcome, value, reply.tokens)
    return replace(row, reply=reply.text) if save else row


def _row(
    sample: Sample, k: int, prediction: str | None, outcome: Outcome, value: float, tokens: int
) -> Row:
    tags = {key: value for key, value in sample.tags.items() if key not in _UNREPORTED}
    return Row(
        sample.id, k, sample.cluster, sample.kind, sample.gold, prediction, outcome.value, value,
        tokens, tags,
    )  # fmt: skip


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """n (questions), score (mean over questions of the mean over replies), outcomes, by_tag."""
    questions: dict[str, list[Row]] = {}
    for row in rows:
        questions.setdefault(row.id, []).append(row)
    means = {key: mean([r.score for r in own]) for key, own in questions.items()}
    tagged: dict[str, dict[str, list[float]]] = {}
    for key, own in questions.items():
        for tag, value in own[0].tags.items():
            tagged.setdefault(tag, {}).setdefault(value, []).append(means[key])
    return {
        "n": len(questions),
        "score": mean(list(means.values())),
        "outcomes": dict(sorted(Counter(r.outcome for r in rows).items())),
        "by_tag": {
            tag: {v: {"n": len(x), "score": mean(x)} for v, x in sorted(values.items())}
            for tag, values in sorted(tagged.items())
        },
    }
