"""LongVideoBench: referring questions on videos of 8 seconds to an hour, most with subtitles.

Score: share of right letters, also by duration group (15, 60, 600, 3600 s). The owner puts the
subtitles between the frames; here they are left out, as in the video-only task of lmms-eval.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="longvideobench/LongVideoBench",
    splits={"val": 1337},
    licence="CC-BY-NC-SA 4.0; gated by its owner",
    macro="duration_group",
    files=("lvb_val.json", "subtitles.tar", "videos.tar.part.*"),
    note="1,337 is not verified; the answers of the test split are hidden",
)
GOLDEN = Golden(
    row={
        "id": "v_0", "video_id": "v", "video_path": "v.mp4", "subtitle_path": "v_en.json",
        "question": "What is on the table?", "candidates": ["a cup", "a lamp"],
        "correct_choice": 1, "duration": 2.0, "duration_group": 15, "question_category": "S2E",
        "topic_category": "KH", "level": "L1-Perception",
    },
    protocol="official",
    text="Question: What is on the table?\nA. a cup\nB. a lamp\nAnswer with the option's letter "
    "from the given choices directly.",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    return files.rows(f"lvb_{split}.json", "validation-*.parquet")


def sample(row: Record, files: Files) -> Sample:
    given = (
        row.texts("candidates")
        if row.get("candidates") is not None
        else [str(row.get(f"option{n}", "N/A")) for n in range(5)]
    )
    options = lettered(text for text in given if text != "N/A")
    video = row.text("video_path")
    return Sample(
        id=row.text("id"),
        question=row.text("question"),
        kind="multiple choice",
        gold=row.index(options, "correct_choice"),
        modality="video",
        media=files.media(video),
        options=options,
        cluster=row.text("video_id"),
        tags={k: row.text(k) for k in ("duration_group", "question_category")},
        facts={"duration": row.text("duration")},
    )
