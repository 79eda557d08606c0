"""The module that Trainer wraps, for DDP or DeepSpeed: its forward is the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from evals.vlm import VLM
from repro.core.packing import Packed
from repro.core.scoring import score


class Policy(nn.Module):
    """A VLM as one module."""

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
        unused: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`repro.core.scoring.score`: (N, C) log-probabilities and entropies.

        unused: features that no row shows, so that the tower takes part in the backward of every
        process; they add nothing to any value or gradient.
        """
        logp, entropy = score(self.vlm, packed, features, precision=precision)
        return (logp if unused is None else logp + 0 * unused.sum()), entropy
