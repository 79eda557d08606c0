"""NExT-GQA: causal and temporal questions whose answer must also be located in the video.

Score: Acc@QA (letter), Acc@GQA (letter and IoP >= 0.5), mIoP, IoP@0.3/0.5, mIoU, IoU@0.3/0.5, each
with the best of the true segments. The owner's script leaves missing predictions out; we do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered, written
from evals.types import Sample

CARD = Card(
    dataset="doc-doc/NExT-GQA",
    splits={"test": 5553, "val": 3358},
    videos=990,
    licence="repository MIT",
    macro="type",
    metrics=("grounded qa",),
    host="github",
    note="papers quote Acc without saying Acc@QA or Acc@GQA; videos are NExT-QA's",
)
GOLDEN = Golden(
    row={
        "video_id": "3238737531", "frame_count": "8", "width": "32", "height": "32",
        "question": "why did the boy stop", "answer": "to rest", "qid": "3", "type": "CW",
        "a0": "to drink", "a1": "to rest", "a2": "to wave", "a3": "to sing", "a4": "to run",
        "location": [[0.5, 1.0], [1.25, 1.75]], "duration": 2,
    },
    protocol="official",
    text="why did the boy stopOptions:\nA. to drink\nB. to rest\nC. to wave\nD. to sing\n"
    "E. to run\n\nPlease think about this question as if you were a human pondering deeply. Engage "
    "in an internal dialogue using expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', "
    "'let's break it down', etc, or other natural language thought expressions It's encouraged to "
    "include self-reflection or verification in the reasoning process. Provide your detailed "
    "reasoning between the <think> and </think> tags, and then give your final answer between the "
    "<answer> and </answer> tags. Please provide the single option letter followed by the start "
    "and end time in seconds (e.g., A [1.0, 2.5]) within the <answer> </answer> tags.",
    gold="B [0.5, 1] or [1.25, 1.75]",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    found = files.rows(f"nextgqa/{split}.csv", f"{split}.csv")
    where = Record(files.json(f"gsub_{split}.json"), f"gsub_{split}.json")
    for row in found:
        told = {}
        if (video := row.text("video_id")) in where:
            own = where.inner(video)
            told = {"location": own.inner("location").get(row.text("qid")),
                    "duration": own.get("duration")}  # fmt: skip
        yield Record({**row, **told}, row.where)


def sample(row: Record, files: Files) -> Sample:
    video = row.text("video_id")
    options = lettered(row.text(f"a{n}") for n in range(5))
    letter = row.matching(options, "answer")
    return Sample(
        id=f"{video}_{row.text('qid')}",
        question=row.text("question"),
        kind="grounded qa",
        gold=f"{letter} {written(row.spans('location'))}",
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"type": row.text("type")},
        facts={"duration": row.text("duration")},
    )
