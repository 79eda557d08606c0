"""From rewards to advantages: A_i = (R_i - mean of its group) / (std + eps), unbiased std.

| `scale_rewards` | std over                                                                     |
|-----------------|------------------------------------------------------------------------------|
| `group`         | the completion's own group (GRPO, ktr.md 1.6)                                |
| `batch`         | all rewards of the batch, or of its problem type within the batch            |
| `none`          | no division (Dr.GRPO)                                                        |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Scale = Literal["group", "batch", "none"]


def group_advantages(rewards: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    """(G,) advantages of one group's rewards (G,), in the rewards' dtype.

    Equal rewards, or a single one, give zeros. Raises ValueError for rewards that are not finite.
    """
    return advantages([rewards], eps=eps)[0]


def advantages(
    rewards: Sequence[torch.Tensor],
    scale: Scale = "group",
    types: Sequence[str] | None = None,
    eps: float = 1e-4,
) -> list[torch.Tensor]:
    """Advantages of a batch of groups; the mean is always the group's own.

    rewards: one (G,) tensor per group, G may differ. types: one problem type per group, only with
    scale "batch": the std is then taken over the batch's rewards of that type, so that a kind of
    small rewards (IoU) does not drown beside a kind of 0 and 1 (temporal_r1.md T8).
    """
    if types is not None and (scale != "batch" or len(types) != len(rewards)):
        raise ValueError("types needs scale='batch' and one problem type per group")
    # In float64: the rounding of a float32 mean over eps would be noise of order 1e-3.
    exact = [_checked(group) for group in rewards]
    names = types if types is not None else [""] * len(exact)
    if scale == "group":
        spreads = [_std(group) for group in exact]
    elif scale == "batch":
        pools = {name: torch.cat(_of_type(exact, names, name)) for name in names}
        spreads = [_std(pools[name]) for name in names]
    elif scale == "none":
        return [(r - r.mean()).to(raw) for r, raw in zip(exact, rewards, strict=True)]
    else:
        raise ValueError(f"unknown scale {scale!r}; known: group, batch, none")
    return [
        ((r - r.mean()) / (spread + eps)).to(raw)
        for r, spread, raw in zip(exact, spreads, rewards, strict=True)
    ]


def _checked(rewards: torch.Tensor) -> torch.Tensor:
    if rewards.ndim != 1 or rewards.numel() == 0 or not bool(torch.isfinite(rewards).all()):
        raise ValueError(f"a group needs finite rewards of shape (G,), got {rewards}")
    return rewards.double()


def _std(values: torch.Tensor) -> torch.Tensor:
    """Unbiased standard deviation; 0 for a single value, where it is undefined."""
    return values.std() if values.numel() > 1 else values.new_zeros(())


def _of_type(
    rewards: Sequence[torch.Tensor], names: Sequence[str], name: str
) -> list[torch.Tensor]:
    return [group for group, own in zip(rewards, names, strict=True) if own == name]
