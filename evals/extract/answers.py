"""What an extractor returns, and the parts of a reply that several extractors look at."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from evals.errors import BadInput

#: An order, not a probability (chosen): high = where it was asked for, or nothing else was said;
#: medium = stated in a sentence; low = the only reading that the text allows.
Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Answer:
    """What was read. `value` is its canonical text: a letter, a number as written, free text,
    `[start, end]`, or `letter [start, end]`. `number` is set for numerical and regression,
    `interval` (seconds, as said: it may be reversed) for the two grounded kinds.

    rule: what in the reply decided, as "answer block" or "stated". Two answers are equal when they
    say the same, whatever the rule.
    """

    value: str
    number: float | None = None
    interval: tuple[float, float] | None = None
    rule: str = field(default="", compare=False)
    confidence: Confidence = field(default="high", compare=False)

    @property
    def letter(self) -> str:
        """The option letter of a multiple choice or grounded qa answer."""
        return self.value[:1]


@dataclass(frozen=True)
class Unparsed:
    """No single answer could be read, and why. letter: the option that a reply to a grounded
    question names where there is no whole answer, as for want of an interval; Acc@QA counts it."""

    reason: str
    letter: str = field(default="", compare=False)


#: Where a tool draws an option at random, its grader here abstains with this reason.
DRAWS = "the tool draws an option at random here"

Reading = Answer | Unparsed
Reader = Callable[[str, Sequence[str]], Reading]


@dataclass(frozen=True)
class Grader:
    """A way of reading replies: kind of question -> reader of (reply, printed options).

    match: how the answer is compared with the gold (evals.grade.MATCHES). source: where the
    behaviour is described.
    """

    reads: Mapping[str, Reader]
    source: str
    match: str = "standard"


_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_BLOCK = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_OPTION = re.compile(r"\s*\(?([A-Z])(?:[).:]+\s*(.*)|\s*)", re.DOTALL)


def first_block(text: str) -> str | None:
    """Stripped text between the first `<answer>` and the first `</answer>` after it."""
    _, opened, rest = text.partition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    return inside.strip() if opened and closed else None


def blocks(text: str) -> list[str]:
    """What stands in the complete `<answer>` blocks, innermost where tags are nested."""
    return _BLOCK.findall(text)


def outside_think(reply: str) -> str:
    """The reply without its thinking. Thinking that is never closed swallows the rest; a
    `</think>` with no `<think>` before it closes thinking that the chat template opened.
    """
    head, closed, tail = reply.partition("</think>")
    if closed and "<think>" not in head:
        reply = tail
    return _THINK.sub("\n", reply)


def option_texts(options: Sequence[str]) -> dict[str, str]:
    """Label -> text of the printed option lines, {"A": "red"}. Raises BadInput without labels."""
    texts: dict[str, str] = {}
    for line in options:
        match = _OPTION.fullmatch(line)
        if match is None or match[1] in texts:
            raise BadInput(f"option {line!r} needs a letter of its own: write it like 'A. red'")
        texts[match[1]] = (match[2] or "").strip()
    return texts


def plain_float(text: str) -> float | None:
    """Python's own reading of a number, commas removed; None where it is none."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def said(value: str, rule: str) -> Answer:
    """The answer of a tool that does not say how sure it is."""
    return Answer(value, rule=rule, confidence="medium")
