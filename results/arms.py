"""Runs grouped by arm: the numbers a table, a plot and the terminal all show.

score   mean over seeds of the mean over questions, with its interval over videos
gain    score minus the score of the checkpoint that every arm started from
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.ledger import Run
from results.schema import LedgerError
from results.stats import Interval, clustered_interval
from results.verdict import START, Claim, Policy, gain, primary

LABELS = {
    "cold": "cold start",
    "grpo": "GRPO",
    "ktr": "KTR",
    "random": "random tokens",
    "t_grpo": "T-GRPO",
    "ktr_released": "KTR (released)",
    "both": "both rewards",
    "semantic": "semantic reward",
    "temporal": "temporal reward",
    "selected": "both, selected 10 %",
    "random_records": "both, random 10 %",
    "sft": "SFT",
    "qa": "questions",
    "mvp": "MVP",
    "mvp_qa": "MVP + questions",
    "mvp_exact": "MVP (exact only)",
    "mvp_slot": "MVP (by position)",
    "ffr": "FFR",
    "ffr_retry": "FFR (second try)",
    "ffr_random": "FFR (random place)",
    "ffr_kappa0": "FFR (no tax)",
    "ffr_best": "FFR (best of group)",
    "ffr_distilled": "FFR (distilled)",
    "ffr_null": "FFR (no teacher)",
    "ffr_released": "FFR (released)",
    "ffr_no_gold": "FFR (no gold)",
    "ffr_no_visual": "FFR (no visual)",
    "ffr_tools": "FFR (tools)",
    "ffr_32b": "FFR (32B teacher)",
    "ffr_235b": "FFR (235B teacher)",
    "ffr_gpt4o": "FFR (GPT-4o)",
    "ffr_kappa01": "FFR (κ 0.1)",
    "ffr_kappa05": "FFR (κ 0.5)",
    "ffr_kappa07": "FFR (κ 0.7)",
    "ffr_kappa1": "FFR (κ 1)",
    "ffr_videorft": "FFR (from VideoRFT)",
    "grpo_zero": "GRPO (no SFT)",
}


def label(arm: str) -> str:
    """The field's name of an arm."""
    return LABELS.get(arm, arm.replace("_", " "))


def difference(claim: Claim) -> str:
    """KTR - GRPO, with a real minus; what it is about, where that is a part of the questions."""
    about = f" on {', '.join(claim.families)}" if claim.families else ""
    return f"{label(claim.method)} \N{MINUS SIGN} {label(claim.baseline)}{about}"


@dataclass(frozen=True)
class Arm:
    """One method with its runs by ascending seed; `greedy` are the twins decoded at T = 0."""

    name: str
    runs: tuple[Run, ...]
    greedy: tuple[Run, ...]
    score: Interval
    gain: Claim | None

    @property
    def label(self) -> str:
        """The field's name of the arm."""
        return label(self.name)

    @property
    def greedy_score(self) -> float | None:
        """Mean greedy score over seeds."""
        scores = [twin.record.score for twin in self.greedy]
        return float(np.mean(scores)) if scores else None

    def twin(self, seed: int) -> Run | None:
        """The greedy run of this seed, if there is one."""
        return next((run for run in self.greedy if run.record.seed == seed), None)


def arms(runs: Sequence[Run], claims: Sequence[Claim], policy: Policy) -> tuple[Arm, ...]:
    """Whole runs by arm: the start first, then baseline and method of the claims, then the rest.

    Raises LedgerError when the runs belong to more than one paper, profile, benchmark or split,
    or when none is whole.
    """
    whole = [run for run in runs if not run.record.partial and not run.probe]
    if not whole:
        raise LedgerError("no whole run to show: every run is missing or marked partial")
    cells = {(r.paper, r.profile, r.benchmark, r.split) for r in (run.record for run in whole)}
    if len(cells) > 1:
        raise LedgerError(f"one table shows one benchmark of one paper, found {sorted(cells)}")
    chosen = primary(whole)
    start = next((run for run in chosen if run.record.arm == START), None)
    named = [name for claim in claims for name in (claim.baseline, claim.method)]
    order = {name: place for place, name in reversed(list(enumerate([START, *named])))}
    names = sorted({run.record.arm for run in chosen}, key=lambda n: (order.get(n, len(order)), n))
    return tuple(_arm(name, chosen, whole, start, policy) for name in names)


def run_score(run: Run, policy: Policy) -> Interval:
    """Score of one run with its interval over videos."""
    return _over_videos([run], policy)


def tag_scores(arm: Arm, tag: str, policy: Policy) -> dict[str, Interval]:
    """Score by value of `tag`, mean over seeds, with intervals over videos."""
    items = arm.runs[0].items
    values = np.array([tags.get(tag, "") for tags in items.tags])
    scores = np.mean([run.items.scores for run in arm.runs], axis=0)
    return {
        str(value): clustered_interval(
            scores[values == value],
            items.clusters[values == value],
            policy.level,
            policy.draws,
            policy.draw_seed,
        )
        for value in np.unique(values)
        if value
    }


def _arm(
    name: str, chosen: Sequence[Run], whole: Sequence[Run], start: Run | None, policy: Policy
) -> Arm:
    def seeds(runs: Sequence[Run]) -> tuple[Run, ...]:
        own = [run for run in runs if run.record.arm == name]
        return tuple(sorted(own, key=lambda run: run.record.seed))

    own = seeds(chosen)
    return Arm(
        name=name,
        runs=own,
        greedy=seeds([run for run in whole if run.greedy]),
        score=_over_videos(own, policy),
        gain=gain(own, start, policy) if start is not None and name != START else None,
    )


def _over_videos(runs: Sequence[Run], policy: Policy) -> Interval:
    return clustered_interval(
        np.mean([run.items.scores for run in runs], axis=0),
        runs[0].items.clusters,
        policy.level,
        policy.draws,
        policy.draw_seed,
    )
