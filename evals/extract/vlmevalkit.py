"""Graders of VLMEvalKit, one per benchmark; without a benchmark, its Video-MME rule.

The kit asks a judge when its rules find nothing, and counts a random option after three failures
of the judge; here such a reply is unparsed (and may go to our own judge).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals.extract.answers import Grader, Reading, Unparsed
from evals.extract.lmms_eval import CAPTION, CHOICE, tempcompass
from evals.extract.official import first_token, holmes_letter, last_block
from evals.extract.shared import (
    BRACKETS,
    PREFIXES,
    SPACE,
    Form,
    first_capital,
    mmmu_choice,
    mmmu_open_reader,
)

_SOURCE = "benchmarks.md 2, evaluators.md 1"
#: Commas are missing in its list, so two pairs never match: "Best option: C" is B.
_GLUED = (*PREFIXES[:4], PREFIXES[4] + PREFIXES[5], PREFIXES[6] + PREFIXES[7], "Answer:", "Option:")
_PERIOD: Form = ("{}.", "{}.")
_COLON: Form = ("{}:", "{}:")
_mmmu = mmmu_choice([[_PERIOD, _COLON], [BRACKETS], [SPACE]], otherwise="no candidate")


def _holmes(reply: str, options: Sequence[str]) -> Reading:
    """The owner's rules, but a missing tag is wrong."""
    block = last_block(reply)
    return Unparsed("no <answer> block") if block is None else holmes_letter(block)


def _after_answer(reply: str, options: Sequence[str]) -> Reading:
    """MMMU's parser on what follows the last "Answer:"."""
    text = reply.rpartition("Answer:")[-1].strip()
    return _mmmu(text, options) if text else Unparsed("empty answer")


def _open_after_answer(reply: str, options: Sequence[str]) -> Reading:
    return mmmu_open_reader(reply.rpartition("Answer:")[-1].strip(), options)


_FIRST = first_capital("ABCD", _GLUED)
GRADERS: Mapping[str, Grader] = {
    "vlmevalkit": Grader({CHOICE: _FIRST}, _SOURCE),
    "vlmevalkit:videomme": Grader({CHOICE: _FIRST}, _SOURCE),
    "vlmevalkit:longvideobench": Grader({CHOICE: first_capital("ABCDE", _GLUED)}, _SOURCE),
    "vlmevalkit:video_holmes": Grader({CHOICE: _holmes}, _SOURCE),
    "vlmevalkit:videommmu": Grader(
        {CHOICE: _after_answer, "numerical": _open_after_answer, "free-form": _open_after_answer},
        _SOURCE, "mmmu-open",
    ),
    "vlmevalkit:mvbench": Grader({CHOICE: first_token}, _SOURCE, "mvbench"),
    "vlmevalkit:tempcompass": Grader({CHOICE: tempcompass, "free-form": CAPTION}, _SOURCE),
}  # fmt: skip
