"""On CUDA: FlexAttention over a packed row is the plain pass, values and gradients."""

from __future__ import annotations

import pytest
import torch

from evals.vlm import VLM
from repro.core.packing import pack, plain, tree
from repro.core.scoring import score_trees
from tests.gpu.scenes import GPUScene, build, scene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

#: Relative to the size of what is compared, logp and gradients (chosen; fp32 runs without TF32).
BOUND = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def passed(
    vlm: VLM, made: GPUScene, packing: object
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    vlm.model.zero_grad()
    prompt = vlm.encode(made.clip(), made.text, made.protocol)
    logp, _ = score_trees(vlm, [tree(prompt, made.given.tolist())], packing)
    logp.mean().backward()
    return logp.detach(), {n: p.grad.clone() for n, p in vlm.model.named_parameters()}


@pytest.mark.parametrize("dtype", BOUND)
def test_packed_equals_plain_on_cuda(dtype: torch.dtype) -> None:
    made = scene("tiny", "cuda", 8, 112, 112, 4, 40)
    vlm = build("tiny", "cuda", dtype)
    assert vlm.kernel == "flex"
    packed, got = passed(vlm, made, pack)
    wanted, plainly = passed(vlm, made, plain)
    assert (packed - wanted).norm() <= BOUND[dtype] * wanted.norm()
    for name, gradient in plainly.items():
        assert (got[name] - gradient).norm() <= BOUND[dtype] * gradient.norm(), name
