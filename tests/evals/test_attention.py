"""Both kernels answer the same question about a tree of tokens."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evals import attention
from evals.vlm import VLM

#: stem, two tails, a completion of each and one of the stem itself, padding
TAIL = torch.tensor([[0, 0, 1, 2, 2, 1, 2, 3, -1]])
BRANCH = torch.tensor([[0, 0, 0, 0, 0, 1, 2, 3, -1]])


def test_who_sees_whom_by_hand() -> None:
    assert attention.dense(TAIL, BRANCH)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 1],  # padding: whatever it sees, nobody sees it
    ]


parts = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=60)


@given(parts)
def test_block_masks_hold_the_same_pairs(parts: list[tuple[int, int]]) -> None:
    tail, branch = (torch.tensor([list(column)]) for column in zip(*parts, strict=True))
    found = attention.blocks(tail, branch)
    n = len(parts)
    at = torch.arange(n)
    pairs = found.mask_mod(torch.tensor(0), torch.tensor(0), at[:, None], at[None, :])
    assert torch.equal(pairs, attention.dense(tail, branch)[0, 0])


@pytest.mark.slow  # compiles a kernel
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="FlexAttention on a CPU needs a C++ compiler"
)
def test_flex_attention_gives_what_sdpa_gives(student: VLM) -> None:
    flex = VLM(copy.deepcopy(student.model), student.processor, "flex")
    assert flex.net.config.text_config._attn_implementation == attention.NAME
    width = attention.BLOCK
    tail, branch = torch.full((1, width), -1), torch.full((1, width), -1)
    tail[0, :9], branch[0, :9] = TAIL[0], BRANCH[0]
    ids = torch.randint(20, 300, (1, width), generator=torch.Generator().manual_seed(0))
    where = torch.arange(width).expand(3, 1, -1)
    with torch.no_grad():
        wanted = student.run(ids, None, where, attention.dense(tail, branch))
        found = flex.run(ids, None, where, attention.blocks(tail, branch))
        dense = flex.run(ids, None, where, attention.dense(tail, branch))  # a cache's mask
    torch.testing.assert_close(found[:, :8], wanted[:, :8], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dense, wanted)
