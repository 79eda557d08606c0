"""TempCompass: 410 short videos asked in four ways about five temporal aspects.

Score: accuracy per part and per aspect; the owner defines no number over the four parts.
`captioning` answers with a caption, from which the owner's protocol lets a language model answer
`mc_question`; without a judge it gets the grader's text score against the right option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

PARTS = {"multi-choice": 1580, "yes_no": 2453, "caption_matching": 1503, "captioning": 2004}
CARD = Card(
    dataset="lmms-lab/TempCompass",
    seen="c8a67d8",
    splits={"test": 7540},
    subsets=PARTS,
    videos=410,
    licence="CC BY-NC 4.0",
    macro="part",
    files=("*.parquet", "tempcompass_videos.zip"),
    note="one set of replies got 0 to 61 % from seven graders in use: say which grader",
)
GOLDEN = Golden(
    row={
        "video_id": "42", "question": "What is the man doing?\nA. running\nB. jumping",
        "answer": "A. running", "dim": "action", "part": "multi-choice",
    },
    protocol="official",
    text="What is the man doing?\nA. running\nB. jumping\nPlease directly give the best option:",
    gold="A",
)  # fmt: skip
#: "A. text", or the labels of caption matching: "Option 1: text", "Sentence A: text", ...
_LINE = re.compile(r"(?:[A-Z]\.|(?:Option|Sentence|Caption) [12AB]:)\s*(.*)")


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    for part in wanted or PARTS:
        for row in files.rows(f"{part}/{split}-*.parquet", f"{part}.json"):
            yield Record({**row, "part": part}, row.where)


def sample(row: Record, files: Files) -> Sample:
    part, video, asked = row.text("part"), row.text("video_id"), row.text("question")
    lines = asked.split("\n")
    matches = [_LINE.fullmatch(line.strip()) for line in lines]
    options: tuple[str, ...]
    if part == "yes_no":
        options, said = ("A. yes", "B. no"), row.text("answer").strip().strip(".").lower()
        gold = {"yes": "A", "no": "B"}.get(said, "")
    elif part == "captioning":
        options, gold = (), _text(row.text("mc_answer"))
    else:
        options = lettered(match[1] for match in matches if match)
        texts = [_text(row.text("answer")), row.text("answer").strip()]
        gold = next((o[0] for o in options if o[3:].strip() in texts), "")
        lines = [line for line, match in zip(lines, matches, strict=True) if not match]
    if not gold:
        raise row.bad_gold(f"`answer` {row.get('answer')!r} is none of the options")
    return Sample(
        id=f"{part}/{row.where.rsplit(' ', 1)[-1]}",
        question="\n".join(lines),
        kind="free-form" if part == "captioning" else "multiple choice",
        gold=gold,
        modality="video",
        media=files.video(video),
        options=options,
        cluster=video,
        tags={"part": part, "aspect": row.text("dim")},
        facts={"original": asked, "mc_question": str(row.get("mc_question") or "")},
        form=part,
    )


def _text(line: str) -> str:
    match = _LINE.fullmatch(line.strip())
    return (match[1] if match else line).strip()
