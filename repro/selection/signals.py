"""Task rewards of one reply, each in [0, 1], without a format term (temporal_r1.md 7, A5).

| kind of question   | signals                                                     |
|--------------------|-------------------------------------------------------------|
| temporal grounding | tiou                                                        |
| grounded qa        | accuracy (of the letter), tiou                              |
| any other          | accuracy: the score an evaluation gives                     |

Replies are read leniently (10.3): an untuned model rarely writes the form that training asks for,
and the spread of a strict score would be luck with the form.
"""

from __future__ import annotations

from collections.abc import Mapping

from evals.extract import Answer, Unparsed, extract
from evals.grade import grade, windows
from evals.metrics import best, tiou
from evals.types import Outcome, Row, Sample

GRADER = "reelproof"


def names(kind: str) -> tuple[str, ...]:
    """The signals of a kind of question."""
    return {"temporal grounding": ("tiou",), "grounded qa": ("accuracy", "tiou")}.get(
        kind, ("accuracy",)
    )


def of_reply(sample: Sample, text: str) -> dict[str, float]:
    """Signals of a reply; what cannot be read is 0. Raises BadInput for an unreadable gold."""
    if sample.kind not in ("temporal grounding", "grounded qa"):
        reading = extract(text, sample.kind, GRADER, sample.options)
        return {"accuracy": grade(reading, sample.gold, sample.kind, sample.options)}
    whole = extract(text, sample.kind, GRADER, sample.options)
    found = {"tiou": _overlap(sample, _part(whole, text, "temporal grounding", sample))}
    if sample.kind == "grounded qa":
        letter = _part(whole, text, "multiple choice", sample)
        right = isinstance(letter, Answer) and letter.letter == sample.gold.strip()[:1]
        found = {"accuracy": float(right), **found}
    return found


def _part(whole: Answer | Unparsed, text: str, kind: str, sample: Sample) -> Answer | Unparsed:
    """One half of a grounded answer; alone where the other half is missing."""
    return whole if isinstance(whole, Answer) else extract(text, kind, GRADER, sample.options)


def _overlap(sample: Sample, said: Answer | Unparsed) -> float:
    if isinstance(said, Unparsed) or said.interval is None:
        return 0.0
    return best(tiou, said.interval, windows(sample.gold, sample.kind, sample.options))


def of_row(sample: Sample, row: Row) -> Mapping[str, float]:
    """Signals of a row that kept its reply; one that was cut off scores 0 throughout."""
    if row.outcome == Outcome.TRUNCATED or row.reply is None:
        return dict.fromkeys(names(sample.kind), 0.0)
    return of_reply(sample, row.reply)
