"""What travels through a training step: Prompt -> Rollout -> Group -> TokenScores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from evals.types import Sample, VideoClip

if TYPE_CHECKING:
    import torch

    from evals.vlm import Encoded

Record = Sample  # a training record is the sample an evaluation would ask


@dataclass(frozen=True)
class Prompt:
    """A record, its decoded clip, and the model inputs made from them once."""

    record: Record
    clip: VideoClip | None
    encoded: Encoded


@dataclass(frozen=True)
class Rollout:
    """One completion. `prompt` is what it was sampled under; its loss is taken under
    `loss_prompt`, which differs only for repaired rollouts (FFR).

    ids: completion token ids up to and including the end token. finished: ended by itself.
    logp: the sampler's own log-probability of each id under `prompt`, empty if it tells none.
    """

    prompt: Prompt
    loss_prompt: Prompt
    ids: tuple[int, ...]
    text: str
    finished: bool
    tags: dict[str, float] = field(default_factory=dict)
    logp: tuple[float, ...] = ()


@dataclass(frozen=True)
class Group:
    """The G rollouts of one prompt; never split over ranks.

    auxiliary: rollouts that only inform rewards (T-GRPO's shuffled ones); no gradient.
    seed: of every draw made for this group; derive a new one per purpose (evals.seeds).
    """

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    auxiliary: tuple[Rollout, ...] = ()
    seed: int = 0

    def with_auxiliary(self, rollouts: list[Rollout]) -> Group:
        """The same group with auxiliary rollouts attached."""
        return replace(self, auxiliary=tuple(rollouts))


@dataclass(frozen=True)
class TokenScores:
    """Per-token scores of one group, fp32, no gradient; C is the longest completion.

    valid: (G, C) bool. logp, entropy: (G, C). visual, temporal: (G, C) differences
    `logp(full) - logp(counterfactual)`, or None when not computed (no video, signal off).
    """

    valid: torch.Tensor
    logp: torch.Tensor
    entropy: torch.Tensor
    visual: torch.Tensor | None = None
    temporal: torch.Tensor | None = None
