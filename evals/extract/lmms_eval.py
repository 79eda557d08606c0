"""Graders of lmms-eval 0.7.3, one per benchmark; without a benchmark, its shared extractor.

All of them see the reply without its thinking, as the tool's pipeline does (`without_reasoning`).

| benchmark                        | how a choice is read                                        |
|----------------------------------|-------------------------------------------------------------|
| (none), videommmu                | best candidate out of ten forms among the printed options   |
| videomme, mlvu, lvbench          | the same, but only A to D: an E or F gold can never be right|
| longvideobench                   | first capital A to E; random otherwise                      |
| nextqa, video_holmes             | MMMU parser; random otherwise                               |
| mvbench                          | leading "A.", else first lone letter, any case              |
| perceptiontest                   | first lone capital A to D                                   |
| scivideobench, videomathqa       | first capital A to L, A to E                                |
| vsibench                         | first word; numbers: the first said, number words included  |
| mmvu                             | correct if any of several loose rules hits the gold         |
| tempcompass                      | leading letter, else a judge                                |
| charades_sta                     | `released_interval`                                         |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase

from evals.extract.answers import (
    DRAWS,
    Answer,
    Grader,
    Reader,
    Reading,
    Unparsed,
    option_texts,
    said,
)
from evals.extract.kinds import READERS
from evals.extract.shared import (
    BRACKETS,
    PERIOD,
    PREFIXES,
    SPACE,
    first_capital,
    mcq_letter,
    mmmu_choice,
    mmmu_open_reader,
    released_interval,
)

CHOICE = "multiple choice"
_SOURCE = "benchmarks.md 2, evaluators.md 1; lmms-eval 0.7.3"

# --- the shared extractor ----------------------------------------------------------------------

_PHRASES = (
    "the answer is", "answer is", "the correct answer is", "correct answer is",
    "the best answer is", "best answer is", "the correct option is", "correct option is",
    "the best option is", "best option is", "the choice is", "choice is",
    "the correct choice is", "correct choice is", "i choose", "i select", "i pick",
    "my answer is", "my choice is", "옵션", "정답은", "답은", "답:", "答案是", "答案为",
    "选", "答えは",
)  # fmt: skip
#: Form of a label and its rank; a higher rank wins, then the later place.
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))


def _best_candidate(labels: Sequence[str] | None) -> Reader:
    """Every form a label may stand in, ranked: start 10, end 9, after "the answer is" 7, "(A)" 6,
    "A." 5, "A:" 4, "A)" 3, "A " 2; anywhere at all only if nothing else is found.
    """

    def reads(reply: str, options: Sequence[str]) -> Reading:
        letters = labels or list(option_texts(options)) or list(ascii_uppercase[:8])
        text = reply.strip()
        for mark in ",.!?;:'\"":
            text = text.strip(mark)
        text = f" {text} "
        found = _candidates(text, letters)
        if not found:
            found = [(0, text.rfind(c), c) for c in letters if c in text]
        if not found:
            return Unparsed("no letter")
        # The first of equal ones: sorting in the original is stable.
        return said(max(found, key=lambda each: each[:2])[2], "best candidate")

    return reads


def _candidates(text: str, letters: Sequence[str]) -> list[tuple[int, int, str]]:
    """(rank, place, letter) of every form that occurs."""
    found = [
        (rank, text.rfind(form.format(c)), c)
        for form, rank in _FORMS
        for c in letters
        if form.format(c) in text
    ]
    low = text.lower()
    for phrase in _PHRASES:
        place = low.find(phrase)
        if place >= 0:
            after = ((text.find(c, place + len(phrase)), c) for c in letters)
            found += [(7, where, c) for where, c in after if where >= 0]
    bare = text.strip()
    alone = len(bare) == 1
    found += [(10, 0, c) for c in letters if bare[:1] == c and (alone or not bare[1].isalpha())]
    found += [
        (9, len(text) - 1, c)
        for c in letters
        if bare[-1:] == c and (alone or not bare[-2].isalpha())
    ]
    return found


# --- single benchmarks -------------------------------------------------------------------------


def _mvbench(reply: str, options: Sequence[str]) -> Reading:
    letter = mcq_letter(reply)
    return said(letter, "first lone letter") if letter else Unparsed("no letter")


def _perceptiontest(reply: str, options: Sequence[str]) -> Reading:
    match = re.search(r"\b([A-D])\b", reply.strip())
    return said(match[1], "first lone capital") if match else Unparsed("no letter")


def first_word(reply: str, options: Sequence[str]) -> Reading:
    """Up to the first space, closing stops removed (VSI-Bench)."""
    word = reply.split(" ")[0].rstrip(".").strip()
    return said(word, "first word") if word else Unparsed("empty answer")


_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: n for n, word in enumerate(_ONES.split())}
_WORDS |= {word: 10 * n for n, word in enumerate(_TENS.split(), 2)} | {"hundred": 100}
_WORDS["thousand"] = 1000


def _said_number(reply: str, options: Sequence[str]) -> Reading:
    """The first number said, in digits or in English words."""
    text = reply.strip().lower()
    digits = re.search(r"-?\d+(?:\.\d+)?", text)
    first = next((m for m in re.finditer("[a-z]+", text) if m[0] in _WORDS), None)
    if digits and (first is None or digits.start() < first.start()):
        return Answer(digits[0], float(digits[0]), rule="first number", confidence="medium")
    if first is None:
        return Unparsed("no number")
    value = _spelled(text[first.start() :])
    return Answer(f"{value:g}", value, rule="number words", confidence="medium")


def _spelled(text: str) -> float:
    """three hundred and twenty-one -> 321: words are added until one is no number."""
    total = current = 0
    for word in re.findall("[a-z]+", text):
        if word == "and":
            continue
        if word not in _WORDS:
            break
        if word == "hundred":
            current = max(current, 1) * 100
        elif word == "thousand":
            total, current = total + max(current, 1) * 1000, 0
        else:
            current += _WORDS[word]
    return float(total + current)


_PAIR_LABEL = re.compile(r"(?:(?:Option|Sentence|Caption) )?([12AB])")


def tempcompass(reply: str, options: Sequence[str]) -> Reading:
    """TempCompass: begins with yes or no where these are the options; a letter A to D alone or
    before "." or ")"; of two captions also the label "Option 1", "Sentence A", "Caption B" or the
    exact text. All else goes to a judge.
    """
    texts = option_texts(options)
    answers = [text.lower() for text in texts.values()]
    if sorted(answers) == ["no", "yes"]:
        match = re.match("yes|no", reply.lower())
        if match:
            return said(list(texts)[answers.index(match[0])], "leading yes or no")
    elif reply in ("A", "B", "C", "D") or re.match(r"[A-D][.)]", reply):
        return said(reply[0], "leading letter")
    elif len(texts) == 2:
        label = _PAIR_LABEL.fullmatch(reply.replace(".", ""))
        if label:
            return said(list(texts)[label[1] in "2B"], "label")
        said_text = [c for c, text in texts.items() if text in (reply, reply.partition(") ")[2])]
        if len(said_text) == 1:
            return said(said_text[0], "option text")
    return Unparsed("left to the judge")


def _whole(reply: str, options: Sequence[str]) -> Reading:
    return said(reply, "whole reply")


def _grounding(reply: str, options: Sequence[str]) -> Reading:
    return released_interval(reply, everywhere=False)


#: Chosen: TempCompass lets an LLM answer a question from the caption; here it is a text.
CAPTION = READERS["free-form"]
OPEN = {"numerical": mmmu_open_reader, "free-form": mmmu_open_reader}
_DIRECT = {"numerical": _said_number, "regression": _said_number}
_A_TO_D = Grader({CHOICE: _best_candidate("ABCD")}, _SOURCE)
_MMMU = Grader({CHOICE: mmmu_choice([[BRACKETS], [SPACE], [PERIOD]])}, _SOURCE)
#: Two pairs of prefixes are glued together there, so they never match.
_GLUED = (*PREFIXES[:4], PREFIXES[4] + PREFIXES[5], PREFIXES[6] + PREFIXES[7])
_SCI = (
    "The answer is", "The correct answer is", "The best answer is", "Answer:", "Option:",
    "### Final Answer:\n$$\\boxed", "the final answer is",
)  # fmt: skip


def without_reasoning(reply: str) -> str:
    """The reply without closed `<think>` blocks; thinking that is never closed stays. A closing
    tag alone ends thinking that the chat template opened.
    """
    kept, place = "", 0
    while (begin := reply.find("<think>", place)) >= 0:
        end = reply.find("</think>", begin)
        if end < 0:
            break
        kept, place = kept + reply[place:begin], end + len("</think>")
    text = kept + reply[place:]
    if "<think>" not in text:
        text = text.rpartition("</think>")[2]
    return text.strip()


def _stripped(reader: Reader) -> Reader:
    return lambda reply, options: reader(without_reasoning(reply), options)


_READS: Mapping[str, Grader] = {
    "lmms-eval": Grader(
        {CHOICE: _best_candidate(None), **_DIRECT, "temporal grounding": _grounding}, _SOURCE
    ),
    "lmms-eval:videommmu": Grader({CHOICE: _best_candidate(None), **OPEN}, _SOURCE, "mmmu-open"),
    "lmms-eval:videomme": _A_TO_D,
    "lmms-eval:mlvu": _A_TO_D,
    "lmms-eval:lvbench": _A_TO_D,
    "lmms-eval:longvideobench": Grader({CHOICE: first_capital("ABCDE", otherwise=DRAWS)}, _SOURCE),
    "lmms-eval:nextqa": _MMMU,
    "lmms-eval:video_holmes": _MMMU,
    "lmms-eval:mvbench": Grader({CHOICE: _mvbench}, _SOURCE),
    "lmms-eval:perceptiontest": Grader({CHOICE: _perceptiontest}, _SOURCE),
    "lmms-eval:scivideobench": Grader({CHOICE: first_capital("ABCDEFGHIJKL", _SCI)}, _SOURCE),
    "lmms-eval:videomathqa": Grader({CHOICE: first_capital("ABCDE", _GLUED)}, _SOURCE),
    "lmms-eval:vsibench": Grader({CHOICE: first_word, **_DIRECT}, _SOURCE, "vsibench"),
    "lmms-eval:mmvu": Grader({CHOICE: _whole, "free-form": _whole}, _SOURCE, "mmvu-loose"),
    "lmms-eval:tempcompass": Grader({CHOICE: tempcompass, "free-form": CAPTION}, _SOURCE),
    "lmms-eval:charades_sta": Grader({"temporal grounding": _grounding}, _SOURCE),
}  # fmt: skip
GRADERS: Mapping[str, Grader] = {
    name: replace(grader, reads={kind: _stripped(r) for kind, r in grader.reads.items()})
    for name, grader in _READS.items()
}
