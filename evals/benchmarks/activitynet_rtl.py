"""ActivityNet-RTL: 229 questions whose answer is a time that must be reasoned out.

Score: IoU and P@0.5, averaged within each video first and then over videos (the owner), and over
questions. A reply without an interval has IoU 0; the owner's script gives it the whole video.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, written
from evals.types import Sample

CARD = Card(
    dataset="deahuang/LITA-Datasets",
    splits={"val_1": 229},
    licence="of the data not seen; LITA's code under Nvidia Source Code License-NC",
    metrics=("grounding", "grounding by video"),
    files=("temporal_reasoning/annot_val_1_q229.json",),
    note="videos are ActivityNet's, v_{vid}.mp4",
)
GOLDEN = Golden(
    row={
        "question_id": "q1", "vid": "abc", "duration": 2.0, "question": "When is he tired?",
        "answer": "<0.5> <1.75> He sits down.",
    },
    protocol="official",
    text="When is he tired?",
    gold="[0.5, 1.75]",
)  # fmt: skip
_TIME = re.compile(r"<(\d+(?:\.\d*)?|\.\d+)>")


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    return files.rows("temporal_reasoning/annot_val_1_q229.json", "annot_val_1_q229.json")


def sample(row: Record, files: Files) -> Sample:
    times = [float(time) for time in _TIME.findall(row.text("answer"))[:2]]
    if len(times) < 2:
        raise row.fail("`answer` must name two times, as in <1.5> <7.25>")
    duration = row.number("duration")
    start, end = sorted(min(time, duration) for time in times)
    video = f"v_{row.text('vid')}"
    return Sample(
        id=row.text("question_id"),
        question=row.text("question"),
        kind="temporal grounding",
        gold=written([(start, end)]),
        modality="video",
        media=files.video(video),
        cluster=video,
        facts={"duration": f"{duration:g}", "caption": row.text("question")},
    )
