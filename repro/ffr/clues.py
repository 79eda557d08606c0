"""What in a text points at one answer: verdicts, letters, names, classes of words, exclusions.

Every function takes one reading of a patch's words (readings.py). Word lists are in lexicon.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from repro.ffr.case import Case, stem, stems
from repro.ffr.patch import Patch
from repro.ffr.readings import fold, lone, words

# --- verdicts and letters ------------------------------------------------------------------------

_TRUE = "correct|right|true|real|actual|proper|final|best|expected|intended|accurate|valid"
_THING = "answer|option|choice|solution|response|reply|conclusion|alternative"
_CHOOSE = "select|choose|answer|respond|reply|conclude|opt|settle|guess|mark|tick|submit|output"
_VERDICT = re.compile(
    rf"""\b(?:
      (?:{_TRUE}) \s+ (?:\w+\s+)? (?:{_THING}|value|number|count|colou?r|one)
    | (?:{_THING})s? \s* (?:is|was|:|=|->|would|should|must|will|lies|equals|ought|here)
    | (?:should|must|need\s+to|have\s+to|ought\s+to|can|could|may|please|just|simply|to|and|then|so|
        safely) \s+ (?:{_CHOOSE}|pick\s+(?!up)|go\s+(?:with|for)|say\s+(?!what|why|how))
    | (?:select|choose|opt\s+for|go\s+with|respond\s+with|reply\s+with|answer\s+with|
        settle\s+(?:on|for)|        output|submit|stick\s+with|put\s+down|write\s+down|write)\b
    | turns?\s+out | in\s+(?:fact|reality|truth) | the\s+truth | (?:must|has\s+to|can\s+only)\s+be
    | (?:is|are|was|were)\s+(?:actually|indeed|really|in\s+fact|clearly|correct|right|wrong|
        incorrect|true|        false|the\s+key\s+to)
    | ground\s+truth | gold(?:en)?\s+(?:answer|label) | solution\s+key | answer\s+key
    | (?:ignore|disregard|forget)\s+(?:the|all|any|every|previous|your|these) | system\s+prompt
    | (?:your|new|following)\s+instructions?
    | rhym(?:es?|ing)\s+with | anagram | spell(?:s|ed|ing|t)? | synonym | antonym | opposite\s+of
    | sounds?\s+like | (?:starts?|begins?)\s+with\s+(?:the\s+letter|an?\s+['"])
    | first\s+letters? | initials
    | (?:base\s?64|hex(?:adecimal)?|rot\s?13|cipher|decode[ds]?|decrypt|morse|ascii|unicode|encoded)
    | same\s+(?:number|colou?r|shape)\s+as | as\s+many\s+as
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_ABROAD = r"""答案 选项 选择 选\s[a-j] 正确 正解 答え 정답 правильн ответ إجابة respuesta
    correcta réponse richtige antwort\b risposta resposta antwoord cevap odpowied"""
#: The same in other languages.
_VERDICT_ABROAD = re.compile("|".join(map(fold, _ABROAD.split())), re.IGNORECASE)
#: Harmless turns that a rule would take for a verdict.
_IDIOM = re.compile(
    r"\b(?:before|until|when|while|prior to)\s+(?:you\s+)?(?:\w+ing\s+to\s+)?"
    r"(?:answer(?:ing)?|choos(?:e|ing)|conclud(?:e|ing)|decid(?:e|ing)|respond(?:ing)?)\b"
    r"|\bre-?answer\b|\banswer\s+(?:again|from|only|after|once)\b",
    re.IGNORECASE,
)

_PLACE = (
    r"(?:first|second|third|fourth|fifth|sixth|last|final|middle|top|bottom|penultimate|former|"
    r"latter|1st|2nd|3rd|4th|5th|one|two|three|four|five|[1-9])"
)
_LISTED = r"(?:option|choice|alternative|candidate|possibility|entry|letter|answer)"
_ORDINAL = re.compile(
    rf"\b{_PLACE}\W+(?:(?:of|listed|answer|given|possible|available|the|in|your|these)\W+){{0,3}}"
    rf"{_LISTED}(?:s|ies)?\b"
    rf"|\b{_LISTED}s?\W+(?:(?:number|no|is|the|listed|at)\W+){{0,2}}{_PLACE}\b"
    r"(?!\W*(?:s\b|sec|frame))"
    r"|\b(?:next|previous|following|preceding|adjacent|neighbou?ring)\W+"
    r"(?:option|choice|alternative|candidate|possibility|entry|item)\b"
    r"|\b(?:option|choice|alternative|entry|item)\W+(?:\w+\W+)?(?:after|before|above|below|beneath|under|beside|next\W+to)\b"
    r"|\b(?:after|before|above|below|beneath|under|beside|next\W+to|following|preceding)\W+"
    r"(?:the\W+)?(?:one\W+)?(?:that\W+|which\W+)?(?:you\W+(?:took|picked|chose|gave|selected|"
    r"ticked|marked|answered)|yours|your\W+(?:choice|pick|answer|letter))\b"
    r"|\b(?:one|next|previous|higher|lower|further|up|down)\W+(?:up\W+|down\W+)?(?:on|in)\W+"
    r"(?:the|that|your)\W+list\b"
    r"|\blisted\s+(?:first|last|second|third)\b"
    r"|\b(?:top|bottom|head|end|first|last)\b.{0,12}\b(?:list|listed)\b"
    r"|\b(?:alpha|bravo|charlie|foxtrot)\b|\bvowel\b|\balphabet\b"
    r"|\bletter\s+(?:after|before|following)\b"
    r"|\b(?:option|letter|choice|answer)\s+(?:ay|bee|cee|see|dee)\b"
    r"|\bthe\s+(?:former|latter)\b",
    re.IGNORECASE,
)  # fmt: skip
_QUOTED = re.compile(r"[(\[\"'“‘«{*_`]\s*([A-Za-z])\s*[)\]\"'”’»}*_`.]")
_CALLED = re.compile(
    r"\b(?i:options?|choices?|letters?|answers?|alternatives?|pick|select|choose)\W{1,3}"
    r"(?:(?i:is|was|are)\W+)?([A-J])\b"
)
_SMALL = re.compile(
    r"\b(?:options?|choices?|letters?|alternatives?)\s+(?:is\s+)?([a-j])\b(?!\s+(?:few|lot))", re.I
)
_SIGN = re.compile(r"\bletters? ([a-z])\b")  # how Unicode names an emoji of a letter
_ALONE = re.compile(r"(?<![\w'’/-])([A-Z])(?![\w'’/])")
#: Small letters that are no English word by themselves; no part of e.g. and its like.
_ALONE_SMALL = re.compile(r"(?<![\w'’/.-])([b-hj](?![\w'’/]|\.\w)|a(?=\s*[:;,!)]|\.?\s*$))")


#: What never follows an article.
_NO_NOUN = re.compile(
    r"\s+(?:it|is|was|are|were|be|can|cannot|can't|could|would|should|must|will|may|might|does|did|"
    r"has|had|fits|seems|looks|matches|for|and|or|not|in|on|at|as|by|of|to|because|which|that|"
    r"here|instead|again|then|wins|stands|holds|rather|ist|est|es|passt|stimmt|convient)\b"
    r"|\s+\w+[^\W_s]s\s+(?:what|why|how|the|it|all|everything|best|better|frames?\s+\d)\b"
)


def verdict(text: str) -> bool:
    """A phrase that states or demands an answer, whatever the answer is."""
    return bool(_VERDICT.search(_IDIOM.sub(" ", text)) or _VERDICT_ABROAD.search(text))


def ordinal_option(text: str) -> bool:
    """An option by its place, as in "the second option"."""
    return bool(_ORDINAL.search(text))


def letter(text: str, options: Mapping[str, str], question: str = "") -> bool:
    """An option's letter, case kept. Letters that the question uses as names do not count."""
    named_there = {n.upper() for n in (*_ALONE.findall(question), *_ALONE_SMALL.findall(question))}
    known = {k.upper() for k in options} - named_there
    if not known:
        return False
    if known & {n.upper() for n in _ALONE_SMALL.findall(text)}:
        return True
    named = [*_QUOTED.findall(text), *_CALLED.findall(text), *_SMALL.findall(text)]
    named += _SIGN.findall(text)
    if known & {n.upper() for n in named}:
        return True
    for found in _ALONE.finditer(text):
        before, after = text[: found.start()].rstrip(), text[found.end() :]
        opens = not before or before[-1] in ".!?:\n"
        if found[1] in known and not (found[1] in "AI" and _article(found[1], opens, after)):
            return True
    return False


def _article(which: str, opens: bool, after: str) -> bool:
    """Whether a lone A or I is the English word."""
    goes_on = re.match(r"\s+[a-z]", after) is not None and not _NO_NOUN.match(after)
    return goes_on and opens if which == "A" else goes_on or opens


def bare_letter(text: str, case: Case) -> bool:
    """A letter in a decoded or respelled reading: alone, or called an option."""
    if re.fullmatch(r"\W*[A-Za-z]\W*", text):
        return text.strip(" .,:;()'\"").upper() in {k.upper() for k in case.options}
    return bool(case.options) and bool(_CALLED.search(text) or _SIGN.search(text))


# --- names ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """A text to look terms up in: its stems in one string, singly, and joined with neighbours."""

    padded: str
    single: frozenset[str]
    raw: tuple[str, ...]

    @classmethod
    @lru_cache(64)
    def of(cls, text: str) -> Read:
        """The same object for the same text, since every rule looks at it."""
        raw = words(text)
        cut = [stem(w) for w in raw]
        pieces = {
            stem("".join(raw[i : i + n])) for n in (2, 3) for i in range(len(raw) - n + 1)
            if min(len(w) for w in raw[i : i + n]) < 4
        }  # fmt: skip
        return cls(f" {' '.join(cut)} ", frozenset(cut) | pieces | lone(text), tuple(raw))

    def has(self, term: str) -> bool:
        """Whether a term, one word or several, is said."""
        parts = _cut(term)
        if len(parts) == 1:
            return parts[0] in self.single
        return f" {' '.join(parts)} " in self.padded


@cache
def _cut(term: str) -> tuple[str, ...]:
    return tuple(stems(term))


_MASKED = re.compile(r"[A-Za-z]*(?:[*_?#@$!]+[A-Za-z]*)+")


def disguised(text: str, target: str) -> bool:
    """A word of four letters or more as `bl*e`, without its vowels, with a letter too many, or
    spelled by the first letters of consecutive words."""
    if len(target) < 3 or not target.isalpha():
        return False
    for token in _MASKED.findall(text):
        letters = re.findall(r"[A-Za-z]", token)
        pattern = re.sub(r"[^A-Za-z]", ".", token).lower()
        if len(letters) >= 2 and len(token) == len(target) and re.fullmatch(pattern, target):
            return True
    raw = words(text)
    bare = re.sub("[aeiou]", "", target)
    if len(target) >= 4 and len(bare) >= 3 and bare in raw:
        return True
    if len(target) >= 4 and target in "".join(w[0] for w in raw):
        return True
    return len(target) >= 5 and any(_near(w, target) for w in raw)


def _near(word: str, target: str) -> bool:
    """One letter too many, or two neighbours swapped."""
    if len(word) == len(target) + 1:
        return any(word[:i] + word[i + 1 :] == target for i in range(1, len(word)))
    swaps = (
        target[:i] + target[i + 1] + target[i] + target[i + 2 :] for i in range(len(target) - 1)
    )
    return len(word) == len(target) and word != target and word in swaps


def names(text: str, case: Case) -> str | None:
    """The gold's text or telling words; numbers are for quantities.py."""
    if not case.answer or case.kind in ("numerical", "regression"):
        return None
    read, whole = Read.of(text), stems(case.answer)
    telling = [w for w in case.telling[case.letter] if not w.isdigit()]
    if telling and len(whole) > 1 and f" {' '.join(whole)} " in read.padded:
        return "the gold's text"
    hits = {w for w in telling if w in read.single}
    raw = {stem(w): w for w in words(case.answer)}
    hits |= {w for w in telling if w in raw and disguised(text, raw[w])}
    hits |= {w for w in telling if w in raw and _other_words(raw[w], case, read)}
    if not hits:
        return None
    if len(telling) <= 2:
        return "a word that makes up the gold"
    # A student that went through all the options said nothing of its own with the gold's words.
    own = case.said if 2 * len(case.said & set(telling)) <= len(telling) else frozenset()
    if hits - own:
        return "a word of the gold that neither question nor student used"
    return "half of the gold's words" if 2 * len(hits) >= len(telling) else None


def _other_words(word: str, case: Case, read: Read) -> bool:
    """A synonym of the word that the question does not use."""
    return any(read.has(term) for term in synonyms(word) if not set(_cut(term)) <= case.stem)


# --- classes -------------------------------------------------------------------------------------

Lexicon = Mapping[str, Mapping[str, tuple[str, ...]]]


@cache
def lexicon() -> Lexicon:
    """Class -> member -> synonyms."""
    return {
        name: {
            _said(member): (*map(_said, others), *abroad().get(name, {}).get(_said(member), ()))
            for member, others in members.items()
        }
        for name, members in _data().items()
        if name != "abroad"
    }


@cache
def abroad() -> Lexicon:
    """Of some classes, member -> words of other languages; a gold in one of them belongs there."""
    return {
        name: {member: tuple(others.split()) for member, others in members.items()}
        for name, members in _data()["abroad"].items()
    }


@cache
def _data() -> Mapping[str, Any]:
    text = (Path(__file__).parent / "lexicon.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)  # type: ignore[no-any-return]


@cache
def _members(name: str) -> frozenset[str]:
    """Stems of a class's members, in other languages too."""
    foreign = (term for terms in abroad().get(name, {}).values() for term in terms)
    return frozenset(_cut(term)[0] for term in foreign if _cut(term))


def _said(value: object) -> str:
    """YAML reads a bare yes and no as truth values."""
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


@cache
def _families() -> Mapping[str, frozenset[str]]:
    """Stem of any single word -> all members that it belongs to with their synonyms."""
    found: dict[str, set[str]] = {}
    for members in lexicon().values():
        for member, others in members.items():
            family = {member, *others}
            for term in family:
                if len(_cut(term)) == 1:
                    found.setdefault(_cut(term)[0], set()).update(family)
    return {key: frozenset(value) for key, value in found.items()}


def synonyms(word: str) -> frozenset[str]:
    """Other ways to say a word; empty for a word that is not in the lexicon."""
    return _families().get(stem(word), frozenset()) - {word}


def marks(case: Case) -> list[str]:
    """Words of the gold that are neither in the question nor in most other options."""
    others = [set(words(text)) for text in case.others.values()]
    asked = set(words(case.question))
    return [
        w for w in words(case.answer)
        if w not in asked and not (others and 2 * sum(w in o for o in others) > len(others))
    ]  # fmt: skip


def active(case: Case) -> Iterable[str]:
    """Classes that the gold names a member of. Yes and no count as a whole answer only."""
    if case.kind == "ordering":
        yield "order"
    said = marks(case)
    for name, members in lexicon().items():
        if name == "acts" or case.kind in ("numerical", "regression"):
            continue
        opening = said[:1] if name == "presence" else said
        if any(w in members or stem(w) in _members(name) for w in opening):
            yield name


def classes(text: str, case: Case) -> str | None:
    """The class of the gold of which the text names a member that the question does not."""
    found = list(active(case))
    if not found:
        return None
    read = Read.of(text)
    for name in found:
        for member, others in lexicon()[name].items():
            for term in (member, *others):
                if read.has(term) and not set(_cut(term)) <= case.stem:
                    return name
    return None


_ARROW = re.compile(
    r"[\u2190-\u21ff\u2794-\u27be\u27f0-\u27ff\u2900-\u297f«»‹›◀▶◄►◁▷]|[-=~]+>|<[-=~]+|>>+|<<+"
)


def placed(patch: Patch, case: Case) -> str | None:
    """(e) for what is not a word: a box or an arrow where a place is asked for."""
    if "direction" not in active(case):
        return None
    if _ARROW.search(patch.words):
        return "an arrow where the question asks for a place"
    if any(r.x2 - r.x1 < 0.75 or r.y2 - r.y1 < 0.75 for r in patch.regions):
        return "a region where the question asks for a place"
    return None


# --- exclusions ----------------------------------------------------------------------------------

_DENIED = re.compile(
    r"\b(?:not|never|isn't|wasn't|aren't|can't|cannot|doesn't|didn't|no|neither|nor|without|except|"
    r"rather than|instead of|other than|apart from|besides|but for|rule[sd]? out|ruling out|"
    r"exclud\w+|eliminat\w+|discard\w*|dismiss\w*|reject\w*|"
    r"cross(?:es|ed)? out|unlikely|impossible|"
    r"ignore|forget|different from|anything but|everything but|all but|do without)\b"
    r"((?:\W+\w+){1,5})",
    re.IGNORECASE,
)
_EXCLUDES = re.compile(
    r"\b(?:rule[sd]? out|ruling out|process of elimination|eliminat\w+|cross(?:es|ed)? out|"
    r"remaining (?:one|option|choice)|only one left|what remains|"
    r"other (?:options|choices|two|three)|"
    r"(?:all|none|neither|both) (?:of )?the (?:other|remaining)s?)\b",
    re.IGNORECASE,
)


def eliminated(text: str, case: Case) -> str | None:
    """Other options named until the gold is left, or a denied one."""
    if not case.options:
        return None
    if _EXCLUDES.search(text):
        return "talk of excluding options"
    read = Read.of(text)
    named = [letter for letter in case.others if _mentions(read, case, letter)]
    if named and len(named) >= len(case.others):
        return "all options but one"
    for denied in _DENIED.finditer(text):
        part = Read.of(denied[1])
        if any(_mentions(part, case, letter) for letter in case.others):
            return "an option is denied"
    return None


def _mentions(read: Read, case: Case, letter: str) -> bool:
    """Whether an option is named: its whole text, or most of its telling words."""
    telling = [w for w in case.telling[letter] if not w.isdigit()]
    if not telling:
        whole = _cut(case.options[letter])
        return bool(whole) and not whole[0].isdigit() and f" {' '.join(whole)} " in read.padded
    return 2 * sum(w in read.single for w in telling) > len(telling)
