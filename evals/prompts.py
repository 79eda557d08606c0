"""The text that follows the clip: one template per prompt id, with the exact wording of its source.

| prompt                  | source                                                             |
|-------------------------|--------------------------------------------------------------------|
| `video-r1`              | evaluation of the Video-R1 family (ktr.md 4.1)                     |
| `video-r1-train`        | its training (ktr.md 3.6): "between the <think> </think> tags"     |
| `video-holmes-official` | Video-Holmes `evaluate.py` (ktr.md 4.4); multiple choice only      |
| `micro`                 | chosen, for the tiny student: question, then one option per line   |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evals.errors import BadInput
from evals.extract import option_texts
from evals.types import Sample

_DELIBERATE = (
    "Please think about this question as if you were a human pondering deeply. "
    "Engage in an internal dialogue using expressions such as 'let me think', 'wait', 'Hmm', "
    "'oh, I see', 'let's break it down', etc, or other natural language thought expressions "
    "It's encouraged to include self-reflection or verification in the reasoning process. "
)
_TAGS = {
    "video-r1": (
        "Provide your detailed reasoning between the <think> and </think> tags, "
        "and then give your final answer between the <answer> and </answer> tags."
    ),
    "video-r1-train": (
        "Provide your detailed reasoning between the <think> </think> tags, "
        "and then give your final answer between the <answer> </answer> tags."
    ),
}
_NUMBER = (
    " Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."
)
_SUFFIX = {
    "multiple choice": (
        " Please provide only the single option letter (e.g., A, B, C, D, etc.)"
        " within the <answer> </answer> tags."
    ),
    "numerical": _NUMBER,
    "regression": _NUMBER,
    "OCR": (
        " Please transcribe text from the image/video clearly and provide your text answer"
        " within the <answer> </answer> tags."
    ),
    "free-form": " Please provide your text answer within the <answer> </answer> tags.",
    # Chosen: the family has neither of the two grounded kinds.
    "temporal grounding": (
        " Please provide the start and end time in seconds as [start, end]"
        " within the <answer> </answer> tags."
    ),
    "grounded qa": (
        " Please provide the single option letter followed by the start and end time in seconds"
        " (e.g., A [1.0, 2.5]) within the <answer> </answer> tags."
    ),
}
_HOLMES = (
    "Based on the given video, reason and answer the single-choice question. "
    "Provide your reasoning between the <think> and </think> tags, "
    "and then give your final answer between the <answer> and </answer> tags. "
    "The question is: {question}. The options are: {options}. Your answer:"
)
_CHOICE = ("multiple choice", "grounded qa")


def question_text(sample: Sample, prompt: str) -> str:
    """The user turn's text under a prompt id.

    Raises BadInput for an unknown id, for a choice question without options, and for a kind that
    the prompt's source does not have.
    """
    if prompt not in TEMPLATES:
        raise BadInput(f"unknown prompt {prompt!r}; known: {', '.join(TEMPLATES)}")
    if sample.kind in _CHOICE and not sample.options:
        raise BadInput(f"question {sample.id!r} is {sample.kind} but has no options")
    return TEMPLATES[prompt](sample)


def _video_r1(sample: Sample, tags: str) -> str:
    """ktr.md 3.6: "Options:" follows the problem with nothing between, every option ends in a
    newline, so a blank line stands before the template.
    """
    question = sample.question
    if sample.kind in _CHOICE:
        question += "Options:\n" + "".join(f"{option}\n" for option in sample.options)
    return f"{question}\n{_DELIBERATE}{tags}{_SUFFIX[sample.kind]}"


def _video_holmes(sample: Sample) -> str:
    if sample.kind != "multiple choice":
        raise BadInput(f"prompt 'video-holmes-official' asks multiple choice, not {sample.kind}")
    options = ", ".join(f"{label}: {text}" for label, text in option_texts(sample.options).items())
    return _HOLMES.format(question=sample.question, options=options)


def _micro(sample: Sample) -> str:
    return "\n".join((sample.question, *sample.options))


TEMPLATES: Mapping[str, Callable[[Sample], str]] = {
    "video-r1": lambda sample: _video_r1(sample, _TAGS["video-r1"]),
    "video-r1-train": lambda sample: _video_r1(sample, _TAGS["video-r1-train"]),
    "video-holmes-official": _video_holmes,
    "micro": _micro,
}
