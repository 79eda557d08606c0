"""Score saved replies again, with any graders and without a model.

For every grader: micro, macro and further numbers (evals.aggregate; mIoU leads), outcomes, and
`luck`, what the tool would add on average where it draws an option at random. `spread` is the
distance between the graders: how much of a score is the way it was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals import benchmarks, saved
from evals.aggregate import aggregate, by_kind
from evals.benchmarks import Benchmark
from evals.errors import BadInput
from evals.extract import DRAWS, GRADERS, Answer, Unparsed, extract, graders_for, resolve
from evals.judge import Judge
from evals.run import graded
from evals.saved import Saved
from evals.types import Kind, Protocol, Row

API_FAILURE = Unparsed("a failure was recorded instead of a reply")


@dataclass(frozen=True)
class Rescored:
    """Scores by grader, in the order asked for; `skipped` graders do not read such questions.

    headline: the number that is compared between graders.
    """

    tool: str
    replies: int
    graders: Mapping[str, Mapping[str, Any]]
    skipped: tuple[str, ...]
    judge: Mapping[str, Any] | None
    headline: str = "micro"

    @property
    def spread(self) -> dict[str, Any]:
        """Lowest and highest grader with their headline numbers, and the share of replies on whose
        score the graders do not agree.
        """
        scores = {name: found[self.headline] for name, found in self.graders.items()}
        low, high = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
        per_reply = zip(*(found["scores"] for found in self.graders.values()), strict=True)
        differ = sum(len(set(each)) > 1 for each in per_reply)
        return {
            "low": {"grader": low, self.headline: scores[low]},
            "high": {"grader": high, self.headline: scores[high]},
            "spread": scores[high] - scores[low],
            "disagreement": differ / self.replies,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data; scores are fractions."""
        graders = {
            name: {key: value for key, value in found.items() if key != "scores"}
            for name, found in self.graders.items()
        }
        return {
            "tool": self.tool, "replies": self.replies, "graders": graders,
            "spread": self.spread, "skipped": list(self.skipped), "judge": self.judge,
        }  # fmt: skip


def rescore(
    file: Path,
    benchmark: str | None,
    graders: Sequence[str],
    *,
    questions: Callable[[], Benchmark] | None = None,
    kind: Kind | None = None,
    protocol: Protocol | None = None,
    judge: Judge | None = None,
) -> Rescored:
    """Every grader's numbers for the replies of a file.

    graders: names, or `all`. questions: loads the benchmark, for rows that only name their
    question. Raises BadInput naming the row that cannot be used.
    """
    replies = saved.read(file, benchmark, questions, kind)
    kinds = {pair.sample.kind for pair in replies.pairs}
    every = tuple(graders) == ("all",)
    names = graders_for(benchmark) if every else [resolve(g, benchmark) for g in graders]
    # Of all graders only those that read every question; a named one need only read some.
    needed = len(kinds) if every else 1
    able = [name for name in names if len(kinds & GRADERS[name].reads.keys()) >= needed]
    if not able:
        raise BadInput(f"{', '.join(names)} reads no {' or '.join(sorted(kinds))} question")
    card = benchmarks.card(benchmark) if benchmark in benchmarks.OWNED else None
    asked = protocol or Protocol("saved")
    found: dict[str, Mapping[str, Any]] = {}
    for name in able:
        rows, luck, rules = _rows(replies.pairs, replace(asked, grader=name), judge)
        found[name] = {
            "n": len({row.id for row in rows}),
            **(aggregate(rows, card, asked) | ({} if card else by_kind(rows, asked))),
            "luck": luck,
            "rules": rules,
            "outcomes": dict(sorted(Counter(row.outcome for row in rows).items())),
            "unparsed": dict(
                Counter(r.detail for r in rows if r.detail and r.outcome != "wrong").most_common(5)
            ),
            "scores": [row.score for row in rows],
        }
    used = judge and {"id": judge.id, "asked": judge.asked, "cached": judge.cached}
    skipped = tuple(name for name in names if name not in able)
    known = next(iter(found.values()))
    first = [asked.aggregation] if protocol else ["mIoU"]
    headline = next((name for name in first if name in known), "micro")
    return Rescored(replies.tool, len(replies.pairs), found, skipped, used or None, headline)


def _rows(
    pairs: Sequence[Saved], protocol: Protocol, judge: Judge | None
) -> tuple[list[Row], float, dict[str, int]]:
    """Rows in the file's order, the mean score that drawing at random would have added, and the
    rules by which answers were read, as "stated (medium)" -> replies.
    """
    readings: list[Answer | Unparsed] = [
        API_FAILURE
        if pair.failed
        else extract(pair.reply.text, pair.sample.kind, protocol.grader, pair.sample.options)
        for pair in pairs
    ]
    luck = sum(
        1 / len(pair.sample.options)
        for pair, reading in zip(pairs, readings, strict=True)
        if reading == Unparsed(DRAWS) and pair.sample.options
    )
    if judge is not None:
        reads = GRADERS[protocol.grader].reads
        places = [
            place
            for place, (pair, reading) in enumerate(zip(pairs, readings, strict=True))
            if isinstance(reading, Unparsed)
            and pair.sample.kind in reads
            and pair.reply.finished
            and not pair.failed
        ]
        verdicts = judge.read([(pairs[p].sample, pairs[p].reply) for p in places])
        for place, verdict in zip(places, verdicts, strict=True):
            readings[place] = verdict
    seen: Counter[str] = Counter()
    rows = []
    for pair, reading in zip(pairs, readings, strict=True):
        # A verdict of the judge is compared as our own answers are: it is no tool's string.
        own = isinstance(reading, Answer) and reading.rule.startswith("judge ")
        used = replace(protocol, grader="reelproof") if own else protocol
        rows.append(graded(pair.sample, pair.reply, reading, seen[pair.sample.id], used))
        seen[pair.sample.id] += 1
    rules = Counter(f"{r.rule} ({r.confidence})" for r in readings if isinstance(r, Answer))
    return rows, luck / len(pairs), dict(rules.most_common())
