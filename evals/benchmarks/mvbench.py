"""MVBench: 20 temporal tasks of 200 questions each, on clips of eleven video collections.

Score: accuracy per task and its mean over the tasks. The owner shows only the seconds `start` to
`end` where a record has them; Video-R1 shows the whole video (a field of the protocol).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

TASKS = (
    "action_antonym", "action_count", "action_localization", "action_prediction", "action_sequence",
    "character_order", "counterfactual_inference", "egocentric_navigation", "episodic_reasoning",
    "fine_grained_action", "fine_grained_pose", "moving_attribute", "moving_count",
    "moving_direction", "object_existence", "object_interaction", "object_shuffle",
    "scene_transition", "state_change", "unexpected_action",
)  # fmt: skip
CARD = Card(
    dataset="OpenGVLab/MVBench",
    seen="230a2d4 (main), a776e55 (branch video)",
    splits={"train": 4000},
    subsets=dict.fromkeys(TASKS, 200),
    licence="repository MIT; the videos keep their own terms",
    macro="task",
    files=("json/*.json", "video/*.zip"),
    note="fine_grained_pose needs NTU RGB+D from its owner; the frames of tvqa "
    "(episodic_reasoning) must be a video: take the mp4 of branch video",
)
GOLDEN = Golden(
    row={
        "video": "a.mp4", "question": "What moved?", "candidates": ["cup", "book", "lid"],
        "answer": "book", "start": 0.5, "end": 1.5, "task": "action_sequence",
    },
    protocol="official",
    text="Carefully watch the video and pay attention to the cause and sequence of events, the "
    "detail and movement of objects, and the action and pose of persons. Based on your "
    "observations, select the best option that accurately addresses the question.\nQuestion: What "
    "moved?\nOptions:\n(A) cup\n(B) book\n(C) lid\nOnly give the best option.",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    for task in wanted or TASKS:
        for row in files.rows(f"json/{task}.json", f"{task}.json"):
            yield Record({**row, "task": task}, row.where)


def sample(row: Record, files: Files) -> Sample:
    task, video = row.text("task"), row.text("video").rstrip("/")
    options = lettered(row.texts("candidates"))
    bounded = row.get("start") is not None and row.get("end") is not None
    return Sample(
        id=f"{task}/{row.where.rsplit(' ', 1)[-1]}",
        question=row.text("question"),
        kind="multiple choice",
        gold=row.matching(options, "answer"),
        modality="video",
        media=files.media(video) if "." in video else files.video(video),
        options=options,
        cluster=video,
        tags={"task": task},
        span=(row.number("start"), row.number("end")) if bounded else None,
    )
