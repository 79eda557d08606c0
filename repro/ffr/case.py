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
_SMALL_PAIRS = (
    "一个 一本 一把 一只 一张 一条 一些 这个 那个 因为 为了 他的 她的 他们 我们 没有 可以 了一"
)
_EMPTY = frozenset([*re.findall("[a-z]+", _SMALL_WORDS), *_SMALL_PAIRS.split()])


@dataclass(frozen=True)
class Case:
    """A failure in the gate's eyes.

    options: letter -> text, empty without options. letter, answer: the gold's letter, "" if it
    names no option, and its text. spans: the gold intervals in seconds, any of which is right.
    frames, seconds: what the student is shown. duration: of the clip in seconds.
    """

    question: str
    kind: str
    options: Mapping[str, str]
    letter: str
    answer: str
    spans: tuple[tuple[float, float], ...]
    student: str
    frames: int
    seconds: tuple[float, ...]
    duration: float

    @classmethod
    def of(cls, failure: Failure) -> Case:
        """Raises BadInput for options without letters."""
        record, clip = failure.record, failure.clip
        options = option_texts(record.options)
        letter = _letter(record.gold, options)
        answer = options.get(letter, record.gold)
        grounded = record.kind in ("temporal grounding", "grounded qa")
        spans = tuple(intervals(record.gold)) if grounded else ()
        if record.kind == "temporal grounding":
            answer = ""
        return cls(
            record.question, record.kind, options, letter, answer, spans, failure.reply,
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
        texts = {**self.options, self.letter: self.answer}
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


def _letter(gold: str, options: Mapping[str, str]) -> str:
    """The gold's option, as it is read from `B`, `b`, `(B)`, `B. blue` and `blue`; "" for none."""
    found = re.match(r"\W*([A-Za-z])(?!\w)", gold)
    for name in (found[1], found[1].upper()) if found else ():
        if name in options:
            return name
    said = fold(gold).strip().lower()
    return next((k for k, text in options.items() if fold(text).strip().lower() == said), "")


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
