"""Compares an extracted answer with the gold, as the grader's tool does.

| match         | compares                                                                      |
|---------------|-------------------------------------------------------------------------------|
| `standard`    | letters; orderings; numbers at two decimals; MRA `<=`; 1 - WER; ROUGE; tIoU   |
| `same text`   | the strings                                                                   |
| `video-r1`    | the strings; numbers behind the decimal gate; MRA `<`; text always 0          |
| `onethinker`  | as video-r1, but free-form is ROUGE and intervals are standard                |
| `vsibench`    | the strings in any case; MRA `<=`, an unusable number scores 0                |
| `mvbench`     | first words, substring in either direction                                    |
| `mmmu-open`   | any key phrase or number of the reply against the gold; letters are standard  |
| `mmvu-loose`  | lmms-eval's rules for MMVU                                                    |
| `acc@gqa`     | the letter, and IoP >= 0.5                                                    |
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from evals.errors import BadInput
from evals.extract import Answer, Unparsed, intervals, option_texts, plain_float, read
from evals.extract import named as grader_named
from evals.extract.shared import mmmu_normal, mmmu_open
from evals.metrics import Interval, best, iop, mra, rouge, tiou, word_error_rate

GROUNDED = ("temporal grounding", "grounded qa")


@dataclass(frozen=True)
class Gold:
    """What an answer is compared with: the gold's text, and how intervals count."""

    text: str
    kind: str
    options: Sequence[str]
    least: float
    overlap: str

    def read(self) -> Answer:
        """The gold as an answer. Raises BadInput where it cannot be read."""
        truth = _read(self.text, self.kind, tuple(self.options))
        if isinstance(truth, Unparsed):
            raise BadInput(
                f"gold {self.text!r} of a {self.kind} question cannot be read: {truth.reason}"
            )
        return truth

    def number(self) -> float:
        """The gold as Python reads it. Raises BadInput where it is no number."""
        number = plain_float(self.text)
        if number is None:
            raise BadInput(f"gold {self.text!r} of a {self.kind} question is not a number")
        return number


@lru_cache(maxsize=4096)
def _read(text: str, kind: str, options: tuple[str, ...]) -> Answer | Unparsed:
    """As `read`; a gold is compared with many replies and by many graders."""
    return read(text, kind, options)


#: (answer, gold) -> score in [0, 1].
Match = Callable[[Answer, Gold], float]


def grade(
    answer: Answer | Unparsed,
    gold: str,
    kind: str,
    options: Sequence[str] = (),
    iou: float = 0.5,
    grader: str = "reelproof",
    overlap: str = "iou",
) -> float:
    """Score in [0, 1] of an extracted answer; `Unparsed` scores 0.

    iou: from what overlap an interval counts. overlap: whether that is its IoU or (iop) its IoP.
    gold: of the two grounded kinds it may hold several bracketed windows; the best one counts.
    Raises BadInput for a gold that cannot be read and for an unknown grader.
    """
    match = MATCHES[grader_named(grader).match]
    if isinstance(answer, Unparsed):
        return 0.0
    return match(answer, Gold(gold, kind, options, iou, overlap))


def windows(gold: str, kind: str, options: Sequence[str] = ()) -> list[Interval]:
    """The true intervals of a grounded gold, in seconds. Raises BadInput where it has none."""
    several = intervals(gold)
    if len(several) > 1:
        return several
    truth = Gold(gold, kind, options, 0.0, "iou").read()
    assert truth.interval is not None, "grounded golds carry an interval"
    return [truth.interval]


def _standard(answer: Answer, gold: Gold) -> float:
    if gold.kind in GROUNDED:
        return _grounded(answer, gold)
    truth = gold.read()
    if gold.kind in ("multiple choice", "ordering"):
        return float(answer.value == truth.value)
    if gold.kind == "OCR":
        return max(0.0, 1.0 - word_error_rate(truth.value, answer.value))
    if gold.kind == "free-form":
        # ROUGE-2 of a single word is 0, also against itself.
        return 1.0 if answer.value == truth.value else rouge(truth.value, answer.value)
    assert answer.number is not None and truth.number is not None, "numeric answers carry a number"
    if gold.kind == "numerical":
        return float(round(answer.number, 2) == round(truth.number, 2))
    return mra(answer.number, truth.number, "official")


def _grounded(answer: Answer, gold: Gold) -> float:
    assert answer.interval is not None, "grounded answers carry an interval"
    found = windows(gold.text, gold.kind, gold.options)
    if gold.kind == "grounded qa" and answer.letter != gold.text.strip()[:1]:
        return 0.0
    measure = iop if gold.overlap == "iop" else tiou
    return float(best(measure, answer.interval, found) >= gold.least)


def _acc_gqa(answer: Answer, gold: Gold) -> float:
    return _standard(answer, replace(gold, overlap="iop", least=0.5))


def _same_text(answer: Answer, gold: Gold) -> float:
    return float(answer.value == gold.text.strip())


# --- the Video-R1 family -----------------------------------------------------------------------


def _video_r1(answer: Answer, gold: Gold) -> float:
    """The released evaluator of the family (ktr.md 4.1)."""
    if gold.kind in (*GROUNDED, "ordering"):  # chosen: the family has none of them
        return _standard(answer, gold)
    if gold.kind == "multiple choice":
        return _same_text(answer, gold)
    if gold.kind == "numerical":
        return float(same_number_video_r1(answer.value, gold.text.strip()))
    if gold.kind == "regression":
        prediction, truth = plain_float(answer.value), gold.number()
        return 0.0 if prediction is None else mra(prediction, truth, "video-r1")
    return 0.0


def same_number_video_r1(said: str, gold: str) -> bool:
    """Equal after removing commas and rounding to 2 decimals, but only if both strings or
    neither contain "." or "," ("3.0" is not "3"). Text that is no number equals nothing.
    """
    if any(c in said for c in ".,") != any(c in gold for c in ".,"):
        return False
    a, b = plain_float(said), plain_float(gold)
    return a is not None and b is not None and round(a, 2) == round(b, 2)


def _onethinker(answer: Answer, gold: Gold) -> float:
    return (_standard if gold.kind == "free-form" else _video_r1)(answer, gold)


# --- owners and other harnesses ----------------------------------------------------------------


def _vsibench(answer: Answer, gold: Gold) -> float:
    if gold.kind == "multiple choice":
        return float(answer.value.lower() == gold.text.strip().lower())
    truth = gold.number()
    return 0.0 if answer.number is None else mra(answer.number, truth, "official")


def _mvbench(answer: Answer, gold: Gold) -> float:
    """The gold's first word is its label in brackets, in lower case: "(a)"."""
    label = f"({gold.read().letter.lower()})"
    return float(answer.value.replace(".", "") in label or label in answer.value)


def _mmmu(answer: Answer, gold: Gold) -> float:
    if gold.kind == "multiple choice":
        return _standard(answer, gold)
    wanted = mmmu_normal(gold.text)
    for part in mmmu_open(answer.value):
        if isinstance(part, str):
            if any(isinstance(w, str) and w in part for w in wanted):
                return 1.0
        elif part in wanted:
            return 1.0
    return 0.0


_SUPERSCRIPTS = {ord(c): f"^{n}" for n, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_BIG_O = re.compile(r"O\s*\([^)]+\)", re.IGNORECASE)


def _mmvu(answer: Answer, gold: Gold) -> float:
    if gold.kind == "multiple choice":
        texts = option_texts(gold.options)
        return float(_mmvu_choice(answer.value.strip(), gold.text.strip(), texts))
    return float(_mmvu_open(answer.value, gold.text))


def _mmvu_choice(said: str, gold: str, texts: Mapping[str, str]) -> bool:
    """The gold letter anywhere as a word, in any case ("a tree" names A); or its option's text; or
    the letter inside any word together with any longer word of that text.
    """
    if re.search(rf"\b{re.escape(gold)}\b", said, re.IGNORECASE):
        return True
    if gold not in texts:
        return False
    text, low = texts[gold].strip().lower(), said.lower()
    if text in low:
        return True
    words = [w for word in text.split() if len(w := word.strip(string.punctuation)) > 2]
    return gold.upper() in said.upper() and any(word in low for word in words)


def _mmvu_open(said: str, gold: str) -> bool:
    """Either text inside the other (so "" is right); equal first numbers; all longer words of a
    short gold; equal O(...).
    """
    said, gold = (
        " ".join(t.strip().lower().translate(_SUPERSCRIPTS).split()) for t in (said, gold)
    )
    if gold in said or said in gold:
        return True
    numbers = [re.findall(r"\d+\.?\d*", text) for text in (said, gold)]
    if all(numbers) and abs(float(numbers[0][0]) - float(numbers[1][0])) < 0.01:
        return True
    heard, wanted = (
        [w for word in text.split() if (w := word.strip(string.punctuation))]
        for text in (said, gold)
    )
    if 2 <= len(wanted) <= 5 and all(w in heard for w in wanted if len(w) > 2):
        return True
    orders = [_BIG_O.search(text) for text in (said, gold)]
    return all(orders) and len({order[0].lower() for order in orders if order}) == 1


MATCHES: Mapping[str, Match] = {
    "standard": _standard,
    "same text": _same_text,
    "video-r1": _video_r1,
    "onethinker": _onethinker,
    "vsibench": _vsibench,
    "mvbench": _mvbench,
    "mmmu-open": _mmmu,
    "mmvu-loose": _mmvu,
    "acc@gqa": _acc_gqa,
}
