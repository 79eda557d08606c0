"""Sampling groups with transformers: a prompt is prefilled once, its cache expanded to G."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from evals.types import Decoding
from evals.vlm import VLM
from repro.core.types import Group, Prompt, Rollout


class Sampler:
    """Draws completions of the current policy."""

    def __init__(self, vlm: VLM, decoding: Decoding, generator: torch.Generator):
        self.vlm, self.decoding, self.generator = vlm, decoding, generator

    def __call__(self, prompts: Sequence[Prompt], n: int) -> list[list[Rollout]]:
        """n completions for each prompt, in order."""
        decoding, model = replace(self.decoding, samples=n), self.vlm.model
        training = model.training
        model.eval()  # in training mode gradient checkpointing would drop the cache
        drawn = self.vlm.sample([p.encoded for p in prompts], decoding, self.generator)
        model.train(training)
        return [
            [Rollout(p, p, s.ids, self.vlm.text(s.ids), s.finished, logp=s.logp) for s in samples]
            for p, samples in zip(prompts, drawn, strict=True)
        ]

    def groups(self, prompts: Sequence[Prompt], n: int) -> list[Group]:
        """One group of n rollouts per prompt."""
        drawn = self(prompts, n)
        return [Group(p, tuple(r)) for p, r in zip(prompts, drawn, strict=True)]
