"""Question C: does one trained arm beat another? Words that can be defended.

    holds       S ≥ 3, and the t interval over seeds and the interval over videos are above 0
    reversed    the mirror
    undecided   anything else that was measured, with the seeds the measured spread would need
    not run     no pair of whole runs with the same seed

The training seed is the unit: two models trained by the same method already differ, so the items
of a pair of runs alone can never show that a *method* is better.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from results.ledger import Run
from results.policy import Policy, Registered
from results.schema import LedgerError
from results.stats import Interval, clustered_interval, seed_interval, seeds_needed

Word = Literal["holds", "reversed", "undecided", "not run"]

START = "cold"  # the arm of the checkpoint that training starts from
#: Two runs are compared only if these agree.
SAME = ("paper", "profile", "benchmark", "split", "metric", "samples")


class NotComparable(ValueError):
    """Two runs differ in something that may move a score; the message names it."""


@dataclass(frozen=True)
class SeedPair:
    """Scores of the two arms at one training seed."""

    seed: int
    method: float
    baseline: float

    @property
    def delta(self) -> float:
        """Method minus baseline, a fraction."""
        return self.method - self.baseline


@dataclass(frozen=True)
class Claim:
    """`method` minus `baseline`, with both intervals and the word they allow.

    needed: seeds that would decide, None if that cannot be told. excluded: runs left out, and why.
    families: of questions it is about, none for all. p, test: of two given checkpoints
    (results.checkpoints), which have no seeds to pair.
    """

    method: str
    baseline: str
    word: Word
    reason: str
    delta: float | None = None
    seed_interval: Interval | None = None
    item_interval: Interval | None = None
    per_seed: tuple[SeedPair, ...] = ()
    needed: int | None = None
    items: int = 0
    clusters: int = 0
    excluded: tuple[str, ...] = ()
    p: float | None = None
    test: str = ""
    families: tuple[str, ...] = ()

    @property
    def seeds(self) -> int:
        """Pairs of runs behind the claim."""
        return len(self.per_seed)

    @property
    def text(self) -> str:
        """The word as printed: an open one names its seeds."""
        return f"undecided ({self.basis})" if self.word == "undecided" else self.word

    @property
    def basis(self) -> str:
        """What it rests on: "3 seeds", or "two checkpoints"."""
        return count(self.seeds, "seed") if self.p is None else "two checkpoints"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, rounded to six decimals; an infinite end is null."""
        return {
            "method": self.method,
            "baseline": self.baseline,
            **({"families": list(self.families)} if self.families else {}),
            "word": self.text,
            "reason": self.reason,
            "delta": rounded(self.delta),
            "seed_interval": ends(self.seed_interval),
            "item_interval": ends(self.item_interval),
            "seeds": self.seeds,
            "needed": self.needed,
            "per_seed": {str(pair.seed): rounded(pair.delta) for pair in self.per_seed},
            "items": self.items,
            "clusters": self.clusters,
            "excluded": list(self.excluded),
            **({} if self.p is None else {"p": rounded(self.p), "test": self.test}),
        }


def claim(
    method_runs: Sequence[Run],
    baseline_runs: Sequence[Run],
    policy: Policy,
    *,
    method: str = "",
    baseline: str = "",
) -> Claim:
    """Method minus baseline for two trained arms, paired by seed and by question.

    method, baseline: names of the arms, needed only where an arm has no run. Partial runs and
    seeds that only one arm has are left out and named; of several protocols, the one under which
    most seeds are paired decides. Raises NotComparable when two runs differ in protocol, data or
    questions, LedgerError when an arm is mixed or repeats a seed.
    """
    method = method or _arm(method_runs)
    baseline = baseline or _arm(baseline_runs)
    plain = [[r for r in runs if not r.probe] for runs in (method_runs, baseline_runs)]
    method_runs, baseline_runs, aside = _shared_protocol(*plain)
    left, excluded_left = _by_seed(method_runs)
    right, excluded_right = _by_seed(baseline_runs)
    alone = [f"{method} seed {seed}: no {baseline} run" for seed in sorted(left.keys() - right)]
    alone += [f"{baseline} seed {seed}: no {method} run" for seed in sorted(right.keys() - left)]
    pairs = [(seed, left[seed], right[seed]) for seed in sorted(left.keys() & right.keys())]
    excluded = (*excluded_left, *excluded_right, *alone, *aside)
    return _decide(method, baseline, pairs, excluded, policy)


def gain(runs: Sequence[Run], start: Run, policy: Policy) -> Claim:
    """What training added: every seed of one arm minus the one checkpoint they all started from.

    The interval over seeds holds the start fixed: it says whether training again would gain again.
    """
    by_seed, excluded = _by_seed(runs)
    if start.record.partial:
        excluded, by_seed = (*excluded, f"{start.record.arm}: partial"), {}
    pairs = [(seed, run, start) for seed, run in sorted(by_seed.items())]
    return _decide(_arm(runs), start.record.arm, pairs, excluded, policy)


def registered(runs: Sequence[Run], policy: Policy) -> tuple[Claim, ...]:
    """Every registered claim of the papers in `runs`, in the order of policy.yaml."""
    papers = {run.record.paper for run in runs}
    chosen = primary(runs)
    return tuple(
        _registered(rule, chosen, policy) for rule in policy.claims if rule.paper in papers
    )


def _registered(rule: Registered, chosen: Sequence[Run], policy: Policy) -> Claim:
    parts = (_about(run, rule.families) for run in chosen if run.record.paper == rule.paper)
    runs = [run for run in parts if run is not None]
    method, baseline = (
        [run for run in runs if run.record.arm == arm] for arm in (rule.method, rule.baseline)
    )
    if rule.baseline == START and method and baseline:
        return replace(gain(method, baseline[0], policy), families=rule.families)
    found = claim(method, baseline, policy, method=rule.method, baseline=rule.baseline)
    return replace(found, families=rule.families)


def _about(run: Run, families: Sequence[str]) -> Run | None:
    """The run's questions of these families alone; None where it was asked none."""
    if not families:
        return run
    rows = tuple(r for r in run.rows if r.tags.get("family", "").partition(" ")[0] in families)
    return replace(run, rows=rows) if rows else None


def primary(runs: Sequence[Run]) -> list[Run]:
    """The runs that decide: of each benchmark those with the most replies per question, and of
    equally many those at the higher temperature; greedy twins stand beside them."""

    def cell(run: Run) -> tuple[str, ...]:
        record = run.record
        return record.paper, record.profile, record.benchmark, record.split

    def rank(run: Run) -> tuple[float, float]:
        return run.record.samples, run.temperature

    best: dict[tuple[str, ...], tuple[float, float]] = {}
    runs = [run for run in runs if not run.probe]
    for run in runs:
        best[cell(run)] = max(best.get(cell(run), (0, 0)), rank(run))
    return [run for run in runs if rank(run) == best[cell(run)]]


def count(number: int, noun: str) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --- deciding ------------------------------------------------------------------------------


def _decide(
    method: str,
    baseline: str,
    pairs: Sequence[tuple[int, Run, Run]],
    excluded: Sequence[str],
    policy: Policy,
) -> Claim:
    if not pairs:
        reason = f"no whole run of {method} shares a seed with one of {baseline}"
        return Claim(method, baseline, "not run", reason, excluded=tuple(excluded))
    comparable([run for _, *both in pairs for run in both])
    differences = [a.items.scores - b.items.scores for _, a, b in pairs]
    items = pairs[0][1].items
    per_seed = tuple(
        SeedPair(seed, float(a.items.scores.mean()), float(b.items.scores.mean()))
        for seed, a, b in pairs
    )
    deltas = [pair.delta for pair in per_seed]
    over_seeds = seed_interval(deltas, policy.level)
    over_items = clustered_interval(
        np.mean(differences, axis=0), items.clusters, policy.level, policy.draws, policy.draw_seed
    )
    needed = seeds_needed(deltas, policy.level, policy.power, policy.minimum_seeds)
    word = _word(len(pairs), over_seeds, over_items, policy)
    return Claim(
        method=method,
        baseline=baseline,
        word=word,
        reason=_reason(word, len(pairs), over_seeds, over_items, needed, policy),
        delta=over_seeds.estimate,
        seed_interval=over_seeds,
        item_interval=over_items,
        per_seed=per_seed,
        needed=needed,
        items=len(items.ids),
        clusters=len(set(items.clusters.tolist())),
        excluded=tuple(excluded),
    )


def _word(seeds: int, over_seeds: Interval, over_items: Interval, policy: Policy) -> Word:
    if seeds >= policy.minimum_seeds:
        if over_seeds.above and over_items.above:
            return "holds"
        if over_seeds.below and over_items.below:
            return "reversed"
    return "undecided"


def _reason(
    word: Word,
    seeds: int,
    over_seeds: Interval,
    over_items: Interval,
    needed: int | None,
    policy: Policy,
) -> str:
    """One sentence: what decided, or what is missing."""
    if word != "undecided":
        side = "above" if word == "holds" else "below"
        return f"over {count(seeds, 'seed')} both intervals lie {side} 0"
    if seeds < 2:
        return f"one seed shows no spread; the rule asks for at least {policy.minimum_seeds}"
    seeds_open = not (over_seeds.above or over_seeds.below)
    items_open = not (over_items.above or over_items.below)
    if seeds < policy.minimum_seeds:
        start = f"{seeds} seeds, and the rule asks for at least {policy.minimum_seeds}"
    elif not seeds_open:
        return "the interval over videos contains 0; more questions would narrow it"
    else:
        start = (
            f"{'both intervals contain' if items_open else 'the interval over seeds contains'} 0"
        )
    if needed is None:
        return f"{start}; an effect this small against its spread needs over a thousand"
    return f"{start}; at the measured spread about {needed} would decide"


def comparable(runs: Sequence[Run]) -> None:
    """Raises NotComparable unless all were asked the same questions in the same way."""
    first = runs[0]
    for run in runs[1:]:
        differing = [key for key in SAME if getattr(run.record, key) != getattr(first.record, key)]
        if run.record.protocol_hash != first.record.protocol_hash:
            differing.append("protocol")
        if run.record.dataset != first.record.dataset:
            differing.append("dataset")
        if not differing and run.items.ids != first.items.ids:
            differing.append("questions")
        if not differing and run.items.clusters.tolist() != first.items.clusters.tolist():
            differing.append("videos of the questions")
        if differing:
            raise NotComparable(f"{_name(run)} and {_name(first)} differ in {', '.join(differing)}")


def _shared_protocol(
    one: Sequence[Run], other: Sequence[Run]
) -> tuple[Sequence[Run], Sequence[Run], tuple[str, ...]]:
    """Both arms under one protocol, if possible a shared one, and how many runs stood aside."""
    sides = [{(r.record.protocol_hash, r.record.seed) for r in runs} for runs in (one, other)]
    paired = Counter(protocol for protocol, _ in sides[0] & sides[1])
    chosen = min(paired, key=lambda name: (-paired[name], name), default=None)
    first = [chosen or min((name for name, _ in side), default="") for side in sides]
    kept = [
        [r for r in runs if r.record.protocol_hash == name]
        for runs, name in zip((one, other), first, strict=True)
    ]
    aside = len(one) + len(other) - len(kept[0]) - len(kept[1])
    return kept[0], kept[1], (f"{count(aside, 'run')} of another protocol",) if aside else ()


def _by_seed(runs: Sequence[Run]) -> tuple[dict[int, Run], tuple[str, ...]]:
    """Whole runs by seed, and the partial ones by name."""
    whole: dict[int, Run] = {}
    partial = []
    for run in runs:
        if run.record.arm != runs[0].record.arm:
            raise LedgerError(
                f"one arm is expected, found {runs[0].record.arm} and {run.record.arm}"
            )
        if run.record.partial or run.probe:
            partial.append(f"{_name(run)}: {run.probe or 'partial'}")
            continue
        if run.record.seed in whole:
            raise LedgerError(f"{_name(run)} appears twice; which one counts is not ours to choose")
        whole[run.record.seed] = run
    return whole, tuple(partial)


def _arm(runs: Sequence[Run]) -> str:
    if not runs:
        raise ValueError("an arm without runs needs its name")
    return runs[0].record.arm


def _name(run: Run) -> str:
    return f"{run.record.arm} seed {run.record.seed}"


def rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


def ends(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [rounded(interval.low), rounded(interval.high)]
