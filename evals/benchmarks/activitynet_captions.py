"""ActivityNet Captions as temporal grounding: find the seconds that a caption describes.

Score: mIoU and R1 as for Charades-STA. The hub's copy stores times as float16 (0.25 s off beyond
512 s) and does not say which validation half it is: the literature takes val_2, 17,031 queries.
"""

from __future__ import annotations

from evals.benchmarks import Card, Golden
from evals.benchmarks.charades_sta import rows, sample

__all__ = ("CARD", "GOLDEN", "rows", "sample")

CARD = Card(
    dataset="appletea2333/activity_tvg",
    splits={"test": None},
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
