"""Sampling groups with transformers: every prompt prefilled once, its cache expanded to G rollouts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evals.types import Decoding
from evals.vlm import VLM
from repro.core.types import Group, Prompt, Rollout


class Sampler:
    """Draws completions of the current policy.

    `logp` keeps, per call, the sampler's own log-probabilities of what it drew: health.py compares
    them with the scorer's.
    """

    def __init__(self, vlm: VLM, decoding: Decoding, generator: torch.Generator):
        self.vlm, self.decoding, self.generator = vlm, decoding, generator
        self.logp: list[tuple[float, ...]] = []

    def __call__(self, prompts: Sequence[Prompt], n: int) -> list[list[Rollout]]:
        """n completions for each prompt, in order."""
        from dataclasses import replace

        decoding = replace(self.decoding, samples=n)
        drawn = self.vlm.sample([p.encoded for p in prompts], decoding, self.generator)
        self.logp = [s.logp for samples in drawn for s in samples]
        return [
            [Rollout(p, p, s.ids, self.vlm.text(s.ids), s.finished) for s in samples]
            for p, samples in zip(prompts, drawn, strict=True)
        ]

    def groups(self, prompts: Sequence[Prompt], n: int) -> list[Group]:
        """One group of n rollouts per prompt."""
        drawn = self(prompts, n)
        return [Group(p, tuple(r)) for p, r in zip(prompts, drawn, strict=True)]
