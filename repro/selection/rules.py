"""From task rewards of repeated tries to kept samples (temporal_r1.md 10.3, a reconstruction).

| signal   | keep iff                                    | why it is dropped otherwise            |
|----------|---------------------------------------------|----------------------------------------|
| accuracy | 1/K <= mean <= 1 - 1/K                      | all wrong, all right                   |
| tiou     | low <= mean <= high, and spread, std >= tau | poor, good already, low spread         |
| both     | one of the two rules holds                  | both reasons                           |

    mean = sum(r) / K        variance = sum((r - mean)^2) / K        score = std = sqrt(variance)

For right and wrong, variance is p (1 - p). Of what may be kept, every source gives its quota in
descending order of score; ties fall by seed. A source of several kinds of questions shares its
quota among them in proportion to what fits: right and wrong always spread wider than tIoU, and
would take it all. Samples with both signals count by the wider one of those whose rule holds
(chosen, as the shares are).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evals.errors import BadInput
from evals.metrics import mean
from evals.seeds import derive

#: Rounding of a mean of equal values is no spread.
SAME = 1e-9


@dataclass(frozen=True)
class Rules:
    """tries: K per sample, of which `first` decide who gets the rest; equal: no screen. low, high:
    band of the mean tIoU. tau: least std of tIoU. audit: share of the screened-out samples that get
    the rest all the same, to know what the screen loses.
    """

    tries: int = 8
    first: int = 4
    low: float = 0.1
    high: float = 0.9
    tau: float = 0.0
    audit: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises BadInput for what no pool could be asked."""
        if not 2 <= self.first <= self.tries:
            raise BadInput(
                f"the screen needs 2 tries or more, up to all {self.tries}, not {self.first}"
            )
        if not 0 <= self.low <= self.high <= 1:
            raise BadInput(f"the band of the mean must lie in 0..1, not {self.low}..{self.high}")
        if not (0 <= self.tau <= 0.5 and 0 <= self.audit <= 1):
            raise BadInput("tau is a standard deviation in 0..0.5, audit a share in 0..1")


@dataclass(frozen=True)
class Tried:
    """What is known of one sample. signals: name -> its value in every try. lost: why it was never
    asked, "" if it was. audited: screened out, but tried on.
    """

    id: str
    source: str
    kind: str
    signals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    lost: str = ""
    audited: bool = False


@dataclass(frozen=True)
class Decision:
    """fits: whether the rules let it in. kept: whether it is also within the quota. reason: in
    words, one per signal. score: what samples of a source are ordered by."""

    tried: Tried
    fits: bool
    kept: bool
    reason: str
    score: float


def variance(values: Sequence[float]) -> float:
    """Population variance, in [0, 0.25] for values in [0, 1]."""
    if max(values) - min(values) <= SAME:
        return 0.0
    middle = mean(values)
    return math.fsum((v - middle) ** 2 for v in values) / len(values)


def constant(signals: Mapping[str, Sequence[float]]) -> bool:
    """Whether every signal had one value in all tries: a group without any advantage."""
    return all(max(values) - min(values) <= SAME for values in signals.values())


def flat_chance(values: Sequence[float], group: int) -> float:
    """Chance that `group` of the tries, drawn without replacement, are all equal: an unbiased
    estimate of the share of groups of that size without advantage. Raises ValueError where there
    are fewer tries than that.
    """
    if not 1 <= group <= len(values):
        raise ValueError(f"a group of {group} needs as many tries, there are {len(values)}")
    equal = sum(math.comb(n, group) for n in Counter(values).values())
    return equal / math.comb(len(values), group)


# --- one sample --------------------------------------------------------------------------------


def decide(tried: Tried, rules: Rules) -> Decision:
    """Whether a sample fits; it is kept by `choose`."""
    if tried.lost:
        return Decision(tried, False, False, f"lost: {tried.lost}", 0.0)
    held: list[float] = []
    words: list[str] = []
    for name, values in tried.signals.items():
        fits, reason = _RULES[name](values, rules)
        words.append(reason)
        if fits:
            held.append(math.sqrt(variance(values)))
    n = len(next(iter(tried.signals.values())))
    reason = "; ".join(words)
    if n < rules.tries:
        return Decision(tried, False, False, f"screened out after {n} tries: {reason}", 0.0)
    return Decision(tried, bool(held), False, reason, max(held, default=0.0))


def _choice(values: Sequence[float], rules: Rules) -> tuple[bool, str]:
    """A score that is not 0 or 1 (OCR, ROUGE) may also be equal in all tries and in between."""
    share = mean(values)
    if share < 1 / len(values) - SAME:
        return False, "all wrong"
    if share > 1 - 1 / len(values) + SAME:
        return False, "all right"
    mixed = variance(values) > 0
    return mixed, "mixture" if mixed else "all equal"


def _grounding(values: Sequence[float], rules: Rules) -> tuple[bool, str]:
    level, spread = mean(values), math.sqrt(variance(values))
    if level < rules.low - SAME:
        return False, "poor"
    if level > rules.high + SAME:
        return False, "good already"
    wide = spread > 0 and spread >= rules.tau - SAME
    return wide, "high spread" if wide else "low spread"


_Rule = Callable[[Sequence[float], Rules], tuple[bool, str]]
_RULES: Mapping[str, _Rule] = {"accuracy": _choice, "tiou": _grounding}


def tries_on(tried: Tried, rules: Rules) -> bool:
    """Whether a sample is undecided after the first tries: its rewards differ."""
    return not tried.lost and not constant(tried.signals)


def audited(ids: Sequence[str], rules: Rules) -> frozenset[str]:
    """Which screened-out samples are tried on, `audit` of them, drawn by seed."""
    n = round(rules.audit * len(ids))
    return frozenset(sorted(ids, key=lambda i: derive(rules.seed, "audit", i))[:n])


# --- the pool ----------------------------------------------------------------------------------


def choose(
    decisions: Sequence[Decision], quotas: Mapping[str, int], seed: int = 0
) -> list[Decision]:
    """The decisions in their order, of which every source keeps its quota, best score first.

    A source without a quota keeps all that fit. What the quota leaves out says so.
    """
    kept: set[str] = set()
    for source, own in by_source([d for d in decisions if d.fits]).items():
        kinds = _by_kind(own)
        fitting = {kind: len(members) for kind, members in kinds.items()}
        share = _shares(fitting, min(quotas.get(source, len(own)), len(own)))
        for kind, members in kinds.items():
            order = sorted(members, key=lambda d: (-d.score, derive(seed, "tie", d.tried.id)))
            kept |= {d.tried.id for d in order[: share[kind]]}
    return [
        Decision(d.tried, d.fits, d.tried.id in kept, _word(d, d.tried.id in kept), d.score)
        for d in decisions
    ]


def _word(decision: Decision, kept: bool) -> str:
    return decision.reason if kept or not decision.fits else f"over quota: {decision.reason}"


def by_source(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    """Source -> its decisions, sources in alphabetical order."""
    found: dict[str, list[Decision]] = {}
    for decision in decisions:
        found.setdefault(decision.tried.source, []).append(decision)
    return dict(sorted(found.items()))


def _by_kind(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    found: dict[str, list[Decision]] = {}
    for decision in decisions:
        found.setdefault(decision.tried.kind, []).append(decision)
    return dict(sorted(found.items()))


def quotas(
    decisions: Sequence[Decision], budget: int | None, given: Mapping[str, int]
) -> dict[str, int]:
    """Quota of every source: the given ones; the rest of the budget in proportion to how many of
    the others fit, by largest remainder. Raises BadInput for an unknown source and for given quotas
    above the budget.
    """
    fitting = {source: sum(d.fits for d in own) for source, own in by_source(decisions).items()}
    if unknown := given.keys() - fitting.keys():
        raise BadInput(
            f"no source is called {', '.join(sorted(unknown))}; there are {', '.join(fitting)}"
        )
    if any(n < 0 for n in given.values()):
        raise BadInput("a quota must be 0 or more")
    if budget is None:
        return dict(given)
    left = budget - sum(min(n, fitting[source]) for source, n in given.items())
    if left < 0:
        raise BadInput(f"the quotas add up to more than the {budget} samples to keep")
    others = {source: n for source, n in fitting.items() if source not in given}
    return {**given, **_shares(others, min(left, sum(others.values())))}


def _shares(weights: Mapping[str, int], total: int) -> dict[str, int]:
    whole = sum(weights.values())
    if whole == 0:
        return dict.fromkeys(weights, 0)
    exact = {name: total * n / whole for name, n in weights.items()}
    found = {name: math.floor(value) for name, value in exact.items()}
    order = sorted(weights, key=lambda name: (found[name] - exact[name], name))
    for name in order[: total - sum(found.values())]:
        found[name] += 1
    return found


# --- controls ----------------------------------------------------------------------------------


def controls(decisions: Sequence[Decision], seed: int = 0) -> dict[str, list[str]]:
    """Ids of subsets with as many samples of every source and kind, in the pool's order: drawn at
    random from all that could be asked, and those with the highest and lowest mean reward.
    """
    ranks: dict[str, Callable[[Decision], tuple[float, int]]] = {
        "random": lambda d: (0.0, derive(seed, "random", d.tried.id)),
        "easiest": lambda d: (-level(d.tried), derive(seed, "easiest", d.tried.id)),
        "hardest": lambda d: (level(d.tried), derive(seed, "hardest", d.tried.id)),
    }
    found = {}
    for name, rank in ranks.items():
        taken: set[str] = set()
        for source in by_source(decisions).values():
            for own in _by_kind(source).values():
                asked = sorted((d for d in own if not d.tried.lost), key=rank)
                taken |= {d.tried.id for d in asked[: sum(d.kept for d in own)]}
        found[name] = [d.tried.id for d in decisions if d.tried.id in taken]
    return found


def level(tried: Tried) -> float:
    """Mean over tries of the mean of the signals."""
    return mean([mean(values) for values in tried.signals.values()])
