"""A tiny Qwen3-VL, made as the embedded Qwen2.5-VL is: random weights, no download."""

from __future__ import annotations

from typing import Any

import torch

from evals.vlm import VLM
from repro.tiny.model import CHAT_TEMPLATE


def tiny_qwen3_vl(tokens: Any, seed: int = 0) -> VLM:
    """Three layers of vision, each of which feeds one of the first three of four of language."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    ids = tokens.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "vocab_size": len(tokens), "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True,
                "rope_theta": 10000.0,
            },
            "bos_token_id": None, "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id, "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "out_hidden_size": 64, "deepstack_visual_indexes": [0, 1, 2],
            "num_position_embeddings": 64,
        },
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config).eval()
    size = {"shortest_edge": 64 * 64, "longest_edge": 64 * 64}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(size), patch_size=16),
        tokenizer=tokens,
        video_processor=Qwen3VLVideoProcessor(size=dict(size), cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )
    return VLM(model, processor)
