"""MMVU: expert questions in 27 subjects; 625 with five options ("MMVU (mc)"), 375 open.

Score: share of right letters on `mc`. Open answers are judged by a language model in the owner's
protocol; without a judge they get the grader's text score.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

_DISCIPLINES = {
    "Science": "Biology Chemistry Modern_Physics Astronomy Geography Materials_Science "
    "Neurobiology Electromagnetism Thermodynamics Mechanics",
    "Engineering": "Civil_Engineering Electrical_Engineering Mechanical_Engineering "
    "Biomedical_Engineering Electronics_and_Communication Computer_Science",
    "Healthcare": "Clinical_Medicine Basic_Medicine Preventive_Medicine Pharmacy Dentistry",
    "Humanities": "Art Literature History Law Economics Management",
}
DISCIPLINE = {subject: d for d, subjects in _DISCIPLINES.items() for subject in subjects.split()}
_TYPES = {"mc": "multiple-choice", "open": "open-ended"}
CARD = Card(
    dataset="yale-nlp/MMVU",
    seen="b937f41",
    splits={"validation": 1000},
    subsets={"mc": 625, "open": 375},
    videos=583,
    licence="not seen",
    macro="discipline",
    files=("validation.json", "videos/*"),
    note="scores on all questions are about 10 points below those on mc; labels of test are hidden",
)
GOLDEN = Golden(
    row={
        "id": "validation_1", "video": "https://host/resolve/main/videos/Chemistry/0.mp4",
        "youtube_url": "", "question_type": "multiple-choice",
        "metadata": {"subject": "Chemistry", "textbook": "", "rationale": "", "knowledge": []},
        "question": "Which gas forms?", "answer": "C",
        "choices": {"A": "Oxygen", "B": "Helium", "C": "Chlorine", "D": "Neon", "E": "Argon"},
    },
    protocol="official",
    text="\nQuestion: Which gas forms?\nA: Oxygen\nB: Helium\nC: Chlorine\nD: Neon\nE: Argon\n\n"
    "Answer the given multiple-choice question step by step. Begin by explaining your reasoning "
    "process clearly. Conclude by stating the final answer using the following format: 'Therefore, "
    "the final answer is: $LETTER' (without quotes), where $LETTER is one of the options. Think "
    "step by\nstep before answering.",
    gold="C",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> list[Record]:
    types = {_TYPES[part] for part in wanted}
    found = files.rows(f"{split}.json", f"{split}-*.parquet")
    return [row for row in found if not types or row.need("question_type") in types]


def sample(row: Record, files: Files) -> Sample:
    choice = row.text("question_type") == "multiple-choice"
    options = lettered(row.texts("choices")) if choice else ()
    video = "/".join(row.text("video", "video_path").rsplit("/", 2)[-2:])
    subject = row.inner("metadata").text("subject").replace(" ", "_")
    about = {"subject": subject, "discipline": DISCIPLINE.get(subject, "")}
    return Sample(
        id=row.text("id"),
        question=row.text("question"),
        kind="multiple choice" if choice else "free-form",
        gold=row.letter(options, "answer") if choice else row.text("answer"),
        modality="video",
        media=files.media(video),
        options=options,
        cluster=video,
        tags={
            "type": "mc" if choice else "open",
            **{key: value for key, value in about.items() if value},
        },
    )
