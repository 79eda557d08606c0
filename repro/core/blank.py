"""What a process computes where it has nothing to do, so that all make the same module calls.

A blank clip is one vision token of zeros, a blank tree a prompt and a completion of one token each;
what comes of them is dropped, or enters a loss times zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evals.vlm import VLM, Encoded
from repro.core.packing import Tree


def clip(vlm: VLM) -> Encoded:
    """The smallest clip there is, and the tokens it stands for."""
    vision = vlm.net.config.vision_config
    channels = getattr(vision, "in_channels", None) or vision.in_chans
    values = channels * vision.temporal_patch_size * vision.patch_size**2
    pixels, grid = torch.zeros(vlm.merge**2, values), torch.tensor([[1, vlm.merge, vlm.merge]])
    return Encoded(torch.tensor([vlm.video_pad]), torch.zeros(3, 1).long(), pixels, grid, 0.0)


def features(vlm: VLM) -> Tensor:
    """(1, H) features of the blank clip, with gradient where it is enabled."""
    (found,) = vlm.features([clip(vlm)])
    assert found is not None
    return found


def look(vlm: VLM, prompts: Sequence[Encoded]) -> list[Tensor | None]:
    """`vlm.features`, with the tower run in any case."""
    if all(p.pixels is None for p in prompts):
        features(vlm)
    return vlm.features(prompts)


def tree(vlm: VLM) -> Tree:
    """A prompt without a clip and its completion."""
    prompt = Encoded(torch.tensor([vlm.end]), torch.zeros(3, 1).long(), None, None, 0.0)
    return Tree((prompt,), ((vlm.end,),))
