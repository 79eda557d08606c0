"""Charades-STA: find the seconds at which a described action happens; 3,720 queries.

Score: mIoU, and R1 at IoU 0.3, 0.5 and 0.7 (>=); a reply without an interval has IoU 0. The hub's
copy stores times as float16 (24.3 became 24.297), so scores differ by up to 0.03 s of overlap. It
has no training split: that is read from the owner's charades_sta_train.txt, whose lines are
"VIDEO START END##sentence" (as its users describe it; the file was not seen).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, asked, written
from evals.types import Sample

CARD = Card(
    dataset="lmms-lab/charades_sta",
    seen="799008a",
    splits={"test": 3720, "train": 12408},
    licence="not seen",
    metrics=("grounding",),
    files=("*.parquet", "*.zip"),
    note="times are float16; lmms-eval merges rows of equal video, caption and time, we do not",
)
GOLDEN = Golden(
    row={"video": "AO8RW.mp4", "caption": "a person opens a door.", "timestamp": [0.5, 1.5]},
    protocol="temporal-r1",
    text='Give the query: "a person opens a door.", when does the described content occur in the '
    "video?.",
    gold="[0.5, 1.5]",
)


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    patterns = (f"data/{split}-*.parquet", f"{split}-*.parquet", f"{split}.json")
    owners = f"charades_sta_{split}.txt"
    if not files.find(*patterns) and files.find(owners):
        return [_line(text, where) for text, where in files.lines(owners)]
    return files.rows(*patterns, owners)


def _line(text: str, where: str) -> Record:
    head, _, caption = text.partition("##")
    video, *times = head.split() or [""]
    return Record({"video": video, "caption": caption, "timestamp": times}, where)


def sample(row: Record, files: Files) -> Sample:
    """Also of ActivityNet Captions, whose records have the same fields."""
    video, caption = row.text("video"), row.text("caption")
    media = files.media(video) if PurePosixPath(video).suffix else files.video(video)
    return Sample(
        id=f"{PurePosixPath(video).stem}/{row.where.rsplit(' ', 1)[-1]}",
        question=asked(caption),
        kind="temporal grounding",
        gold=written(row.spans("timestamp")),
        modality="video",
        media=media,
        cluster=video,
        facts={"caption": caption},
    )
