"""repro.core.rewards: every type under both presets, the group bonuses, TRL's signature."""

from __future__ import annotations

import pytest
import torch

from evals.errors import BadInput
from repro.core.rewards import (
    accuracy,
    accuracy_reward,
    completion_text,
    format_reward,
    format_rewards,
    length_bonus,
    t_grpo_bonus,
)

OPTIONS = ("A. red", "B. blue")


def tagged(answer: str) -> str:
    return f"<answer>{answer}</answer>"


# --- accuracy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "gold", "kind", "released", "paper"),
    [
        ("B", "B", "multiple choice", 1, 1), (" B ", "B", "multiple choice", 1, 1),
        ("B.", "B", "multiple choice", 0, 1), ("b", "B", "multiple choice", 0, 1),
        ("B. blue", "B", "multiple choice", 0, 1), ("A", "B", "multiple choice", 0, 0),
        ("3", "3", "numerical", 1, 1), ("3.0", "3", "numerical", 0, 1),
        ("1,000", "1000", "numerical", 0, 1), ("3.004", "3.0", "numerical", 1, 1),
        ("3 shapes", "3", "numerical", 0, 1), ("4", "3", "numerical", 0, 0),
        ("three", "3", "numerical", 0, 0),
        ("9", "10", "regression", 0.9, 0.9), ("0", "0", "regression", 0, 1),  # ktr.md 7.2
        ("10", "10", "regression", 1, 1), ("30", "10", "regression", 0, 0),
        ("1", "0", "regression", 0, 0), ("nine", "10", "regression", 0, 0),
        ("nan", "10", "regression", 0, 0), ("inf", "10", "regression", 0, 0),
        ("", "10", "regression", 0, 0),
        ("a c", "a b c", "OCR", 2 / 3, 2 / 3), ("x y z", "a", "OCR", 0, 0), ("", "a", "OCR", 0, 0),
        ("[2, 5]", "[2, 8]", "temporal grounding", 0.5, 0.5),
        ("[5, 2]", "[2, 8]", "temporal grounding", 0, 0),
        ("soon", "[2, 8]", "temporal grounding", 0, 0),
        ("B [2, 5]", "B [2, 8]", "grounded qa", 0.75, 0.75),
        ("A [2, 5]", "B [2, 8]", "grounded qa", 0.25, 0.25), ("B", "B [2, 8]", "grounded qa", 0, 0),
    ],
)  # fmt: skip
def test_accuracy(said: str, gold: str, kind: str, released: float, paper: float) -> None:
    options = OPTIONS if kind in ("multiple choice", "grounded qa") else ()
    reply = f"<think>hm</think>{tagged(said)}"
    scores = [accuracy(reply, tagged(gold), kind, p, options) for p in ("released", "paper")]
    assert scores == pytest.approx([released, paper], abs=1e-6)


def test_free_form_is_mean_rouge() -> None:
    pytest.importorskip("rouge_score")
    expected = (2 / 3 + 1 / 2 + 2 / 3) / 3
    for preset in ("released", "paper"):
        reward = accuracy(tagged("the cat ran"), tagged("the cat sat"), "free-form", preset)
        assert reward == pytest.approx(expected)
    assert accuracy("no tags", tagged("the cat sat"), "free-form") == 0


def test_released_quirks() -> None:
    # The first block wins, even inside the thinking; the robust reading takes the last outside.
    quoted = "<think><answer>B</answer></think><answer>A</answer>"
    assert accuracy(quoted, tagged("B"), "multiple choice") == 1
    assert accuracy(quoted, tagged("B"), "multiple choice", "paper", OPTIONS) == 0
    # No tag reads as the empty string, so two missing tags are equal.
    assert accuracy("B", tagged("B"), "multiple choice") == 0
    assert accuracy("nothing", "B", "multiple choice") == 1
    assert accuracy("nothing", "3", "numerical") == 0
    assert accuracy(tagged("B"), tagged("B"), "spatial") == 0  # an unknown type


def test_paper_reads_a_bare_letter_and_refuses_what_is_no_option() -> None:
    assert accuracy("B", tagged("B"), "multiple choice", "paper", OPTIONS) == 1
    assert accuracy(tagged("C"), tagged("B"), "multiple choice", "paper", OPTIONS) == 0


@pytest.mark.parametrize(
    ("solution", "kind", "preset"),
    [
        ("B", "multiple choice", "paper"),  # no tags
        (tagged("C"), "multiple choice", "paper"),  # not an option
        (tagged("many"), "numerical", "paper"),
        (tagged("2"), "temporal grounding", "released"),
        (tagged("B"), "spatial", "paper"),
        (tagged("B"), "multiple choice", "strict"),
    ],
)
def test_bad_gold_is_an_error_and_not_a_zero(solution: str, kind: str, preset: str) -> None:
    with pytest.raises(BadInput):
        accuracy(tagged("B"), solution, kind, preset, OPTIONS)


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<think>a</think><answer>B</answer>", 1),
        ("<think>a\nb</think>\n \n<answer>B\n</answer>", 1),
        ("<think></think><answer></answer>", 1),
        ("<think>a</think><answer>B</answer><answer>C</answer>", 1),  # ffr.md 1.9
        ("<think>a</think><answer>B</answer>\n", 0), ("\n<think>a</think><answer>B</answer>", 0),
        ("<think>a</think> so <answer>B</answer>", 0), ("<answer>B</answer>", 0),
        ("<think>a</think><answer>B", 0), ("<answer>B</answer><think>a</think>", 0), ("", 0),
    ],
)  # fmt: skip
def test_format(completion: str, reward: float) -> None:
    assert format_reward(completion) == reward


# --- bonuses -----------------------------------------------------------------------------------


def test_length_bonus_goes_to_right_answers_inside_the_window() -> None:
    accuracies = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.1, 0.2])
    lengths = torch.tensor([320, 512, 513, 400, 400, 319])
    bonus = length_bonus(accuracies, lengths, window=(320, 512))
    assert bonus.tolist() == pytest.approx([0.2, 0.2, 0, 0, 0, 0])


def test_length_bonus_needs_two_right_answers() -> None:
    lengths = torch.tensor([400, 400, 400])
    alone = length_bonus(torch.tensor([1.0, 0.1, 0.0]), lengths, window=(320, 512))
    assert alone.tolist() == [0, 0, 0]
    pair = length_bonus(torch.tensor([1.0, 0.11, 0.0]), lengths, window=(320, 512), bonus=0.5)
    assert pair.tolist() == [0.5, 0.5, 0]


def test_t_grpo_bonus() -> None:
    accuracies = torch.tensor([1.0, 1.0, 0.1, 0.0])  # mean 0.525
    gains = [0.3, 0.3, 0, 0]
    assert t_grpo_bonus(accuracies, torch.tensor([0.5, 0.5])).tolist() == pytest.approx(gains)
    assert t_grpo_bonus(accuracies, torch.tensor([0.65])).tolist() == pytest.approx(gains)
    assert t_grpo_bonus(accuracies, torch.tensor([0.67])).tolist() == [0, 0, 0, 0]
    assert t_grpo_bonus(accuracies, torch.tensor([0.65]), ratio=1.0).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="at least one"):
        t_grpo_bonus(accuracies, torch.tensor([]))


def test_t_grpo_bonus_counts_a_tie_as_good_enough() -> None:
    half = torch.tensor([1.0, 0.0])
    assert t_grpo_bonus(half, half, ratio=1.0).tolist() == pytest.approx([0.3, 0])


# --- TRL's signature ---------------------------------------------------------------------------


def test_completions_as_trl_passes_them() -> None:
    parts = [{"type": "text", "text": "<answer>"}, {"type": "image"}, {"type": "text", "text": "B"}]
    assert completion_text("B") == "B"
    assert completion_text([{"role": "assistant", "content": "B"}]) == "B"
    assert completion_text([{"role": "assistant", "content": parts}]) == "<answer>B"
    assert completion_text([{"content": "call"}, {"content": "B"}]) == "B"


def test_wrappers_score_each_sample_by_its_own_type() -> None:
    completions = [tagged("B."), [{"role": "assistant", "content": tagged("9")}], tagged("x")]
    columns = {
        "solution": [tagged("B"), tagged("10"), None],
        "problem_type": ["multiple choice", "regression", "free-form"],
        "trainer_state": object(),
        "log_metric": print,
    }
    rewards = accuracy_reward(["p"] * 3, completions, [[1]] * 3, **columns)
    assert rewards == [0, pytest.approx(0.9), None]
    options = [OPTIONS, None, None]
    robust = accuracy_reward(["p"] * 3, completions, options=options, preset="paper", **columns)
    assert robust == [1, pytest.approx(0.9), None]
    by_text = [tagged("blue"), *completions[1:]]  # readable only with the options
    assert accuracy_reward([], by_text, options=options, preset="paper", **columns)[0] == 1
    assert accuracy_reward([], by_text, preset="paper", **columns)[0] == 0
    good = "<think>a</think><answer>B</answer>"
    assert format_rewards(["p"] * 2, [good, "B"], [[1]] * 2, **columns) == [1, 0]


def test_wrappers_refuse_columns_of_another_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        accuracy_reward(["p"], [tagged("B")], solution=[], problem_type=["multiple choice"])
