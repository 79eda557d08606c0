"""Parsers that several evaluators share: first capital, MMMU, lone letter, spoken interval."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from evals.extract.answers import DRAWS, Answer, Reader, Reading, Unparsed, option_texts, said

PREFIXES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is", "The correct option is", "Best answer:", "Best option:",
)  # fmt: skip


def first_capital(
    letters: str, prefixes: Sequence[str] = PREFIXES, otherwise: str = "no letter"
) -> Reader:
    """The first capital out of `letters` anywhere, also inside a word, once the prefixes are cut
    out wherever they stand ("Based on the video, C" is B).
    """

    def reads(reply: str, options: Sequence[str]) -> Reading:
        text = reply.strip()
        for prefix in prefixes:
            text = text.replace(prefix, "")
        match = re.search(f"[{letters}]", text)
        return said(match[0], "first capital") if match else Unparsed(otherwise)

    return reads


# --- lone letter -------------------------------------------------------------------------------

_DOTTED = re.compile(r"([A-E])\.\s*.+", re.IGNORECASE)
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_GROUPED = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_LONE = re.compile(r"\b([A-E])\b", re.IGNORECASE)


def mcq_letter(reply: str) -> str | None:
    """A leading "A.", else the first letter A to E that stands alone, in any case, punctuation
    removed or turned into spaces: the article "a" is option A (temporal_r1.md 4.3, E2).
    """
    text = reply.strip()
    dotted = _DOTTED.fullmatch(text)
    if dotted:
        return dotted[1].upper()
    given = text.replace("\n", " ").replace("\t", " ").strip()
    text, grouped = given, _GROUPED.search(given) is not None
    for mark in _PUNCTUATION:
        if mark not in text:
            continue
        spaced = grouped or f"{mark} " in given or f" {mark}" in given
        text = text.replace(mark, "" if spaced else " ")
    lone = _LONE.search(_STOP.sub("", text, count=32))
    return lone[1].upper() if lone else None


# --- MMMU --------------------------------------------------------------------------------------

#: How a label may stand in the text, and how its last place is looked up.
Form = tuple[str, str]
BRACKETS: Form = ("({})", "({})")
SPACE: Form = ("{} ", " {} ")
PERIOD: Form = ("{}.", " {} ")


def mmmu_choice(steps: Sequence[Sequence[Form]], otherwise: str = DRAWS) -> Reader:
    """The multiple choice parser of MMMU: labels in the first form that occurs, else option texts
    (in replies of more than five words); of several, the one said last.

    steps: forms tried in order; forms of one step count together.
    """

    def reads(reply: str, options: Sequence[str]) -> Reading:
        texts = option_texts(options)
        for mark in ",.!?;:'":
            reply = reply.strip(mark)
        text = f" {reply} "
        for step in steps:
            found = [
                (label, form) for form in step for label in texts if form[0].format(label) in text
            ]
            if found:
                form = found[0][1]
                return _last([(text.rfind(form[1].format(label)), label) for label, _ in found])
        if len(text.split()) > 5:
            low = text.lower()
            named = [label for label, option in texts.items() if option.lower() in low]
            if named:
                return _last([(low.rfind(texts[label].lower()), label) for label in named])
        return Unparsed(otherwise)

    return reads


def _last(candidates: Sequence[tuple[int, str]]) -> Answer:
    """The label at the last place; the first of equal ones."""
    return said(max(candidates, key=lambda each: each[0])[1], "last candidate")


_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_KEYS = (
    "could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "are ",
    "in total ", "total ", "identify ", "recognize ", "calculated as ", "counted as ",
    "measured as ", "observed as ", "concluded as ", "found to be ", "equals ",
    "determined to be ", "number of ", "value is ", "adds up to ", "have ", "has ",
)  # fmt: skip
_TRIVIAL = frozenset(":,.!?;'")


def mmmu_open(reply: str) -> list[str | float]:
    """The open parser of MMMU: of every line the shortest tail after a key phrase, else the whole
    reply; the numbers in it; strings in lower case, numbers at two decimals.
    """
    text = reply.strip().strip(".").lower()
    lines = re.split(r"\.\s(?=[A-Z])|\n", text)
    tails = []
    for number, line in enumerate(lines, 1):
        keys = (*_KEYS, "=") if number == len(lines) else _KEYS
        ends = [line.split(key)[-1].strip() for key in keys if key in line]
        # An empty tail is replaced by whatever comes next, then only by shorter ones.
        shortest = ""
        for end in ends:
            if not shortest or len(end) < len(shortest):
                shortest = end
        if shortest and shortest not in _TRIVIAL:
            tails.append(shortest)
    parts = tails or [text]
    parts = parts + [n for part in parts for pattern in _NUMBERS for n in pattern.findall(part)]
    return [value for part in parts for value in mmmu_normal(part)]


def mmmu_normal(text: str) -> list[str | float]:
    """A number at two decimals, or the text in lower case; a lone character only beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except (ValueError, OverflowError):
        low = text.lower()
        return [f" {low}", f"{low} "] if len(low) == 1 else [low]


def mmmu_open_reader(reply: str, options: Sequence[str]) -> Reading:
    """The whole reply, which `mmmu-open` compares part by part; an empty one is no answer."""
    return said(reply, "key phrases") if reply else Unparsed("empty answer")


# --- spoken intervals --------------------------------------------------------------------------

_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"
_KEYWORDS = ("start", "end", "happen")
_SENTENCE_NUMBER: Mapping[bool, re.Pattern[str]] = {
    True: re.compile(r"\b(\d+\.\d+\b|\b\d+)\b"),
    False: re.compile(r"\b(\d+(?:\.\d+)?)\b"),
}
_DASHED: Mapping[bool, re.Pattern[str]] = {
    True: re.compile(r"(\d+\.*\d*)\s*-\s*(\d+\.*\d*)"),
    False: re.compile(r"(\d+(?:\.\d+)?)\s*[–-]\s*(\d+(?:\.\d+)?)"),
}
_LOOSE = re.compile(r"(\d+(?:\.\d+)?)\s*s?\s*[–-]\s*(\d+(?:\.\d+)?)\s*s?")


def released_interval(reply: str, *, everywhere: bool) -> Reading:
    """The interval parser of the Charades-STA scripts (temporal_r1.md 4.2): "to" becomes "-"
    everywhere, then the first "number - number"; else the first number of each sentence with a
    start, end or happen word, in pairs. Reversed ends are swapped.

    everywhere: Temporal-R1's copy looks for the dash in the whole reply and stops scoring on
    "1..5 - 3" (here: unparsed); lmms-eval's looks only in sentences with such a word and then also
    accepts "2s - 5s".
    """
    text = reply.lower().replace(_EXAMPLE, "").replace("to", "-")
    candidates = [s for s in re.split(r"[!?\n]", text) if any(word in s for word in _KEYWORDS)]
    dashed = _DASHED[everywhere]
    for part in [text] if everywhere else candidates:
        match = dashed.search(part)
        if match:
            return _ordered(match[1], match[2], "number - number")
    numbers = _SENTENCE_NUMBER[everywhere]
    firsts = [found[0] for part in candidates if (found := numbers.findall(part))]
    if len(firsts) > 1:
        return _ordered(firsts[0], firsts[1], "first number of two sentences")
    for part in () if everywhere else candidates:
        match = _LOOSE.search(part)
        if match:
            return _ordered(match[1], match[2], "number s - number s")
    return Unparsed("no interval")


def _ordered(first: str, second: str, rule: str) -> Reading:
    try:
        low, high = sorted((float(first), float(second)))
    except ValueError:
        return Unparsed(f"{first} or {second} is no number; the released scorer stops here")
    return Answer(f"[{low}, {high}]", interval=(low, high), rule=rule, confidence="medium")
