"""Video-MMMU: lectures of 6 disciplines, asked on three tracks of 300 questions.

Score: accuracy per track and their mean. The subset `question_only` asks the adaptation questions
with nothing but a 2-second clip of the question's image; with it the knowledge gain is
(adaptation - question_only) / (1 - question_only).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.extract import plain_float
from evals.types import Kind, Sample

TRACKS = ("perception", "comprehension", "adaptation")
_DISCIPLINES = {
    "Art": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine "
    "Pharmacy Public_Health",
    "Humanities": "History Literature Sociology Psychology",
    "Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics "
    "Energy_and_Power Materials Mechanical_Engineering",
}
DISCIPLINE = {subject: d for d, subjects in _DISCIPLINES.items() for subject in subjects.split()}
CARD = Card(
    dataset="lmms-lab/VideoMMMU",
    seen="3e9d51d",
    splits={"test": 900},
    subsets={**dict.fromkeys(TRACKS, 300), "question_only": 300},
    videos=300,
    licence="code MIT; of the data not seen",
    macro="track",
    metrics=("knowledge gain",),
    files=("*.parquet", "*.zip"),
    note="the question's image is the last frame: a frame law that skips it loses the question",
)
GOLDEN = Golden(
    row={
        "id": "validation_Art_1", "question": "Which style is <image 1>?",
        "options": ["Gothic", "Baroque"], "answer": "B", "link_selected": "", "image": None,
        "question_type": "multiple-choice", "track": "adaptation",
    },
    protocol="official",
    text="You should watch and learn the video content. Then apply what you learned to answer the "
    "following multi-choice question. The image for this question is at the end of the video.\n"
    "Which style is <image 1>?\nA. Gothic\nB. Baroque",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    for track in wanted or TRACKS:
        config = "Adaptation" if track == "question_only" else track.capitalize()
        for row in files.rows(f"{config}/{split}-*.parquet", f"{config}.json", f"{track}.json"):
            yield Record({**row, "track": track}, row.where)


def sample(row: Record, files: Files) -> Sample:
    name, track = row.text("id"), row.text("track")
    options = lettered(row.texts("options")) if row.get("options") else ()
    said = row.text("answer")
    kind: Kind = "multiple choice"
    if not options or row.get("question_type") == "open":
        options, kind = (), "free-form" if plain_float(said) is None else "numerical"
    media = files.video(f"{name}_image" if track == "question_only" else name)
    subject = "_".join(name.split("_")[1:-1])  # validation_Art_Theory_12
    about = {"subject": subject, "discipline": DISCIPLINE.get(subject, "")}
    form = {"adaptation": "adaptation", "question_only": "question_only"}.get(track, "lecture")
    return Sample(
        id=f"{track}/{name}",
        question=row.text("question"),
        kind=kind,
        gold=row.letter(options, "answer") if options else said,
        modality="video",
        media=media,
        options=options,
        cluster=name,
        tags={"track": track, **{key: value for key, value in about.items() if value}},
        form=form,
    )
