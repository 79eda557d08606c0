"""MLVU: seven multiple-choice tasks on long videos (dev), and two that are answered in writing.

Score: M-Avg, the mean over the seven tasks (VLMEvalKit averages over questions instead). Written
answers are judged by a language model in the owner's protocol (G-Avg); without a judge they get the
grader's text score and must not enter M-Avg, so they load only when asked for as subsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CHOICE = {
    "plotQA": 539, "needle": 355, "ego": 352, "count": 206, "order": 259, "anomaly_reco": 200,
    "topic_reasoning": 264,
}  # fmt: skip
WRITTEN = {"sub_scene": 201, "summary": 217}
CARD = Card(
    dataset="MLVU/MVLU",
    splits={"dev": 2175},
    subsets={**CHOICE, **WRITTEN},
    licence="CC-BY-NC-SA-4.0",
    macro="task",
    files=("json/*.json", "video/*"),
    note="lmms-eval reads letters A to D only",
)
GOLDEN = Golden(
    row={
        "video": "ego_1.mp4", "duration": 2.0, "question": "What did I open?",
        "candidates": ["a box", "a jar"], "answer": "a jar", "question_type": "ego", "task": "ego",
    },
    protocol="official",
    text="Question: What did I open?\nOptions:\n(A) a box\n(B) a jar\nOnly give the best option.",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    for task in wanted or CHOICE:
        for row in files.rows(f"json/[0-9]_{task}.json"):
            yield Record({**row, "task": task}, row.where)


def sample(row: Record, files: Files) -> Sample:
    task, video = row.text("task"), row.text("video")
    options = () if task in WRITTEN else lettered(row.texts("candidates"))
    question = row.text("question")
    printed = "".join(f"\n({option[0]}) {option[3:]}" for option in options)
    return Sample(
        id=f"{task}/{row.where.rsplit(' ', 1)[-1]}",
        question=question,
        kind="multiple choice" if options else "free-form",
        gold=row.matching(options, "answer") if options else row.text("answer"),
        modality="video",
        media=files.media(video),
        options=options,
        cluster=video,
        tags={"task": task},
        facts={"original": question + printed, "duration": row.text("duration")},
    )
