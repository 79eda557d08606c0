"""An answer in the form that a grader's own prompt asks for: how oracle, parrot and random speak.

| grader                               | form                                             |
|--------------------------------------|--------------------------------------------------|
| ours, Video-R1's, Video-Holmes'      | `<think>...</think><answer>B</answer>`           |
| temporal-r1, onethinker              | the same, with JSON where they want it           |
| official:mlvu                        | `B)`, which continues `Best Option: (`           |
| official:rextime                     | JSON                                             |
| tempcompass on a yes-no question     | the word                                         |
| lmms-eval, *-no-think on an interval | The event happens in the 2 - 5 seconds           |
| all others                           | the bare answer                                  |
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from evals.extract.answers import option_texts
from evals.extract.kinds import intervals

_TAGGED = (
    "reelproof", "strict", "video-r1", "onethinker", "official:nextgqa", "official:video_holmes",
    "vlmevalkit:video_holmes",
)  # fmt: skip


def phrase(
    said: str, kind: str, grader: str, options: Sequence[str] = (), thought: str = "so"
) -> str:
    """A reply that says `said` (a gold's text: "B", "3", "[2, 5]", "B [2, 5]") to this grader.

    What is no answer of the kind is said as it is.
    """
    spans = intervals(said)
    if len(spans) == 1 and kind in ("temporal grounding", "grounded qa"):
        said = _timed(said, kind, grader, spans[0])
    elif kind == "multiple choice":
        said = _chosen(said, grader, options)
    if grader in _TAGGED or _in_json(grader):
        return f"<think>{thought}</think><answer>{said}</answer>"
    return said


def _in_json(grader: str) -> bool:
    return grader.partition(":")[0] == "temporal-r1"


def _timed(said: str, kind: str, grader: str, span: tuple[float, float]) -> str:
    start, end = (f"{seconds:.15g}" for seconds in span)
    if grader == "official:rextime" and kind == "grounded qa":
        return json.dumps({"relevant_span": list(span), "answer": said.strip()[:1]})
    if _in_json(grader):
        option = {} if kind == "temporal grounding" else {"option": said.strip()[:1]}
        return json.dumps({**option, "start_time": start, "end_time": end})
    if kind != "temporal grounding":
        spoken = f"{said.strip()[:1]}. It happens in the {start} - {end} seconds"
        return spoken if grader == "temporal-r1-no-think" else said
    if grader == "onethinker":
        return json.dumps({"time": list(span)})
    if grader.startswith("lmms-eval") or grader == "temporal-r1-no-think":
        return f"The event happens in the {start} - {end} seconds"
    return said


def _chosen(said: str, grader: str, options: Sequence[str]) -> str:
    if _in_json(grader):
        return json.dumps({"option": said})
    if grader == "official:mlvu":
        return f"{said})"
    if grader.endswith(":tempcompass"):
        texts = option_texts(options)
        if {text.lower() for text in texts.values()} == {"yes", "no"}:
            return texts.get(said, said)
    return said
