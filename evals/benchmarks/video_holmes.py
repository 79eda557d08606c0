"""Video-Holmes: single choice with up to six options on 270 suspense films of 1 to 5 minutes.

Score: share of right letters, also by question type (SR IMC TCI TA MHR PAR CTI).
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="TencentARC/Video-Holmes",
    seen="7904bdf",
    splits={"test": 1837, "train": 1551},
    videos=270,
    licence="Apache-2.0, academic use only",
    macro="type",
    files=("*.json", "videos.zip"),
    note="the train split is public and used for training (FFR): mark such runs as in-domain",
)
GOLDEN = Golden(
    row={
        "video ID": "f1", "Question ID": "q1", "Question Type": "SR",
        "Question": "Who opens the door?",
        "Options": {"A": "The guard", "B": "A lover's ghost", "C": "Nobody"},
        "Answer": "B", "Explanation": "He is seen at 0:03.",
    },
    protocol="official",
    text="Based on the given video, reason and answer the single-choice question. Provide your "
    "reasoning between the <think> and </think> tags, and then give your final answer between the "
    "<answer> and </answer> tags. The question is: Who opens the door?. The options are: "
    "A: The guard, B: A lover's ghost, C: Nobody. Your answer:",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    return files.rows(f"{split}_Video-Holmes.json")


def sample(row: Record, files: Files) -> Sample:
    video = row.text("video ID")
    options = lettered(text for text in row.texts("Options"))
    return Sample(
        id=f"{video}_{row.text('Question ID')}",  # numbers begin again with every film
        question=row.text("Question"),
        kind="multiple choice",
        gold=row.letter(options, "Answer"),
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"type": row.text("Question Type")},
    )
