"""repro.tiny.model: a small but complete Qwen2.5-VL, and a tokenizer that loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.types import Protocol
from repro.tiny.model import PROTOCOL, SPECIALS, model, tokenizer

if TYPE_CHECKING:
    from evals.vlm import VLM

PLAIN = st.text().filter(lambda text: "<|" not in text)


def test_size_and_shape(student: VLM) -> None:
    config = student.model.config
    assert sum(p.numel() for p in student.model.parameters()) < 8_000_000
    text, vision = config.text_config, config.vision_config
    head = text.hidden_size // text.num_attention_heads
    assert head in (32, 64)  # vLLM on a CPU reads no other
    assert sum(text.rope_parameters["mrope_section"]) == head // 2
    assert (vision.tokens_per_second, vision.temporal_patch_size, vision.patch_size) == (2, 2, 14)
    assert student.model.lm_head.weight is student.model.get_input_embeddings().weight
    assert text.vocab_size == len(student.processor.tokenizer)


def test_qwens_special_tokens_come_first_and_stay_whole(student: VLM) -> None:
    tokens = student.processor.tokenizer
    assert tokens.convert_tokens_to_ids(list(SPECIALS)) == list(range(14))
    for special in SPECIALS:
        assert tokens(f"a{special}b")["input_ids"].count(tokens.convert_tokens_to_ids(special)) == 1
    assert (tokens.eos_token, tokens.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokens.padding_side == "left"
    config = student.model.config
    named = {
        "<|image_pad|>": config.image_token_id,
        "<|video_pad|>": config.video_token_id,
        "<|vision_start|>": config.vision_start_token_id,
        "<|vision_end|>": config.vision_end_token_id,
    }
    assert tokens.convert_tokens_to_ids(list(named)) == list(named.values())


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=PLAIN)
def test_byte_level_loses_nothing(student: VLM, text: str) -> None:
    tokens = student.processor.tokenizer
    ids = tokens(text)["input_ids"]
    assert tokens.decode(ids) == text
    assert all(14 <= i < len(tokens) for i in ids)


def test_chat_template(student: VLM) -> None:
    def rendered(content: object, prompt: bool = True) -> str:
        said = student.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=prompt, tokenize=False
        )
        return str(said)

    asks = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert rendered("Hi") == asks.format("Hi")
    assert rendered("Hi", prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"
    parts = [{"type": "video"}, {"type": "text", "text": "Hi"}]
    marked = "<|vision_start|><|{}_pad|><|vision_end|>Hi"
    assert rendered(parts) == asks.format(marked.format("video"))
    assert rendered([{"type": "image"}, parts[1]]) == asks.format(marked.format("image"))
    # Arrow fills the keys that other parts have with None.
    filled = [{"type": "text", "text": "Hi", "video": None, "image": None}]
    assert rendered(filled) == asks.format("Hi")


def test_the_same_seed_gives_the_same_student() -> None:
    import torch

    texts = ["red circle", "blue square"]
    a, b, c = (model(tokenizer(texts, 300), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)
    assert tokenizer(texts, 300).get_vocab() == tokenizer(texts, 300).get_vocab()


def test_the_students_protocol() -> None:
    assert isinstance(PROTOCOL, Protocol)
    assert (PROTOCOL.min_pixels, PROTOCOL.max_pixels) == (56 * 56, 56 * 56)
    assert (PROTOCOL.fps, PROTOCOL.max_frames, PROTOCOL.prompt) == (2.0, 8, "micro")
    assert (PROTOCOL.positions, PROTOCOL.time) == ("original", "true")


def test_an_instance_leaves_the_class_defaults_alone(student: VLM, tmp_path: Path) -> None:
    """transformers' `min_pixels=` in a constructor would change every later processor."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    assert student.processor is not None
    for kind in (Qwen2VLImageProcessor, Qwen2VLVideoProcessor):
        assert kind().size["longest_edge"] > 56 * 56


@pytest.mark.parametrize("hidden", [64, 256])
def test_other_widths_keep_the_head_size(hidden: int) -> None:
    config = model(tokenizer(["red"], 300), 0, hidden=hidden, layers=1).config.text_config
    assert config.hidden_size // config.num_attention_heads == 32
