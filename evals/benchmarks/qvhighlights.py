"""QVHighlights moment retrieval: find a moment that a query describes in a 150-second clip.

Score: R1 at IoU 0.5 and 0.7 against the best of the true windows, and mIoU. mAP and highlight
detection need several scored windows, which a written answer does not give: they are not here.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, asked, written
from evals.types import Sample

CARD = Card(
    dataset="jayleicn/moment_detr",
    splits={"val": 1550},
    licence="annotations CC BY-NC-SA 4.0, code MIT",
    metrics=("grounding",),
    host="github",
    note="R1 of written answers is comparable, mAP is not; videos: qvhilights_videos.tar.gz",
)
GOLDEN = Golden(
    row={
        "qid": 8737, "query": "A dog runs on the beach", "duration": 2, "vid": "abc_60.0_210.0",
        "relevant_windows": [[0, 1], [1.5, 2]], "relevant_clip_ids": [0], "saliency_scores": [],
    },
    protocol="official",
    text="Please find the visual event described by the sentence 'A dog runs on the beach', "
    "determining its starting and ending times. The format should be: 'The event happens in <start "
    "time> - <end time> seconds'.",
    gold="[0, 1] or [1.5, 2]",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    return files.rows(f"highlight_{split}_release.jsonl")


def sample(row: Record, files: Files) -> Sample:
    video, query = row.text("vid"), row.text("query")
    return Sample(
        id=row.text("qid"),
        question=asked(query),
        kind="temporal grounding",
        gold=written(row.spans("relevant_windows")),
        modality="video",
        media=files.video(video),
        cluster=video,
        facts={"duration": row.text("duration"), "caption": query},
    )
