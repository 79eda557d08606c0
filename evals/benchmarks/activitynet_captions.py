"""ActivityNet Captions as temporal grounding: find the seconds that a caption describes.

Score: mIoU and R1 as for Charades-STA. The hub's copy stores times as float16 (0.25 s off beyond
512 s) and does not say which validation half it is: the literature takes val_2, 17,031 queries.
The other splits are read from the owner's train.json, val_1.json and val_2.json: by video, its
`timestamps` and `sentences` (as their users describe them; the files were not seen).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden, charades_sta
from evals.benchmarks._records import Files, Record
from evals.benchmarks.charades_sta import sample

__all__ = ("CARD", "GOLDEN", "rows", "sample")

CARD = Card(
    dataset="appletea2333/activity_tvg",
    splits={"test": None, "train": 37421, "val_1": 17505, "val_2": 17031},
    licence="not seen",
    metrics=("grounding",),
    files=("*.parquet", "*.zip"),
    note="say how many queries were asked: the release does not",
)
GOLDEN = Golden(
    row={"video": "v_abc.mp4", "caption": "He paints a fence.", "timestamp": [0.25, 1.0]},
    protocol="temporal-r1",
    text='Give the query: "He paints a fence.", when does the described content occur in the '
    "video?.",
    gold="[0.25, 1]",
)


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    if split == "test":
        yield from charades_sta.rows(files, split, wanted)
        return
    name = f"{split}.json"
    videos = Record(files.json(name), name)
    n = 0
    for video in videos:
        own = videos.inner(video)
        told = own.texts("sentences")
        times = own.need("timestamps")
        if not isinstance(times, list) or len(times) != len(told):
            raise own.fail(f"{video} has {len(told)} sentences and other than as many timestamps")
        for caption, span in zip(told, times, strict=True):
            n += 1
            yield Record({"video": video, "caption": caption.strip(), "timestamp": span},
                         f"{name}, record {n}")  # fmt: skip
