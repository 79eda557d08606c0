"""Log-probability and entropy of completion tokens, from hidden states, in fp32 chunks.

    logp = z_y - logsumexp(z),   entropy = logsumexp(z) - sum(softmax(z) * z)

Only positions that predict a completion token meet the language-model head; logits of shape
(B, L, V) never exist. precision: `fp32`, or `model`, the model's own dtype as in KTR's release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from evals import attention
from evals.vlm import VLM, Encoded
from repro.core.packing import Packed, Tree, pack

Packing = Callable[[Sequence[Tree], int, int], Packed]
Seeing = Callable[[Sequence[Encoded]], Sequence[Tensor | None]]  # a Vision, or VLM.features

CHUNK = 1024  # tokens per call of the head (chosen): 0.6 GB of fp32 logits at Qwen's vocabulary


def score_trees(
    vlm: VLM,
    trees: Sequence[Tree],
    packing: Packing = pack,
    *,
    vision: Seeing | None = None,
    precision: str = "fp32",
    model: Any = None,
) -> tuple[Tensor, Tensor]:
    """`score` of prompts and their completions; vision: where the clips' features come from.

    model: a Policy around the VLM, wrapped for several processes, to be called in its place.
    """
    packed = packed_for(vlm, trees, packing)
    features = (vision or vlm.features)(packed.prompts)
    if model is None:
        return score(vlm, packed, features, precision=precision)
    found: tuple[Tensor, Tensor] = model(packed, features, precision)
    return found


def packed_for(vlm: VLM, trees: Sequence[Tree], packing: Packing = pack) -> Packed:
    """The trees in rows, of whole blocks where the model's attention works in blocks."""
    multiple = attention.BLOCK if vlm.kernel == "flex" else 1
    return packing(trees, vlm.processor.tokenizer.pad_token_id, multiple)


def score(
    vlm: VLM,
    packed: Packed,
    features: Sequence[Tensor | None],
    *,
    attend: Any = None,
    chunk: int = CHUNK,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """(N, C) log-probabilities, with gradient if enabled, and (N, C) entropies without, as fp32.

    features: one entry per row, None for a row without vision. attend: another mask than the
    tree's own. Zeros where not valid.
    """
    seen = [f for f in features if f is not None]
    device = vlm.device
    if attend is None:
        visible = attention.blocks if vlm.kernel == "flex" else attention.dense
        attend = visible(packed.tail.to(device), packed.branch.to(device))
    hidden = vlm.run(
        packed.ids.to(device),
        torch.cat(seen) if seen else None,
        packed.positions.to(device),
        attend,
    )
    valid = packed.valid.to(device)
    states = hidden.flatten(0, 1)[packed.source.to(device)[valid]]
    targets = packed.targets.to(device)[valid]
    weight = vlm.net.lm_head.weight
    if precision == "model" and vlm.compute is not None:
        weight, states = weight.to(vlm.compute), states.to(vlm.compute)
    parts = [
        _head(weight, states[i : i + chunk], targets[i : i + chunk], precision)
        for i in range(0, len(states), chunk)
    ]
    logp, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    blank = torch.zeros(valid.shape, device=device)
    return blank.masked_scatter(valid, logp), blank.masked_scatter(valid, entropy.detach())


def _head(weight: Tensor, states: Tensor, targets: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled():  # logits are computed again in backward instead of kept
        out: tuple[Tensor, Tensor] = checkpoint(
            _logp_entropy, weight, states, targets, precision, use_reentrant=False
        )
        return out
    return _logp_entropy(weight, states, targets, precision)


def _logp_entropy(
    weight: Tensor, states: Tensor, targets: Tensor, precision: str
) -> tuple[Tensor, Tensor]:
    if precision == "fp32":  # before the product: bf16 logits would round differences to zero
        weight, states = weight.float(), states.float()
    logits = states @ weight.T
    total = logits.logsumexp(-1)
    logp = logits.gather(-1, targets[:, None])[:, 0] - total
    with torch.no_grad():
        entropy = total - (torch.exp(logits - total[:, None]) * logits).sum(-1)
    return logp.float(), entropy.float()
