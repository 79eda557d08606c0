"""Asks a pool of samples several times: the first tries of all, the rest only of the undecided.

    tries-1.jsonl   rows of the first tries        tries-2.jsonl   rows of the rest

Both hold the replies, so that rules can be changed without asking again; both resume as an
evaluation does (evals.rows). A sample whose first tries all earned the same is settled: it would
give a group no advantage. That loses some which would have differed later; an audit counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.benchmarks import Benchmark
from evals.errors import EnvironmentFault
from evals.models import Model
from evals.replies import ReplyCache
from evals.rows import RowFile
from evals.run import Work, stream
from evals.seeds import derive
from evals.types import LOST, Protocol, Row, Sample
from evals.video import Clips
from repro.selection import rules, signals
from repro.selection.rules import Rules, Tried

FIRST, REST = "tries-1.jsonl", "tries-2.jsonl"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asking:
    """Who answers, under which protocol, and what may be used for it."""

    model: Model
    protocol: Protocol
    identity: Mapping[str, Any]  # of the weights, for the heads of the files
    clips: Clips | None = None
    replies: ReplyCache | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Screened:
    """Every sample in the pool's order. replies: in both files, tokens: of them; work: what this
    call asked and waited for."""

    tried: tuple[Tried, ...]
    replies: int
    tokens: int
    work: Work


def screen(
    pool: Benchmark,
    asking: Asking,
    law: Rules,
    out: Path,
    *,
    source: Callable[[Sample], str],
    progress: Progress = lambda name, done, total: None,
) -> Screened:
    """Ask the pool, resuming from the files in `out`.

    Raises EnvironmentFault where the run cannot go on, BadInput for files of another model,
    protocol or seed.
    """
    work = Work()
    first = _stage(pool, asking, law.first, law.seed, out / FIRST, work,
                   lambda n, of: progress("first tries", n, of))  # fmt: skip
    seen = [_tried(sample, first[sample.id], source(sample)) for sample in pool.samples]
    settled = [t.id for t in seen if not t.lost and not rules.tries_on(t, law)]
    extra = rules.audited(settled, law)
    on = {t.id for t in seen if rules.tries_on(t, law)} | extra
    left = law.tries - law.first
    rest: dict[str, list[Row]] = {}
    if left and on:
        undecided = replace(pool, samples=tuple(s for s in pool.samples if s.id in on))
        rest = _stage(undecided, asking, left, law.seed, out / REST, work,
                      lambda n, of: progress("other tries", n, of))  # fmt: skip
    tried = []
    for sample, begun in zip(pool.samples, seen, strict=True):
        if sample.id in rest:
            rows = [*first[sample.id], *rest[sample.id]]
            begun = replace(_tried(sample, rows, begun.source), audited=sample.id in extra)
        tried.append(begun)
    both = (first, rest)
    drawn = [r for part in both for rows in part.values() for r in rows if r.outcome not in LOST]
    return Screened(tuple(tried), len(drawn), sum(row.tokens for row in drawn), work)


def _stage(
    pool: Benchmark, asking: Asking, tries: int, seed: int, path: Path, work: Work,
    progress: Callable[[int, int], None],
) -> dict[str, list[Row]]:  # fmt: skip
    """Rows of `tries` replies to every sample. Each file draws under a seed of its own."""
    own = derive(seed, path.stem)
    protocol = asking.model.under(
        replace(
            asking.protocol, grader=signals.GRADER,
            decoding=replace(asking.protocol.decoding, samples=tries),
        )
    )  # fmt: skip
    head = {"protocol": protocol.hash, "seed": own, "pool": pool.sha256, **asking.identity}
    found: dict[str, list[Row]] = {}
    with RowFile(path, head, tries) as file:
        try:
            for rows in stream(
                asking.model, pool, protocol, limit=None, seed=own, progress=progress,
                save_replies=True, resume_rows=file.kept,
                batch=asking.batch or max(1, asking.model.at_once // tries), clips=asking.clips,
                replies=asking.replies, work=work,
            ):  # fmt: skip
                file.add(rows)
                for row in rows:
                    found.setdefault(row.id, []).append(row)
        except EnvironmentFault as error:
            raise EnvironmentFault(
                f"{error}; {sum(map(len, found.values()))} replies are kept in {path}: --resume "
                "continues from them"
            ) from error
    return found


def _tried(sample: Sample, rows: Sequence[Row], source: str) -> Tried:
    gone = next((row for row in rows if row.outcome in LOST), None)
    if gone is not None:
        reason = f"{gone.outcome}: {gone.detail or 'no detail'}"
        return Tried(sample.id, source, sample.kind, lost=reason)
    each = [signals.of_row(sample, row) for row in rows]
    return Tried(
        sample.id, source, sample.kind,
        {name: tuple(e[name] for e in each) for name in signals.names(sample.kind)},
    )  # fmt: skip
