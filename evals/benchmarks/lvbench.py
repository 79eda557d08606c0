"""LVBench: 103 videos of more than an hour on average, some 15 questions each, six abilities.

Score: share of right letters. The options stand inside the question, as "(A) ..." lines; the
owner's own file lists the questions of each video under `qa`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="lmms-lab/LVBench",
    seen="a2ee023 (lmms-lab), 0caedb9 (zai-org, annotations only)",
    splits={"train": 1549},
    videos=103,
    licence="not seen",
    files=("data/*.parquet", "video_chunks/*.zip"),
    note="FFR asks a part of it that is not released",
)
GOLDEN = Golden(
    row={
        "key": "abc", "uid": "12", "question": "What is shown first?\n(A) sea\n(B) hill\n(C) snow",
        "answer": "C", "question_type": ["entity recognition"], "time_reference": "00:00-00:02",
    },
    protocol="lmms-eval",
    text="What is shown first?\n(A) sea\n(B) hill\n(C) snow\nAnswer the question with the option "
    "letter",
    gold="C",
)  # fmt: skip
_LINE = re.compile(r"\(([A-Z])\)\s*(.*)")


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    for row in files.rows("data/*.parquet", "video_info.meta.jsonl"):
        if "qa" not in row:
            yield row
            continue
        for n, asked in enumerate(row.objects("qa"), start=1):
            yield Record({**asked, "key": row.text("key")}, f"{row.where}, question {n}")


def sample(row: Record, files: Files) -> Sample:
    asked = row.text("question")
    matches = [_LINE.fullmatch(line.strip()) for line in asked.split("\n")]
    inside = [match[2] for match in matches if match]
    options = lettered(inside or row.texts("options"))
    question = "\n".join(
        line for line, match in zip(asked.split("\n"), matches, strict=True) if not match
    )
    video = row.text("video_path", "key")
    types = row.need("question_type", "type")
    abilities = [types] if isinstance(types, str) else row.texts("question_type", "type")
    return Sample(
        id=str(row.get("uid") or row.where.rsplit(" ", 1)[-1]),
        question=question,
        kind="multiple choice",
        gold=row.letter(options, "answer"),
        modality="video",
        media=files.media(video) if "." in video else files.video(video),
        options=options,
        cluster=video,
        tags=dict.fromkeys(abilities, "yes"),
        facts={"original": asked} if inside else {},
        form="inside" if inside else "",
    )
