"""VideoMathQA: mathematics taught on video, with five options or as pairs of two.

Score: share of right letters (`mcq`); for `multi_binary` also the share of questions all of whose
pairs are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

PARTS = {"mcq": 420, "multi_binary": None}
CARD = Card(
    dataset="MBZUAI/VideoMathQA",
    splits={"test": 420},
    subsets=PARTS,
    licence="not seen",
    macro="category",
    metrics=("all pairs",),
    files=("*.parquet", "*.zip"),
)
GOLDEN = Golden(
    row={
        "videoID": "abc", "question_id": "1", "question": "What is x?", "part": "mcq",
        "options": ["A. 1", "B. 2", "C. 3", "D. 4", "E. 5"], "answer": "E",
        "category": "Geometry", "length": "short",
    },
    protocol="official",
    text="Select the best answer to the following multiple-choice question based on the video. "
    "Respond with the letter (A, B, C, D or E) of the correct option.\nWhat is x?\nA. 1\nB. 2\n"
    "C. 3\nD. 4\nE. 5\n\nAnswer with the option's letter (A, B, C, D or E) from the given choices "
    "directly.",
    gold="E",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    for part in wanted or ("mcq",):
        for row in files.rows(f"{part}/{split}-*.parquet", f"{part}.json"):
            yield Record({**row, "part": part}, row.where)


def sample(row: Record, files: Files) -> Sample:
    part, video, number = row.text("part"), row.text("videoID"), row.text("question_id")
    options = lettered(row.texts("options"))
    subtitles = files.media(f"{video}.srt")
    pair = {"group": number} if part == "multi_binary" else {}
    return Sample(
        id=f"{part}/{number}",
        question=row.text("question"),
        kind="multiple choice",
        gold=row.letter(options, "answer"),
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"category": row.text("category"), "length": row.text("length"), **pair},
        facts={"subtitles": str(subtitles)} if files.holds(subtitles) else {},
        form=part,
    )
