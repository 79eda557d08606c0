"""`repro regress`: do the committed numbers of the micro profile still come out? Minutes on a CPU.

| part   | done anew                                   | held against                          |
|--------|---------------------------------------------|---------------------------------------|
| scores | the shipped start checkpoint is asked again | its committed rows, by the gate       |
| curves | a new seed of each arm trains a while       | the prediction band of the references |

Of the checkpoints behind the committed rows only the start is shipped (repro/tiny); the trained
ones are 4.7 MB each, and `repro verify` guards their scores through their rows. A retrained model
is never gated item by item, since training diverges across processors.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals.errors import BadInput
from repro import folder
from repro.children import Chain, Stage, run
from repro.conclude import committed, ledger_errors
from repro.recipe import Recipe, papers
from repro.reproduce import OURS, Scope, chains, prepare
from repro.show import Show
from results import envelope, gate, ledger
from results.policy import Policy, load_policy
from results.schema import curves_from

MARK = "regress.json"  # its folder is one of ours and may be emptied
SHARE = 0.25  # of the references' steps that a new seed trains (chosen: two of the three checks)
PROFILE = "micro"


@dataclass(frozen=True)
class Finding:
    """One thing that was done again. ok: nothing speaks against the committed numbers."""

    paper: str
    part: str
    name: str
    word: str
    reason: str
    ok: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class _Paper:
    """A paper with committed micro runs: its recipe, the runs, and the arms to train again."""

    recipe: Recipe
    runs: tuple[ledger.Run, ...]
    arms: tuple[str, ...]

    def references(self, arm: str) -> list[ledger.Run]:
        """Trained runs of an arm, one per seed."""
        own = [r for r in self.runs if r.record.arm == arm and r.curves]
        return list({r.record.seed: r for r in own}.values())

    @property
    def steps(self) -> int:
        """Of the shortest reference run; 0 without any."""
        found = [r.curves[-1]["step"] for arm in self.arms for r in self.references(arm)]
        return int(min(found, default=0))

    @property
    def seed(self) -> int:
        """The first that no reference has."""
        return 1 + max(r.record.seed for r in self.runs)


def regress(
    out: Path, chosen: Sequence[str], jobs: int, show: Show, program: Sequence[str] = OURS
) -> list[Finding]:
    """Do both parts for the `chosen` papers (none: every paper with committed micro runs).

    out: a folder for the new runs, emptied first. Raises BadInput, NotComparable, StageFailed.
    """
    policy = load_policy()
    with folder.writing(out, resume=True):
        _empty(out)
        known = _papers(chosen, policy)
        work = [stage for paper in known for stage in _work(paper, out / paper.recipe.paper, show)]
        run(work, jobs, show, program=program)
        with ledger_errors():
            return [f for paper in known for f in _judge(paper, out / paper.recipe.paper, policy)]


def _papers(chosen: Sequence[str], policy: Policy) -> list[_Paper]:
    found = []
    for name in chosen or papers():
        recipe = Recipe.load(name, PROFILE)
        at = committed(name, recipe.evaluation.benchmark)
        with ledger_errors():
            runs = ledger.load(at, only=lambda r: r.profile == PROFILE) if at.is_dir() else []
        claim = next((c for c in policy.claims if c.paper == name), None)
        arms = (claim.baseline, claim.method) if claim else ()
        if runs:
            found.append(_Paper(recipe, tuple(runs), arms))
        elif name in chosen:
            raise BadInput(f"{at} holds no committed run of the micro profile to hold against")
    if not found:
        raise BadInput(f"{committed()} holds no run of the micro profile to hold against")
    return found


def _work(paper: _Paper, out: Path, show: Show) -> list[Chain]:
    """The start checkpoint's evaluations, and each arm's brief training, side by side."""
    scope = Scope(arms=(), seeds=(), stages=frozenset({"eval", "train"}))
    questions = prepare(paper.recipe, scope, show)
    work: list[Chain] = [
        (stage,) for chain in chains(paper.recipe, out, scope, questions) for stage in chain
    ]
    if paper.steps:
        work += [(_training(paper, arm, out),) for arm in paper.arms]
    return work


def _training(paper: _Paper, arm: str, out: Path) -> Stage:
    name = f"{arm}-s{paper.seed}"
    until = math.ceil(SHARE * paper.steps)
    return Stage(
        name=f"{name} train",
        argv=(
            "train", paper.recipe.paper, "--profile", PROFILE, "--arm", arm,
            "--seed", str(paper.seed), "--steps", str(paper.steps), "--until", str(until),
            "--out", str(out / name),
        ),
        proof=out / name / f"checkpoint-{until}",
        pace=out / name / ledger.CURVES,
        total=until,
        log=out / "logs" / f"{name}-train.log",
    )  # fmt: skip


def _judge(paper: _Paper, out: Path, policy: Policy) -> list[Finding]:
    return [*_scores(paper, out, policy), *_curves(paper, out, policy)]


def _scores(paper: _Paper, out: Path, policy: Policy) -> list[Finding]:
    """The gate, over whatever was asked again."""
    again = ledger.load(out)
    asked = {run.record.model["sha256"] for run in again}
    before = [run for run in paper.runs if run.record.model["sha256"] in asked]
    if not again:
        return []
    if not before:
        reason = "no committed run has the shipped start checkpoint's weights"
        return [Finding(paper.recipe.paper, "scores", "start", "no reference", reason, False)]
    found = gate.gate(before, again, policy)
    return [
        Finding(
            paper=paper.recipe.paper,
            part="scores",
            name=check.name,
            word=check.word,
            reason=(
                f"{100 * check.scores[0]:.1f} -> {100 * check.scores[1]:.1f} %, {check.gained} "
                f"better, {check.lost} worse, p = {check.adjusted:.2g} after Holm"
            ),
            ok=check.word == "ok",
        )
        for check in found.checks
    ]


def _curves(paper: _Paper, out: Path, policy: Policy) -> list[Finding]:
    """The envelope of each arm's references, and collapse alarms."""
    found = []
    for arm in paper.arms:
        at = out / f"{arm}-s{paper.seed}" / ledger.CURVES
        if not at.is_file():
            continue
        lines = curves_from(at.read_text(encoding="utf-8"), str(at))
        references = [run.curves for run in paper.references(arm)]
        held = envelope.check(lines, references, paper.steps, policy)
        alarms = f"; alarms: {', '.join(held.alarms)}" if held.alarms else ""
        found.append(
            Finding(
                paper=paper.recipe.paper,
                part="curves",
                name=f"{arm} s{paper.seed}, {len(lines)} of {paper.steps} steps",
                word=held.word,
                reason=f"{held.reason}, {len(held.checks)} checks{alarms}",
                ok=held.word == "inside" and not held.alarms,
            )
        )
    return found


def _empty(out: Path) -> None:
    """What an earlier regression left must not pass for today's; anything else is refused."""
    entries = [entry for entry in out.iterdir() if entry.name != folder.LOCK]
    if entries and not (out / MARK).exists():
        raise BadInput(f"{out} is not empty and no folder of ours; choose another --out")
    for entry in entries:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    folder.write_json(out / MARK, {"share": SHARE})
