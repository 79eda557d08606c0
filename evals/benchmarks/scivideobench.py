"""SciVideoBench: research questions on filmed experiments, ten options A to J.

Score: share of right letters, also by kind of question and discipline.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="groundmore/scivideobench",
    splits={"test": 1000},
    licence="academic research only; access by agreement",
    macro="category",
    files=("*.parquet", "*.jsonl", "*.json", "*.zip"),
    note="lmms-eval rewrites the times in a question to frame numbers; we leave them",
)
GOLDEN = Golden(
    row={
        "video_id": "55847", "question_id": "2", "question": "What is measured?",
        "options": {"A": "Mass", "B": "Heat", "C": "Flow"}, "answer": "B",
        "question_type": "Quantitative Reasoning", "category": "Physics", "video_duration": 2,
    },
    protocol="official",
    text="What is measured?\nA. Mass\nB. Heat\nC. Flow\n\nAnswer with the option's letter from the "
    "given choices directly.",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    return files.rows(f"{split}-*.parquet", f"{split}.jsonl", "scivideobench*.jsonl")


def sample(row: Record, files: Files) -> Sample:
    video = row.text("video_id")
    options = lettered(text for text in row.texts("options") if text)
    number = row.get("question_id") or row.where.rsplit(" ", 1)[-1]
    return Sample(
        id=f"{video}_{number}",
        question=row.text("question"),
        kind="multiple choice",
        gold=row.letter(options, "answer"),
        modality="video",
        media=files.video(f"jove_{video}"),
        options=options,
        cluster=video,
        tags={"type": row.text("question_type"), "category": row.text("category")},
        facts={"duration": row.text("video_duration")},
    )
