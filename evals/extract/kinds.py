"""Reads what stands inside answer tags, by kind of question: one reading, or `Unparsed`.

| kind               | accepted                                                              |
|--------------------|-----------------------------------------------------------------------|
| multiple choice    | a label, an option's text, or both, with or without "the answer is"   |
| numerical          | text with exactly one number (thousands commas allowed)               |
| temporal grounding | one bracketed pair, or exactly two times, in seconds or [hh:]mm:ss    |
| grounded qa        | a letter, then an interval                                            |
| ordering           | whole numbers with commas or spaces between, perhaps in brackets      |
| OCR, free-form     | the stripped text                                                     |

A JSON object, fenced or not, is read by its fields: option, answer, choice or result; start_time
and end_time, start and end, or a pair under time, timestamps, span or relevant_span.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from evals.extract.answers import Answer, Reader, Reading, Unparsed, option_texts


def read(text: str, kind: str, options: Sequence[str] = ()) -> Answer | Unparsed:
    """Read what stands inside answer tags (a gold, or a reply's block)."""
    return READERS[kind](text, options)


# --- text and JSON -----------------------------------------------------------------------------

_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)
#: Far above any answer; json.loads is only tried below it.
_MOST_JSON = 10_000
_SAYS_OPTION = ("option", "answer", "choice", "result")
_SAYS_SPAN = ("time", "timestamps", "span", "relevant_span", "interval")
_SAYS_ENDS = (("start_time", "end_time"), ("start", "end"))


#: Control characters but for white space, soft hyphens, zero-width and direction marks.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def clean(text: str) -> str:
    """Without characters that cannot be seen, white space kept."""
    return _INVISIBLE.sub("", text)


def json_object(text: str) -> dict[str, Any] | None:
    """The text as a JSON object, with or without a code fence; None where it is none."""
    text = text.strip()
    fenced = _FENCED.fullmatch(text)
    text = fenced[1] if fenced else text
    if not text.startswith("{") or len(text) > _MOST_JSON:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _field(content: str, names: Sequence[str]) -> str | None:
    """The one value that a JSON object gives under these names, as text."""
    given = json_object(content)
    values = [given[name] for name in names if name in given] if given else []
    if len(values) != 1 or not isinstance(values[0], str | int | float):
        return None
    return str(values[0])


def _span(content: str) -> str | None:
    """The interval of a JSON object as "[start, end]"."""
    given = json_object(content)
    if given is None:
        return None
    pairs = [given[name] for name in _SAYS_SPAN if name in given]
    pairs += [[given[a], given[b]] for a, b in _SAYS_ENDS if a in given and b in given]
    if len(pairs) != 1 or not isinstance(pairs[0], list) or len(pairs[0]) != 2:
        return None
    return f"[{pairs[0][0]}, {pairs[0][1]}]"


# --- multiple choice ---------------------------------------------------------------------------

_SAID = re.compile(
    r"(?i:(?:the\s+|my\s+)?(?:(?:correct|right|final|best)\s+)*"
    r"(?:answer|option|choice)\s*(?:is\b\s*:?|[:=])?\s*(?:option\s+)?)?"
    r"[(\[]?(?P<letter>[A-Za-z])(?![\w'])(?P<mark>\s*[)\].:,]*)(?P<rest>.*)",
    re.DOTALL,
)
#: A capital standing alone may name a second option; "A lover" and "I think" do not.
_LONE = re.compile(r"(?<![\w'])(?![AI]\s+[a-z])([A-Z])(?![\w'])")
DECORATION = " \t\r\n*_`\"'$"


def labels(options: Sequence[str]) -> dict[str, str]:
    """Label -> text of the printed options; without options, every capital with no text."""
    return option_texts(options) or dict.fromkeys(ascii_uppercase, "")


def same(said: str, text: str) -> bool:
    """Equal but for case, spacing and a closing full stop; an empty text equals nothing."""
    return plain(said) == plain(text) != ""


def plain(text: str) -> str:
    """In one case and spacing, without quotes, emphasis or a closing full stop."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.strip(DECORATION + ".").split())


def _letter(content: str, options: Sequence[str]) -> Reading:
    texts = labels(options)
    content = unicodedata.normalize("NFKC", clean(content))
    said = (_field(content, _SAYS_OPTION) or content).strip(DECORATION)
    named = {label for label, text in texts.items() if same(said, text)}
    match = _SAID.fullmatch(said)
    if match is not None:
        letter, rest = match["letter"], match["rest"].strip(DECORATION)
        if not rest:  # nothing but the label: it is the label, even where some text reads "b"
            letter = letter.upper()
            return Answer(letter) if letter in texts else Unparsed(f"no option {letter}")
        if letter in texts and (match["mark"].strip() or same(rest, texts[letter])):
            named |= {letter} | _also_named(rest, letter, texts)
    if len(named) == 1:
        return Answer(named.pop())
    if named:
        return Unparsed(f"ambiguous: {' or '.join(sorted(named))}")
    return Unparsed("no option letter" if said else "empty answer")


def _also_named(rest: str, letter: str, texts: Mapping[str, str]) -> set[str]:
    """Options other than `letter` that the words after it name, by text or by a lone capital."""
    if same(rest, texts[letter]):
        return set()
    by_text = {label for label, text in texts.items() if same(rest, text)}
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
    r"(?!\.*[0-9]|:|(?!s(?:ecs?|econds?)?\b)[A-Za-z_]"
    r"|\s*(?:ms?|min(?:ute)?s?|h(?:ours?|rs?)?|frames?)\b|\s*%)"
)
_TIME = re.compile(_CLOCK)
_QUOTED = rf"\s*[\"']?{_CLOCK}{_SECONDS}[\"']?\s*"
_PAIR = re.compile(rf"[\[(]{_QUOTED},{_QUOTED}[\])]")
#: An interval and nothing else.
BARE_INTERVAL = re.compile(
    rf"{_PAIR.pattern}|{_CLOCK}{_SECONDS}\s*(?:to|-|\u2013)\s*{_CLOCK}{_SECONDS}\.?"
)
#: What may stand between the letter of a grounded answer and its interval.
_GLUE = " ,;:-(["
_LINKS = ("from", "at", "between", "during", "in")


def _number(content: str, options: Sequence[str]) -> Reading:
    content = clean(_field(content, _SAYS_OPTION) or content)
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
    content = clean(_span(content) or content)
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


def intervals(gold: str) -> list[tuple[float, float]]:
    """Every bracketed pair of a gold, in seconds: a question may have several true windows."""
    return [
        (_seconds(first), _seconds(second))
        for first, second in (_TIME.findall(pair[0]) for pair in _PAIR.finditer(gold))
    ]


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
        alone = _letter(content, options)
        return replace(found, letter=alone.letter if isinstance(alone, Answer) else "")
    (start, end), before = found
    before = _field(content, _SAYS_OPTION) or before
    head, _, last = before.rstrip(_GLUE).rpartition(" ")
    choice = _letter(
        head.rstrip(_GLUE) if last.lower() in _LINKS else before.rstrip(_GLUE), options
    )
    if isinstance(choice, Unparsed):
        return choice
    return Answer(f"{choice.value} [{start}, {end}]", interval=(start, end))


_INDEX = re.compile(r"[0-9]{1,9}")


def _ordering(content: str, options: Sequence[str]) -> Reading:
    """`3, 7, 1`, `[3 7 1]`; any other sign between or beside the numbers makes it no answer."""
    said = clean(content).strip()
    if said.startswith("[") and said.endswith("]"):
        said = said[1:-1]
    numbers = [part.split() for part in said.split(",")]
    if not all(numbers) or not all(_INDEX.fullmatch(n) for part in numbers for n in part):
        return Unparsed("not a list of numbers" if said else "empty answer")
    return Answer(", ".join(str(int(n)) for part in numbers for n in part))


def _text(content: str, options: Sequence[str]) -> Reading:
    said = content.strip()
    return Answer(said) if said else Unparsed("empty answer")


READERS: Mapping[str, Reader] = {
    "multiple choice": _letter,
    "numerical": _number,
    "regression": _number,
    "OCR": _text,
    "free-form": _text,
    "temporal grounding": _grounding,
    "grounded qa": _grounded,
    "ordering": _ordering,
}
