"""TRL's GRPOTrainer with videos: the peer our GRPO step is measured against.

It shares no prompt: every pass repeats it, and its clip, for each of the G completions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import BatchFeature
from trl import GRPOConfig, GRPOTrainer

from tests.perf.released import encode
from tests.perf.steps import BETA, Scene, Step, pay

VIDEO = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")


class VideoGRPOTrainer(GRPOTrainer):
    """TRL 1.16 with the four overrides that let its loss see what its rollouts saw.

    Stock TRL hands videos to `generate` and to nothing else: its log-probabilities, old and
    reference ones included, come from the text alone, without an error (trl#4144). One video per
    prompt. Both vision pads must be suppressed in `generation_kwargs`; TRL suppresses one.

    encode: prompts (TRL's message lists) -> model inputs, left-padded.
    """

    def __init__(self, *args: Any, encode: Callable[[Any], BatchFeature], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._encode = encode
        self._videos: list[dict[str, Tensor]] = []  # of the rows that are scored next, in order

    def _tokenize_prompts(self, prompts: Any) -> Any:
        out = self._encode(prompts)
        keep = out.pop("attention_mask").bool()
        ids = [row[mask].tolist() for row, mask in zip(out.pop("input_ids"), keep, strict=True)]
        patches = out["video_grid_thw"].prod(-1).tolist()
        parts = [out["pixel_values_videos"].split(patches), *(out[k].split(1) for k in VIDEO[1:])]
        self._videos = [dict(zip(VIDEO, row, strict=True)) for row in zip(*parts, strict=True)]
        return ids, None, dict(out)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        return {**output, "videos": self._videos}  # TRL shuffles and splits lists along

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        self._videos = inputs["videos"]
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int,
        batch_size: int | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        size = batch_size or len(input_ids)
        kwargs["mm_token_type_ids"] = None
        parts = []
        for i in range(0, len(input_ids), size):
            rows = slice(i, i + size)
            seen = {k: torch.cat([v[k] for v in self._videos[rows]]) for k in VIDEO}
            seen["mm_token_type_ids"] = 2 * (input_ids[rows] == self._video_pad_token_id).int()
            parts.append(
                super()._get_per_token_logps_and_entropies(
                    partial(model, **seen), input_ids[rows], attention_mask[rows],
                    logits_to_keep, **kwargs,
                )
            )  # fmt: skip
        logps, entropies, losses = zip(*parts, strict=True)
        entropy = None if entropies[0] is None else torch.cat(entropies)
        return torch.cat(logps), entropy, losses[0]


class TRL(Step):
    """TRL's GRPOTrainer; `kind` is the repaired one, or the stock one."""

    def __init__(self, scene: Scene, out: Path, kind: Any = VideoGRPOTrainer):
        super().__init__(scene)
        g, c, processor = self.g, self.c, self.vlm.processor
        config = GRPOConfig(
            output_dir=str(out), per_device_train_batch_size=g, num_generations=g,
            max_completion_length=c, beta=BETA, loss_type="grpo", use_bias_correction_kl=False,
            temperature=1.0, top_p=1.0, top_k=0, gradient_checkpointing=False, bf16=False,
            generation_kwargs={
                "min_new_tokens": c,
                "suppress_tokens": [self.vlm.image_pad, self.vlm.video_pad],
            },
            use_cpu=True, report_to=[], disable_tqdm=True, seed=0,
        )  # fmt: skip
        film = str(scene.sample.media) if kind is VideoGRPOTrainer else scene.clip().frames
        content = [
            {"type": "video", "video": film},
            {"type": "text", "text": scene.text},
        ]
        self.row = {"prompt": [{"role": "user", "content": content}]}
        given = scene.given

        class Given(kind):
            def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
                super()._generate_single_turn(*args, **kwargs)
                return given.tolist(), None

        extra = {"encode": self._encode} if kind is VideoGRPOTrainer else {}
        self.trainer = Given(
            model=self.vlm.model, reward_funcs=[_reward], args=config, processing_class=processor,
            train_dataset=Dataset.from_dict({"prompt": ["not read here"] * g}), **extra,
        )  # fmt: skip
        self.trainer.current_gradient_accumulation_steps = 1
        self.reference = self.trainer.ref_model

    def _encode(self, prompts: list[Any]) -> Any:
        clips = [self.scene.clip()] * len(prompts)  # decoded once, processed once per copy
        texts = [part["text"] for p in prompts for part in p[0]["content"] if part.get("text")]
        return encode(self.vlm.processor, self.scene.protocol, texts, clips)

    def backward(self) -> Tensor:
        batch = [copy.deepcopy(self.row) for _ in self.scene.given]
        return self.trainer.training_step(self.model, batch, None)


def _reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return pay(torch.tensor(completion_ids)).tolist()
