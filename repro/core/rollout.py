"""Sampling groups with transformers: a prompt is prefilled once, its cache expanded to G."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from evals.types import Decoding
from evals.vlm import VLM, Sampled
from repro.core.types import Group, Prompt, Rollout
from repro.core.vision import Vision

#: (place of a prompt, its rollouts)
Ended = Callable[[int, list[Rollout]], None]


class Sampler:
    """Draws completions of the current policy. vision: its features, where a step has them."""

    def __init__(self, vlm: VLM, decoding: Decoding, vision: Vision | None = None):
        self.vlm, self.decoding, self.vision = vlm, decoding, vision or Vision(vlm)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        n: int,
        seeds: Sequence[int],
        *,
        longest: int | None = None,
        shared: bool = False,
        ended: Ended = lambda place, rollouts: None,
    ) -> list[list[Rollout]]:
        """n completions for each prompt, in order; seeds: one per prompt.

        longest: tokens of a completion, by default those of the decoding. shared: prompts about
        one clip are prefilled once as far as they are alike. ended: told the place of
        each prompt and its rollouts as soon as the last of them ends; an engine that tells nothing
        before all have ended tells it then.
        """
        decoding = replace(
            self.decoding, samples=n, max_new_tokens=longest or self.decoding.max_new_tokens
        )
        made: dict[int, list[Rollout]] = {}

        def keep(place: int, samples: list[Sampled]) -> None:
            p = prompts[place]
            made[place] = [
                Rollout(p, p, s.ids, self.vlm.text(s.ids), s.finished, logp=s.logp) for s in samples
            ]
            ended(place, made[place])

        self.draw(prompts, decoding, seeds, keep, shared)
        return [made[place] for place in range(len(prompts))]

    def draw(
        self, prompts: Sequence[Prompt], decoding: Decoding, seeds: Sequence[int],
        ended: Callable[[int, list[Sampled]], None], shared: bool,
    ) -> None:  # fmt: skip
        """Tell `ended` of every prompt's completions once."""
        asked = [p.encoded for p in prompts]
        known = self.vision.look(asked)
        self.vlm.sample(asked, decoding, seeds, known, shared=shared, ended=ended)

    def groups(
        self,
        prompts: Sequence[Prompt],
        n: int,
        seeds: Sequence[int],
        sampled: Callable[[Group], None] = lambda group: None,
    ) -> list[Group]:
        """One group of n rollouts per prompt, which keeps its seed. sampled: told of each group as
        `ended` is."""
        made: dict[int, Group] = {}

        def keep(place: int, rollouts: list[Rollout]) -> None:
            made[place] = Group(prompts[place], tuple(rollouts), seed=seeds[place])
            sampled(made[place])

        self(prompts, n, seeds, ended=keep)
        return [made[place] for place in range(len(prompts))]
