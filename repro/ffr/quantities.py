"""Numbers in a patch: frames and times it may declare, counts and intervals it may not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from repro.ffr.case import Case
from repro.ffr.patch import Patch
from repro.ffr.readings import decoded, fold, readings, words

#: A declared window may not agree with the gold interval beyond this IoU (chosen).
CLOSEST = 0.6
#: A time said alone is an end of the gold interval within this share of the clip (chosen).
NEAR = 0.03

_WORDS = {
    0: "zero none nil nought zilch null cero",
    1: "one single sole lone solitary once uno eins",
    2: "two pair couple duo double twice both deux dos zwei due twin",
    3: "three trio triple thrice triplet tres trois drei tre third",
    4: "four quartet quadruple cuatro quatre vier quattro fourth quad",
    5: "five quintet cinco cinq cinque fifth quintuple",
    6: "six sextet seis sechs sixth", 7: "seven siete sept sieben seventh",
    8: "eight octet ocho huit acht eighth", 9: "nine nueve neuf neun ninth",
    10: "ten diez dix zehn tenth", 11: "eleven eleventh", 12: "twelve dozen twelfth",
    13: "thirteen", 14: "fourteen", 15: "fifteen", 16: "sixteen", 17: "seventeen",
    18: "eighteen", 19: "nineteen", 20: "twenty score", 30: "thirty", 40: "forty", 50: "fifty",
    60: "sixty", 70: "seventy", 80: "eighty", 90: "ninety", 100: "hundred", 1000: "thousand",
}  # fmt: skip
NUMBER = {word: float(n) for n, said in _WORDS.items() for word in said.split()}
_ROMAN = {
    "II": 2.0,
    "III": 3.0,
    "IV": 4.0,
    "VI": 6.0,
    "VII": 7.0,
    "VIII": 8.0,
    "IX": 9.0,
    "XI": 11.0,
}
_N = r"\d+(?:\.\d+)?"
_RANGE = rf"{_N}(?:\s*(?:,|-|to|and|through|until|or)\s*(?:and\s+)?{_N})*"
_FRAMES = re.compile(rf"\bframes?\s*(?:no\.?|numbers?|#|index|indices)?\s*({_RANGE})", re.I)
_UNIT = r"(?:(?:s|sec|secs|seconds?|ms)\b)"
_TIMES = re.compile(
    rf"\bt\s*=\s*({_N})\s*{_UNIT}?"
    rf"|\b({_N})\s*{_UNIT}?\s*(?:-|to|and|until|through)\s*({_N})\s*{_UNIT}"
    rf"|\b({_N})\s*{_UNIT}|\b(\d+:\d\d(?::\d\d)?)\b",
    re.I,
)
_BOX = re.compile(rf"\[\s*{_N}(?:\s*,\s*{_N}){{3}}\s*\]|\b\d+(?:\.\d+)?\s*(?:%|percent\b)")
#: Where "one" and "second" are no numbers.
_IDLE = re.compile(
    r"\b(?:each|every|no|any|some|this|that|which|another|the other|by|at least) one\b"
    r"|\bone(?:s| by one| at a time| after (?:the other|another)| another| side| end| more look"
    r"| frame| glance| moment| place| part| point| of the\b)"
    r"|\b(?:a|per|each|every|split|half a|last|final|next) second\b"
    r"|\b(?:first|second|third|fourth|last) "
    r"(?:half|quarter|third|part|frame|section|segment|moment|look|time|pass|few|stretch)s?\b"
    r"|\bfrom (?:one|the first)\b|\bat once\b"
    r"|\b(?:third|quarter|half) of the (?:clip|video|film|frame)\b",
    re.I,
)
_TALLY = re.compile(
    r"(?:[|•*#✓●○■▲x]\s?){2,}(?![a-z])|\banother\b.*\banother\b"
    r"|\b(\w{3,})\b(?:,| and) (?:a |an |the )?\1\b",
    re.I,
)
_LIKE = re.compile(
    r"\bnumber of (?:sides|corners|fingers|legs|wheels|days|months|seasons|letters|eyes|hands)\b"
    r"|\b(?:plus|minus|squared|halved|doubled|tripled) \b"
    r"|\b(?:more|fewer|less|greater|higher|lower) than you\b"
    r"|\b(?:over|under)\s?-?count(?:ed)?\b|\btoo (?:many|few|high|low)\b",
    re.I,
)  # fmt: skip


def values(text: str) -> Iterator[float]:
    """Numbers of a folded text, in digits, words and Roman numerals; frames and times included."""
    for found in re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*", text):
        yield float(found.replace(",", "")) if found.count(".") <= 1 else 0.0
    said = words(text)
    for word, after in itertools.zip_longest(said, said[1:], fillvalue=""):
        if word in NUMBER:
            tens = NUMBER[word]
            yield (
                tens + NUMBER[after] if 20 <= tens < 100 and 0 < NUMBER.get(after, 0) < 10 else tens
            )
    yield from (_ROMAN[w] for w in re.findall(r"\b[IVX]{2,4}\b", text) if w in _ROMAN)


def golds(case: Case) -> set[float]:
    """Numbers that the gold says and the question does not."""
    return set(values(fold(case.answer))) - set(values(fold(case.question)))


def asks_how_many(case: Case) -> bool:
    """Whether the answer is a number: by kind, or because every option is one."""
    if case.kind in ("numerical", "regression"):
        return True
    return bool(case.options) and all(list(values(fold(t))) for t in case.options.values())


def counts(patch: Patch, case: Case) -> str | None:
    """(d) A gold number outside declared frames and times; any number where one is asked for."""
    wanted = golds(case)
    counting = asks_how_many(case)
    if case.span is not None or not (wanted or counting):
        return None
    timed = bool(re.search(rf"{_N}\s*{_UNIT}|\d:\d\d|\bframe", case.answer, re.I))
    plain, *others = readings(patch.words)
    if counting and not timed and (wrong := undeclared(plain, patch, case)):
        return wrong
    if counting and not timed and _TALLY.search(patch.words):  # before signs become names
        return "a tally where a number is asked for"
    # Digits count as said or decoded: a respelling would hide which of them are frames.
    respelled = [re.sub(r"[\d:]+", " ", way) for way in others]
    for way in (plain, *respelled, *decoded(patch.words)):
        rest = way if timed else _IDLE.sub(" ", _placeless(way))
        found = set(values(rest))
        if found & wanted:
            return "a gold number"
        if counting and not timed and (found - {1.0} or _TALLY.search(rest) or _LIKE.search(rest)):
            return "a count where a number is asked for"
    return None


def _placeless(text: str) -> str:
    for pattern in (_BOX, _FRAMES, _TIMES):
        text = pattern.sub(" ", text)
    return text


def undeclared(text: str, patch: Patch, case: Case) -> str | None:
    """A frame that the words name but the lists do not, or a time outside the clip."""
    known = [*patch.key_frames, *(r.frame for r in patch.regions)]
    for frame in frames_said(text):
        if not known or not min(known) <= frame <= max(known):
            return "a frame number that is not declared"
    if any(t > case.duration + 0.5 for t in times_said(text)):
        return "a time outside the clip"
    return None


def frames_said(text: str) -> list[int]:
    """Frame numbers that the words name."""
    return [int(float(n)) for m in _FRAMES.finditer(text) for n in re.findall(_N, m[1])]


def times_said(text: str) -> list[float]:
    """Times that the words name, in seconds."""
    found = []
    for match in _TIMES.finditer(text):
        for part in match.groups():
            if part is None:
                continue
            seconds = 0.0
            for piece in part.split(":"):
                seconds = 60 * seconds + float(piece)
            found.append(seconds)
    return found


def interval(patch: Patch, case: Case) -> str | None:
    """(d) Where the answer is an interval: a window that nearly is it, or one of its ends."""
    if case.span is None:
        return None
    step = case.duration / max(case.frames, 1)
    seen = [case.seconds[k] for k in patch.key_frames if k < len(case.seconds)]
    if seen and _iou((min(seen), max(seen) + step), case.span) > CLOSEST:
        return "key frames that are the gold interval"
    for way in (fold(patch.words), *decoded(patch.words)):
        bare = [float(n) for m in re.findall(r"\[([\d., ]+)\]", way) for n in re.findall(_N, m)]
        said = [*times_said(way), *bare]
        said += [case.seconds[k] for k in frames_said(way) if k < len(case.seconds)]
        for low, high in itertools.pairwise(said):
            if _iou((low, max(high, low + step)), case.span) > CLOSEST:
                return "times that are the gold interval"
        ends = [t for t in said if min(abs(t - e) for e in case.span) <= NEAR * case.duration]
        if ends and (
            len(said) == 1
            or re.search(r"\b(?:start|begin|appear|end|vanish|leav|until|onset)", way)
        ):
            return "an end of the gold interval"
        if set(values(_placeless(way))) & set(case.span) - {0.0, 1.0}:
            return "a number of the gold interval"
    return None


def _iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = max(a[1], b[1]) - min(a[0], b[0])
    return inter / union if union > 0 else 0.0
