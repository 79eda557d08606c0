"""evals.prompts: the full strings, written out, so that no shared constant can hide a change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evals.errors import BadInput
from evals.prompts import TEMPLATES, question_text
from evals.types import Sample

CHOICE = Sample(
    id="q1",
    question="Which came first?",
    kind="multiple choice",
    gold="B",
    modality="video",
    media=None,
    options=("A. red circle", "B. blue square", "C. green triangle"),
)
OPEN = replace(CHOICE, options=(), question="How many {shapes}?", kind="numerical", gold="3")

VIDEO_R1_CHOICE = """\
Which came first?Options:
A. red circle
B. blue square
C. green triangle

Please think about this question as if you were a human pondering deeply. Engage in an internal dialogue using expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, or other natural language thought expressions It's encouraged to include self-reflection or verification in the reasoning process. Provide your detailed reasoning between the <think> and </think> tags, and then give your final answer between the <answer> and </answer> tags. Please provide only the single option letter (e.g., A, B, C, D, etc.) within the <answer> </answer> tags."""  # noqa: E501

TRAIN_CHOICE = """\
Which came first?Options:
A. red circle
B. blue square
C. green triangle

Please think about this question as if you were a human pondering deeply. Engage in an internal dialogue using expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, or other natural language thought expressions It's encouraged to include self-reflection or verification in the reasoning process. Provide your detailed reasoning between the <think> </think> tags, and then give your final answer between the <answer> </answer> tags. Please provide only the single option letter (e.g., A, B, C, D, etc.) within the <answer> </answer> tags."""  # noqa: E501

VIDEO_R1_NUMBER = """\
How many {shapes}?
Please think about this question as if you were a human pondering deeply. Engage in an internal dialogue using expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, or other natural language thought expressions It's encouraged to include self-reflection or verification in the reasoning process. Provide your detailed reasoning between the <think> and </think> tags, and then give your final answer between the <answer> and </answer> tags. Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."""  # noqa: E501

HOLMES = "Based on the given video, reason and answer the single-choice question. Provide your reasoning between the <think> and </think> tags, and then give your final answer between the <answer> and </answer> tags. The question is: Which came first?. The options are: A: red circle, B: blue square, C: green triangle. Your answer:"  # noqa: E501

MICRO = "Which came first?\nA. red circle\nB. blue square\nC. green triangle"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("video-r1", VIDEO_R1_CHOICE),
        ("video-r1-train", TRAIN_CHOICE),
        ("video-holmes-official", HOLMES),
        ("micro", MICRO),
        ("micro-json", f"{MICRO}\nJSON:"),
        ("problem", MICRO),
    ],
)
def test_multiple_choice(prompt: str, expected: str) -> None:
    assert question_text(CHOICE, prompt) == expected


def test_every_prompt_has_a_golden_string() -> None:
    assert set(TEMPLATES) == {
        "video-r1", "video-r1-train", "video-holmes-official", "micro", "micro-json", "problem",
    }  # fmt: skip


def test_a_record_that_holds_its_options_is_shown_as_it_is() -> None:
    for held in (MICRO, "Which? (A) red circle (B) blue square (C) green triangle"):
        assert question_text(replace(CHOICE, question=held), "problem") == held
    # Their words alone are not enough: which letter stands for which?
    words = replace(CHOICE, question="A red circle, a blue square or a green triangle?")
    assert question_text(words, "problem").endswith("\nC. green triangle")
    assert question_text(replace(words, kind="grounded qa"), "problem").endswith(
        "C. green triangle"
    )
    assert question_text(OPEN, "problem") == "How many {shapes}?"


def test_open_question_keeps_its_braces_and_gets_no_options() -> None:
    assert question_text(OPEN, "video-r1") == VIDEO_R1_NUMBER
    assert question_text(OPEN, "micro") == "How many {shapes}?"


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("numerical", " Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."),  # noqa: E501
        ("regression", " Please provide the numerical value (e.g., 42 or 3.14) within the <answer> </answer> tags."),  # noqa: E501
        ("OCR", " Please transcribe text from the image/video clearly and provide your text answer within the <answer> </answer> tags."),  # noqa: E501
        ("free-form", " Please provide your text answer within the <answer> </answer> tags."),
        ("temporal grounding", " Please provide the start and end time in seconds as [start, end] within the <answer> </answer> tags."),  # noqa: E501
    ],
)  # fmt: skip
@pytest.mark.parametrize("prompt", ["video-r1", "video-r1-train"])
def test_type_suffix_follows_the_template(kind: str, suffix: str, prompt: str) -> None:
    text = question_text(replace(OPEN, kind=kind), prompt)
    assert text.endswith("</answer> tags." + suffix)


def test_grounded_qa_prints_options_like_multiple_choice() -> None:
    text = question_text(replace(CHOICE, kind="grounded qa"), "video-r1")
    assert text.startswith(VIDEO_R1_CHOICE.split(" Please provide only")[0])
    assert text.endswith(
        " Please provide the single option letter followed by the start and end time in seconds"
        " (e.g., A [1.0, 2.5]) within the <answer> </answer> tags."
    )


def test_a_problem_that_already_ends_in_options_is_left_alone() -> None:
    twice = replace(CHOICE, question="Which came first? Options:\n")
    assert question_text(twice, "video-r1").startswith(
        "Which came first? Options:\nOptions:\nA. red"
    )


@pytest.mark.parametrize(
    ("sample", "prompt"),
    [
        (CHOICE, "no such prompt"),
        (replace(CHOICE, options=()), "video-r1"),
        (replace(CHOICE, options=()), "micro"),
        (replace(CHOICE, options=("red", "blue")), "video-holmes-official"),
        (OPEN, "video-holmes-official"),
    ],
)
def test_bad_input_is_named(sample: Sample, prompt: str) -> None:
    with pytest.raises(BadInput):
        question_text(sample, prompt)
