"""Graders of the papers' released evaluators, quirks included (benchmarks.md 1, ktr.md 4.1).

| grader                 | where it looks                               | what it takes            |
|------------------------|----------------------------------------------|--------------------------|
| `video-r1`             | first `<answer>` block, else the whole reply | the stripped string      |
| `onethinker`           | the same                                     | first character, upper   |
| `videossr`             | the whole reply                              | first character          |
| `temporal-r1`          | first `<answer>` block                       | JSON letter and times    |
| `temporal-r1-no-think` | the whole reply                              | lone letter, spoken times|

Temporal-R1's harness gives what it finds, or the whole reply, to the scorer of the benchmark:
MVBench's (a lone letter, also chosen for MMVU and NExT-GQA), Video-MME's (`:videomme`, first
capital A to D) or TempCompass' (`:tempcompass`, without its judge).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evals.extract.answers import (
    Answer,
    Grader,
    Reader,
    Reading,
    Unparsed,
    first_block,
    plain_float,
    said,
)
from evals.extract.kinds import json_object, read
from evals.extract.lmms_eval import tempcompass
from evals.extract.shared import first_capital, mcq_letter, released_interval

GROUNDED = ("temporal grounding", "grounded qa")


def _block(reply: str) -> str:
    block = first_block(reply)
    return reply.strip() if block is None else block


def _rule(reply: str) -> str:
    return "whole reply" if first_block(reply) is None else "first answer block"


# --- video-r1 ----------------------------------------------------------------------------------


def _string(reply: str, options: Sequence[str]) -> Reading:
    text = _block(reply)
    return said(text, _rule(reply)) if text else Unparsed("empty answer")


def _number(reply: str, options: Sequence[str]) -> Reading:
    text = _block(reply)
    if not text:
        return Unparsed("empty answer")
    return Answer(text, number=plain_float(text), rule=_rule(reply), confidence="medium")


def _ours(kind: str) -> Reader:
    """Chosen: the family has neither of the two grounded kinds."""
    return lambda reply, options: read(_block(reply), kind, options)


# --- onethinker and videossr -------------------------------------------------------------------


def _first_upper(reply: str, options: Sequence[str]) -> Reading:
    text = _block(reply)
    return said(text[0].upper(), "first character") if text else Unparsed("empty answer")


def _first_of_reply(reply: str, options: Sequence[str]) -> Reading:
    text = reply.strip()
    return said(text[0], "first character") if text else Unparsed("empty answer")


def _time_list(reply: str, options: Sequence[str]) -> Reading:
    """`{"time": [start, end]}` in the block."""
    given = json_object(_block(reply)) or {}
    pair = given.get("time")
    if not isinstance(pair, list) or len(pair) != 2:
        return Unparsed('no {"time": [start, end]}')
    return read(f"[{pair[0]}, {pair[1]}]", "temporal grounding")


# --- temporal-r1 -------------------------------------------------------------------------------

QUOTED_OPTION = re.compile(r"\"\(([A-Z])[^\"]*\)\"|\"([A-Z])\"")
_PAIR = r"\s*\"{}\"\s*:\s*\"([0-9.]+)\"\s*"
_TIMES = re.compile(
    r"</think>\s*<answer>\s*\{" + _PAIR.format("start_time") + ","
    + _PAIR.format("end_time") + r"\}\s*</answer>"
)  # fmt: skip


def _json_option(scorer: Reader) -> Reader:
    """A quoted capital in the first block; otherwise the benchmark's scorer sees the whole reply,
    thinking included (temporal_r1.md 4.3, E2).
    """

    def reads(reply: str, options: Sequence[str]) -> Reading:
        match = QUOTED_OPTION.search(first_block(reply) or "")
        if match:
            return said(match[1] or match[2], "quoted option")
        found = scorer(reply, options)
        if isinstance(found, Unparsed):
            return found
        return replace(found, rule=f"{found.rule} of the whole reply")

    return reads


def _json_times(reply: str, options: Sequence[str]) -> Reading:
    """The released pattern anywhere in the reply; reversed ends are swapped by the scorer."""
    opened = reply.find("<think>")
    match = _TIMES.search(reply, opened + len("<think>")) if opened >= 0 else None
    if match is None:
        return Unparsed("not the released form of think block and JSON times")
    start, end = plain_float(match[1]), plain_float(match[2])
    if start is None or end is None:
        return Unparsed(f"{match[1]} or {match[2]} is no number; the released scorer stops here")
    low, high = sorted((start, end))
    return Answer(f"[{low}, {high}]", interval=(low, high), rule="released form")


def _json_both(reply: str, options: Sequence[str]) -> Reading:
    """Chosen, as the release asks no grounded question: option and times of the first block, each
    as its own reader takes them, in any order; reversed ends are swapped.
    """
    letter = _json_option(_first_letter)(reply, options)
    if isinstance(letter, Unparsed):
        return letter
    given = json_object(first_block(reply) or "") or {}
    times = [plain_float(str(given.get(key, ""))) for key in ("start_time", "end_time")]
    if times[0] is None or times[1] is None:
        missing = "no start_time and end_time in the JSON of the first answer block"
        return Unparsed(missing, letter.letter)
    return _both(letter, sorted((times[0], times[1])), letter.rule)


def _spoken_both(reply: str, options: Sequence[str]) -> Reading:
    """Chosen: the lone letter and the spoken interval, each as its own reader takes them."""
    letter, span = _first_letter(reply, options), _no_think_times(reply, options)
    if isinstance(letter, Unparsed):
        return letter
    if isinstance(span, Unparsed):
        return replace(span, letter=letter.letter)
    assert span.interval is not None, "an interval was read"
    return _both(letter, span.interval, span.rule)


def _both(letter: Answer, span: Sequence[float], rule: str) -> Reading:
    start, end = span
    if not (math.isfinite(start) and math.isfinite(end)):
        return Unparsed("not finite", letter.letter)
    value = f"{letter.letter} [{start}, {end}]"
    return Answer(value, interval=(start, end), rule=rule, confidence="medium")


def _first_letter(reply: str, options: Sequence[str]) -> Reading:
    letter = mcq_letter(reply)
    return said(letter, "first lone letter") if letter else Unparsed("no letter")


def _no_think_times(reply: str, options: Sequence[str]) -> Reading:
    return released_interval(reply, everywhere=True)


_A_TO_D = first_capital("ABCD")
_QA = "temporal_r1.md 4.3"
_VIDEO_R1: Mapping[str, Reader] = {
    "multiple choice": _string,
    "numerical": _number,
    "regression": _number,
    "OCR": _string,
    "free-form": _string,
}
GRADERS: Mapping[str, Grader] = {
    "video-r1": Grader(
        {**_VIDEO_R1, **{kind: _ours(kind) for kind in GROUNDED}},
        "benchmarks.md 1; ktr.md 4.1", "video-r1",
    ),
    "onethinker": Grader(
        {**_VIDEO_R1, "multiple choice": _first_upper, "temporal grounding": _time_list},
        "benchmarks.md 1, descendants", "onethinker",
    ),
    "videossr": Grader(
        {"multiple choice": _first_of_reply}, "benchmarks.md 1, descendants", "same text"
    ),
    "temporal-r1": Grader(
        {
            "multiple choice": _json_option(_first_letter), "temporal grounding": _json_times,
            "grounded qa": _json_both,
        },
        "temporal_r1.md 4.2, 4.3",
    ),
    "temporal-r1:videomme": Grader({"multiple choice": _json_option(_A_TO_D)}, _QA),
    "temporal-r1:tempcompass": Grader({"multiple choice": _json_option(tempcompass)}, _QA),
    "temporal-r1-no-think": Grader(
        {
            "multiple choice": _first_letter, "temporal grounding": _no_think_times,
            "grounded qa": _spoken_both,
        },
        "temporal_r1.md 4.2, 4.3",
    ),
    "temporal-r1-no-think:videomme": Grader({"multiple choice": _A_TO_D}, _QA),
    "temporal-r1-no-think:tempcompass": Grader({"multiple choice": tempcompass}, _QA),
}  # fmt: skip
