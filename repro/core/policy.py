"""The module that Trainer wraps, for DDP or DeepSpeed: its forward is the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evals.vlm import VLM
from repro.core.packing import Packed
from repro.core.scoring import score


class Policy(nn.Module):
    """A VLM as one module. A process without a clip in its batch encodes a blank one, so that every
    parameter takes part everywhere (`blank`); it adds nothing to any value or gradient."""

    def __init__(self, vlm: VLM):
        super().__init__()
        self.net, self.vlm = vlm.model, vlm

    @property
    def config(self) -> Any:
        """The model's configuration, which Trainer and DeepSpeed ask for."""
        return self.net.config

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Passed on to the model."""
        self.net.gradient_checkpointing_enable(**kwargs)

    def forward(
        self,
        packed: Packed,
        features: Sequence[Tensor | None],
        precision: str = "fp32",
        blank: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """`repro.core.scoring.score`: (N, C) log-probabilities and entropies."""
        logp, entropy = score(self.vlm, packed, features, precision=precision)
        if blank and all(f is None for f in features):
            logp = logp + 0 * self._blank().sum()
        return logp, entropy

    def _blank(self) -> Tensor:
        """Features of the smallest clip there is."""
        vision, merge = self.net.config.vision_config, self.vlm.merge
        channels = getattr(vision, "in_channels", None) or vision.in_chans
        values = channels * vision.temporal_patch_size * vision.patch_size**2
        pixels = torch.zeros(merge**2, values, device=self.vlm.device, dtype=self.vlm.visual.dtype)
        grid = torch.tensor([[1, merge, merge]], device=self.vlm.device)
        out: Tensor = self.vlm.visual(pixels, grid_thw=grid).pooler_output
        return out
