"""The schedule of KTR's release, re-enacted on plain transformers.

It shares no prompt: every pass repeats it, and its clip, for each of the G completions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, GenerationConfig
from transformers.video_utils import VideoMetadata

from evals.types import Protocol, VideoClip
from repro.core.advantages import group_advantages
from tests.perf.steps import BETA, Scene, Step, pay


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
    other = replace(clip, frames=clip.frames[order.numpy()])
    prompt, mixed = (encode(c).to(policy.device) for c in (clip, other))
    training = policy.training
    policy.eval()  # as the release unwraps it: checkpointing would drop the cache
    with torch.no_grad():
        drawn = policy.generate(**prompt, generation_config=sampling)
    policy.train(training)
    start = prompt["input_ids"].shape[1]
    ids = drawn[:, start:] if given is None else given.to(drawn)
    seen, shuffled = _copies(prompt, ids), _copies(mixed, ids)
    pads = seen["mm_token_type_ids"] > 0

    logits = _logits(policy, seen, start)
    logp, entropy = _gather(logits, ids), _entropy(logits)
    with torch.no_grad():
        free = _gather(_logits(policy, {**seen, "attention_mask": (~pads).long()}, start), ids)
        moved = _gather(_logits(policy, shuffled, start), ids)
        anchor = _gather(_logits(reference, seen, start), ids)
    signals = {
        "entropy": entropy,
        "visual": logp.detach() - free,
        "temporal": logp.detach() - moved,
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
        clip, scene = self.scene.clip(), self.scene
        order = torch.randperm(len(clip.frames)) if self.order is None else self.order
        self.last = released_step(
            self.model, self.reference, self._encode, clip, order,
            group_advantages(pay(scene.given)).to(self.model.device), self.sampling, scene.given,
            beta=BETA,
        )  # fmt: skip
        self.last.loss.backward()
        return self.last.loss.detach()

    def _encode(self, clip: VideoClip) -> Any:
        return encode(self.vlm.processor, self.scene.protocol, [self.scene.text], [clip])
