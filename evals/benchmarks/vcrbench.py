"""VCR-Bench: questions in seven dimensions, each with the reasoning steps of a reference answer.

Score: share of right letters; open answers and the steps are judged by a language model in the
owner's protocol, which is not here: open answers get the grader's text score.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

CARD = Card(
    dataset="VLM-Reasoning/VCR-Bench",
    splits={"test": 1034},
    subsets={"mc": None, "open": None},
    videos=859,
    licence="not seen",
    macro="dimension",
    files=("v1/videos/*",),
    note="its score of reasoning steps needs a judge and is not reported here",
)
GOLDEN = Golden(
    row={
        "id": 3, "dimension": "Video Plot Analysis", "question": "Who wins?", "duration": 2.0,
        "multiple-choice": True, "choices": {"A": "Red", "B": "Blue"}, "answer": "A",
        "video_path": "clips/a.mp4", "reasoning": ["..."],
    },
    protocol="vlmevalkit",
    text="\nYou will be provided with 2 separate frames uniformly sampled from a video, the frames "
    "are provided in chronological order of the video.\nPlease analyze these images and provide "
    "the answer to the question about the video content.\nQuestion: Who wins?\nA. Red\nB. Blue\n"
    "Answer: ",
    gold="A",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    found = files.rows("meta_info_video.json")
    if len(set(wanted)) == 1:
        return [row for row in found if bool(row.get("multiple-choice")) == ("mc" in wanted)]
    return found


def sample(row: Record, files: Files) -> Sample:
    video, question = row.text("video_path"), row.text("question")
    options = lettered(row.texts("choices")) if row.get("multiple-choice") else ()
    seconds = row.number("duration")
    length = "0-60" if seconds <= 60 else "60-300" if seconds <= 300 else "300+"
    return Sample(
        id=row.text("id"),
        question=question,
        kind="multiple choice" if options else "free-form",
        gold=row.letter(options, "answer") if options else row.text("answer"),
        modality="video",
        media=files.media(video.lstrip("./")),
        options=options,
        cluster=video,
        tags={"dimension": row.text("dimension"), "length": length},
        facts={"duration": f"{seconds:g}", "original": "\n".join((question, *options))},
    )
