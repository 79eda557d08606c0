"""Cells: what can be checked about a printed number, and why it has not been.

| kind              | question                                                                    |
|-------------------|-----------------------------------------------------------------------------|
| `score`           | released weights under our evaluator: is the number right?                  |
| `score (trained)` | we trained the arm: is the number within training luck?                     |
| `claim`           | our method run against our baseline run, where the paper prints both; arms  |
|                   | trained here by seed, else the two released checkpoints by question         |

A cell is `registered` when its number is the paper's own, stands in a main table, may turn green
and is no mean of others; everything else is exploratory and never counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from results.assumptions import Assumptions, Margin, load_assumptions, registered_margin
from results.benchmarks import Benchmarks, load_benchmarks
from results.checkpoints import checkpoint_claim
from results.claims import Claim, claim, gain
from results.ledger import Run
from results.policy import Policy, load_policy
from results.printed import Paper, Reported
from results.protocol import Assumed
from results.stats import Spread
from results.verdict import Verdict, decide

Kind = Literal["score", "score (trained)", "claim"]
PROFILE = "paper"  # micro numbers are never compared with a paper's
REHEARSAL = "rehearsal"  # random weights on made data: never a cell, never filed with real runs
START = "cold"  # arms whose name starts so are checkpoints to start from: nobody trains them here


@dataclass(frozen=True)
class Cell:
    """One question about one printed number.

    against: the baseline's number of a claim. margin: δ with its source, None where none is
    registered, and then it is never `reproduced`. assumed: what stands in for unstated fields.
    reason: why there is no run, said where the word is `not run`.
    """

    id: str
    kind: Kind
    reported: Reported
    against: Reported | None
    margin: Margin | None
    assumed: Mapping[str, Assumed]
    registered: bool
    reason: str
    status: Literal["not run"] = "not run"

    @property
    def printed_gain(self) -> float | None:
        """Method minus baseline as printed, a fraction; None for a score."""
        if self.against is None:
            return None
        return round(self.reported.fraction - self.against.fraction, 9)


def cells(
    paper: Paper,
    *,
    policy: Policy | None = None,
    assumptions: Assumptions | None = None,
) -> list[Cell]:
    """Every cell of a paper, number by number in the order of its file: `score` where weights are
    public or nothing else can be checked, `score (trained)` for an arm or variant to train, and a
    `claim` against each like-for-like baseline (same table, column and frames). Numbers that the
    paper derived from others have none."""
    rules = policy or load_policy()
    known = assumptions or load_assumptions()
    names = load_benchmarks()
    found: list[Cell] = []
    for number in paper.numbers:
        if number.derived:
            continue
        cell = Cell(
            id=f"{number.id} score",
            kind="score",
            reported=number,
            against=None,
            margin=registered_margin(number, rules, known),
            assumed=known.about(number),
            registered=_registered(number, names),
            reason=_no_score(number, names),
        )
        trained = _own(number) and not _start(number)
        if number.model.weights or not trained:
            found.append(cell)
        if trained:
            found.append(
                replace(
                    cell,
                    id=f"{number.id} trained",
                    kind="score (trained)",
                    reason=_no_training(number, names),
                )
            )
        found += [
            replace(
                cell,
                id=f"{number.id} claim over {other.id.split('/')[2]}",
                kind="claim",
                against=other,
                reason=_no_claim(number, other, names),
            )
            for other in _like_for_like(number, paper.numbers, known)
        ]
    return found


def judge(
    cell: Cell, runs: Sequence[Run], policy: Policy, *, spread: Spread | None = None
) -> Verdict | Claim:
    """The verdict on a cell from all runs of the ledger, or the claim of a `claim` cell.

    spread: between training seeds, pooled over the ledger. Raises NotComparable and LedgerError
    as `decide` and `claim` do.
    """
    own = runs_of(cell.kind, cell.reported, runs, cell.assumed)
    if cell.against is None:
        asked: Literal["E", "T"] = "E" if cell.kind == "score" else "T"
        return decide(
            cell.reported,
            own,
            policy,
            margin=cell.margin.value if cell.margin else None,
            assumed=cell.assumed,
            spread=spread,
            question=asked,
            absent=cell.reason,
        )
    other = runs_of(cell.kind, cell.against, runs, cell.assumed)
    if _start(cell.against) and own and other:
        return gain(own, other[0], policy)
    names = [part.arm or part.model.name for part in (cell.reported, cell.against)]
    if not (own and other) and cell.reported.model.weights and cell.against.model.weights:
        ours = runs_of("score", cell.reported, runs, cell.assumed)
        theirs = runs_of("score", cell.against, runs, cell.assumed)
        if ours and theirs:
            return checkpoint_claim(ours, theirs, policy, method=names[0], baseline=names[1])
    return claim(own, other, policy, method=names[0], baseline=names[1])


def runs_of(
    kind: Kind, number: Reported, runs: Sequence[Run], assumed: Mapping[str, Assumed]
) -> list[Run]:
    """The runs that measure a printed number: of its paper, benchmark, metric and frames, and for
    a `score` of its weights, else of its arm. Means and categories have no run of their own."""
    if number.category or load_benchmarks().by_id[number.benchmark].of:
        return []
    frames = _frames(number, assumed)
    identity = (number.paper, PROFILE, number.benchmark, number.metric)

    def belongs(run: Run) -> bool:
        record = run.record
        if (record.paper, record.profile, record.benchmark, record.metric) != identity:
            return False
        if frames is not None and record.protocol.get("max_frames") != frames:
            return False
        released = record.model["id"] == number.model.weights
        if kind == "score":
            return released
        return record.arm == number.arm and (_start(number) or not released)

    return [run for run in runs if belongs(run)]


# --- which, and why not --------------------------------------------------------------------


def _own(number: Reported) -> bool:
    """Whether the paper measured it itself, rather than showing a model of others."""
    return number.model.role != "other"


def _registered(number: Reported, benchmarks: Benchmarks) -> bool:
    whole = not benchmarks.by_id[number.benchmark].of
    return number.registered and number.may_turn_green and _own(number) and whole


def _start(number: Reported) -> bool:
    """Whether it belongs to a checkpoint that training starts from."""
    return (number.arm or "").startswith(START)


def _frames(number: Reported, assumed: Mapping[str, Assumed]) -> object:
    """Stated frames, or the only ones assumed; None where any run may belong."""
    stated = number.protocol.get("frames")
    if isinstance(stated, int | float):
        return stated
    values = assumed["frames"].values if "frames" in assumed else ()
    return values[0] if len(values) == 1 else None


def _like_for_like(
    number: Reported, numbers: Sequence[Reported], assumptions: Assumptions
) -> list[Reported]:
    """The baselines printed beside a method's number."""
    if number.model.role != "method":
        return []

    def place(other: Reported) -> tuple[object, ...]:
        frames = _frames(other, assumptions.about(other))
        return other.table, other.benchmark, other.category, other.metric, frames

    return [
        other
        for other in numbers
        if number.arm in other.model.baseline_of and place(other) == place(number)
    ]


def _no_score(number: Reported, benchmarks: Benchmarks) -> str:
    if not _own(number):
        return "a model of others, shown for orientation"
    if number.model.weights is None:
        return "no weights released"
    return f"needs a GPU{_obstacle(number, benchmarks)}"


def _no_training(number: Reported, benchmarks: Benchmarks) -> str:
    if number.arm is None:
        return "no recipe trains this variant"
    return f"needs GPUs to train a {number.model.size} model{_obstacle(number, benchmarks)}"


def _no_claim(number: Reported, other: Reported, benchmarks: Benchmarks) -> str:
    missing = [part.model.name for part in (number, other) if part.arm is None]
    if missing:
        return f"no recipe trains {missing[0]}"
    return f"needs GPUs to train both arms{_obstacle(number, benchmarks)}"


def _obstacle(number: Reported, benchmarks: Benchmarks) -> str:
    """What stands in the way of a verdict beside the hardware."""
    benchmark = benchmarks.by_id[number.benchmark]
    if benchmark.of:
        return f"; a mean of {len(benchmark.of)} benchmarks, which have cells of their own"
    if number.category:
        return "; one category of a benchmark that has a cell of its own"
    if number.metric == "unverified_aggregate":
        return "; how the paper forms this number is unknown"
    return f"; {benchmark.access}" if benchmark.access else ""
