"""Rewards as pure functions, by problem type (ktr.md 1.5, inherited from Video-R1), and their
TRL-signature wrappers.

| problem type       | `released`                                | `paper` (read by evals.extract) |
|--------------------|-------------------------------------------|---------------------------------|
| multiple choice    | exact string                              | letter                          |
| numerical          | decimal gate, then equal at 2 decimals    | equal at 2 decimals             |
| regression         | 1 - min(1, (|p-g| + 1e-9) / (|g| + 1e-9)) | 1 - min(1, |p-g| / |g|)         |
| OCR                | max(0, 1 - WER)                           | the same                        |
| free-form          | mean ROUGE-1/2/L F1                       | the same                        |
| temporal grounding | tIoU (chosen)                             | the same                        |
| grounded qa        | (letter right + tIoU) / 2 (chosen)        | the same                        |
| anything else      | 0                                         | BadInput                        |

The released code has neither grounded type; both are read by evals.extract in both presets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch

from evals.errors import BadInput
from evals.extract import Answer, Unparsed, extract, first_block, plain_float, read
from evals.grade import same_number_video_r1
from evals.metrics import rouge, tiou, word_error_rate

Preset = Literal["released", "paper"]
Completion = str | Sequence[dict[str, Any]]

_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
#: Kinds that the released code lacks: read by evals.extract under either preset.
GROUNDED = ("temporal grounding", "grounded qa")
NOT_RELEASED = (*GROUNDED, "ordering")


def accuracy(
    completion: str,
    solution: str,
    problem_type: str,
    preset: Preset = "released",
    options: Sequence[str] = (),
) -> float:
    """Accuracy reward in [0, 1] of one completion.

    solution: `<answer>gold</answer>`. options: printed lines, used by `paper` and the grounded
    types to refuse letters that are no option. Raises BadInput for an unknown preset, for an
    unknown type (`paper`), and for a gold that cannot be read (`paper` and the grounded types).
    """
    if preset not in ("released", "paper"):
        raise BadInput(f"unknown preset {preset!r}; known: released, paper")
    if preset == "released" and problem_type not in NOT_RELEASED:
        said, gold = first_block(completion) or "", first_block(solution) or ""
        return _released(said, gold, problem_type)
    gold_text = first_block(solution)
    if gold_text is None:
        raise BadInput(f"solution {solution!r} has no <answer> block")
    answer = extract(completion, problem_type, "strict", options)
    truth = read(gold_text, problem_type, options)
    if isinstance(truth, Unparsed):
        raise BadInput(f"gold {gold_text!r} of {problem_type} cannot be read: {truth.reason}")
    return 0.0 if isinstance(answer, Unparsed) else _robust(answer, truth, problem_type)


def _released(said: str, gold: str, problem_type: str) -> float:
    """The released rules. A missing tag reads as "", so two missing tags are equal. What the
    release scores 0 by catching an exception (regression on text) is 0 here by rule; so is an
    answer of nan or inf (chosen: the released clamp turns nan into full marks).
    """
    if problem_type == "multiple choice":
        return float(said == gold)
    if problem_type == "numerical":
        return float(same_number_video_r1(said, gold))
    if problem_type == "OCR":
        return max(0.0, 1.0 - word_error_rate(gold, said))
    if problem_type == "free-form":
        return rouge(gold, said)
    if problem_type == "regression":
        p, g = plain_float(said), plain_float(gold)
        if p is None or g is None or not math.isfinite(p) or not math.isfinite(g):
            return 0.0
        return 1.0 - min(1.0, (abs(p - g) + 1e-9) / (abs(g) + 1e-9))
    return 0.0  # the released code's `else`


def _robust(answer: Answer, truth: Answer, problem_type: str) -> float:
    if problem_type == "multiple choice":
        return float(answer.letter == truth.letter)
    if problem_type == "ordering":
        return float(answer.value == truth.value)
    if problem_type == "OCR":
        return max(0.0, 1.0 - word_error_rate(truth.value, answer.value))
    if problem_type == "free-form":
        return rouge(truth.value, answer.value)
    if answer.interval is not None and truth.interval is not None:
        overlap = tiou(answer.interval, truth.interval)
        if problem_type == "temporal grounding":
            return overlap
        return (float(answer.letter == truth.letter) + overlap) / 2
    assert answer.number is not None and truth.number is not None, "the two numeric types"
    if problem_type == "numerical":
        return float(round(answer.number, 2) == round(truth.number, 2))
    error = abs(answer.number - truth.number)
    return 1.0 - min(1.0, error / abs(truth.number)) if truth.number else float(error == 0)


def format_reward(completion: str) -> float:
    """1.0 iff the whole completion is one think block, white space, one answer block.

    Full match with the dot matching newlines (ktr.md 1.5): text before, between or after the
    blocks, even a final newline, gives 0.
    """
    return float(_FORMAT.fullmatch(completion) is not None)


# --- bonuses of a whole group ------------------------------------------------------------------


def length_bonus(
    accuracies: torch.Tensor,
    lengths: torch.Tensor,
    window: tuple[int, int],
    bonus: float = 0.2,
    threshold: float = 0.1,
) -> torch.Tensor:
    """(G,) bonus for right completions of a wanted length (ktr.md 1.5, `len_control`).

    accuracies (G,), lengths (G,) in tokens, window inclusive. Only if more than one completion
    has accuracy > threshold: a lone success is not told how long to be.
    """
    right = accuracies > threshold
    if int(right.sum()) <= 1:
        return torch.zeros_like(accuracies)
    fits = (lengths >= window[0]) & (lengths <= window[1])
    return bonus * (right & fits).to(accuracies.dtype)


def t_grpo_bonus(
    accuracies: torch.Tensor,
    shuffled_accuracies: torch.Tensor,
    bonus: float = 0.3,
    ratio: float = 0.8,
    threshold: float = 0.1,
) -> torch.Tensor:
    """(G,) bonus of T-GRPO (ktr.md 1.5): right completions gain it if the group does well enough
    against its rollouts on shuffled frames, mean(accuracies) >= ratio * mean(shuffled).

    accuracies (G,), shuffled_accuracies (S,) with S >= 1. Ratio 0.8 is the released value; its
    author calls it left over from 1.0 (Video-R1 issue 74).
    """
    if shuffled_accuracies.numel() == 0:
        raise ValueError("the T-GRPO bonus needs at least one rollout on shuffled frames")
    if accuracies.mean() < ratio * shuffled_accuracies.mean():
        return torch.zeros_like(accuracies)
    return bonus * (accuracies > threshold).to(accuracies.dtype)


# --- TRL's reward signature --------------------------------------------------------------------


def completion_text(completion: Completion) -> str:
    """Text of a completion as TRL passes it: a string, or messages of which the last counts.

    A message's content is a string or a list of parts, of which those of type "text" are joined.
    """
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def accuracy_reward(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]] | None = None,
    *,
    solution: Sequence[str | None],
    problem_type: Sequence[str],
    options: Sequence[Sequence[str] | None] | None = None,
    preset: Preset = "released",
    **columns: Any,
) -> list[float | None]:
    """`accuracy` per completion, each by its own type; None (not applicable) without a solution."""
    lines = options if options is not None else [None] * len(completions)
    return [
        None if gold is None else accuracy(completion_text(said), gold, kind, preset, shown or ())
        for said, gold, kind, shown in zip(completions, solution, problem_type, lines, strict=True)
    ]


def format_rewards(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]] | None = None,
    **columns: Any,
) -> list[float | None]:
    """`format_reward` per completion."""
    return [format_reward(completion_text(completion)) for completion in completions]
