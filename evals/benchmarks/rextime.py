"""ReXTime: questions whose answer lies elsewhere in time than what they ask about.

Score: share of right letters; mIoU and R1 at IoU 0.3 and 0.5; both at once (letter and IoU >= 0.5).
Only the validation split can be scored: the answers of test are hidden and their server is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered, written
from evals.types import Sample

CARD = Card(
    dataset="ReXTime/ReXTime",
    splits={"val": 921},
    videos=696,
    licence="annotations CC BY-NC-SA 4.0; videos of ActivityNet and QVHighlights",
    macro="category",
    metrics=("grounded qa",),
    files=("*.json", "*.jsonl"),
    note="the videos are those of ActivityNet and QVHighlights, from their owners",
)
GOLDEN = Golden(
    row={
        "qid": "anet_val0", "question": "Why does he stop?", "vid": "v_abc", "duration": 2.0,
        "options": ["He rests.", "He sings.", "He falls.", "He reads."], "ans": "C",
        "span": [0.5, 1.5], "category": "cause-effect",
    },
    protocol="official",
    text="\nYou are tasked to complete the following logical reasoning task.\n1. Watch and breifly "
    "summarize the video.\n2. Given 50 video frames and a question, choose the most correct answer "
    "from the options.\n3. Find the time span in seconds that support your answer. The time span "
    "should be consistent with the option you choose.\n\nTotal Video Duration: 2 seconds\nQuestion:"
    " Why does he stop?\nOptions:\nA. He rests.\nB. He sings.\nC. He falls.\nD. He reads.\n\n"
    "<Provide your video summarize here.>\n<Provide your explaination to the question here.>\n"
    "Finish the following json structure strictly with your answer and supporting time span "
    "according your explaination.\n```json{\n    \"relevant_span\": <[start_time, end_time], in "
    'seconds, e.g. [3.0, 10.5]>,\n    "answer": <Option you choice from "A", "B", "C", "D".>\n'
    "}```\n",
    gold="C [0.5, 1.5]",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    """Questions; durations are in the owner's evaluation file, rextime_val.jsonl, if not here."""
    known = {}
    if files.find(f"rextime_{split}.jsonl"):
        known = {r["qid"]: r.get("duration") for r in files.rows(f"rextime_{split}.jsonl")}
    for row in files.rows(f"rextime_{split}.json", f"{split}.json", f"{split}-*.parquet"):
        yield Record({"duration": known.get(row.get("qid")), **row}, row.where)


def sample(row: Record, files: Files) -> Sample:
    video = row.text("vid")
    options = lettered(row.texts("options"))
    letter = row.letter(options, "ans")
    return Sample(
        id=row.text("qid"),
        question=row.text("question", "query"),
        kind="grounded qa",
        gold=f"{letter} {written(row.spans('span', 'relevant_windows'))}",
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"category": row.text("category", "source")},
        facts={} if row.get("duration") is None else {"duration": f"{row.number('duration'):g}"},
    )
