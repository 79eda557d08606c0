"""Log-probability and entropy of completion tokens, from hidden states, in fp32 chunks.

    logp = z_y - logsumexp(z),   entropy = logsumexp(z) - sum(softmax(z) * z)

Only positions that predict a completion token meet the language-model head; logits of shape
(B, L, V) never exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from evals.vlm import VLM
from repro.core.packing import Packed

CHUNK = 1024  # tokens per call of the head (chosen): 0.6 GB of fp32 logits at Qwen's vocabulary


def score(
    vlm: VLM, packed: Packed, features: Sequence[Tensor | None], *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """(N, C) log-probabilities, with gradient if enabled, and (N, C) entropies without; fp32.

    features: one entry per row, None for a row without vision. Zeros where not valid.
    """
    seen = [f for f in features if f is not None]
    device = vlm.device
    embeds = vlm.embed(packed.ids.to(device), torch.cat(seen) if seen else None)
    hidden = vlm.hidden(embeds, packed.positions.to(device), packed.attend.to(device))
    valid = packed.valid.to(device)
    states = hidden.flatten(0, 1)[packed.source.to(device)[valid]]
    targets = packed.targets.to(device)[valid]
    parts = [
        _head(vlm.model.lm_head.weight, states[i : i + chunk], targets[i : i + chunk])
        for i in range(0, len(states), chunk)
    ]
    logp, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    blank = torch.zeros(valid.shape, device=device)
    return blank.masked_scatter(valid, logp), blank.masked_scatter(valid, entropy.detach())


def _head(weight: Tensor, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled():  # logits are computed again in backward instead of kept
        out: tuple[Tensor, Tensor] = checkpoint(
            _logp_entropy, weight, states, targets, use_reentrant=False
        )
        return out
    return _logp_entropy(weight, states, targets)


def _logp_entropy(weight: Tensor, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = (states @ weight.T).float()
    total = logits.logsumexp(-1)
    logp = logits.gather(-1, targets[:, None])[:, 0] - total
    with torch.no_grad():
        entropy = total - (torch.exp(logits - total[:, None]) * logits).sum(-1)
    return logp, entropy
