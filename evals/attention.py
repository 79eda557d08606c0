"""Attention over a tree of tokens: a stem, tails that continue it, branches that continue a tail.

    token i sees token j  iff  j <= i,  tail_j in {0, tail_i}  and  branch_j in {0, branch_i}

Two kernels, one question: SDPA reads a dense boolean mask, FlexAttention (CUDA) a block mask that
never holds an entry per pair of tokens. Which one runs is decided by the mask it is given.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Kernel = Literal["sdpa", "flex"]
NAME = "reelproof"  # under which transformers finds our function
BLOCK = 128  # FlexAttention's own block size; rows are padded to a multiple of it


def dense(tail: Tensor, branch: Tensor) -> Tensor:
    """(B, 1, L, L) bool, True where a query may look. tail, branch: (B, L) integers; padding is -1
    in both, so that no query is without a key."""
    width = tail.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=tail.device).tril()
    return (_continues(tail) & _continues(branch) & causal)[:, None]


def _continues(part: Tensor) -> Tensor:
    keys = part[:, None, :]
    return (keys == 0) | (keys == part[:, :, None])


def blocks(tail: Tensor, branch: Tensor) -> Any:
    """The same question as a FlexAttention BlockMask, for rows of a multiple of BLOCK tokens."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        same_tail = (tail[b, kv] == 0) | (tail[b, kv] == tail[b, q])
        same_branch = (branch[b, kv] == 0) | (branch[b, kv] == branch[b, q])
        return (kv <= q) & same_tail & same_branch

    rows, width = tail.shape
    return create_block_mask(
        visible, rows, None, width, width, device=tail.device, _compile=tail.is_cuda
    )


def install(model: Any) -> None:
    """Let the language model take block masks: FlexAttention for those, SDPA for everything else,
    so that sampling with a cache works under the same model."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config.text_config._attn_implementation = NAME


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers.integrations.flex_attention import flex_attention_forward
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    flex = isinstance(attention_mask, BlockMask)
    forward = flex_attention_forward if flex else sdpa_attention_forward
    out: tuple[Tensor, Tensor | None] = forward(module, query, key, value, attention_mask, **kwargs)
    return out
