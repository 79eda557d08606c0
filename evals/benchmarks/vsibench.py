"""VSI-Bench: spatial questions on 288 walks through rooms, half of them answered with a number.

Score: letters, and MRA for the four numeric tasks; overall the mean of eight task scores, in which
the three direction tasks count as one. Video-R1 prints (accuracy + MRA) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.extract import plain_float
from evals.types import Sample

CARD = Card(
    dataset="nyu-visionx/VSI-Bench",
    seen="bc96b17",
    splits={"test": 5130},
    subsets={"debiased": None, "pruned": None},
    videos=288,
    licence="repository Apache-2.0; ScanNet, ScanNet++ and ARKitScenes terms apply to the videos",
    macro="task",
    metrics=("vsibench", "accuracy and MRA", "accuracy without regression"),
    files=("test*", "*.zip"),
    note="5,130 is not verified; by which overall score a paper reports it must be known",
)
GOLDEN = Golden(
    row={
        "id": 7, "dataset": "scannet", "scene_name": "scene0", "question": "How many chairs?",
        "question_type": "object_counting", "options": None, "ground_truth": "4", "pruned": False,
    },
    protocol="official",
    text="These are frames of a video.\nHow many chairs?\nPlease answer the question using a "
    "single word or phrase.",
    gold="4",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    found = files.rows(f"{split}-*.parquet", f"{split}.parquet", f"{split}.jsonl")
    if "pruned" in wanted:
        return [row for row in found if row.get("pruned")]
    if "debiased" in wanted:
        return [row for row in found if row.get("pruned") is False]
    return found


def sample(row: Record, files: Files) -> Sample:
    options = lettered(row.texts("options")) if row.get("options") else ()
    video = f"{row.text('dataset')}/{row.text('scene_name')}"
    if not options and plain_float(row.text("ground_truth")) is None:
        raise row.fail("`ground_truth` must be a number")
    return Sample(
        id=row.text("id"),
        question=row.text("question"),
        kind="multiple choice" if options else "regression",
        gold=row.letter(options, "ground_truth") if options else row.text("ground_truth"),
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"task": row.text("question_type"), "source": row.text("dataset")},
    )
