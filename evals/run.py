"""Evaluate: every question asked, every reply scored, every failure named and counted.

| outcome     | score     | headline (all N) | coverage |
|-------------|-----------|------------------|----------|
| correct     | 1         | counts           | yes      |
| wrong       | 0, or partial credit | counts | yes     |
| unparsed    | 0         | counts as 0      | no       |
| truncated   | 0         | counts as 0      | no       |
| undecodable | 0         | counts as 0      | no       |
| timeout     | 0         | counts as 0      | no       |

Memory that runs out and engines that fail are no outcome: they stop the run, and its rows stay.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals import replies as cache
from evals.benchmarks import Benchmark
from evals.errors import TimedOut, Undecodable
from evals.extract import Answer, Unparsed, extract
from evals.grade import GROUNDED, grade, windows
from evals.metrics import mean
from evals.models import Model, Question
from evals.probes import Probe
from evals.replies import ReplyCache
from evals.rows import complete
from evals.types import Outcome, Protocol, Reply, Row, Sample, VideoClip
from evals.video import Clips

HELD = 4 * 2**30  # bytes of frames that wait to be asked about together (chosen)
Progress = Callable[[int, int], None]
#: Tags that say where a sample comes from; no score is broken down by them.
_UNREPORTED = frozenset({"film", "twin", "data_source"})
#: What may be said about one question: its replies, or why its clip was lost.
Answers = list[Reply] | Undecodable | TimedOut


@dataclass
class Work:
    """What a run cost: seconds waiting for clips and seconds of answering; questions asked and
    questions answered from the cache of replies."""

    waiting: float = 0.0
    answering: float = 0.0
    asked: int = 0
    cached: int = 0

    @property
    def idle(self) -> float:
        """Share of the time in which the model waited for clips."""
        whole = self.waiting + self.answering
        return self.waiting / whole if whole else 0.0


def evaluate(
    model: Model,
    benchmark: Benchmark,
    protocol: Protocol,
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    save_replies: bool = False,
    resume_rows: Sequence[Row] = (),
    batch: int = 32,
    clips: Clips | None = None,
    probe: str | None = None,
    replies: ReplyCache | None = None,
    work: Work | None = None,
) -> list[Row]:
    """Rows in benchmark order, `protocol.decoding.samples` per question.

    limit: ask only the first questions (the run is then partial). resume_rows: rows of an earlier
    call, kept for every question they answer completely. seed: of the draws. clips: who reads,
    by default this process. probe: one of evals.probes. replies: where replies are looked up and
    kept. work: counts up what the run cost.
    """
    rows: dict[str, list[Row]] = {}
    for part in stream(
        model, benchmark, protocol, limit=limit, seed=seed, progress=progress,
        save_replies=save_replies, resume_rows=resume_rows, batch=batch, clips=clips, probe=probe,
        replies=replies, work=work,
    ):  # fmt: skip
        for row in part:
            rows.setdefault(row.id, []).append(row)
    return [row for sample in benchmark.samples[:limit] for row in rows[sample.id]]


def stream(
    model: Model,
    benchmark: Benchmark,
    protocol: Protocol,
    *,
    limit: int | None,
    seed: int,
    progress: Progress,
    save_replies: bool,
    resume_rows: Sequence[Row],
    batch: int,
    clips: Clips | None = None,
    probe: str | None = None,
    replies: ReplyCache | None = None,
    work: Work | None = None,
) -> Iterator[list[Row]]:
    """As `evaluate`, a list of rows per batch as soon as it is scored, film by film.

    Batches are the same with and without resuming, so that the draws are too.
    """
    samples = benchmark.samples[:limit]
    protocol = replace(protocol, decoding=replace(protocol.decoding, seed=seed))
    known = complete(resume_rows, protocol.decoding.samples)
    asker = _Asker(
        model, protocol, clips or Clips(protocol),
        Probe(probe, benchmark.samples) if probe else None, replies, work or Work(),
    )  # fmt: skip
    parts = batches(samples, batch)
    left = [part for part in parts if any(s.id not in known for s in part)]
    done = 0
    for part in parts:
        if left and part is left[0]:
            del left[0]
            answers = asker.answers(part, ahead=left[0] if left else ())
            yield [
                row
                for sample, answer in zip(part, answers, strict=True)
                for row in _rows(asker.asked(sample), answer, protocol, save_replies)
            ]
        else:
            yield [row for sample in part for row in known[sample.id]]
        done += len(part)
        progress(done, len(samples))


def batches(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """At most `size` questions each, a film's questions together as long as they fit into one.

    Films come in the order of their first question, so a benchmark that is sorted stays so.
    """
    films: dict[Any, list[Sample]] = {}
    for sample in samples:
        films.setdefault(sample.media or sample.id, []).append(sample)
    parts: list[list[Sample]] = [[]]
    for own in films.values():
        for first in range(0, len(own), size):
            piece = own[first : first + size]
            if len(parts[-1]) + len(piece) > size:
                parts.append([])
            parts[-1] += piece
    return [part for part in parts if part]


class _Asker:
    """From samples to answers: reads clips, applies the probe, asks the cache, then the model."""

    def __init__(
        self, model: Model, protocol: Protocol, clips: Clips, probe: Probe | None,
        replies: ReplyCache | None, work: Work,
    ):  # fmt: skip
        self.model, self.protocol, self.clips = model, protocol, clips
        self.probe, self.work = probe, work
        self.replies = replies if model.identity is not None else None
        self._pixels: dict[int, str] = {}

    def asked(self, sample: Sample) -> Sample:
        """The sample as the probe puts it."""
        return self.probe.sample(sample) if self.probe else sample

    def answers(self, part: Sequence[Sample], ahead: Sequence[Sample]) -> list[Answers]:
        """One per sample. ahead: whose clips to read while the model answers.

        A part whose clips would fill the memory is asked in pieces.
        """
        found: dict[str, Answers] = {}
        waiting: list[Question] = []
        held: dict[int, int] = {}
        for place, sample in enumerate(part):
            question = self._waited(sample, [*part[place:], *ahead])
            if not isinstance(question, Question):
                found[sample.id] = question
                continue
            waiting.append(question)
            if question.clip is not None:
                held[id(question.clip)] = question.clip.nbytes
            if sum(held.values()) > HELD:
                found |= self._answered(waiting)
                waiting, held = [], {}
        found |= self._answered(waiting)
        return [found[sample.id] for sample in part]

    def _waited(
        self, sample: Sample, coming: Sequence[Sample]
    ) -> Question | Undecodable | TimedOut:
        began = time.monotonic()
        if self.model.sees:
            self.clips.prefetch(coming)
            if self.probe:
                self.clips.prefetch([self.probe.donor(s) for s in coming])
        question = self._question(sample)
        self.work.waiting += time.monotonic() - began
        return question

    def _question(self, sample: Sample) -> Question | Undecodable | TimedOut:
        seed = self.protocol.decoding.seed
        if not self.model.sees:
            return Question(self.asked(sample), None, seed, blind=True)
        try:
            clip = self.probe.clip(sample, self.clips.load) if self.probe else None
            clip = clip if self.probe else self.clips.load(sample)
        except (Undecodable, TimedOut) as error:
            return error
        blind = self.probe is not None and self.probe.name == "no-video"
        return Question(self.asked(sample), clip, seed, blind=blind)

    def _answered(self, questions: Sequence[Question]) -> dict[str, Answers]:
        """By id, from the cache or the model."""
        began = time.monotonic()
        known: dict[int, list[Reply]] = {}
        keys: list[list[str]] = []
        if self.replies:
            self._pixels.clear()
            keys = [self._keys(q) for q in questions]
            for place, own in enumerate(keys):
                if (replies := self.replies.get(own)) is not None:
                    known[place] = replies
        rest = [place for place in range(len(questions)) if place not in known]
        drawn = self.model.answer(
            [questions[place] for place in rest], self.protocol, self.protocol.decoding
        )
        for place, replies in zip(rest, drawn, strict=True):
            known[place] = replies
            if self.replies:
                self.replies.put(keys[place], replies)
        self.work.asked += len(rest)
        self.work.cached += len(questions) - len(rest)
        self.work.answering += time.monotonic() - began
        return {q.sample.id: known[place] for place, q in enumerate(questions)}

    def _keys(self, question: Question) -> list[str]:
        assert self.model.identity is not None
        return cache.keys(
            self.model.identity, self.model.prompt(question, self.protocol),
            self._digest(question.clip), self.protocol, self.protocol.decoding,
            question.own_seed,
        )  # fmt: skip

    def _digest(self, clip: VideoClip | None) -> str:
        """Once per clip and piece of a batch, in which its id is its own."""
        if clip is None:
            return ""
        if id(clip) not in self._pixels:
            self._pixels[id(clip)] = cache.pixels(clip)
        return self._pixels[id(clip)]


def _rows(sample: Sample, answer: Answers, protocol: Protocol, save: bool) -> list[Row]:
    if isinstance(answer, (Undecodable, TimedOut)):
        late = isinstance(answer, TimedOut)
        lost = _row(sample, 0, None, Outcome.TIMEOUT if late else Outcome.UNDECODABLE, 0.0, 0)
        return [replace(lost, detail=str(answer))]
    return [score(sample, reply, k, protocol, save) for k, reply in enumerate(answer)]


def score(sample: Sample, reply: Reply, k: int, protocol: Protocol, save: bool = False) -> Row:
    """One reply as a row: its answer extracted, graded, and named."""
    reading = extract(reply.text, sample.kind, protocol.grader, sample.options)
    row = graded(sample, reply, reading, k, protocol)
    return replace(row, reply=reply.text) if save else row


def graded(
    sample: Sample, reply: Reply, reading: Answer | Unparsed, k: int, protocol: Protocol
) -> Row:
    """A reply, from which an answer was read or not, as a row.

    Of a reply that was cut off, what only the weakest rules make out is no answer: it may be
    anything that was considered on the way.
    """
    if isinstance(reading, Answer) and reading.confidence == "low" and not reply.finished:
        reading = Unparsed(f"cut off; only by {reading.rule}: {reading.value[:40]}")
    if isinstance(reading, Unparsed):
        outcome = Outcome.UNPARSED if reply.finished else Outcome.TRUNCATED
        letter = reading.letter if reply.finished else ""
        row = _row(sample, k, letter or None, outcome, 0.0, reply.tokens)
        return replace(row, detail=reading.reason)
    value = grade(
        reading, sample.gold, sample.kind, sample.options, iou=protocol.iou,
        grader=protocol.grader, overlap=protocol.overlap,
    )  # fmt: skip
    outcome = Outcome.CORRECT if value >= 1 else Outcome.WRONG
    row = _row(sample, k, reading.value, outcome, value, reply.tokens)
    return replace(row, detail=BACKWARDS) if _backwards(sample) else row


#: Why nobody can win a question, in the `detail` of its rows.
BACKWARDS = "every true interval ends before it starts: nothing overlaps it"


def _backwards(sample: Sample) -> bool:
    if sample.kind not in GROUNDED:
        return False
    return all(start > end for start, end in windows(sample.gold, sample.kind, sample.options))


def _row(
    sample: Sample, k: int, prediction: str | None, outcome: Outcome, value: float, tokens: int
) -> Row:
    tags = {key: value for key, value in sample.tags.items() if key not in _UNREPORTED}
    return Row(
        sample.id, k, sample.cluster, sample.kind, sample.gold, prediction, outcome.value, value,
        tokens, tags,
    )  # fmt: skip


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """n (questions), score (mean over questions of the mean over replies), coverage (the same mean
    of the share of replies that were read), outcomes, by_tag."""
    questions: dict[str, list[Row]] = {}
    for row in rows:
        questions.setdefault(row.id, []).append(row)
    means = {key: mean([r.score for r in own]) for key, own in questions.items()}
    read = (Outcome.CORRECT, Outcome.WRONG)
    tagged: dict[str, dict[str, list[float]]] = {}
    for key, own in questions.items():
        for tag, value in own[0].tags.items():
            tagged.setdefault(tag, {}).setdefault(value, []).append(means[key])
    return {
        "n": len(questions),
        "score": mean(list(means.values())),
        "coverage": mean(
            [mean([float(r.outcome in read) for r in own]) for own in questions.values()]
        ),
        "outcomes": dict(sorted(Counter(r.outcome for r in rows).items())),
        "by_tag": {
            tag: {v: {"n": len(x), "score": mean(x)} for v, x in sorted(values.items())}
            for tag, values in sorted(tagged.items())
        },
    }
