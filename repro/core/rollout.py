"""Sampling groups with transformers: a prompt is prefilled once, its cache expanded to G."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evals.types import Decoding
from evals.vlm import VLM
from repro.core.types import Group, Prompt, Rollout
from repro.core.vision import Vision


class Sampler:
    """Draws completions of the current policy. vision: its features, where a step has them."""

    def __init__(self, vlm: VLM, decoding: Decoding, vision: Vision | None = None):
        self.vlm, self.decoding, self.vision = vlm, decoding, vision or Vision(vlm)

    def __call__(
        self, prompts: Sequence[Prompt], n: int, seeds: Sequence[int]
    ) -> list[list[Rollout]]:
        """n completions for each prompt, in order; seeds: one per prompt."""
        decoding = replace(self.decoding, samples=n)
        asked = [p.encoded for p in prompts]
        drawn = self.vlm.sample(asked, decoding, seeds, self.vision.look(asked))
        return [
            [Rollout(p, p, s.ids, self.vlm.text(s.ids), s.finished, logp=s.logp) for s in samples]
            for p, samples in zip(prompts, drawn, strict=True)
        ]

    def groups(self, prompts: Sequence[Prompt], n: int, seeds: Sequence[int]) -> list[Group]:
        """One group of n rollouts per prompt, which keeps its seed."""
        drawn = self(prompts, n, seeds)
        return [Group(p, tuple(r), seed=s) for p, r, s in zip(prompts, drawn, seeds, strict=True)]
