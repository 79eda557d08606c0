"""Memory by hand, against transformers' own parameter count, and against what autograd keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from evals.vlm import VLM
from repro.core import scoring
from repro.core.memory import (
    CHUNK,
    KTR_7B,
    QWEN_7B,
    Load,
    Sizes,
    activations,
    adapters,
    block_bytes,
    head,
    layer_bytes,
    peak,
    stages,
    static,
)  # fmt: skip
from repro.tiny import model as tiny

#: h 8, kv 4, i 16, 2 layers, V 10; tower h 4, i 8, 3 blocks.
TOY = Sizes(8, 4, 16, 2, 10, True, 4, 8, 3)
ASK = Load(prompt=5, patches=12, completion=3, generations=2)


def test_tokens_and_copies_by_hand() -> None:
    assert (ASK.tokens("packed"), ASK.tokens("plain")) == (5 + 2 * 2, 2 * (5 + 2))
    assert (ASK.copies("packed"), ASK.copies("plain")) == (1, 2)


def test_what_a_layer_keeps_by_hand() -> None:
    assert layer_bytes(TOY, 2) == 8 * 8 + 2 * (8 * 8 + 4 * 16)
    assert block_bytes(TOY, 4) == 8 * 4 + 4 * (11 * 4 + 4 * 8)


def test_activations_by_hand() -> None:
    layer, block = layer_bytes(TOY, 2), block_bytes(TOY, 2)
    assert activations(TOY, ASK, "plain", checkpointing=False) == {
        "language model": 2 * 14 * layer, "vision tower": 3 * 24 * block,
    }  # fmt: skip
    for kernel, mask in (("sdpa", 2 * 81), ("flex", 0)):
        assert activations(TOY, ASK, "packed", kernel=kernel) == {
            "language model": 2 * 9 * 2 * 8,
            "vision tower": 2 * 12 * 3 * 4,
            "one layer": max(9 * layer + mask, 12 * block),
        }


def test_the_policy_s_features_are_held_while_sampling() -> None:
    ours, release = (stages(TOY, ASK, path) for path in ("packed", "plain"))
    assert ours["sample"]["vision tower"] == ours["policy"]["vision tower"] > 0
    assert "vision tower" not in release["sample"]


def test_logits_by_hand() -> None:
    assert head(TOY, ASK, "plain", "policy") == {"logits": 2 * 14 * 10 * 2}
    assert head(TOY, ASK, "packed", "policy") == {
        "logits": 3 * 6 * 10 * 4, "head in fp32": 10 * 8 * 4
    }  # fmt: skip
    assert head(TOY, ASK, "packed", "backward", dtype=4)["head in fp32"] == 10 * 8 * 4
    long = replace(ASK, completion=10_000)
    assert head(TOY, long, "packed", "policy")["logits"] == 3 * CHUNK * 10 * 4
    assert CHUNK == scoring.CHUNK


def test_adam_keeps_a_copy_of_half_precision_weights() -> None:
    n = TOY.parameters
    assert static(TOY) == {"weights": 2 * n, "reference": 2 * n, "Adam": 12 * n}
    assert static(TOY, dtype=4)["Adam"] == 8 * n
    assert static(TOY, ranks=4)["weights"] == n / 2


def test_sampling_holds_every_weight_whole() -> None:
    """ZeRO-3 gathers them for it; alone, or at another stage, they are whole anyway."""
    n = 2 * TOY.parameters
    assert stages(TOY, ASK, "packed", ranks=4)["sample"]["gathered"] == n * 3 / 4
    assert "gathered" not in stages(TOY, ASK, "packed", ranks=4)["policy"]
    assert "gathered" not in stages(TOY, ASK, "packed", ranks=4, zero=2)["sample"]
    assert "gathered" not in stages(TOY, ASK, "packed")["sample"]


def test_a_zero_stage_shares_what_it_says_and_adapters_train_little() -> None:
    n = TOY.parameters
    assert static(TOY, ranks=4, zero=2) == {"weights": 2 * n, "reference": 2 * n, "Adam": 3 * n}
    assert static(TOY, ranks=4, zero=0)["Adam"] == 12 * n
    few = adapters(TOY, 2)
    assert few == 2 * 2 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16))
    assert static(TOY, trained=few) == {"weights": 2 * n, "Adam": 12 * few}


def test_several_prompts_at_once_are_that_many() -> None:
    two = replace(ASK, prompts=2)
    for path in ("packed", "plain"):
        assert two.tokens(path) == 2 * ASK.tokens(path)
        assert two.copies(path) == 2 * ASK.copies(path)
    one, more = (stages(TOY, load, "packed")["sample"]["cache"] for load in (ASK, two))
    assert more == 2 * one


def test_completions_share_their_prompt_s_cache_by_hand() -> None:
    ours, release = (stages(TOY, ASK, path)["sample"]["cache"] for path in ("packed", "plain"))
    token = 2 * 2 * 4 * 2  # layers, keys and values, their width, bytes
    assert (ours, release) == ((5 + 2 * 3) * token, 2 * (5 + 3) * token)


def test_the_peak_is_the_largest_stage() -> None:
    assert peak({"a": {"x": 1.0, "y": 2.0}, "b": {"x": 2.5}}) == ("a", 3.0)
    for checkpointing in (True, False):
        ours, release = (
            stages(QWEN_7B, KTR_7B, path, checkpointing=checkpointing, ranks=8)
            for path in ("packed", "plain")
        )
        alone = stages(QWEN_7B, KTR_7B, "packed", checkpointing=checkpointing)
        assert peak(alone)[0] == "backward"
        assert peak(ours)[1] < peak(release)[1]


def test_parameters_are_those_of_transformers(student: VLM) -> None:
    """The student's, and 8,292,166,656 of Qwen2.5-VL-7B-Instruct, counted without its weights."""
    c = student.model.config
    text, vision = c.text_config, c.vision_config
    sizes = Sizes(
        text.hidden_size, text.num_key_value_heads * 32, text.intermediate_size,
        text.num_hidden_layers, text.vocab_size, True,
        vision.hidden_size, vision.intermediate_size, vision.depth,
    )  # fmt: skip
    assert sizes.parameters == sum(p.numel() for p in student.model.parameters())
    assert QWEN_7B.parameters == 8_292_166_656


def kept(run: Callable[[], Any], weights: set[int]) -> int:
    """Bytes of the storages that autograd keeps for backward, weights left out."""
    storages: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or another tensor could take its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storages.values())


@pytest.mark.parametrize("tokens", [64, 200])
def test_autograd_keeps_what_the_formulas_say(student: VLM, tokens: int) -> None:
    """One layer more keeps that much more; fp32."""
    sizes = Sizes(128, 64, 384, 0, 0, True, 64, 192, 0)

    def measure(layers: int, depth: int) -> tuple[int, int]:
        config = tiny.model(student.processor.tokenizer, seed=0, layers=layers).config
        config.vision_config.depth = depth
        model = type(student.model)(config).train()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        attend = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None, None]
        embeds = torch.randn(1, tokens, 128, requires_grad=True)
        text = kept(
            lambda: model.model.language_model(
                inputs_embeds=embeds, position_ids=torch.arange(tokens).expand(3, 1, -1),
                attention_mask={"full_attention": attend, "sliding_attention": attend},
                use_cache=False,
            ),
            weights,
        )  # fmt: skip
        pixels, grid = torch.randn(64, 1176), torch.tensor([[1, 8, 8]])
        return text, kept(lambda: model.model.visual(pixels, grid_thw=grid), weights)

    (text1, tower1), (text2, tower2) = measure(2, 2), measure(3, 3)
    mask = 4 * tokens * tokens
    assert text2 - text1 == pytest.approx(tokens * layer_bytes(sizes, 4) + mask, rel=0.02)
    assert tower2 - tower1 == pytest.approx(64 * block_bytes(sizes, 4), rel=0.02)
