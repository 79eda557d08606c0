"""From rows to the numbers that a benchmark is known by; micro and macro always both.

| name                        | meaning                                                          |
|-----------------------------|------------------------------------------------------------------|
| micro                       | mean over questions                                              |
| macro                       | mean over the values of the card's tag (else over videos)        |
| knowledge gain              | Video-MMMU, with wrong->right and right->wrong rates             |
| vsibench                    | mean of 8 tasks, the three direction tasks counting as one       |
| accuracy and MRA            | (accuracy of the other kinds + MRA of regression) / 2, Video-R1  |
| accuracy without regression | accuracy of the other kinds, FFR                                 |
| mIoU, R1@m                  | temporal grounding                                               |
| mIoU by video, P@0.5 by ... | the same within each video first (ActivityNet-RTL)               |
| Acc@QA, Acc@GQA, mIoP, ...  | NExT-GQA, with the best of the true segments; Acc@QA is of the   |
|                             | letter, whether or not an interval was said with it              |
| Acc and IoU@0.5             | letter right and IoU >= 0.5 (ReXTime)                            |
| all pairs                   | questions all of whose binary pairs are right (VideoMathQA)      |

All are fractions, except that a gain may be negative. A row without an answer has score, IoU and
IoP 0. Which rows count:

| denominator | leaves out                                                                       |
|-------------|----------------------------------------------------------------------------------|
| all         | none                                                                             |
| replied     | undecodable and timeout: where a tool's API failed, its row is dropped           |
| answered    | these, unparsed and truncated                                                    |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evals.benchmarks import Card
from evals.errors import BadInput
from evals.extract import Unparsed, read
from evals.metrics import Interval, golds, iop, knowledge_gain, mean, tiou
from evals.types import Outcome, Protocol, Row

_ANSWERED = ("correct", "wrong")
_COUNTED = {
    "all": tuple(outcome.value for outcome in Outcome),
    "replied": (*_ANSWERED, "unparsed", "truncated"),
    "answered": _ANSWERED,
}


@dataclass(frozen=True)
class Asked:
    """One question: the mean of its replies' scores, and for grounded kinds of their overlaps."""

    row: Row
    score: float
    letter: float = 0.0  # share of replies with the right letter
    ious: tuple[float, ...] = ()
    iops: tuple[float, ...] = ()
    letters: tuple[bool, ...] = ()

    def share(self, right: Callable[[float], bool], of: str = "ious") -> float:
        """Share of the replies whose overlap is right."""
        return mean([float(right(value)) for value in getattr(self, of)])


Numbers = dict[str, float]
Metric = Callable[[Sequence[Asked]], Numbers]


def aggregate(rows: Sequence[Row], card: Card | None, protocol: Protocol) -> Numbers:
    """Every number of a benchmark. Raises ValueError when no row counts."""
    counted = [r for r in rows if r.outcome in _COUNTED[protocol.denominator]]
    questions = _questions(counted)
    tag = card.macro if card else "family"
    found = {
        "micro": mean([q.score for q in questions]),
        "macro": _macro(questions, tag),
        "coverage": mean([float(r.outcome in _ANSWERED) for r in rows]),
    }
    for name in card.metrics if card else ():
        found |= METRICS[name](questions)
    return found


def by_kind(rows: Sequence[Row], protocol: Protocol) -> Numbers:
    """The further numbers of rows that are all of one grounded kind, {} of any others; for rows of
    no benchmark of ours."""
    name = {"temporal grounding": "grounding", "grounded qa": "grounded qa"}
    kinds = {row.kind for row in rows}
    counted = [r for r in rows if r.outcome in _COUNTED[protocol.denominator]]
    if len(kinds) != 1 or not kinds <= name.keys() or not counted:
        return {}
    return METRICS[name[kinds.pop()]](_questions(counted))


def per_reply(rows: Sequence[Row], card: Card | None) -> dict[str, list[float]]:
    """Further numbers of a benchmark as one value in 0..1 per row, each the mean over questions of
    the mean over their replies; only those of `PER_REPLY` are means of that kind."""
    asked = [_asked([row]) for row in rows]
    found: dict[str, list[float]] = {}
    for name in card.metrics if card else ():
        if name in PER_REPLY:
            values = [METRICS[name]([q]) for q in asked]
            found |= {key: [v[key] for v in values] for key in values[0]}
    return found


def headline(rows: Sequence[Row], card: Card | None, protocol: Protocol) -> tuple[str, float]:
    """The number that the protocol puts first. Raises BadInput when the rows do not have it."""
    found = aggregate(rows, card, protocol)
    if protocol.aggregation not in found:
        raise BadInput(f"these rows have no {protocol.aggregation!r}; they have {', '.join(found)}")
    return protocol.aggregation, found[protocol.aggregation]


def _questions(rows: Sequence[Row]) -> list[Asked]:
    own: dict[str, list[Row]] = {}
    for row in rows:
        own.setdefault(row.id, []).append(row)
    return [_asked(replies) for replies in own.values()]


def _asked(replies: Sequence[Row]) -> Asked:
    first, score = replies[0], mean([row.score for row in replies])
    if first.kind not in ("temporal grounding", "grounded qa"):
        return Asked(first, score)
    overlaps = [_overlap(row) for row in replies]
    letters = tuple(
        row.prediction is not None and row.prediction[:1] == row.gold[:1] for row in replies
    )
    return Asked(
        first,
        score,
        mean([float(right) for right in letters]),
        tuple(iou for iou, _ in overlaps),
        tuple(share for _, share in overlaps),
        letters,
    )


def _overlap(row: Row) -> tuple[float, float]:
    """Best IoU and best IoP over the true segments; (0, 0) without an answer, and where a letter
    is all that was read."""
    if row.prediction is None or row.outcome not in _ANSWERED:
        return 0.0, 0.0
    said = _interval(row.prediction, row.kind)
    truths = [_interval(gold, row.kind) for gold in golds(row.gold, row.kind)]
    return max(tiou(said, truth) for truth in truths), max(iop(said, truth) for truth in truths)


def _interval(text: str, kind: str) -> Interval:
    reading = read(text, kind)
    if isinstance(reading, Unparsed) or reading.interval is None:
        raise BadInput(f"{text!r} of a {kind} row holds no interval")
    return reading.interval


def _grouped(questions: Sequence[Asked], tag: str) -> dict[str, list[Asked]]:
    groups: dict[str, list[Asked]] = {}
    for q in questions:
        if (value := q.row.tags.get(tag)) is not None:
            groups.setdefault(value, []).append(q)
    return groups


def _macro(questions: Sequence[Asked], tag: str) -> float:
    groups = list(_grouped(questions, tag).values()) or list(_videos(questions).values())
    return mean([mean([q.score for q in group]) for group in groups])


def _videos(questions: Sequence[Asked]) -> dict[str, list[Asked]]:
    groups: dict[str, list[Asked]] = {}
    for q in questions:
        groups.setdefault(q.row.cluster, []).append(q)
    return groups


# --- by name -----------------------------------------------------------------------------------


def _gain(questions: Sequence[Asked]) -> Numbers:
    """Adaptation questions asked after the lecture and with the question's image alone."""
    tracks = _grouped(questions, "track")
    lecture = [group for track, group in tracks.items() if track != "question_only"]
    found = (
        {"mean of tracks": mean([mean([q.score for q in g]) for g in lecture])} if lecture else {}
    )
    before = {q.row.cluster: q.score for q in tracks.get("question_only", [])}
    after = {q.row.cluster: q.score for q in tracks.get("adaptation", [])}
    if not before or before.keys() != after.keys():
        return found
    found["knowledge gain"] = knowledge_gain(
        mean(list(after.values())), mean(list(before.values()))
    )
    # Of what was wrong (right) before, the share that turned; 0 where nothing was.
    right = sum(before.values())
    wrong = len(before) - right
    won = sum((1 - before[k]) * after[k] for k in before)
    lost = sum(before[k] * (1 - after[k]) for k in before)
    found["wrong to right"] = won / wrong if wrong else 0.0
    found["right to wrong"] = lost / right if right else 0.0
    return found


def _vsibench(questions: Sequence[Asked]) -> Numbers:
    scores = {task: mean([q.score for q in g]) for task, g in _grouped(questions, "task").items()}
    direction = [scores.pop(t) for t in sorted(scores) if t.startswith("object_rel_direction_")]
    parts = [*scores.values(), *([mean(direction)] if direction else [])]
    return {"vsibench": mean(parts)} if parts else {}


def _kinds(questions: Sequence[Asked]) -> Numbers:
    mra = [q.score for q in questions if q.row.kind == "regression"]
    letters = [q.score for q in questions if q.row.kind != "regression"]
    found = {"accuracy without regression": mean(letters)} if letters else {}
    if letters and mra:
        found["accuracy and MRA"] = (mean(letters) + mean(mra)) / 2
    return found


def _grounding(questions: Sequence[Asked]) -> Numbers:
    found = {"mIoU": mean([mean(q.ious) for q in questions])}
    for m in (0.3, 0.5, 0.7):
        found[f"R1@{m}"] = mean([q.share(lambda iou, m=m: iou >= m) for q in questions])  # type: ignore[misc]
    return found


def _by_video(questions: Sequence[Asked]) -> Numbers:
    inner = [_grounding(group) for group in _videos(questions).values()]
    return {
        "mIoU by video": mean([numbers["mIoU"] for numbers in inner]),
        "P@0.5 by video": mean([numbers["R1@0.5"] for numbers in inner]),
    }


def _grounded_qa(questions: Sequence[Asked]) -> Numbers:
    found = {"Acc@QA": mean([q.letter for q in questions])}
    found["Acc@GQA"] = mean([_both(q, q.iops) for q in questions])
    for name, of in (("IoP", "iops"), ("IoU", "ious")):
        found[f"m{name}"] = mean([mean(getattr(q, of)) for q in questions])
        for m in (0.3, 0.5):
            found[f"{name}@{m}"] = mean([q.share(lambda v, m=m: v >= m, of) for q in questions])  # type: ignore[misc]
    found["Acc and IoU@0.5"] = mean([_both(q, q.ious) for q in questions])
    return found


def _both(question: Asked, overlaps: Sequence[float], least: float = 0.5) -> float:
    """Share of replies with the right letter and enough overlap."""
    pairs = zip(question.letters, overlaps, strict=True)
    return mean([float(right and value >= least) for right, value in pairs])


def _pairs(questions: Sequence[Asked]) -> Numbers:
    groups = _grouped(questions, "group")
    scores = [float(all(q.score >= 1 for q in group)) for group in groups.values()]
    return {"all pairs": mean(scores)} if scores else {}


METRICS: Mapping[str, Metric] = {
    "knowledge gain": _gain,
    "vsibench": _vsibench,
    "accuracy and MRA": _kinds,
    "accuracy without regression": _kinds,
    "grounding": _grounding,
    "grounding by video": _by_video,
    "grounded qa": _grounded_qa,
    "all pairs": _pairs,
}

#: Metrics that are means over questions of means over replies, so that rows can carry them.
PER_REPLY = ("grounding", "grounded qa")
