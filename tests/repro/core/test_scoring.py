"""The chunked scorer gives dense log-softmax without ever making dense logits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from evals.errors import BlindForward
from evals.vlm import VLM
from repro.core.packing import Packed, pack, trees_of
from repro.core.scoring import score, score_trees
from repro.core.types import Group

LENGTHS = [1, 6, 9, 4]


@pytest.fixture(scope="module")
def packed(asked: Any, group_of: Callable[..., Group], student: VLM) -> Packed:
    groups = group_of(asked.video, LENGTHS), group_of(asked.text, [5, 2])
    return pack([tree for g in groups for tree in trees_of(g, student.is_pad)], 0)


@pytest.fixture(scope="module")
def stems(asked: Any) -> list[Any]:
    return [asked.video.encoded, asked.text.encoded]


def _dense(vlm: VLM, packed: Packed, features: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    """log_softmax over all of (B, L, V), then gathered: what the scorer must never do."""
    seen = [f for f in features if f is not None]
    hidden = vlm.hidden(vlm.embed(packed.ids, torch.cat(seen)), packed.positions, packed.attend)
    table = (hidden @ vlm.model.lm_head.weight.T).float().log_softmax(-1).flatten(0, 1)
    chosen = table[packed.source]
    logp = chosen.gather(-1, packed.targets[..., None])[..., 0] * packed.valid
    return logp, -(chosen.exp() * chosen).sum(-1).detach() * packed.valid


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_equals_dense_log_softmax(
    loud: VLM, packed: Packed, stems: list[Any], chunk: int,
    gradients: Callable[[Any], dict[str, Tensor]],
) -> None:  # fmt: skip
    pull = torch.randn(packed.valid.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for scorer in (_dense, lambda *a: score(*a, chunk=chunk)):
        loud.model.zero_grad()
        logp, entropy = scorer(loud, packed, loud.features(stems))
        (logp * pull).sum().backward()
        found.append((logp.detach(), entropy, gradients(loud.model)))
    loud.model.zero_grad()
    (logp, entropy, wanted), (own_logp, own_entropy, got) = found
    torch.testing.assert_close(own_logp, logp, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own_entropy, entropy, rtol=1e-5, atol=1e-6)
    assert set(got) == set(wanted)
    for name in wanted:
        assert (got[name] - wanted[name]).norm() <= 1e-5 * wanted[name].norm(), name


class _Widest(TorchDispatchMode):
    """The most rows of logits that one matrix product made."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        product = func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm)
        if product and out.shape[-1] == self.vocabulary:
            self.rows = max(self.rows, out[..., 0].numel())
        return out


@pytest.mark.parametrize("grad", [False, True])
def test_logits_exist_only_chunk_by_chunk(
    loud: VLM, packed: Packed, stems: list[Any], grad: bool
) -> None:
    with torch.set_grad_enabled(grad), _Widest(loud.model.lm_head.weight.shape[0]) as widest:
        logp, _ = score(loud, packed, loud.features(stems), chunk=5)
        if grad:
            logp.sum().backward()
    loud.model.zero_grad()
    assert widest.rows == 5
    with torch.no_grad(), _Widest(loud.model.lm_head.weight.shape[0]) as widest:
        score(loud, packed, loud.features(stems))
    assert widest.rows == sum(LENGTHS) + 7  # completion tokens alone, not one of the prompt


def test_only_log_probabilities_carry_gradient(loud: VLM, packed: Packed, stems: list[Any]) -> None:
    logp, entropy = score(loud, packed, loud.features(stems))
    assert logp.requires_grad and not entropy.requires_grad
    assert not logp[~packed.valid].any() and not entropy[~packed.valid].any()
    assert (logp[packed.valid] < 0).all() and (entropy[packed.valid] > 0).all()


def test_refuses_a_forward_that_would_not_see_its_video(
    loud: VLM, packed: Packed, stems: list[Any]
) -> None:
    with pytest.raises(BlindForward, match="0 vision features"):
        score(loud, packed, [None, None])
    features = loud.features(stems)
    with pytest.raises(BlindForward):
        score(loud, packed, [features[0][:-1], None])


def test_precision_decides_what_bf16_rounds(
    loud: VLM, asked: Any, group_of: Callable[..., Group]
) -> None:
    """`fp32` computes logits and softmax in fp32, `model` leaves them in bf16 (ktr.md B8)."""
    half = VLM(copy.deepcopy(loud.model).bfloat16(), loud.processor)
    trees = trees_of(group_of(asked.video, [9, 9, 9, 9]), half.is_pad)
    rounded = {}
    with torch.no_grad():
        for precision in ("fp32", "model"):
            logp, entropy = score_trees(half, trees, precision=precision)
            assert logp.dtype == entropy.dtype == torch.float32
            rounded[precision] = bool((logp == logp.bfloat16().float()).all())
    assert rounded == {"fp32": False, "model": True}
