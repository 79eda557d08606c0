"""NExT-QA: causal, temporal and descriptive questions with five options (MC).

Score: share of right letters, also by group of types (C, T, D; the owner counts TP as TN).
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="lmms-lab/NExTQA",
    seen="a0d7729",
    splits={"test": 8564, "val": 4996, "train": 34132},
    videos=1000,
    licence="repository MIT",
    macro="group",
    files=("MC/*.parquet", "videos.zip"),
)
GOLDEN = Golden(
    row={
        "video": 3238737531, "frame_count": 8, "width": 32, "height": 32,
        "question": "why did the boy stop", "answer": 1, "qid": 3, "type": "CW", "a0": "to drink",
        "a1": "to rest", "a2": "to wave", "a3": "to sing", "a4": "to run",
    },
    protocol="lmms-eval",
    text="why did the boy stop\nA. to drink\nB. to rest\nC. to wave\nD. to sing\nE. to run",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    return files.rows(f"MC/{split}-*.parquet", f"nextqa/{split}.csv", f"{split}.csv")


def sample(row: Record, files: Files) -> Sample:
    video, kind = row.text("video", "video_id"), row.text("type")
    options = lettered(row.text(f"a{n}") for n in range(5))
    return Sample(
        id=f"{video}_{row.text('qid')}",
        question=row.text("question"),
        kind="multiple choice",
        gold=row.index(options, "answer"),
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"group": kind[0], "type": "TN" if kind == "TP" else kind},
    )
