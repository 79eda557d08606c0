"""Video-MME: 900 videos of three lengths, three questions with four options each.

Score: share of right letters, without or with subtitles (the protocol says which), also by length,
domain, sub-category and ability; the mean over the lengths equals the mean over the questions.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="lmms-lab/Video-MME",
    seen="ead1408",
    splits={"test": 2700},
    subsets=dict.fromkeys(("short", "medium", "long"), 900),
    videos=900,
    licence="academic research only, no redistribution",
    macro="duration",
    files=("videomme/*.parquet", "subtitle.zip", "videos_chunked_*.zip"),
    note="the archives were rebuilt in July 2024: name a commit; 744 videos have subtitles",
)
GOLDEN = Golden(
    row={
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "History",
        "url": "", "videoID": "abc", "question_id": "001-1", "task_type": "Counting Problem",
        "question": "How many ships sail?", "options": ["A. One.", "B. Two.", "C. 3.", "D. None."],
        "answer": "D",
    },
    protocol="official",
    text="Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\nHow many ships sail?\n"
    "A. One.\nB. Two.\nC. 3.\nD. None.\nThe best answer is:",
    gold="D",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    found = files.rows(f"videomme/{split}-*.parquet", f"{split}-*.parquet")
    return [row for row in found if not wanted or row.need("duration") in wanted]


def sample(row: Record, files: Files) -> Sample:
    video = row.text("videoID")
    options = lettered(row.texts("options"))
    subtitles = files.media(f"{video}.srt")
    tags = {key: row.text(key) for key in ("duration", "domain", "sub_category", "task_type")}
    return Sample(
        id=row.text("question_id"),
        question=row.text("question"),
        kind="multiple choice",
        gold=row.letter(options, "answer"),
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags=tags,
        facts={"subtitles": str(subtitles) if files.holds(subtitles) else ""},
    )
