"""Reads the answer out of a reply: an `Answer`, or `Unparsed` with the reason; never a guess.

| grader                            | module      | whose rules                                    |
|-----------------------------------|-------------|------------------------------------------------|
| `reelproof`, `strict`             | reelproof   | ours: tags, then prose by rule; tags only      |
| `video-r1`, `onethinker`,         | released    | the papers' released evaluators                |
| `videossr`, `temporal-r1`, ...    |             |                                                |
| `official:BENCHMARK`              | official    | the benchmark's owner                          |
| `lmms-eval[:BENCHMARK]`           | lmms_eval   | lmms-eval's file for the benchmark             |
| `vlmevalkit[:BENCHMARK]`          | vlmevalkit  | VLMEvalKit's                                   |

`official`, `lmms-eval`, `vlmevalkit` and Temporal-R1's two without a benchmark are families:
`resolve` picks the one meant. All graders are total and deterministic. Where a tool draws an option
at random, its grader abstains (`DRAWS`). Rules of other tools come from their described behaviour,
quirks included; none of their code is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals.errors import BadInput
from evals.extract import lmms_eval, official, reelproof, released, vlmevalkit
from evals.extract.answers import (
    DRAWS,
    Answer,
    Confidence,
    Grader,
    Reading,
    Unparsed,
    first_block,
    option_texts,
    outside_think,
    plain_float,
)
from evals.extract.kinds import READERS, intervals, read
from evals.extract.phrase import phrase

__all__ = [
    "DRAWS", "FAMILIES", "GRADERS", "READERS", "Answer", "Confidence", "Grader", "Reading",
    "Unparsed", "extract", "first_block", "graders_for", "intervals", "option_texts",
    "outside_think", "phrase", "plain_float", "read", "resolve",
]  # fmt: skip

GRADERS: Mapping[str, Grader] = {
    **reelproof.GRADERS,
    **released.GRADERS,
    **official.GRADERS,
    **lmms_eval.GRADERS,
    **vlmevalkit.GRADERS,
}
FAMILIES = ("official", "lmms-eval", "vlmevalkit", "temporal-r1", "temporal-r1-no-think")


def extract(
    reply: str, kind: str, grader: str = "reelproof", options: Sequence[str] = ()
) -> Answer | Unparsed:
    """Read the answer of `kind` (evals.types.Kind) out of any text.

    options: the printed lines ("A. red"). A `reelproof` letter is always one of their labels;
    without options any capital letter counts. Raises BadInput for an unknown grader or kind and
    for options without a label, never because of `reply`.
    """
    if kind not in READERS:
        raise BadInput(f"unknown kind of question {kind!r}; known: {', '.join(READERS)}")
    reader = named(grader).reads.get(kind)
    return reader(reply, options) if reader else Unparsed(f"{grader} reads no {kind} answers")


def named(grader: str) -> Grader:
    """The grader of that name. Raises BadInput for an unknown one and for a family."""
    if grader == "official":
        raise BadInput("the grader `official` needs a benchmark: write official:BENCHMARK")
    if grader not in GRADERS:
        raise BadInput(f"unknown grader {grader!r}; known: {', '.join(GRADERS)}")
    return GRADERS[grader]


def resolve(grader: str, benchmark: str | None) -> str:
    """The grader that a name means on a benchmark: `official` on `mvbench` is `official:mvbench`.

    All other families fall back to their general rule. Raises BadInput for an unknown
    name, and for `official` on a benchmark whose owner has no rule that needs no LLM.
    """
    own = f"{grader}:{benchmark}"
    if grader in FAMILIES and benchmark and own in GRADERS:
        return own
    if grader == "official" and benchmark:
        raise BadInput(
            f"the owner of {benchmark} grades by other means than a rule (an LLM, or a file of "
            "predictions): name another grader"
        )
    named(grader)
    return grader


def graders_for(benchmark: str | None) -> list[str]:
    """Names that `--graders all` means: the general ones, and each family's on the benchmark."""
    general = [name for name in GRADERS if ":" not in name and name not in FAMILIES]
    own = {family: f"{family}:{benchmark}" for family in FAMILIES}
    families = [own[f] if own[f] in GRADERS else f for f in FAMILIES]
    return general + [name for name in families if name != "official"]
