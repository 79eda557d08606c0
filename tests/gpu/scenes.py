"""Full-sized models with random weights and clips of noise: what a GPU is timed on, no download.

Sizes are those of the published configurations of Qwen2.5-VL-3B and -7B; `tiny` is the embedded
student's, so that the harness itself runs on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evals._torchvision import install
from evals.types import Sample, VideoClip
from evals.vlm import VLM
from repro.core.data import Prompts
from repro.tiny import model as tiny
from tests.perf.steps import Scene, given

install()

#: hidden, intermediate, layers, heads, key-value heads, tied head
LANGUAGE = {"3B": (2048, 11008, 36, 16, 2, True), "7B": (3584, 18944, 28, 28, 4, False)}
VOCABULARY = {"3B": 151936, "7B": 152064}
TEXTS = ("<think>I see a red circle</think><answer>A</answer>", "Which came first? A. B. C. 0 1 2")


def build(size: str, device: str, dtype: torch.dtype) -> VLM:
    """A Qwen2.5-VL of that size with random weights on the device, and the tiny tokenizer."""
    tokens = tiny.tokenizer(TEXTS)
    if size == "tiny":
        return VLM(tiny.model(tokens, seed=0).to(device, dtype), tiny.processor(tokens))
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    hidden, wide, layers, heads, kv, tied = LANGUAGE[size]
    ids = tokens.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": hidden, "intermediate_size": wide, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv,
            "vocab_size": VOCABULARY[size], "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6,
            },
            "bos_token_id": None, "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id, "tie_word_embeddings": tied,
        },
        vision_config={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "tokens_per_second": 2, "window_size": 112, "out_hidden_size": hidden,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    return VLM(model, tiny.processor(tokens))


class _Film:
    """Stands in for the decoder: a clip that is there already."""

    decodes = 0

    def __init__(self, clip: VideoClip):
        self._clip = clip

    def load(self, sample: Sample) -> VideoClip:
        return self._clip


@dataclass(frozen=True)
class GPUScene(Scene):
    """A scene whose model and film are made in memory.

    The optimizer is plain SGD: Adam's states of a 7B model would not fit beside it on one device,
    and its time is the same for all that are compared.
    """

    size: str = "tiny"
    device: str = "cpu"
    film: VideoClip | None = None

    def model(self) -> VLM:
        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        return build(self.size, self.device, dtype)

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e-6)

    def prompts(self, vlm: VLM) -> Prompts:
        prompts = Prompts(vlm, self.protocol)
        prompts.clips = _Film(self.clip())
        return prompts

    def clip(self) -> VideoClip:
        assert self.film is not None
        return self.film


def scene(size: str, device: str, frames: int, height: int, width: int, g: int, c: int) -> GPUScene:
    """Noise at 2 frames per second; G completions of C ordinary tokens."""
    noise = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    film = VideoClip(noise, tuple(range(frames)), 2.0, frames)
    record = Sample("noise", "Which came first?", "multiple choice", "A", "video", Path("noise"),
                    ("A. red circle", "B. blue square"))  # fmt: skip
    area = height * width
    protocol = tiny.PROTOCOL.__class__(
        id="gpu", prompt="micro", max_frames=frames, min_pixels=area, max_pixels=area,
        positions="v5", time="constant",
    )  # fmt: skip
    words = given(g, c, len(tiny.tokenizer(TEXTS)))
    return GPUScene(Path("."), record, protocol, words, True, size, device, film)
