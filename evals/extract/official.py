"""Graders of the benchmarks' owners, as their scripts behave (benchmarks.md 2).

| benchmark      | how the reply is read                                                         |
|----------------|-------------------------------------------------------------------------------|
| video_holmes   | last `<answer>` block, else all; A to F in order: "A ", "A:", "[A", then any A |
| videommmu      | MMMU parser; random where it finds nothing; open answers by key phrases       |
| videomme       | first capital A to D after known prefixes                                     |
| longvideobench | first capital A to E; random otherwise                                        |
| tempcompass    | leading letter, leading yes or no, or a caption's label; else the judge       |
| mvbench        | first word of reply and gold, substring either way: "" and "." are correct    |
| vsibench       | first word, as a letter or a float; MRA with `<=`                             |
| mlvu           | the character before the first ")"                                            |
| nextgqa        | no parser of its own: `reelproof`; right and IoP >= 0.5                       |
| rextime        | JSON in the reply: letter and interval, IoU >= 0.5                            |
| videomathqa, scivideobench | lmms-eval is the owner's harness                                  |

MMVU, MMBench-Video and VCR-Bench are graded by an LLM only; Charades-STA, ActivityNet Captions and
QVHighlights score intervals, not replies. `lita_interval` needs the duration of the video.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from evals.extract.answers import DRAWS, Answer, Grader, Reading, Unparsed, plain_float, said
from evals.extract.kinds import read
from evals.extract.lmms_eval import CAPTION, CHOICE, OPEN, first_word, tempcompass
from evals.extract.lmms_eval import GRADERS as LMMS
from evals.extract.reelproof import GRADERS as OURS
from evals.extract.shared import BRACKETS, PERIOD, SPACE, first_capital, mmmu_choice


def last_block(reply: str) -> str | None:
    """Stripped text of the last `<answer>` block, tags inside it included."""
    found, place = None, 0
    while (begin := reply.find("<answer>", place)) >= 0:
        end = reply.find("</answer>", begin)
        if end < 0:
            break
        found, place = reply[begin + len("<answer>") : end].strip(), end
    return found


def holmes_letter(text: str) -> Reading:
    """Letters A to F in order, so early ones win: "C. The DNA test" is A."""
    for letter in "ABCDEF":
        if f"{letter} " in text or f"{letter}:" in text or f"[{letter}" in text:
            return said(letter, "letter before a space or colon, in order")
    for letter in "ABCDEF":
        if letter in text:
            return said(letter, "letter anywhere, in order")
    return Unparsed("no letter A to F")


def _holmes(reply: str, options: Sequence[str]) -> Reading:
    block = last_block(reply)
    return holmes_letter(reply if block is None else block)


def first_token(reply: str, options: Sequence[str]) -> Reading:
    """Up to the first space, in lower case; the empty word too is an answer (MVBench)."""
    return said(reply.lower().split(" ")[0], "first word")


def _first_float(reply: str, options: Sequence[str]) -> Reading:
    word = first_word(reply, options)
    if isinstance(word, Unparsed):
        return word
    number = plain_float(word.value) if "," not in word.value else None
    if number is None:
        return Unparsed("the first word is no number")
    return Answer(word.value, number, rule="first word", confidence="medium")


def _before_bracket(reply: str, options: Sequence[str]) -> Reading:
    place = reply.find(")")
    letter = reply[place - 1 : place] if place > 0 else ""
    return said(letter, 'before the first ")"') if letter else Unparsed('nothing before a ")"')


def _json_in(reply: str, options: Sequence[str]) -> Reading:
    """From the first "{" to the last "}"."""
    return read(reply[reply.find("{") : reply.rfind("}") + 1], "grounded qa", options)


_SCALE = re.compile(r"<([0-9]+)>")


def lita_interval(reply: str, duration: float, steps: int = 100) -> tuple[float, float]:
    """ActivityNet-RTL's owner: the first two time tokens `<t>` out of `steps`, sorted, clamped to
    the video; fewer than two give the whole video, which earns credit (benchmarks.md 2.17).
    Token 0 is the start and token steps - 1 the end (chosen: the scale is not documented).
    """
    tokens = [int(token[:9]) for token in _SCALE.findall(reply)[:2]]
    if len(tokens) < 2:
        return 0.0, duration
    low, high = sorted(min(max(0.0, t / (steps - 1) * duration), duration) for t in tokens)
    return low, high


def _source(section: str) -> str:
    return f"benchmarks.md {section}"


GRADERS: Mapping[str, Grader] = {
    "official:video_holmes": Grader({CHOICE: _holmes}, _source("2.1; ktr.md 4.4")),
    "official:videommmu": Grader(
        {CHOICE: mmmu_choice([[BRACKETS], [SPACE], [PERIOD]]), **OPEN},
        _source("2.2"), "mmmu-open",
    ),
    "official:videomme": Grader({CHOICE: first_capital("ABCD")}, _source("2.4")),
    "official:longvideobench": Grader(
        {CHOICE: first_capital("ABCDE", otherwise=DRAWS)}, _source("2.8")
    ),
    "official:tempcompass": Grader({CHOICE: tempcompass, "free-form": CAPTION}, _source("2.5")),
    "official:mvbench": Grader({CHOICE: first_token}, _source("2.6"), "mvbench"),
    "official:vsibench": Grader(
        {CHOICE: first_word, "numerical": _first_float, "regression": _first_float},
        _source("2.7"), "vsibench",
    ),
    "official:mlvu": Grader({CHOICE: _before_bracket}, _source("2.10"), "same text"),
    "official:nextgqa": Grader(OURS["reelproof"].reads, _source("2.13"), "acc@gqa"),
    "official:rextime": Grader({"grounded qa": _json_in}, _source("2.14")),
    "official:videomathqa": LMMS["lmms-eval:videomathqa"],
    "official:scivideobench": LMMS["lmms-eval:scivideobench"],
}  # fmt: skip
