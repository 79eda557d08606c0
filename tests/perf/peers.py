"""What our step is measured against: TRL with videos, and the schedule of KTR's release.

Both run whole on plain transformers. Neither shares a prompt: every pass repeats it, and its clip,
for each of the G completions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import BatchFeature, GenerationConfig
from transformers.video_utils import VideoMetadata
from trl import GRPOConfig, GRPOTrainer

from evals.types import Protocol, VideoClip
from repro.core.advantages import group_advantages
from tests.perf.steps import BETA, Scene, Step, pay

VIDEO = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")


def encode(
    processor: Any, protocol: Protocol, texts: Sequence[str], clips: Sequence[VideoClip]
) -> BatchFeature:
    """Model inputs of prompts with one clip each, left-padded, with the clips' own time base."""
    content = [[{"type": "video"}, {"type": "text", "text": text}] for text in texts]
    chats = [
        processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        for parts in content
    ]
    metadata = [
        VideoMetadata(
            total_num_frames=clip.total,
            fps=clip.fps,
            duration=clip.duration,
            frames_indices=list(clip.indices),
        )
        for clip in clips
    ]
    out = processor(
        text=chats,
        videos=[clip.frames for clip in clips],
        text_kwargs={"padding": True, "padding_side": "left"},
        videos_kwargs={
            "video_metadata": metadata,
            "do_sample_frames": False,
            "cap_pixels_per_frame": False,
            "input_data_format": "channels_last",
            "size": {"shortest_edge": protocol.min_pixels, "longest_edge": protocol.max_pixels},
        },
        return_tensors="pt",
    )
    out["second_per_grid_ts"] = torch.as_tensor(out["second_per_grid_ts"])
    return out


# --- TRL ---------------------------------------------------------------------------------------


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


# --- KTR's release -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Released:
    """What one released step computed. loss carries the gradient; the others are (G, C)."""

    loss: Tensor
    ids: Tensor
    logp: Tensor
    reference: Tensor
    entropy: Tensor
    visual: Tensor
    temporal: Tensor
    kept: Tensor


def released_step(
    policy: Any,
    reference: Any,
    encode: Callable[[VideoClip], BatchFeature],
    clip: VideoClip,
    order: Tensor,
    gains: Tensor,
    sampling: GenerationConfig,
    given: Tensor | None = None,
    *,
    beta: float = 0.04,
    ratio: float = 0.2,
) -> Released:
    """One step as Video-KTR's code at 0162d46 schedules it, up to and including the loss.

    Sample, policy, masked, shuffled, reference: each on G copies of prompt and clip, with the
    vision tower run per copy, full logits, the masked pass's pixels encoded and not used (ktr.md
    1.3 to 1.6, 6.2). Left out, in its favour: the recomputation of gradient checkpointing.

    encode: clip -> inputs of the prompt, batch of one. order: (F,) frame order of the shuffled
    pass. gains: (G,) advantages. sampling: holds G as num_return_sequences and a fixed length C.
    given: (G, C) completions to score in place of the sampled ones.
    """
    prompt, mixed = encode(clip), encode(replace(clip, frames=clip.frames[order.numpy()]))
    with torch.no_grad():
        drawn = policy.generate(**prompt, generation_config=sampling)
    start = prompt["input_ids"].shape[1]
    ids = drawn[:, start:] if given is None else given
    seen, shuffled = _copies(prompt, ids), _copies(mixed, ids)
    pads = seen["mm_token_type_ids"] > 0

    logits = _logits(policy, seen, start)
    logp, entropy = _gather(logits, ids), _entropy(logits)
    with torch.no_grad():
        free = _gather(_logits(policy, {**seen, "attention_mask": (~pads).long()}, start), ids)
        other = _gather(_logits(policy, shuffled, start), ids)
        anchor = _gather(_logits(reference, seen, start), ids)
    signals = {
        "entropy": entropy,
        "visual": logp.detach() - free,
        "temporal": logp.detach() - other,
    }
    kept = torch.stack([_top(signal, ratio) for signal in signals.values()]).any(0)
    gap = torch.clamp(anchor - logp, -10, 10)
    each = -torch.exp(logp - logp.detach()) * gains[:, None] + beta * (gap.exp() - gap - 1)
    loss = ((each * kept).sum(1) / kept.sum(1).clamp(min=1)).mean()
    return Released(loss, ids, logp, anchor, kept=kept, **signals)


def _copies(prompt: BatchFeature, ids: Tensor) -> dict[str, Tensor]:
    """G copies of a prompt and its clip, each with one completion; no attention mask, no time."""
    g = len(ids)
    types = prompt["mm_token_type_ids"].repeat(g, 1)
    return {
        "input_ids": torch.cat([prompt["input_ids"].repeat(g, 1), ids], 1),
        "mm_token_type_ids": torch.cat([types, torch.zeros_like(ids)], 1),
        "pixel_values_videos": prompt["pixel_values_videos"].repeat(g, 1),
        "video_grid_thw": prompt["video_grid_thw"].repeat(g, 1),
    }


def _logits(model: Any, inputs: dict[str, Tensor], start: int) -> Tensor:
    """(G, C, V) slice of the logits of every position, as the release keeps it."""
    return model(**inputs, use_cache=False).logits[:, start - 1 : -1]


def _gather(logits: Tensor, ids: Tensor) -> Tensor:
    rows = zip(logits, ids, strict=True)
    return torch.stack([r.log_softmax(-1).gather(-1, i[:, None])[:, 0] for r, i in rows])


@torch.no_grad()
def _entropy(logits: Tensor) -> Tensor:
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def _top(scores: Tensor, ratio: float) -> Tensor:
    """(G, C): at or above the 1 - r quantile of all G C scores."""
    return scores >= torch.quantile(scores.flatten(), 1 - ratio)


# --- both as steps on a scene ------------------------------------------------------------------


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


class KTRRelease(Step):
    """The released schedule. last: what its last step computed."""

    last: Released

    def __init__(self, scene: Scene):
        super().__init__(scene)
        g, c = self.g, self.c
        self.reference = copy.deepcopy(self.model).requires_grad_(False)
        self.sampling = GenerationConfig(
            do_sample=True, temperature=1.0, top_p=1.0, top_k=0, num_return_sequences=g,
            min_new_tokens=c, max_new_tokens=c, eos_token_id=self.vlm.end,
            pad_token_id=self.vlm.processor.tokenizer.pad_token_id,
            suppress_tokens=[self.vlm.image_pad, self.vlm.video_pad],
        )  # fmt: skip

    def backward(self) -> Tensor:
        clip = self.scene.clip()
        order = torch.randperm(len(clip.frames)) if self.order is None else self.order
        self.last = released_step(
            self.model, self.reference, self._encode, clip, order,
            group_advantages(pay(self.scene.given)), self.sampling, self.scene.given, beta=BETA,
        )  # fmt: skip
        self.last.loss.backward()
        return self.last.loss.detach()

    def _encode(self, clip: VideoClip) -> Any:
        return encode(self.vlm.processor, self.scene.protocol, [self.scene.text], [clip])
