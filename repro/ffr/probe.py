"""One failure for a teacher, for people: a record, a wrong answer to it, and what came back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals import microworld
from evals.benchmarks.jsonl import read
from evals.decoding import Decoding
from evals.errors import BadInput
from evals.extract import intervals, option_texts
from evals.types import Protocol, Sample, VideoClip
from evals.video import Wanted
from repro.ffr.cache import Cache, Entry
from repro.ffr.case import Case
from repro.ffr.gate import RULES, Finding, Gate
from repro.ffr.gate import Stage as GateStage
from repro.ffr.patch import Fields, Patch, as_dict, render
from repro.ffr.service import Limits, Service
from repro.ffr.teacher import Failure, Repair, Teacher, TeacherFault

FILMS = 10  # of the example (chosen)


def samples(data: Path | None, videos: Path | None) -> tuple[Sequence[Sample], Path]:
    """Records and the folder of their videos; without a file, a few films of microworld."""
    if data is None:
        data = microworld.make("validation", n=FILMS) / "records.json"
    root = videos or data.parent
    return read(data, root), root


def chosen(found: Sequence[Sample], record: str | None) -> Sample:
    """The record of that id, or the first one about a video. Raises BadInput."""
    for sample in found:
        if sample.id == record or (record is None and sample.modality == "video"):
            return sample
    raise BadInput(f"there is no record {record}" if record else "no record is about a video")


def wrong(sample: Sample) -> str:
    """A wrong reply in the trained format, without a model."""
    if sample.options:
        letter = next(k for k in option_texts(sample.options) if k != sample.gold[:1])
        said = f"{letter} [0.0, 0.1]" if sample.kind == "grounded qa" else letter
    elif intervals(sample.gold):
        said = "[0.0, 0.1]"
    else:
        said = "7" if sample.gold != "7" else "8"
    return f"<think>I looked too briefly.</think><answer>{said}</answer>"


@dataclass(frozen=True)
class Probed:
    """A failure, its repair, every rule's view of the patch, and what the student would read.

    patch: of the repair, or where that was refused what the teacher last gave. why: what went wrong
    with the teacher's last reply, "" if nothing did.
    """

    failure: Failure
    repair: Repair
    patch: Patch | None
    findings: tuple[Finding, ...]
    reading: str
    alarm: str
    stages: tuple[GateStage, ...] = tuple(RULES)
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For --json. It shows the gold, which is the caller's own."""
        record = self.failure.record
        return {
            "record": record.id, "question": record.question, "options": list(record.options),
            "gold": record.gold, "reply": self.failure.reply, "status": self.repair.status,
            "why": self.why,
            "patch": as_dict(self.patch) if self.patch else None,
            "gate": {stage: self.view(stage) for stage in self.stages} if self.patch else {},
            "student_reads": self.reading, "usage": dict(self.repair.usage),
            "seconds": round(self.repair.seconds, 3), "alarm": self.alarm,
        }  # fmt: skip

    def view(self, stage: str) -> str:
        """What a rule has against the patch, or "passes"."""
        return next((f.reason for f in self.findings if f.stage == stage), "passes")


class _Noting:
    """A teacher that remembers what it last gave, or why it gave nothing."""

    def __init__(self, teacher: Teacher):
        self.teacher, self.last, self.why = teacher, None, ""
        self.id, self.second_try, self.stores = teacher.id, teacher.second_try, teacher.stores

    last: Patch | None

    async def patch(self, failure: Failure) -> Patch | None:
        self.why = "no reply in time"
        try:
            self.last = await self.teacher.patch(failure)
        except TeacherFault as fault:
            self.why = str(fault)
            raise
        self.why = ""
        return self.last

    async def close(self) -> None:
        if hasattr(self.teacher, "close"):
            await self.teacher.close()


def probe(
    teacher: Teacher, sample: Sample, *, reply: str | None = None, frames: int = 16,
    fields: Fields = "all", limits: Limits | None = None, gate: Gate | None = None,
) -> Probed:  # fmt: skip
    """Ask a teacher about one record, behind a gate, by default of rules alone."""
    law = Protocol("probe", sampling="fixed", max_frames=frames)
    with Decoding() as decoding:
        clip = None if sample.media is None else decoding.read(Wanted.of(sample), law)
    failure = Failure(sample, clip, reply or wrong(sample), None, 0.0, 0)
    noting, limits, gate = _Noting(teacher), limits or Limits(tries=2), gate or Gate()
    with Service(noting, gate, limits=limits) as service:
        (repair,) = service.start([failure]).result(2 * limits.tries * (limits.timeout + 10))
        alarm = service.alarm
    findings = _findings(gate, noting.last, Case.of(failure)) if noting.last else []
    seconds = clip.seconds if clip else ()
    reading = render(repair.patch, fields, seconds) if repair.patch else ""
    stages: tuple[GateStage, ...] = (*RULES, "blind") if gate.blind else tuple(RULES)
    return Probed(failure, repair, noting.last, tuple(findings), reading, alarm, stages, noting.why)


def _findings(gate: Gate, patch: Patch, case: Case) -> list[Finding]:
    blind = gate.test(patch, case)
    return gate.findings(patch, case) + ([blind] if blind else [])


def gate_with(checkpoint: Path | None, prompt: str) -> Gate:
    """The gate, with a blind test by a student from a checkpoint folder where one is given."""
    if checkpoint is None:
        return Gate()
    from evals.vlm import load
    from repro.ffr.blind import BlindStudent

    return Gate(BlindStudent(load(checkpoint), prompt, name=checkpoint.name))


# --- a cache, judged again ------------------------------------------------------------------------


@dataclass(frozen=True)
class Replayed:
    """What a cache holds. by: (teacher, outcome) -> entries; refused: entries by the stage that
    would refuse them today; unknown: patches whose record is not at hand."""

    by: Mapping[tuple[str, str], int]
    refused: Mapping[str, int]
    judged: int
    unknown: int

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "entries": [{"teacher": t, "status": s, "n": n} for (t, s), n in self.by.items()],
            "judged": self.judged, "refused": dict(self.refused), "unknown": self.unknown,
        }  # fmt: skip


def replay(cache: Cache, found: Sequence[Sample]) -> Replayed:
    """Count what a cache holds, and hold its patches against today's rules; no teacher is asked.

    A kept patch does not say what the student wrote, so rules spare no word of the student's.
    """
    records = {sample.id: sample for sample in found}
    by, refused = Counter[tuple[str, str]](), Counter[str]()
    judged = unknown = 0
    for entry in cache.entries():
        by[entry.teacher, entry.status] += 1
        if entry.patch is None:
            continue
        if entry.record not in records:
            unknown += 1
            continue
        judged += 1
        if finding := Gate().check(entry.patch, _case(records[entry.record], entry)):
            refused[finding.stage] += 1
    return Replayed(by, refused, judged, unknown)


def _case(sample: Sample, entry: Entry) -> Case:
    indices, fps, total = entry.shown
    frames = np.zeros((len(indices), 1, 1, 3), np.uint8)
    clip = VideoClip(frames, indices, fps, total) if indices else None
    return Case.of(Failure(sample, clip, "", None, 0.0, 0))
