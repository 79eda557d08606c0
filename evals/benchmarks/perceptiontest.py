"""PerceptionTest: questions with three options on filmed games and experiments (validation).

Score: top-1, also by area (memory, abstraction, physics, semantics) and kind of reasoning. The end
of a cup-game video shows the answer, so frames from `cut_frame_mapping_valid.json`'s number on are
never shown (that the number itself is left out is chosen).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="lmms-eval/PerceptionTest_Val",
    splits={"valid": 19140},
    licence="CC BY 4.0, software Apache-2.0",
    macro="area",
    files=("mc_question_val/*.parquet", "*.zip", "cut_frame_mapping_valid.json"),
    note="19,140 is not verified; lmms-eval does not cut the cup games",
)
GOLDEN = Golden(
    row={
        "video_name": "video_1", "question_id": 0, "question": "Where is the ball?",
        "options": ["Left", "Middle", "Right"], "answer_id": 2, "area": "memory",
        "reasoning": "descriptive", "tag": ["object permanence"], "cut": 6,
    },
    protocol="lmms-eval",
    text="Where is the ball?\nA. Left\nB. Middle\nC. Right\nAnswer with the option's letter from "
    "the given choices directly.",
    gold="C",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    """Rows of the hub's copy, or the owner's object of videos, each with its `mc_question`."""
    cuts = files.json("cut_frame_mapping_valid.json")
    if files.find("mc_question_val/*.parquet"):
        found = files.rows("mc_question_val/*.parquet")
    else:
        videos = Record(files.json("mc_question_valid.json"), "mc_question_valid.json")
        found = [
            Record({**asked, "video_name": video}, f"{videos.where}, {video}, record {n}")
            for video in videos
            for n, asked in enumerate(videos.inner(video).objects("mc_question"), start=1)
        ]
    for row in found:
        yield Record({**row, "cut": cuts.get(row.text("video_name"), -1)}, row.where)


def sample(row: Record, files: Files) -> Sample:
    video = row.text("video_name")
    options = lettered(row.texts("options"))
    return Sample(
        id=f"{video}_{row.text('question_id', 'id')}",
        question=row.text("question"),
        kind="multiple choice",
        gold=row.index(options, "answer_id"),
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"area": row.text("area"), "reasoning": row.text("reasoning")},
        stop=int(row.number("cut")) if row.number("cut") > 0 else None,
    )
