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
class Hint:
    """What is added to a question: words, and the frames of its clip that are shown again as
    pictures, one for each `<image>` in the words. box: of them only this part, x1, y1, x2, y2 in
    shares of their sides. first: the words stand before the question."""

    words: str = ""
    frames: tuple[int, ...] = ()
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    first: bool = False

    def __bool__(self) -> bool:
        return bool(self.words)

    def on(self, text: str) -> str:
        """The question's text with the words."""
        return self.words + text if self.first else text + self.words

    def beside(self, clip: VideoClip | None) -> VideoClip | None:
        """The clip with the pictures."""
        if clip is None or not self.frames:
            return clip
        height, width = clip.frames.shape[1:3]
        x1, y1, x2, y2 = self.box
        rows = slice(round(y1 * height), max(round(y2 * height), round(y1 * height) + 1))
        columns = slice(round(x1 * width), max(round(x2 * width), round(x1 * width) + 1))
        shown = (clip.frames[k, rows, columns].copy() for k in self.frames)
        return replace(clip, images=(*clip.images, *shown))


NO_HINT = Hint()


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
