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
_BOX = re.compile(rf"\[\s*{_N}(?:\s*,\s*{_N}){{3}}\s*\]")
_SHARE = re.compile(r"\b\d+(?:\.\d+)?\s*(?:%|percent\b)")
#: Questions whose answer may be a share, or a time or its length: what says one may be the answer.
_ASKS_SHARE = re.compile(r"%|\bper\s?cent|\b(?:share|fraction|proportion)\b", re.I)
_ASKS_TIME = re.compile(
    r"\bseconds?\b|\bminutes?\b|\bhow long\b|\bwhen\b|\bwhat time\b|\btime ?stamp|\bduration\b",
    re.I,
)
#: Where "one" and "second" are no numbers.
_IDLE = re.compile(
    r"\b(?:each|every|no|any|some|this|that|which|another|the other|by|at least) one\b"
    r"|\bone(?:s| by one| at a time| after (?:the other|another)| another| side| end| more look"
    r"| frame| glance| moment| place| part| point| of the\b)"
    r"|\b(?:a|per|each|every|split|half a|last|final|next) second\b"
    r"|\b(?:first|second|third|fourth|last) "
    r"(?:half|quarter|third|part|frame|section|segment|moment|look|time|pass|few|stretch)s?\b"
    r"|\b(?:two|three) of (?:the|these|those|them)\b"
    r"|\bfrom (?:one|the first)\b|\bat once\b"
    r"|\b(?:third|quarter|half) of the (?:clip|video|film|frame)\b",
    re.I,
)
_TALLY = re.compile(
    r"(?:[|•*#✓●○■▲x]\s?){2,}(?![a-z])|\banother\b.*\banother\b"
    r"|\b(\w{3,})\b(?:,| and) (?:a |an |the )?\1\b",
    re.I,
)
#: Idle only where it does not say the gold number: "look a third time", "two of the cups".
_SAYS = re.compile(r"\btimes?\Z|\b(?:two|three) of ", re.I)
#: What may follow the last of several frame numbers; another word makes that number a count.
_AFTER = re.compile(
    r"[ \t]+(?!(?:look|see|watch|check|compare|note|follow|through|until|close|"
    r"again|and|or|to|in|at|on|for|of|with|without|where|when|while|which|that|then|than|as|"
    r"but|before|after|once|only|both|together|one|are|is|was|were|show|shows|show?n|by|from|the|a|"
    r"an|if|so|too|it|he|she|they|you|there|here|instead|each|next|more|may|can|do|does|have|has|"
    r"alone|belong|matter|count|differ|s|sec|seconds?|\w+ly)\b)[A-Za-z]",
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
    if case.spans or not (wanted or counting):
        return None
    if counting and _boxes(patch) in wanted:
        return "as many regions as there are things to count"
    if counting and _ASKS_TIME.search(case.question) and (wrong := _times(patch, case, wanted)):
        return wrong
    timed = bool(re.search(rf"{_N}\s*{_UNIT}|\d:\d\d|\bframe", case.answer, re.I))
    plain, *others = readings(patch.words)
    if counting and not timed and (wrong := undeclared(plain, patch, case)):
        return wrong
    if counting and not timed and _TALLY.search(patch.words):  # before signs become names
        return "a tally where a number is asked for"
    # Digits count as said or decoded: a respelling would hide which of them are frames.
    respelled = [re.sub(r"[\d:]+", " ", way) for way in others]
    for way in (plain, *respelled, *decoded(patch.words)):
        rest = way if timed else _idleless(_placeless(way, case), wanted)
        found = set(values(rest))
        if found & wanted:
            return "a gold number"
        if counting and not timed and (found - {1.0} or _TALLY.search(rest) or _LIKE.search(rest)):
            return "a count where a number is asked for"
    return None


def _placeless(text: str, case: Case) -> str:
    """Without frames, times and boxes; a share stays where one may be the answer."""
    text = _FRAMES.sub(lambda m: " " + m[0][_declared(m) :] + " ", _BOX.sub(" ", text))
    if not _ASKS_SHARE.search(" ".join((case.question, case.answer, *case.options.values()))):
        text = _SHARE.sub(" ", text)
    return _TIMES.sub(" ", text)


def _declared(found: re.Match[str]) -> int:
    """Characters of a match of `_FRAMES` that are frames: in "frames 4, 5 shapes" the last number
    is none, nor is what follows the comma in "frame 5, 4"."""
    numbers = list(re.finditer(_N, found[0]))
    alone = re.match(r"frame\b", found[0], re.I) is not None and "," in found[0]
    if len(numbers) > 1 and (alone or _AFTER.match(found.string, found.end())):
        return numbers[0 if alone else -2].end()
    return len(found[0])


def _idleless(text: str, wanted: set[float]) -> str:
    """Without the turns in which a number says nothing."""

    def kept(found: re.Match[str]) -> str:
        says = _SAYS.search(found[0]) and set(values(found[0])) & wanted
        return found[0] if says else " "

    return _IDLE.sub(kept, text)


def _boxes(patch: Patch) -> float:
    """How many different regions one frame has, 0 for a single one."""
    most = max(
        (len({r for r in patch.regions if r.frame == k.frame}) for k in patch.regions), default=0
    )
    return float(most) if most > 1 else 0.0


def _times(patch: Patch, case: Case, wanted: set[float]) -> str | None:
    """Where the answer is a time or a duration, no time may be it, nor a pair be as far apart."""
    for way in (fold(patch.words), *decoded(patch.words)):
        said = times_said(way)
        apart = {round(b - a, 3) for a, b in itertools.pairwise(said)}
        if {round(t, 3) for t in said} & wanted or apart & wanted:
            return "a time that is the gold number"
    return None


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
    for span in case.spans:
        if wrong := _telling(patch, case, span):
            return wrong
    return None


def _telling(patch: Patch, case: Case, span: tuple[float, float]) -> str | None:
    """What of a patch tells one gold interval."""
    step = case.duration / max(case.frames, 1)
    shown = sorted(k for k in patch.key_frames if k < len(case.seconds))
    runs = [shown, *_runs(shown)]
    windows = [(case.seconds[run[0]], case.seconds[run[-1]] + step) for run in runs if run]
    if any(_iou(window, span) > CLOSEST for window in windows):
        return "key frames that are the gold interval"
    for way in (fold(patch.words), *decoded(patch.words)):
        bare = [float(n) for m in re.findall(r"\[([\d., ]+)\]", way) for n in re.findall(_N, m)]
        said = [*times_said(way), *bare]
        said += [case.seconds[k] for k in frames_said(way) if k < len(case.seconds)]
        for low, high in itertools.pairwise(said):
            if _iou((low, max(high, low + step)), span) > CLOSEST:
                return "times that are the gold interval"
        ends = [t for t in said if min(abs(t - e) for e in span) <= NEAR * case.duration]
        if ends and (
            len(said) == 1
            or re.search(r"\b(?:start|begin|appear|end|vanish|leav|until|onset)", way)
        ):
            return "an end of the gold interval"
        if set(values(_placeless(way, case))) & set(span) - {0.0, 1.0}:
            return "a number of the gold interval"
    return None


def _runs(frames: list[int]) -> list[list[int]]:
    """Ascending frame numbers as runs without gaps."""
    found: list[list[int]] = []
    for k in frames:
        if found and k <= found[-1][-1] + 1:
            found[-1].append(k)
        else:
            found.append([k])
    return found


def _iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = max(a[1], b[1]) - min(a[0], b[0])
    return inter / union if union > 0 else 0.0
