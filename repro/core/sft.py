"""Supervised fine-tuning: the cold start before reinforcement learning.

    loss = - mean over completion tokens of log p(token | prompt, earlier tokens)

Loss on the completion only; Video-R1's release also took it on the prompt, which is a switch of a
later stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evals.vlm import VLM, Encoded
from repro.core.scoring import score_rows


@dataclass(frozen=True)
class Example:
    """A prompt and the completion to learn, end token included."""

    prompt: Encoded
    completion: tuple[int, ...]


def train(
    vlm: VLM,
    examples: Sequence[Example],
    *,
    steps: int,
    learning_rate: float,
    batch: int,
    seed: int,
    warmup: float = 0.05,
    progress: Callable[[int, float], None] = lambda step, loss: None,
    stop: Callable[[int], bool] = lambda step: False,
) -> int:
    """AdamW, linear warm-up, then cosine to a tenth; batches drawn under `seed`.

    stop: asked after every step, ends training early. Returns the steps taken.
    """
    optimizer = torch.optim.AdamW(vlm.model.parameters(), lr=learning_rate, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    vlm.model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step / steps, warmup)
        chosen = [examples[i] for i in rng.integers(0, len(examples), batch)]
        logp, _ = score_rows(vlm, [(e.prompt, [e.completion]) for e in chosen])
        loss = -logp.sum() / sum(len(e.completion) for e in chosen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        optimizer.step()
        progress(step + 1, loss.item())
        if stop(step + 1):
            break
    vlm.model.eval()
    return step + 1


def _schedule(done: float, warmup: float) -> float:
    if done < warmup:
        return done / warmup
    return 0.1 + 0.45 * (1 + float(np.cos(np.pi * (done - warmup) / (1 - warmup))))
