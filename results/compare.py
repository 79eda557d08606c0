"""Two runs paired by question: what changed, and whether that is more than chance.

| kind        | the question                                                                      |
|-------------|-----------------------------------------------------------------------------------|
| fixed       | scores higher in the second run                                                   |
| broken      | scores lower in the second run                                                    |
| format only | what was answered is no better or worse; only the share that could be read changed |
| same wrong  | without a point in both, with the same answers                                    |
| other wrong | without a point in both, with other answers                                       |

Two given checkpoints: exact McNemar where every video has one question, else sign flips by video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from results.claims import NotComparable, ends, rounded
from results.ledger import Run
from results.policy import Policy
from results.protocol import differences
from results.schema import Row
from results.stats import Interval, Side, clustered_interval, mcnemar_exact, sign_flip_p

Kind = Literal["fixed", "broken", "format only", "same wrong", "other wrong"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: What must agree before two runs are paired; the protocol is compared field by field.
SAME = ("benchmark", "split", "metric", "samples")


@dataclass(frozen=True)
class Flip:
    """One question whose replies are not right in both runs. Scores are means over replies."""

    id: str
    kind: Kind
    first: float
    second: float
    gold: str
    answers: tuple[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """Second minus first: difference with its interval over videos, p, flips by kind and by tag."""

    first: str
    second: str
    scores: tuple[float, float]
    difference: Interval
    p: float
    test: str
    questions: int
    clusters: int
    gained: int
    lost: int
    flips: tuple[Flip, ...]
    by_tag: Mapping[str, Mapping[str, Interval]]

    @property
    def counts(self) -> dict[Kind, int]:
        """Questions of each kind."""
        found = Counter(flip.kind for flip in self.flips)
        return {kind: found[kind] for kind in KINDS}

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, differences rounded to six decimals."""
        return {
            "first": self.first,
            "second": self.second,
            "scores": [rounded(score) for score in self.scores],
            "difference": rounded(self.difference.estimate),
            "interval": ends(self.difference),
            "p": rounded(self.p),
            "test": self.test,
            "questions": self.questions,
            "videos": self.clusters,
            "gained": self.gained,
            "lost": self.lost,
            "counts": self.counts,
            "by_tag": {
                tag: {
                    value: {"difference": rounded(part.estimate), "interval": ends(part)}
                    for value, part in parts.items()
                }
                for tag, parts in self.by_tag.items()
            },
            "flips": [
                {"id": f.id, "kind": f.kind, "first": f.first, "second": f.second}
                | {"gold": f.gold, "answers": list(f.answers), "tags": dict(f.tags)}
                for f in self.flips
            ],
        }


def compare(first: Run, second: Run, policy: Policy) -> Comparison:
    """Pair two runs by question. Raises NotComparable naming every field that differs."""
    same_protocol(first, second)
    a, b = first.items, second.items
    delta = b.scores - a.scores
    p, test = paired_p(delta, a.clusters, policy)
    return Comparison(
        first=_name(first),
        second=_name(second),
        scores=(first.record.score, second.record.score),
        difference=_over_videos(delta, a.clusters, policy),
        p=p,
        test=test,
        questions=len(delta),
        clusters=len(set(a.clusters.tolist())),
        gained=int((delta > 0).sum()),
        lost=int((delta < 0).sum()),
        flips=tuple(flips(first, second)),
        by_tag=_by_tag(first, delta, policy),
    )


def same_protocol(first: Run, second: Run) -> None:
    """Raises NotComparable unless both runs were asked the same questions in the same way."""
    found = []
    for key in SAME:
        a, b = getattr(first.record, key), getattr(second.record, key)
        if a != b:
            found.append(f"{key} {a} and {b}")
    found += [
        text
        for text in differences(first.record.protocol, second.record.protocol)
        if text not in found
    ]
    if not found and first.record.protocol_hash != second.record.protocol_hash:
        found.append("protocol_hash (the benchmark's code)")
    if first.record.dataset != second.record.dataset:
        found.append("dataset")
    if not found and first.items.ids != second.items.ids:
        found.append("questions")
    if found:
        raise NotComparable(f"{_name(first)} and {_name(second)} differ in {'; '.join(found)}")


def paired_p(
    delta: npt.NDArray[np.float64],
    clusters: npt.NDArray[np.str_],
    policy: Policy,
    side: Side = "two-sided",
) -> tuple[float, str]:
    """p of "no difference" for question scores of two given checkpoints, and the test's name."""
    whole = np.isin(delta, (-1.0, 0.0, 1.0)).all()
    if whole and len(set(clusters.tolist())) == len(clusters):
        gained, lost = int((delta > 0).sum()), int((delta < 0).sum())
        return mcnemar_exact(gained, lost, side), "exact McNemar"
    p = sign_flip_p(delta, clusters, policy.draws, policy.draw_seed, side)
    return p, "sign flips by video"


def flips(first: Run, second: Run) -> list[Flip]:
    """Every question that is not fully right in both runs, by kind, then id."""
    a, b = _replies(first), _replies(second)
    found = []
    for item in first.items.ids:
        kind = _kind(a[item], b[item])
        if kind is not None:
            row = a[item][0]
            answers = (_answers(a[item]), _answers(b[item]))
            scores = (_mean(a[item]), _mean(b[item]))
            found.append(Flip(item, kind, *scores, row.gold, answers, row.tags))
    return sorted(found, key=lambda flip: (KINDS.index(flip.kind), flip.id))


def _kind(first: Sequence[Row], second: Sequence[Row]) -> Kind | None:
    before, after = _mean(first), _mean(second)
    read = [
        [row for row in rows if row.outcome in ("correct", "wrong")] for rows in (first, second)
    ]
    if len(read[0]) != len(read[1]) and (not all(read) or _mean(read[0]) == _mean(read[1])):
        return "format only"
    if after != before:
        return "fixed" if after > before else "broken"
    if before > 0:
        return None
    return "same wrong" if _answers(first) == _answers(second) else "other wrong"


def _replies(run: Run) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in run.rows:
        found.setdefault(row.id, []).append(row)
    return found


def _answers(rows: Sequence[Row]) -> str:
    """Predictions as counted: "B", or "5 x B, 3 x A"; an unread reply shows its outcome."""
    found = Counter(f"({r.outcome})" if r.prediction is None else r.prediction for r in rows)
    if len(found) == 1:
        return next(iter(found))
    ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{number} x {answer}" for answer, number in ordered)


def _mean(rows: Sequence[Row]) -> float:
    return sum(row.score for row in rows) / len(rows)


def _by_tag(
    run: Run, delta: npt.NDArray[np.float64], policy: Policy
) -> dict[str, dict[str, Interval]]:
    found: dict[str, dict[str, Interval]] = {}
    tags = run.items.tags
    for tag in sorted({name for each in tags for name in each}):
        values = np.array([each.get(tag, "") for each in tags])
        found[tag] = {
            str(value): _over_videos(
                delta[values == value], run.items.clusters[values == value], policy
            )
            for value in np.unique(values)
            if value
        }
    return found


def _over_videos(
    delta: npt.NDArray[np.float64], clusters: npt.NDArray[np.str_], policy: Policy
) -> Interval:
    return clustered_interval(delta, clusters, policy.level, policy.draws, policy.draw_seed)


def _name(run: Run) -> str:
    return str(run.directory) if run.directory else f"{run.record.arm} seed {run.record.seed}"
