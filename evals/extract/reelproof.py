"""Our own graders: `strict` reads answer tags only, `reelproof` also reads plain prose, by rule.

| rule            | confidence | the reply                                                        |
|-----------------|------------|------------------------------------------------------------------|
| `answer block`  | high       | the last complete `<answer>` block outside the thinking          |
| `bare`          | high       | nothing but an answer: "B", "(B)", "Answer: B", "42", "[2, 5]"   |
| `leading label` | high       | begins with a marked label or an option's text: "B. blue square" |
| `last line`     | medium     | one line is a bare label, and it is the last                     |
| `stated`        | medium     | "the answer is B", "\\boxed{B}"; a final answer outweighs others |
| `marked`        | low        | one label in brackets or after "option": "(B)", "option B"       |
| `option text`   | low        | the text of one option (the longer of two nested), not negated   |
| `only number`   | low        | one number, whatever its unit                                    |
| `only interval` | low        | one bracketed pair, or two times                                 |
| `whole reply`   | low        | OCR, free-form, ordering: all of it                              |

`strict` has the first two; `reelproof` tries the others where the reply has no answer tag at all.
Rules are tried in this order. The first one that finds something decides: one reading is the
answer, two are `Unparsed`, as is a reply in which no rule finds anything. The order follows the
deterministic parser measured on TempCompass (benchmarks.md 2.5); inline "X." is left out, since
"vitamin C." is no answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from evals.extract.answers import (
    Answer,
    Confidence,
    Grader,
    Reader,
    Reading,
    Unparsed,
    blocks,
    outside_think,
)
from evals.extract.kinds import BARE_INTERVAL, READERS, clean, labels, plain, read

NO_BLOCK = Unparsed("no complete <answer> block")
_TAG = re.compile(r"</?answer\b")

_BARE_LETTER = re.compile(r"(?i:answer\s*:\s*)?(?:[A-Z][.)]?|\([A-Z]\)\.?)")
_BARE_NUMBER = re.compile(r"(?i:answer\s*:\s*)?[-+]?[0-9][0-9,]*(?:\.[0-9]+)?\.?")
_BARE: Mapping[str, re.Pattern[str]] = {
    "multiple choice": _BARE_LETTER,
    "numerical": _BARE_NUMBER,
    "regression": _BARE_NUMBER,
    "temporal grounding": BARE_INTERVAL,
}


def _by(reading: Reading, rule: str, confidence: Confidence) -> Reading:
    if isinstance(reading, Unparsed):
        return reading
    return replace(reading, rule=rule, confidence=confidence)


def _tagged(reply: str, kind: str, options: Sequence[str]) -> Reading:
    """`strict`: the two rules that ask for the form."""
    spoken = outside_think(reply)
    found = blocks(spoken)
    if found:
        return _by(read(found[-1], kind, options), "answer block", "high")
    bare = _BARE.get(kind)
    if bare is None or bare.fullmatch(spoken.strip()) is None:
        return NO_BLOCK
    return _by(read(spoken.strip(), kind, options), "bare", "high")


def _rules(reply: str, kind: str, options: Sequence[str]) -> Reading:
    """`reelproof`: as `strict`, then the rules for prose."""
    reading = _tagged(reply, kind, options)
    spoken = outside_think(reply).strip()
    if reading != NO_BLOCK or _TAG.search(spoken) or not spoken:
        return reading
    prose = _PROSE[kind](clean(spoken), options)
    if isinstance(prose, Unparsed):
        return replace(prose, reason=f"{NO_BLOCK.reason}; {prose.reason}")
    return prose


# --- a choice in prose -------------------------------------------------------------------------

_LETTER = r"(?:\\boxed\{|\\text\{|[\s*_\"'`$(\[{])*([A-Z])(?![\w'])"
_STATED = re.compile(
    r"(?i:(?P<final>\bfinal\s+)?\b(?:answer|option|choice)\b"
    r"\s*(?:is\b|would\s+be\b|must\s+be\b|should\s+be\b|[:=])[\s:]*(?:option\s+|choice\s+)?)"
    + _LETTER
)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*\(?([A-Z])\)?\s*\}")
#: What follows a stated letter and names another: "B or C", "B/C", "B, C".
_ALSO = re.compile(r"[\s*_)\].]*(?:\bor\b|\band\b|[/,&])[\s*_(\[]*([A-Z])(?![\w'])")
#: "The answer is A man": an article, unless a word follows that no noun phrase begins with.
_ARTICLE = re.compile(
    r"[*_]*\s+(?!(?:because|since|as|for|which|where|and|or|but|in|at|with)\b)[a-z]"
)
_MARKED = re.compile(r"\(([A-Z])\)|(?<![\w'(])([A-Z])\)|(?i:\boption\s+)([A-Z])(?![\w'])")
_NEGATED = re.compile(r"(?i:\b(?:not|never|no|none|neither|nor|without|cannot)\b|n['’]t\b)")


def _prose_choice(text: str, options: Sequence[str]) -> Reading:
    text = unicodedata.normalize("NFKC", text)
    reading = _by(READERS["multiple choice"](text, options), "leading label", "high")
    if isinstance(reading, Answer):
        return reading
    texts = labels(options)
    for rule, confidence, find in _CHOICE_RULES:
        named = find(text, texts)
        if len(named) > 1:
            return Unparsed(f"ambiguous: {' or '.join(sorted(named))}")
        if named:
            letter = named.pop()
            if letter not in texts:
                return Unparsed(f"no option {letter}")
            return Answer(letter, rule=rule, confidence=confidence)
    return reading


def _last_line(text: str, texts: Mapping[str, str]) -> set[str]:
    lines = [line.strip(" \t\r*_`") for line in text.splitlines() if line.strip()]
    bare = [line for line in lines if _BARE_LETTER.fullmatch(line)]
    if len(bare) != 1 or bare[0] != lines[-1]:
        return set()
    return set(re.findall(r"[A-Z]", bare[0])[-1:])


def _stated(text: str, texts: Mapping[str, str]) -> set[str]:
    every: set[str] = set(_BOXED.findall(text))
    final: set[str] = set()
    for match in _STATED.finditer(text):
        letter = match[2]
        if letter in "AI" and _ARTICLE.match(text, match.end()):
            continue
        found = {letter}
        also = _ALSO.match(text, match.end())
        if also and also[1] in texts:
            found.add(also[1])
        every |= found
        if match["final"]:
            final |= found
    return final or every


def _marked(text: str, texts: Mapping[str, str]) -> set[str]:
    found = {letter for groups in _MARKED.findall(text) for letter in groups if letter}
    return found & texts.keys()


def _option_text(text: str, texts: Mapping[str, str]) -> set[str]:
    if _NEGATED.search(text):
        return set()
    words = plain(text)
    contained = {
        label: wanted
        for label, option in texts.items()
        if (wanted := plain(option)) and _holds(words, wanted)
    }
    return {
        label
        for label, wanted in contained.items()
        if not any(wanted != other and _holds(other, wanted) for other in contained.values())
    }


def _holds(text: str, wanted: str) -> bool:
    """Whether the words stand in the text, not as part of longer words."""
    place = text.find(wanted)
    while place >= 0:
        end = place + len(wanted)
        before, after = text[max(place - 1, 0) : place], text[end : end + 1]
        if not (before.isalnum() and wanted[0].isalnum()) and not (
            after.isalnum() and wanted[-1].isalnum()
        ):
            return True
        place = text.find(wanted, place + 1)
    return False


_CHOICE_RULES: tuple[tuple[str, Confidence, Callable[[str, Mapping[str, str]], set[str]]], ...] = (
    ("last line", "medium", _last_line),
    ("stated", "medium", _stated),
    ("marked", "low", _marked),
    ("option text", "low", _option_text),
)


# --- numbers, times and text in prose ----------------------------------------------------------

_STATED_NUMBER = re.compile(
    r"(?i:\b(?:answer|result|total|count)\b\s*(?:is\b|would\s+be\b|[:=]))[\s:]*(?P<rest>[^\n]*)"
)


def _prose_number(text: str, options: Sequence[str]) -> Reading:
    readings = [READERS["numerical"](m["rest"], ()) for m in _STATED_NUMBER.finditer(text)]
    found = {r.number: r for r in readings if isinstance(r, Answer)}
    if len(found) > 1:
        return Unparsed("ambiguous: several numbers")
    if found:
        return _by(found.popitem()[1], "stated", "medium")
    return _by(READERS["numerical"](text, ()), "only number", "low")


def _prose_both(text: str, options: Sequence[str]) -> Reading:
    """Where the two cannot be read together, the letter by the rules for a choice."""
    reading = _by(READERS["grounded qa"](text, options), "only interval", "low")
    if isinstance(reading, Unparsed) and not reading.letter:
        alone = _prose_choice(text, options)
        return replace(reading, letter=alone.letter if isinstance(alone, Answer) else "")
    return reading


def _prose(kind: str, rule: str) -> Reader:
    return lambda text, options: _by(READERS[kind](text, options), rule, "low")


_PROSE: Mapping[str, Reader] = {
    "multiple choice": _prose_choice,
    "numerical": _prose_number,
    "regression": _prose_number,
    "temporal grounding": _prose("temporal grounding", "only interval"),
    "grounded qa": _prose_both,
    "OCR": _prose("OCR", "whole reply"),
    "free-form": _prose("free-form", "whole reply"),
    "ordering": _prose("ordering", "whole reply"),
}


def _every(reads: Callable[[str, str, Sequence[str]], Reading]) -> Mapping[str, Reader]:
    def of(kind: str) -> Reader:
        return lambda reply, options: reads(reply, kind, options)

    return {kind: of(kind) for kind in READERS}


GRADERS: Mapping[str, Grader] = {
    "reelproof": Grader(_every(_rules), "chosen; evals.extract.reelproof"),
    "strict": Grader(_every(_tagged), "chosen; evals.extract.reelproof, first two rules"),
}
