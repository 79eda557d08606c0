"""repro.ffr.blind with the tiny Qwen2.5-VL: real probabilities, and what the gate makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evals.types import Sample
from evals.vlm import VLM
from repro.ffr.blind import BlindStudent
from repro.ffr.case import Case
from repro.ffr.gate import Gate
from repro.ffr.patch import Patch, told
from repro.ffr.teacher import Failure

CHOICE = Sample(
    "q", "Which came first?", "multiple choice", "B", "text", None,
    ("A. red circle", "B. blue square", "C. green triangle"),
)  # fmt: skip


def case(sample: Sample = CHOICE) -> Case:
    return Case.of(Failure(sample, None, "red circle", "A", 0.0, 0))


def test_probabilities(student: VLM) -> None:
    blind = BlindStudent(student, "micro")
    chances = [blind(case(replace(CHOICE, gold=g)), None) for g in "ABC"]
    assert sum(chances) == pytest.approx(1, abs=1e-5) and min(chances) > 0
    assert blind(case(), "Look at frame 3.") != chances[1]
    assert blind(case(), None) == chances[1]  # the same twice
    # All orders were asked: the place of an option does not matter.
    turned = replace(
        CHOICE, gold="A", options=("A. blue square", "B. green triangle", "C. red circle")
    )
    assert blind(case(turned), None) == pytest.approx(chances[1], abs=1e-5)


def test_free_answers(student: VLM) -> None:
    count = Sample("n", "How many shapes are there?", "numerical", "3", "text", None)
    blind = BlindStudent(student, "micro")
    found = [blind(case(replace(count, gold=g)), None) for g in ("3", "12")]
    assert 0 < found[1] < found[0] < 1
    when = replace(count, kind="temporal grounding", gold="[1.0, 2.0]")
    assert blind(case(when), None) == blind(case(when), "at 1 s") == 0


def test_the_bound_decides(student: VLM) -> None:
    """Whatever the words do to its letters, the bound decides."""
    blind = BlindStudent(student, "micro", orders=1)
    patch = Patch("spatial", (), (), (), "See there.")
    gain = blind(case(), told(patch, seconds=case().seconds)) - blind(case(), None)
    for bound, refused in ((gain - 1e-4, True), (gain + 1e-4, False)):
        found = Gate(blind, bound).test(patch, case())
        assert (found is not None) == refused
    assert not any(p.grad is not None for p in student.model.parameters())
    assert torch.is_grad_enabled()


def test_letters_of_one_token_are_read_from_one_forward(student: VLM) -> None:
    """And mean what a forward each gives; the question alone is asked once."""
    blind = BlindStudent(student, "micro", orders=1)
    turn = blind._turn(case(), CHOICE.options, "Look.")
    together = blind._logp(turn, list("ABC"))
    apart = [blind._logp(turn, [letter, "A B"])[0] for letter in "ABC"]
    assert together == pytest.approx(apart, abs=1e-5)
    before = student.tokens
    blind(case(), None)
    asked = student.tokens - before
    blind(case(), None)
    assert student.tokens - before == asked
