"""What the leak gate knows of a failure: question, options, gold and the student's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from evals.extract import intervals, option_texts
from repro.ffr.readings import fold, words
from repro.ffr.teacher import Failure

#: Words that tell nothing of an option (chosen).
_SMALL_WORDS = """
    a an the this that these those it its he she his her him they them their we you i me my your
    of in on at to from by for with as into onto over under up down out off and or but so if
    then than is are was were be been being am do does did doing have has had having will would
    can could should may might must not no nor very just also too there here what which who whom
    whose when where why how all any both each few more most other some such only own same s t
"""
_EMPTY = frozenset(re.findall("[a-z]+", _SMALL_WORDS))


@dataclass(frozen=True)
class Case:
    """A failure in the gate's eyes.

    options: letter -> text, empty without options. letter, answer: the gold's letter, "" if there
    are no options, and its text. span: the gold interval in seconds, None where there is none.
    frames, seconds: what the student is shown. duration: of the clip in seconds.
    """

    question: str
    kind: str
    options: Mapping[str, str]
    letter: str
    answer: str
    span: tuple[float, float] | None
    student: str
    frames: int
    seconds: tuple[float, ...]
    duration: float

    @classmethod
    def of(cls, failure: Failure) -> Case:
        """Raises BadInput for options without letters."""
        record, clip = failure.record, failure.clip
        options = option_texts(record.options)
        letter = record.gold.strip()[:1] if options else ""
        answer = options.get(letter, "") if options else record.gold
        grounded = record.kind in ("temporal grounding", "grounded qa")
        spans = intervals(record.gold) if grounded else []
        span = spans[0] if spans else None
        if record.kind == "temporal grounding":
            answer = ""
        return cls(
            record.question, record.kind, options, letter, answer, span, failure.reply,
            len(clip.indices) if clip else 0, clip.seconds if clip else (),
            clip.duration if clip else 0.0,
        )  # fmt: skip

    @cached_property
    def stem(self) -> frozenset[str]:
        """Stems of the question's own words."""
        return frozenset(stems(self.question))

    @cached_property
    def said(self) -> frozenset[str]:
        """Stems of the student's words."""
        return frozenset(stems(self.student))

    @cached_property
    def telling(self) -> Mapping[str, frozenset[str]]:
        """Per option, the stems that tell it from the others and are not in the question."""
        texts = self.options or {"": self.answer}
        bags = {
            letter: frozenset(stems(text)) - _EMPTY - self.stem for letter, text in texts.items()
        }
        found = {}
        for letter, bag in bags.items():
            others = [other for key, other in bags.items() if key != letter]
            shared = {w for w in bag if others and sum(w in o for o in others) * 2 > len(others)}
            found[letter] = bag - shared or bag
        return found

    @property
    def others(self) -> Mapping[str, str]:
        """The wrong options."""
        return {k: v for k, v in self.options.items() if k != self.letter}


def stems(text: str) -> list[str]:
    """Words of a text without their endings, in order."""
    return [stem(word) for word in words(fold(text))]


@lru_cache(8192)
def stem(word: str) -> str:
    """A word without its common English ending: what `reds`, `reddish` and `redder` share."""
    word = word.removesuffix("'s")
    for ending in (
        "ishly",
        "ingly",
        "ness",
        "edly",
        "ish",
        "ing",
        "est",
        "ies",
        "es",
        "ed",
        "er",
        "ly",
        "s",
    ):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeious":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] in "ey" else word
