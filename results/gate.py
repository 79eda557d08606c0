"""Question R: did a change of the suite cost points? The same weights under two versions of it.

    regression   both: p < 0.01 after Holm over the benchmarks, and a drop of at least 1.0 point
    p            one-sided: exact McNemar, or sign flips by video where questions share a video

A retrained model is never gated item by item: training trajectories diverge across processors, so
its curves are held against the band of the reference seeds (results.envelope).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from results.claims import NotComparable, rounded
from results.compare import paired_p, same_protocol
from results.ledger import Run
from results.policy import Policy
from results.protocol import flat
from results.stats import holm

Word = Literal["ok", "regression"]
#: How the command line ends; runs that cannot be compared raise NotComparable (3).
EXIT_CODES = {"ok": 0, "regression": 6}


@dataclass(frozen=True)
class Check:
    """One benchmark under the gate: second minus first, p before and after Holm."""

    name: str
    scores: tuple[float, float]
    gained: int
    lost: int
    p: float
    adjusted: float
    test: str
    word: Word

    @property
    def delta(self) -> float:
        """Candidate minus baseline, a fraction."""
        return self.scores[1] - self.scores[0]


@dataclass(frozen=True)
class Gate:
    """All benchmarks; `regression` if one regressed. missing: baselines that were not run again."""

    checks: tuple[Check, ...]
    missing: tuple[str, ...] = ()

    @property
    def word(self) -> Word:
        """The word of the whole gate."""
        return "regression" if any(check.word == "regression" for check in self.checks) else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "word": self.word,
            "checks": [
                {
                    "name": check.name,
                    "word": check.word,
                    "scores": [rounded(score) for score in check.scores],
                    "delta": rounded(check.delta),
                    "gained": check.gained,
                    "lost": check.lost,
                    "p": rounded(check.p),
                    "p_holm": rounded(check.adjusted),
                    "test": check.test,
                }
                for check in self.checks
            ],
            "missing": list(self.missing),
        }


def gate(
    baseline: Sequence[Run],
    candidate: Sequence[Run],
    policy: Policy,
    *,
    allow_missing: bool = False,
) -> Gate:
    """Hold the candidate's runs against the baseline's, paired by what was asked of which weights.

    allow_missing: name baselines that were not run again instead of refusing. Raises NotComparable
    when there is nothing to compare, when a baseline run has no candidate, or when a pair differs
    in weights, protocol, data or questions.
    """
    pairs, missing = _pairs(baseline, candidate)
    if missing and not (allow_missing and pairs):
        raise NotComparable(f"{missing[0]} has a baseline but was not run again")
    found = []
    for name, before, after in pairs:
        delta = after.items.scores - before.items.scores
        p, test = paired_p(delta, before.items.clusters, policy, "less")
        found.append((name, before, after, delta, p, test))
    adjusted = holm([p for *_, p, _ in found])
    checks = []
    for (name, before, after, delta, p, test), corrected in zip(found, adjusted, strict=True):
        drop = -float(delta.mean()) >= policy.gate_drop - 1e-12
        regressed = drop and corrected < policy.gate_alpha
        checks.append(
            Check(
                name=name,
                scores=(float(before.items.scores.mean()), float(after.items.scores.mean())),
                gained=int((delta > 0).sum()),
                lost=int((delta < 0).sum()),
                p=p,
                adjusted=corrected,
                test=test,
                word="regression" if regressed else "ok",
            )
        )
    return Gate(tuple(checks), missing)


def _pairs(
    baseline: Sequence[Run], candidate: Sequence[Run]
) -> tuple[list[tuple[str, Run, Run]], tuple[str, ...]]:
    """Pairs by name, and the names of baselines without a candidate."""
    before, after = _by_cell(baseline), _by_cell(candidate)
    if not before:
        raise NotComparable("the baseline holds no whole run, so nothing guards this change")
    pairs, missing = [], []
    for key, run in sorted(before.items()):
        r = run.record
        name = f"{r.paper} {r.benchmark} {r.arm} s{r.seed}{' greedy' if run.greedy else ''}"
        if key not in after:
            missing.append(name)
            continue
        weights = [r.record.model["sha256"] for r in (run, after[key])]
        if weights[0] is None or weights[0] != weights[1]:
            raise NotComparable(
                f"{name}: the weights differ or have no sha256; a gate compares the same weights "
                "under two versions of the suite"
            )
        same_protocol(run, after[key])
        pairs.append((name, run, after[key]))
    return pairs, tuple(missing)


def _asked(run: Run) -> tuple[Any, ...]:
    """The choices of protocol that make two cells of one arm: decoding, frames, prompt, probe."""
    chosen = flat(run.record.protocol)
    names = ("max_frames", "prompt", "subset")
    return run.temperature, run.probe, *(str(chosen.get(name)) for name in names)


def _by_cell(runs: Sequence[Run]) -> dict[tuple[Any, ...], Run]:
    found: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        r = run.record
        key = (r.paper, r.profile, r.benchmark, r.split, r.arm, r.seed, r.samples, *_asked(run))
        if r.partial:
            continue
        if key in found:
            raise NotComparable(f"{r.arm} seed {r.seed} on {r.benchmark} is there twice")
        found[key] = run
    return found
