"""Reads the answer out of a reply: an `Answer`, or `Unparsed` with the reason; never a guess.

| grader      | where it looks                                             | what it accepts       |
|-------------|------------------------------------------------------------|-----------------------|
| `reelproof` | the last complete `<answer>` block outside `<think>`; with | one reading of the    |
|             | no block, what is outside `<think>` if it is a bare answer | kind; with two it is  |
|             | ("B", "(B)", "B.", "Answer: B", "42", "[2, 5]")            | `Unparsed`            |
| `video-r1`  | the first `<answer>` block, else the whole reply (ktr.md   | the stripped string,  |
|             | 4.1: what the released evaluator does)                     | as it stands          |

Thinking that is opened and never closed swallows the rest. A `</think>` with no `<think>` before
it closes thinking that the chat template opened in the prompt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from evals.errors import BadInput


@dataclass(frozen=True)
class Answer:
    """What was read. `value` is its canonical text: a letter, a number as written, free text,
    `[start, end]`, or `letter [start, end]`. `number` is set for numerical and regression,
    `interval` (seconds, as said: it may be reversed) for the two grounded kinds.
    """

    value: str
    number: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def letter(self) -> str:
        """The option letter of a multiple choice or grounded qa answer."""
        return self.value[:1]


@dataclass(frozen=True)
class Unparsed:
    """No single answer could be read, and why."""

    reason: str


Reading = Answer | Unparsed
Reader = Callable[[str, Sequence[str]], Reading]
Grader = Callable[[str, str, Sequence[str]], Reading]


def extract(
    reply: str, kind: str, grader: str = "reelproof", options: Sequence[str] = ()
) -> Answer | Unparsed:
    """Read the answer of `kind` (evals.types.Kind) out of any text.

    options: the printed lines ("A. red"). A `reelproof` letter is always one of their labels;
    without options any capital letter counts. Raises BadInput for an unknown grader or kind and
    for options without a label, never because of `reply`.
    """
    if grader not in GRADERS:
        raise BadInput(f"unknown grader {grader!r}; known: {', '.join(GRADERS)}")
    if kind not in READERS:
        raise BadInput(f"unknown kind of question {kind!r}; known: {', '.join(READERS)}")
    return GRADERS[grader](reply, kind, options)


def read(text: str, kind: str, options: Sequence[str] = ()) -> Answer | Unparsed:
    """Read what stands inside answer tags (a gold, or a reply's block) by the `reelproof` rules."""
    return READERS[kind](text, options)


# --- where the answer stands -------------------------------------------------------------------

_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_BLOCK = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)


def first_block(text: str) -> str | None:
    """Stripped text between the first `<answer>` and the first `</answer>` after it."""
    _, opened, rest = text.partition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    return inside.strip() if opened and closed else None


def outside_think(reply: str) -> str:
    """The reply without its thinking (see the module's last paragraph)."""
    head, closed, tail = reply.partition("</think>")
    if closed and "<think>" not in head:
        reply = tail
    return _THINK.sub("\n", reply)


# --- multiple choice ---------------------------------------------------------------------------

_OPTION = re.compile(r"\s*\(?([A-Z])(?:[).:]+\s*(.*)|\s*)", re.DOTALL)
_SAID = re.compile(
    r"(?i:(?:the\s+|my\s+)?(?:(?:correct|right|final|best)\s+)*"
    r"(?:answer|option|choice)\s*(?:is\b\s*:?|[:=])?\s*(?:option\s+)?)?"
    r"[(\[]?(?P<letter>[A-Za-z])(?![\w'])(?P<mark>\s*[)\].:,]*)(?P<rest>.*)",
    re.DOTALL,
)
#: A capital standing alone may name a second option; "A lover" and "I think" do not.
_LONE = re.compile(r"(?<![\w'])(?![AI]\s+[a-z])([A-Z])(?![\w'])")
_BARE_LETTER = re.compile(r"(?i:answer\s*:\s*)?(?:[A-Z][.)]?|\([A-Z]\)\.?)")
_DECORATION = " \t\r\n*_`\"'$"


def option_texts(options: Sequence[str]) -> dict[str, str]:
    """Label -> text of the printed option lines, {"A": "red"}. Raises BadInput without labels."""
    texts: dict[str, str] = {}
    for line in options:
        match = _OPTION.fullmatch(line)
        if match is None or match[1] in texts:
            raise BadInput(f"option {line!r} needs a letter of its own: write it like 'A. red'")
        texts[match[1]] = (match[2] or "").strip()
    return texts


def _same(said: str, text: str) -> bool:
    """Equal but for case, spacing and a closing full stop; an empty text equals nothing."""
    plain = [" ".join(t.casefold().strip(_DECORATION + ".").split()) for t in (said, text)]
    return plain[0] == plain[1] != ""


def _letter(content: str, options: Sequence[str]) -> Reading:
    texts = option_texts(options) or dict.fromkeys(ascii_uppercase, "")
    said = content.strip(_DECORATION)
    named = {label for label, text in texts.items() if _same(said, text)}
    match = _SAID.fullmatch(said)
    if match is not None:
        letter, rest = match["letter"], match["rest"].strip(_DECORATION)
        if not rest:  # nothing but the label: it is the label, even where some text reads "b"
            letter = letter.upper()
            return Answer(letter) if letter in texts else Unparsed(f"no option {letter}")
        if letter in texts and (match["mark"].strip() or _same(rest, texts[letter])):
            named |= {letter} | _also_named(rest, letter, texts)
    if len(named) == 1:
        return Answer(named.pop())
    if named:
        return Unparsed(f"ambiguous: {' or '.join(sorted(named))}")
    return Unparsed("no option letter" if said else "empty answer")


def _also_named(rest: str, letter: str, texts: Mapping[str, str]) -> set[str]:
    """Options other than `letter` that the words after it name, by text or by a lone capital."""
    if _same(rest, texts[letter]):
        return set()
    by_text = {label for label, text in texts.items() if _same(rest, text)}
    return by_text | {label for label in _LONE.findall(rest) if label in texts}


# --- numbers and times -------------------------------------------------------------------------

_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+)?(?!\.?[0-9])"
)
_SECONDS = r"\s*(?:s|secs?|seconds?)?"
#: Seconds or [hh:]mm:ss; not a number of minutes, frames or per cent, nor part of another word.
_CLOCK = (
    r"(?<![\w.:])-?(?:(?:[0-9]+:)?[0-5]?[0-9]:[0-5][0-9](?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?!\.?[0-9]|:|(?!s(?:ecs?|econds?)?\b)[A-Za-z_]"
    r"|\s*(?:ms?|min(?:ute)?s?|h(?:ours?|rs?)?|frames?)\b|\s*%)"
)
_TIME = re.compile(_CLOCK)
_QUOTED = rf"\s*[\"']?{_CLOCK}{_SECONDS}[\"']?\s*"
_PAIR = re.compile(rf"[\[(]{_QUOTED},{_QUOTED}[\])]")
_BARE_NUMBER = re.compile(r"(?i:answer\s*:\s*)?[-+]?[0-9][0-9,]*(?:\.[0-9]+)?\.?")
_BARE_INTERVAL = re.compile(
    rf"{_PAIR.pattern}|{_CLOCK}{_SECONDS}\s*(?:to|-|\u2013)\s*{_CLOCK}{_SECONDS}\.?"
)
#: What may stand between the letter of a grounded answer and its interval.
_GLUE = " ,;:-(["
_LINKS = ("from", "at", "between", "during", "in")


def _number(content: str, options: Sequence[str]) -> Reading:
    found = _NUMBER.findall(content.replace("\N{MINUS SIGN}", "-"))
    values = {float(text.replace(",", "")) for text in found}
    if len(values) != 1:
        return Unparsed("ambiguous: several numbers" if values else "no number")
    value = values.pop()
    return Answer(found[0], number=value) if math.isfinite(value) else Unparsed("not finite")


def _seconds(clock: str) -> float:
    """12.5 -> 12.5, 1:05 -> 65, 1:02:03 -> 3723."""
    return sum(float(part) * 60.0**i for i, part in enumerate(reversed(clock.split(":"))))


def _interval(content: str) -> tuple[tuple[float, float], str] | Unparsed:
    """The one interval said, in seconds, and the text before it.

    One bracketed pair wins over loose numbers; otherwise there must be exactly two times.
    """
    content = " ".join(content.replace("\N{MINUS SIGN}", "-").split())
    pairs = list(_PAIR.finditer(content))
    start, end = pairs[0].span() if len(pairs) == 1 else (0, len(content))
    times = list(_TIME.finditer(content, start, end))
    if len(times) != 2:
        return Unparsed("ambiguous: several times" if len(times) > 2 else "no interval")
    if any(time[0].startswith("-") for time in times):
        return Unparsed("a time before the start")
    low = content.lower()
    if not pairs and -1 < low.find("end") < low.find("start"):
        return Unparsed("ambiguous: the end is named before the start")
    before = content[: start if pairs else times[0].start()]
    first, second = (_seconds(time[0]) for time in times)
    if not math.isfinite(first + second):
        return Unparsed("not finite")
    return (first, second), before


def _grounding(content: str, options: Sequence[str]) -> Reading:
    found = _interval(content)
    if isinstance(found, Unparsed):
        return found
    (start, end), _ = found
    return Answer(f"[{start}, {end}]", interval=(start, end))


def _grounded(content: str, options: Sequence[str]) -> Reading:
    """Letter first, then the interval: "B [2, 5]", "B, 2 to 5", "B. red circle from 2 to 5"."""
    found = _interval(content)
    if isinstance(found, Unparsed):
        return found
    (start, end), before = found
    head, _, last = before.rstrip(_GLUE).rpartition(" ")
    choice = _letter(
        head.rstrip(_GLUE) if last.lower() in _LINKS else before.rstrip(_GLUE), options
    )
    if isinstance(choice, Unparsed):
        return choice
    return Answer(f"{choice.value} [{start}, {end}]", interval=(start, end))


def _text(content: str, options: Sequence[str]) -> Reading:
    said = content.strip()
    return Answer(said) if said else Unparsed("empty answer")


# --- graders -----------------------------------------------------------------------------------


def _reelproof(reply: str, kind: str, options: Sequence[str]) -> Reading:
    spoken = outside_think(reply)
    blocks = _BLOCK.findall(spoken)
    if blocks:
        return read(blocks[-1], kind, options)
    bare = _BARE.get(kind)
    if bare is None or bare.fullmatch(spoken.strip()) is None:
        return Unparsed("no complete <answer> block")
    return read(spoken.strip(), kind, options)


def plain_float(text: str) -> float | None:
    """Python's own reading of a number, commas removed; None where it is none."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _video_r1(reply: str, kind: str, options: Sequence[str]) -> Reading:
    block = first_block(reply)
    said = reply.strip() if block is None else block
    if kind in ("temporal grounding", "grounded qa"):  # chosen: the family has neither
        return read(said, kind, options)
    if not said:
        return Unparsed("empty answer")
    return Answer(said, number=plain_float(said) if kind in ("numerical", "regression") else None)


READERS: Mapping[str, Reader] = {
    "multiple choice": _letter,
    "numerical": _number,
    "regression": _number,
    "OCR": _text,
    "free-form": _text,
    "temporal grounding": _grounding,
    "grounded qa": _grounded,
}
_BARE = {
    "multiple choice": _BARE_LETTER,
    "numerical": _BARE_NUMBER,
    "regression": _BARE_NUMBER,
    "temporal grounding": _BARE_INTERVAL,
}
GRADERS: Mapping[str, Grader] = {"reelproof": _reelproof, "video-r1": _video_r1}
