"""From filed runs to a word: the report and closing table, paired comparison, check."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evals.errors import BadInput, NotComparable
from repro.machine import ROOT
from results import ledger, verdict
from results.schema import LedgerError
from results.stats import Interval, clustered_interval

#: What must agree before two runs are paired; the rest is what may differ between them.
SAME = ("benchmark", "split", "metric", "samples", "protocol_hash", "dataset")


@contextmanager
def ledger_errors() -> Iterator[None]:
    """`results` knows nothing of exit codes: its errors as ours."""
    try:
        yield
    except LedgerError as error:
        raise BadInput(str(error)) from error
    except verdict.NotComparable as error:
        raise NotComparable(str(error)) from error


def committed() -> Path:
    """Where records live: $REPRO_RUNS, else results/runs of this tree."""
    return Path(os.environ.get("REPRO_RUNS") or ROOT / "results" / "runs")


@dataclass(frozen=True)
class Conclusion:
    """The closing table, the report's path, and the registered claims of the fresh runs."""

    text: str
    report: Path
    claims: tuple[verdict.Claim, ...]


def conclude(folder: Path, *, out: Path, command: str) -> Conclusion:
    """Build the report of the runs in `folder`, beside the committed ones of the same paper.

    Raises BadInput when no whole run is there.
    """
    from results import report

    with ledger_errors():
        runs = ledger.load(folder) if folder.is_dir() else []
        if not any(not run.record.partial for run in runs):
            raise BadInput(f"{folder} holds no whole run to report; `repro reproduce` makes some")
        policy = verdict.load_policy()
        claims = verdict.registered(runs, policy)
        beside = _reference(runs[0], folder)
        decided = verdict.registered(beside, policy) if beside else ()
        path = report.build(
            runs, claims, out, reference=beside, reference_claims=decided, policy=policy,
            command=command,
        )  # fmt: skip
        text = report.summary_text(runs, claims, reference_claims=decided, policy=policy)
    return Conclusion(text, path, claims)


def _reference(run: ledger.Run, folder: Path) -> list[ledger.Run]:
    """Committed runs of the same cell; none if the runs shown are those themselves."""
    record = run.record
    at = committed() / record.paper / record.benchmark
    if not at.is_dir() or folder.resolve() == at.resolve():
        return []
    return [
        r
        for r in ledger.load(at)
        if (r.record.profile, r.record.split) == (record.profile, record.split)
    ]


@dataclass(frozen=True)
class Paired:
    """Second minus first over the same questions, with the interval over videos."""

    first: str
    second: str
    scores: tuple[float, float]
    difference: Interval
    better: int
    worse: int
    questions: int


def compare(first: Path, second: Path) -> Paired:
    """Pair two runs by question. Raises NotComparable naming what differs."""
    with ledger_errors():
        a, b = ledger.read(first), ledger.read(second)
    differing = [key for key in SAME if getattr(a.record, key) != getattr(b.record, key)]
    if not differing and a.items.ids != b.items.ids:
        differing = ["questions"]
    if differing:
        raise NotComparable(f"{first} and {second} differ in {', '.join(differing)}")
    policy = verdict.load_policy()
    delta = b.items.scores - a.items.scores
    return Paired(
        first=str(first),
        second=str(second),
        scores=(a.record.score, b.record.score),
        difference=clustered_interval(
            delta, a.items.clusters, policy.level, policy.draws, policy.draw_seed
        ),
        better=int(np.sum(delta > 0)),
        worse=int(np.sum(delta < 0)),
        questions=len(delta),
    )


def verify(folder: Path) -> tuple[int, Sequence[str]]:
    """(runs read, what each record says that its rows do not)."""
    with ledger_errors():
        runs = ledger.load(folder) if folder.is_dir() else []
    if not runs:
        raise BadInput(f"{folder} holds no record.json")
    found = [f"{run.directory}: {problem}" for run in runs for problem in ledger.verify(run)]
    return len(runs), found
