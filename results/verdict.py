"""Questions E and T: is the printed number right? Exclusive words, the first that matches decides.

| # | word             | rule                                                                      |
|---|------------------|---------------------------------------------------------------------------|
| 1 | `not run`        | no whole run of this cell                                                 |
| 2 | `failed`         | an environment error; or over 1 % undecodable or timed out, and the word  |
|   |                  | differs between "all of them wrong" and "all right"                       |
| 3 | `not comparable` | a protocol field or n differs, or is unstated without an earlier          |
|   |                  | assumption; several plausible protocols must agree                        |
| 4 | `reproduced`     | 90 % interval of Δ inside (-δ, +δ): TOST at 5 %                           |
| 5 | `below`          | 95 % interval of Δ entirely below 0                                       |
| 6 | `above`          | 95 % interval entirely above 0: a finding to explain                      |
| 7 | `within noise`   | otherwise, with the K or S that would decide                              |

E: Δ = mean of K re-scores of the same weights - printed, error from the flips between re-scores.
T: Δ = mean over S training seeds - printed, error of a further run (the paper's is one draw).
The words of question C (`claim`, `registered`, ...) live in results.claims and are offered here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from results.claims import (
    START,
    Claim,
    NotComparable,
    SeedPair,
    claim,
    count,
    ends,
    gain,
    primary,
    registered,
    rounded,
)
from results.ledger import LOST, Run
from results.policy import Policy, load_policy
from results.protocol import (
    OURS,
    UNSTATED,
    Assumed,
    Field,
    combinations,
    compare,
    names,
    shown,
    told,
)
from results.schema import LedgerError
from results.stats import (
    Delta,
    Interval,
    Spread,
    flips,
    holm,
    independent_delta,
    pooled_spread,
    training_delta,
    variance_of_flips,
)

__all__ = [
    "EXIT_CODES", "START", "WORDS", "Assumed", "Claim", "NotComparable", "PaperVerdict", "Policy",
    "Printed", "SeedPair", "Verdict", "claim", "count", "decide", "decide_paper", "ends", "gain",
    "ledger_spread", "load_policy", "primary", "registered", "rounded",
]  # fmt: skip

Word = Literal[
    "not run", "failed", "not comparable", "reproduced", "below", "above", "within noise"
]
PaperWord = Literal["reproduced", "below", "open", "not run"]
Question = Literal["E", "T"]

WORDS: tuple[Word, ...] = (
    "reproduced", "below", "above", "within noise", "not comparable", "failed", "not run",
)  # fmt: skip
NUMERIC = WORDS[:4]  # words that compare two numbers
#: How the command line ends after a word.
EXIT_CODES: Mapping[str, int] = {
    "reproduced": 0, "holds": 0, "within noise": 5, "above": 5, "undecided": 5, "open": 5,
    "below": 6, "reversed": 6, "not comparable": 3, "failed": 4, "not run": 4,
}  # fmt: skip
_MOST = 100  # runs or seeds beyond which "what would decide" is "none"


class Printed(Protocol):
    """A printed number, as results.reported has it; scores are fractions.

    half_digit: half a unit of the last printed digit. n: questions, None where unknown.
    protocol: field -> value or `unstated`. may_turn_green: whether the source is good enough for
    `reproduced`.
    """

    @property
    def fraction(self) -> float: ...
    @property
    def half_digit(self) -> float: ...
    @property
    def n(self) -> int | None: ...
    @property
    def protocol(self) -> Mapping[str, Any]: ...
    @property
    def verified(self) -> str: ...
    @property
    def may_turn_green(self) -> bool: ...


@dataclass(frozen=True)
class Verdict:
    """A word and everything beside it; scores, Δ and margin are fractions.

    runs: K re-scores or S seeds. needed: how many would decide, None if that cannot be told.
    counted: whether it may enter "x of y reproduced". alternatives: one verdict per plausible
    protocol, where there are several. excluded: runs left out, and why.
    """

    word: Word
    reason: str
    question: Question
    reported: float
    margin: float | None
    score: float | None = None
    delta: Delta | None = None
    narrow: Interval | None = None
    wide: Interval | None = None
    n: int | None = None
    clusters: int | None = None
    runs: int = 0
    needed: int | None = None
    counted: bool = False
    method: str = ""
    fields: tuple[Field, ...] = ()
    alternatives: tuple[Verdict, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The word as printed, with what qualifies it."""
        if self.word == "not comparable" and (differing := names(self.fields)):
            return f"not comparable ({', '.join(differing)})"
        if self.question == "T" and self.runs == 1 and self.word in ("below", "above"):
            return f"{self.word} (1 seed)"
        return self.word

    @property
    def symbol(self) -> str:
        """K or S, as in "K = 3"."""
        return f"{'K' if self.question == 'E' else 'S'} = {self.runs}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, rounded to six decimals; an infinite end is null."""
        return {
            "word": self.text,
            "reason": self.reason,
            "question": self.question,
            "reported": rounded(self.reported),
            "score": rounded(self.score),
            "delta": rounded(self.delta.estimate if self.delta else None),
            "interval_90": ends(self.narrow),
            "interval_95": ends(self.wide),
            "margin": rounded(self.margin),
            "n": self.n,
            "clusters": self.clusters,
            "runs": self.runs,
            "needed": self.needed,
            "counted": self.counted,
            "method": self.method,
            "protocol": {part.name: [part.paper, part.ours, part.state] for part in self.fields},
            "alternatives": [other.as_dict() for other in self.alternatives],
            "excluded": list(self.excluded),
        }


@dataclass(frozen=True)
class PaperVerdict:
    """A paper's registered cells taken together."""

    word: PaperWord
    reason: str
    reproduced: int
    counted: int
    cells: int


def decide(
    reported: Printed,
    runs: Sequence[Run],
    policy: Policy,
    *,
    margin: float | None,
    assumed: Mapping[str, Assumed] | None = None,
    spread: Spread | None = None,
    question: Question | None = None,
    absent: str = "needs a GPU",
    failure: str = "",
) -> Verdict:
    """The verdict on one printed number.

    runs: of one arm on the cell's benchmark. margin: registered δ, None where there is none; such
    a cell is never reproduced. assumed: plausible values of unstated fields (and of
    n). spread: between training seeds, pooled over the ledger (`ledger_spread`). question: E or T;
    by default E for one set of weights without training curves. absent: why there may be no run.
    failure: the error that a run of this cell ended in.
    Raises LedgerError when runs mix arms or repeat a seed, NotComparable when their items differ.
    """
    whole, excluded = _countable(runs)
    asked = question or _question(whole)
    blank = Verdict("not run", absent, asked, reported.fraction, margin, excluded=excluded)
    if not whole:
        return replace(blank, word="failed", reason=failure) if failure else blank
    if asked == "T":
        _one_run_a_seed(whole)
    case = _Case(reported, policy, assumed or {}, spread, blank)
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in whole:
        groups.setdefault((run.record.protocol_hash, run.record.n), []).append(run)
    found = [(group, case.judge(group)) for _, group in sorted(groups.items())]
    return _combine(found, case)


def decide_paper(cells: Sequence[Verdict], policy: Policy) -> PaperVerdict:
    """`reproduced` needs every cell (intersection-union, no correction); `below` one cell that
    stays below after Holm over the measured cells; anything else measured is `open`."""
    measured = [cell for cell in cells if cell.word in NUMERIC and cell.delta is not None]
    counted = [cell for cell in measured if cell.counted]
    green = sum(cell.word == "reproduced" for cell in counted)
    numbers = (green, len(counted), len(cells))
    if not measured:
        word: PaperWord = "open" if any(cell.runs for cell in cells) else "not run"
        return PaperVerdict(word, "no cell has a number to compare", *numbers)
    if green == len(cells):
        return PaperVerdict("reproduced", f"all {count(green, 'cell')} reproduced", *numbers)
    adjusted = holm([cell.delta.p for cell in measured if cell.delta is not None])
    low = [
        cell
        for cell, p in zip(measured, adjusted, strict=True)
        if cell.word == "below" and p < policy.alpha
    ]
    if low:
        reason = f"{len(low)} of {count(len(measured), 'measured cell')} below after Holm"
        return PaperVerdict("below", reason, *numbers)
    return PaperVerdict("open", f"{green} of {count(len(cells), 'cell')} reproduced", *numbers)


def ledger_spread(runs: Sequence[Run]) -> Spread | None:
    """s between training seeds, pooled over every arm and benchmark that was trained twice."""
    cells: dict[tuple[str, ...], dict[int, float]] = {}
    for run in runs:
        r = run.record
        if r.curves is not None and not r.partial:
            key = (r.paper, r.profile, r.arm, r.benchmark, r.split, r.metric, r.protocol_hash)
            cells.setdefault(key, {})[r.seed] = r.score
    return pooled_spread([list(cell.values()) for cell in cells.values()])


# --- one plausible protocol ----------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """What all protocols of one cell share."""

    reported: Printed
    policy: Policy
    assumed: Mapping[str, Assumed]
    spread: Spread | None
    blank: Verdict

    def judge(self, runs: Sequence[Run]) -> Verdict:
        """The verdict on runs of one protocol, sorted by seed."""
        first = min(runs, key=lambda run: run.record.started)
        fields = compare(self.reported.protocol, self.reported.n, first.record, self.assumed)
        scores = _matrix(runs)
        verdict = replace(self._numbers(runs, scores), fields=fields)
        if (lost := self._lost(runs, scores)) is not None:
            return replace(verdict, word="failed", reason=lost, counted=False)
        if not self.reported.protocol:
            reason = "the paper states no protocol"
            return replace(verdict, word="not comparable", reason=reason, counted=False)
        if names(fields):
            reason = _blocked(fields)
            return replace(verdict, word="not comparable", reason=reason, counted=False)
        return verdict

    def _numbers(self, runs: Sequence[Run], scores: Scores) -> Verdict:
        """Δ, intervals and the numeric word."""
        policy, asked = self.policy, self.blank.question
        delta, method = self._delta(runs, scores)
        narrow, wide = delta.interval(policy.equivalence_level), delta.interval(policy.level)
        word = self._word(delta, len(runs))
        enough = policy.minimum_runs if asked == "E" else policy.minimum_seeds
        needed = self._needed(delta, runs, scores) if word == "within noise" else None
        return replace(
            self.blank,
            word=word,
            reason=self._reason(word, narrow, len(runs), needed),
            score=float(scores.mean()),
            delta=delta,
            narrow=narrow,
            wide=wide,
            n=scores.shape[1],
            clusters=len(set(runs[0].items.clusters.tolist())),
            runs=len(runs),
            needed=needed,
            counted=len(runs) >= enough and self.reported.may_turn_green,
            method=method,
        )

    def _delta(self, runs: Sequence[Run], scores: Scores) -> tuple[Delta, str]:
        printed, half = self.reported.fraction, self.reported.half_digit
        ours, n = float(scores.mean()), scores.shape[1]
        if self.blank.question == "T":
            spread, known = self._training_spread(len(runs))
            found = training_delta(scores.mean(axis=1), printed, spread)
            return found, f"prediction interval, {known}"
        if len(runs) > 1 and self.reported.n in (n, None):
            q = flips(scores, runs[0].items.clusters)
            error = math.sqrt(variance_of_flips(q, n, len(runs), half))
            return Delta(ours - printed, error), "flips between re-scores, by video"
        return independent_delta(
            ours, printed, n, self.reported.n or n, half
        ), "independent samples"

    def _training_spread(self, seeds: int) -> tuple[Spread | None, str]:
        """The spread to use, and its name: pooled, or a prior for a single seed, or their own."""
        if self.spread is not None and self.spread.df > seeds - 1:
            return self.spread, f"s pooled over the ledger ({self.spread.df:g} df)"
        if seeds == 1:
            return Spread(self.policy.training_spread, math.inf), "registered prior of s"
        return None, f"s of {count(seeds, 'seed')}"

    def _word(self, delta: Delta, runs: int) -> Word:
        margin = self.blank.margin if self.reported.may_turn_green else None
        one_seed = self.blank.question == "T" and runs == 1
        narrow = delta.interval(self.policy.equivalence_level)
        if margin is not None and narrow.inside(margin) and not one_seed:
            return "reproduced"
        wide = delta.interval(self.policy.level)
        return "below" if wide.below else "above" if wide.above else "within noise"

    def _needed(self, delta: Delta, runs: Sequence[Run], scores: Scores) -> int | None:
        """The smallest K or S that would decide, if Δ and the spread stayed as measured."""
        have, n, half = len(runs), scores.shape[1], self.reported.half_digit
        if self.blank.question == "E":
            if have == 1:
                return self.policy.minimum_runs  # the second run shows the flips
            q = flips(scores, runs[0].items.clusters)
            at = {
                k: Delta(delta.estimate, math.sqrt(variance_of_flips(q, n, k, half)))
                for k in range(have + 1, _MOST + 1)
            }
        else:
            s, df = delta.error / math.sqrt(1 + 1 / have), delta.df
            at = {
                seeds: Delta(
                    delta.estimate,
                    s * math.sqrt(1 + 1 / seeds),
                    seeds - 1 if df == math.inf else df + seeds - have,
                )
                for seeds in range(max(have + 1, self.policy.minimum_seeds), _MOST + 1)
            }
        words = ((number, self._word(future, number)) for number, future in at.items())
        return next((number for number, word in words if word != "within noise"), None)

    def _reason(self, word: Word, narrow: Interval, runs: int, needed: int | None) -> str:
        """One sentence: what decided, or what is missing."""
        kind = "re-score" if self.blank.question == "E" else "seed"
        if word == "reproduced":
            return "the 90 % interval lies inside the margin"
        if word in ("below", "above"):
            return f"the 95 % interval lies {word} 0" + (
                "; a finding to explain" if word == "above" else ""
            )
        if not self.reported.may_turn_green:
            return f"a number of kind {self.reported.verified.replace('_', ' ')} never turns green"
        if self.blank.margin is None:
            return "no margin is registered for this cell"
        if runs == 1:
            least = self.policy.minimum_runs if kind == "re-score" else self.policy.minimum_seeds
            return f"one {kind} is not precise enough; the rule asks for at least {least}"
        if needed is None:
            return f"no number of {kind}s up to {_MOST} would decide"
        return f"about {count(needed, kind)} would decide"

    def _lost(self, runs: Sequence[Run], scores: Scores) -> str | None:
        """Why the cell failed: questions that were never asked would change the word."""
        lost = np.array([_lost_items(run) for run in runs])
        share = float(lost.mean())
        if share <= self.policy.lost_share:
            return None
        words = []
        for value in (0.0, 1.0):
            delta, _ = self._delta(runs, np.where(lost, value, scores))
            words.append(self._word(delta, len(runs)))
        if words[0] == words[1]:
            return None
        return (
            f"{100 * share:.1f} % undecodable or timed out: {words[0]} if all of them are wrong, "
            f"{words[1]} if all are right"
        )


Scores = np.ndarray[Any, np.dtype[np.float64]]


# --- several protocols ---------------------------------------------------------------------


def _combine(found: Sequence[tuple[Sequence[Run], Verdict]], case: _Case) -> Verdict:
    """One word for the cell: the comparable protocols must agree and cover every plausible one."""
    usable = [(group, v) for group, v in found if v.word != "not comparable"]
    if not usable:
        return min((v for _, v in found), key=lambda v: len(names(v.fields)))
    others = [v for _, v in found if v.word == "not comparable"]
    excluded = case.blank.excluded + tuple(
        f"{count(v.runs, 'run')} of another protocol ({', '.join(names(v.fields))})" for v in others
    )
    verdicts = [v for _, v in usable]
    records = [group[0].record for group, _ in usable]
    missing = _missing([told(r, case.reported.protocol, case.assumed) for r in records], case)
    words = list(dict.fromkeys(v.word for v in verdicts))
    worst = max(verdicts, key=lambda v: abs(v.delta.estimate) if v.delta else 0.0)
    several = tuple(verdicts) if len(verdicts) > 1 else ()
    result = replace(
        worst,
        excluded=excluded,
        alternatives=several,
        runs=min(v.runs for v in verdicts),
        counted=all(v.counted for v in verdicts),
    )
    if len(words) > 1 or missing:
        why = f"plausible protocols disagree: {', '.join(words)}" if len(words) > 1 else missing
        return replace(
            result, word="not comparable", reason=why, counted=False, fields=_open(worst.fields)
        )
    return result


def _missing(protocols: Sequence[Mapping[str, Any]], case: _Case) -> str:
    """The first plausible protocol that no run followed, "" if all were."""
    stated = {**case.reported.protocol, "n": case.reported.n or UNSTATED}
    open_fields = {
        name: guess
        for name, guess in case.assumed.items()
        if stated.get(name) == UNSTATED and len(guess.values) > 1
    }
    for plausible in combinations(open_fields):
        wanted = {OURS.get(name, name): value for name, value in plausible.items()}
        if not any(all(p.get(n) == v for n, v in wanted.items()) for p in protocols):
            text = ", ".join(f"{name} {shown(value)}" for name, value in wanted.items())
            return f"the plausible protocol with {text} was not run"
    return ""


def _open(fields: Sequence[Field]) -> tuple[Field, ...]:
    """Fields with the assumed ones marked as what keeps the cell open."""
    return tuple(replace(f, state="unstated") if f.state == "assumed" else f for f in fields)


def _blocked(fields: Sequence[Field]) -> str:
    texts = []
    for part in fields:
        if part.state == "differs":
            texts.append(f"{part.name} {part.ours}, the paper has {part.paper}")
        elif part.state == "not recorded":
            texts.append(f"our record does not say {part.name}")
        elif part.state == "unstated":
            late = f" ({part.source})" if part.source else ""
            texts.append(f"the paper does not state {part.name}{late}")
    return "; ".join(texts)


# --- runs ----------------------------------------------------------------------------------


def _countable(runs: Sequence[Run]) -> tuple[list[Run], tuple[str, ...]]:
    """Whole runs that vary something, by seed; what is left out, and why."""
    seen: dict[tuple[Any, ...], str] = {}
    whole, excluded = [], []
    for run in sorted(runs, key=lambda run: (run.record.seed, run.record.started)):
        r = run.record
        if r.arm != runs[0].record.arm:
            raise LedgerError(f"one arm is expected, found {runs[0].record.arm} and {r.arm}")
        name = f"{r.arm} seed {r.seed}"
        weights = r.model["sha256"] or r.model["revision"] or r.model["id"]
        varied = (
            r.protocol_hash, r.n, weights, r.seed, r.batch, *r.engine.values(), r.machine["gpu"],
        )  # fmt: skip
        if r.partial or run.probe:
            excluded.append(f"{name}: {run.probe or 'partial'}")
        elif varied in seen:
            excluded.append(f"{name}: varies nothing against an earlier run")
        else:
            seen[varied] = name
            whole.append(run)
    return whole, tuple(excluded)


def _question(runs: Sequence[Run]) -> Question:
    weights = {run.record.model["sha256"] or run.record.model["revision"] for run in runs}
    return "T" if len(weights) > 1 or any(run.record.curves is not None for run in runs) else "E"


def _one_run_a_seed(runs: Sequence[Run]) -> None:
    seeds = [(run.record.protocol_hash, run.record.seed) for run in runs]
    for run, key in zip(runs, seeds, strict=True):
        if seeds.count(key) > 1:
            raise LedgerError(
                f"{run.record.arm} seed {run.record.seed} appears twice; which one counts is not "
                "ours to choose"
            )


def _matrix(runs: Sequence[Run]) -> Scores:
    """Item scores (K, n). Raises NotComparable when the runs asked different questions."""
    for run in runs[1:]:
        if run.items.ids != runs[0].items.ids:
            raise NotComparable(
                f"{runs[0].record.arm} seeds {runs[0].record.seed} and {run.record.seed} were "
                "asked different questions"
            )
    return np.array([run.items.scores for run in runs], dtype=np.float64)


def _lost_items(run: Run) -> list[bool]:
    """Of every question in order: whether it could not be asked."""
    lost = {row.id for row in run.rows if row.outcome in LOST}
    return [item in lost for item in run.items.ids]
