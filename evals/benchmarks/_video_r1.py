"""The subset `video-r1-eval` of a benchmark: its questions as Video-R1's own eval_<name>.json has
them, which the evaluation scripts of that family read (benchmarks.md 1). Only the files of MMVU and
Video-MMMU were seen, in a descendant's copy; the videos are the owner's.

A record has the fields of evals.benchmarks.jsonl. Its path is searched from its full length down to
the file's name, since every descendant has moved the folders above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from evals.benchmarks import Card, jsonl
from evals.benchmarks._records import Files, Record
from evals.types import Sample

SUBSET = "video-r1-eval"
#: Questions of each file; those of the files that nobody has seen are not known.
COUNTS = {
    "videommmu": 900, "mmvu": 625, "mvbench": None, "tempcompass": None, "videomme": None,
    "vsibench": None,
}  # fmt: skip


class Eval:
    """Stands where a benchmark's own module would: CARD, rows and sample."""

    def __init__(self, name: str, card: Card):
        self.name = name
        self.CARD = replace(card, subsets={SUBSET: COUNTS[name]}, macro="")

    def rows(self, files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
        return files.rows(f"eval_{self.name}.json")

    def sample(self, row: Record, files: Files) -> Sample:
        number = int(row.where.rsplit(" ", 1)[-1])
        found = jsonl.sample(dict(row), number, Path(row.where.split(", record")[0]), files.root)
        tags = {key: value for key, value in found.tags.items() if key != "data_source"}
        return replace(found, media=_media(row.text("path"), files), tags=tags)


def _media(path: str, files: Files) -> Path:
    parts = PurePosixPath(path).parts
    for first in range(len(parts)):
        found = files.media("/".join(parts[first:]))
        if files.holds(found):
            return found
    return files.root / path
