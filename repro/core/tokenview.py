"""What a reader sees of a step: completions, each token with its scores and who chose it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from evals.vlm import VLM
from repro.core.method import Method
from repro.core.types import Group, TokenScores

SHOWN = 6  # completions (chosen): one per group, of the largest |advantage|


def view(
    vlm: VLM,
    method: Method,
    groups: Sequence[Group],
    rewards: Sequence[Tensor],
    gains: Sequence[Tensor],
    scores: Sequence[TokenScores],
    weights: Sequence[Tensor],
) -> list[dict[str, Any]]:
    """JSON-ready: question, gold, reward, advantage, and per token text, scores and signals."""
    shown = []
    for group, reward, gain, score, weight in zip(
        groups, rewards, gains, scores, weights, strict=True
    ):
        masks = method.signals(score)
        row = int(gain.abs().argmax())
        rollout, record = group.rollouts[row], group.prompt.record
        tokens = []
        for place, token in enumerate(rollout.ids):
            values = {
                name: None if table is None else round(float(table[row, place]), 4)
                for name, table in (
                    ("entropy", score.entropy),
                    ("visual", score.visual),
                    ("temporal", score.temporal),
                )
            }
            chosen = [name for name, mask in masks.items() if bool(mask[row, place])]
            text = vlm.processor.tokenizer.decode([token])
            kept = bool(weight[row, place] > 0)
            tokens.append({"text": text, **values, "signals": chosen, "kept": kept})
        shown.append(
            {
                "question": "\n".join([record.question, *record.options]),
                "gold": record.gold,
                "family": record.tags.get("family", ""),
                "reward": round(float(reward[row]), 4),
                "advantage": round(float(gain[row]), 4),
                "tokens": tokens,
            }
        )
    shown.sort(key=lambda item: -abs(item["advantage"]))
    return shown[:SHOWN]
