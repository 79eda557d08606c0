"""A vision-language model with its positions in our hands: load, encode, embed, run, sample.

A clip is encoded once, a prompt is prefilled once and its cache expanded to the samples drawn from
it; position ids are computed by `evals.mrope` and given to every forward, in generation too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from evals import mrope
from evals._torchvision import install as _install_torchvision
from evals.errors import BadInput, BlindForward
from evals.types import Decoding, Protocol, VideoClip

_install_torchvision()


@dataclass(frozen=True)
class Encoded:
    """Model inputs of one prompt.

    ids: (P,) long. positions: (3, P) long. pixels: (patches, C * 2 * 14 * 14) float or None.
    grid: (1, 3) long, patches in time, height and width, or None.
    """

    ids: Tensor
    positions: Tensor
    pixels: Tensor | None
    grid: Tensor | None
    second_per_grid: float

    @property
    def next_position(self) -> int:
        """Position of the first completion token on all three axes."""
        return int(self.positions.max()) + 1


@dataclass(frozen=True)
class Sampled:
    """One sampled completion: ids up to and including the end token, their log-probabilities under
    the untruncated distribution at temperature 1, and whether it ended by itself."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    finished: bool


class VLM:
    """A Qwen2.5-VL model and its processor. `patches` counts patches the vision tower has encoded
    and `tokens` language-model tokens forwarded, for tests and for cost."""

    def __init__(self, model: Any, processor: Any):
        self.model, self.processor = model, processor
        config = model.config
        self.image_pad, self.video_pad = config.image_token_id, config.video_token_id
        self.merge = config.vision_config.spatial_merge_size
        self.tokens_per_second = config.vision_config.tokens_per_second
        self.end = processor.tokenizer.eos_token_id
        markers = (config.vision_start_token_id, config.vision_end_token_id)
        self.banned = [self.image_pad, self.video_pad, *markers]
        self.patches = self.tokens = 0

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self.model.device)

    # --- prompts -------------------------------------------------------------------------------

    def encode(self, clip: VideoClip | None, text: str, protocol: Protocol) -> Encoded:
        """Chat template, processor with video metadata, positions by the protocol's rule.

        Raises BadInput when the text itself contains the token that stands for a clip.
        """
        for pad in self.processor.tokenizer.convert_ids_to_tokens([self.image_pad, self.video_pad]):
            if pad in text:
                raise BadInput(f"a question must not contain {pad}: {text[:80]!r}")
        content: list[dict[str, str]] = [{"type": "text", "text": text}]
        media: dict[str, Any] = {}
        size = {"shortest_edge": protocol.min_pixels, "longest_edge": protocol.max_pixels}
        if clip is not None:
            content.insert(0, {"type": clip.modality})
            media = _media(clip, size)
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        out = self.processor(text=[prompt], return_tensors="pt", **media)
        ids = out["input_ids"][0]
        pixels = out.get("pixel_values_videos", out.get("pixel_values"))
        grid = out.get("video_grid_thw", out.get("image_grid_thw"))
        seconds = 0.0
        if clip is not None and clip.modality == "video":
            seconds = 1.0 if protocol.time == "constant" else float(out["second_per_grid_ts"][0])
        encoded = Encoded(ids, torch.empty(3, 0, dtype=torch.long), pixels, grid, seconds)
        return replace(encoded, positions=self.positions(encoded, protocol.positions))

    def positions(self, encoded: Encoded, rule: str) -> Tensor:
        """(3, P) position ids of a prompt; raises BlindForward if pads and grid disagree."""
        is_pad = self.is_pad(encoded.ids).tolist()
        if encoded.grid is None:
            if any(is_pad):
                raise BlindForward(f"{sum(is_pad)} vision pads in a prompt without pixels")
            segments: list[mrope.Text | mrope.Vision] = [mrope.Text(len(is_pad))]
        else:
            t, h, w = (int(x) for x in encoded.grid[0])
            merged = (t, h // self.merge, w // self.merge)
            if sum(is_pad) != np.prod(merged):
                raise BlindForward(
                    f"{sum(is_pad)} vision pads for a grid of {np.prod(merged)} features"
                )
            start, n = is_pad.index(True), sum(is_pad)
            segments = [
                mrope.Text(start),
                mrope.Vision(merged, encoded.second_per_grid),
                mrope.Text(len(is_pad) - start - n),
            ]
        table = mrope.positions(segments, tokens_per_second=self.tokens_per_second, rule=rule)
        return torch.from_numpy(table)

    def is_pad(self, ids: Tensor) -> Tensor:
        """Boolean mask of image and video pads, same shape as ids."""
        return cast(Tensor, (ids == self.image_pad) | (ids == self.video_pad))

    # --- forward -------------------------------------------------------------------------------

    def features(self, prompts: Sequence[Encoded]) -> list[Tensor | None]:
        """Vision features (n, H) per prompt, the tower run once over all of them."""
        seen = [p for p in prompts if p.pixels is not None]
        if not seen:
            return [None] * len(prompts)
        pixels = torch.cat([cast(Tensor, p.pixels) for p in seen]).to(self.device)
        grids = torch.cat([cast(Tensor, p.grid) for p in seen]).to(self.device)
        self.patches += len(pixels)
        visual = self.model.model.visual
        out = visual(pixels.to(visual.dtype), grid_thw=grids).pooler_output
        sizes = (grids.prod(-1) // self.merge**2).tolist()
        parts = iter(torch.split(out, sizes))
        return [None if p.pixels is None else next(parts) for p in prompts]

    def embed(self, ids: Tensor, features: Tensor | None) -> Tensor:
        """Token embeddings (..., L, H) with the features put where the pads are, in order.

        Raises BlindForward unless there are exactly as many features as pads.
        """
        embeds = self.model.get_input_embeddings()(ids)
        mask = self.is_pad(ids)
        have = 0 if features is None else len(features)
        if int(mask.sum()) != have:
            raise BlindForward(f"{int(mask.sum())} vision pads but {have} vision features")
        if features is None:
            return cast(Tensor, embeds)
        spots = mask.unsqueeze(-1).expand_as(embeds)
        return cast(Tensor, embeds.masked_scatter(spots, features.to(embeds.dtype)))

    def hidden(
        self, embeds: Tensor, positions: Tensor, attend: Tensor | None, cache: Any = None
    ) -> Tensor:
        """Last hidden states (B, L, H). positions: (3, B, L). attend: boolean (B, 1, L, K), True
        where a query may look, or None for plain causal attention over a batch without padding."""
        self.tokens += embeds.shape[0] * embeds.shape[1]
        masks = {"full_attention": attend, "sliding_attention": attend}
        out = self.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=masks,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return cast(Tensor, out.last_hidden_state)

    # --- sampling ------------------------------------------------------------------------------

    def sample(
        self, prompts: Sequence[Encoded], decoding: Decoding, seeds: Sequence[int]
    ) -> list[list[Sampled]]:
        """`decoding.samples` completions per prompt. Vision pads and markers cannot be drawn.

        Prompts are prefilled once, left-padded to one length; their cache is then repeated.
        seeds: one per prompt; what is drawn for a prompt does not depend on the prompts beside it.
        """
        training = self.model.training
        self.model.eval()  # in training mode, gradient checkpointing would drop the cache
        try:
            return self._sample(prompts, decoding, seeds)
        finally:
            self.model.train(training)

    @torch.no_grad()
    def _sample(
        self, prompts: Sequence[Encoded], decoding: Decoding, seeds: Sequence[int]
    ) -> list[list[Sampled]]:
        from transformers import DynamicCache

        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        n, width = decoding.samples, max(len(p.ids) for p in prompts)
        cache = DynamicCache()
        hidden, keep = self._prefill(prompts, width, cache)
        if n > 1:
            cache.batch_repeat_interleave(n)
        hidden, keep = hidden.repeat_interleave(n, 0), keep.repeat_interleave(n, 0)
        at = torch.tensor([p.next_position for p in prompts], device=self.device)
        at = at.repeat_interleave(n)
        drawn, logps = [], []
        done = torch.zeros(len(at), dtype=torch.bool, device=self.device)
        for step in range(decoding.max_new_tokens):
            token, logp = self._draw(hidden, decoding, generators)
            drawn.append(torch.where(done, self.end, token))
            logps.append(logp)
            done |= token == self.end
            if bool(done.all()) or step + 1 == decoding.max_new_tokens:
                break
            keep = torch.cat([keep, torch.ones_like(keep[:, :1])], 1)
            embeds = self.model.get_input_embeddings()(drawn[-1][:, None])
            where = (at + step).view(1, -1, 1).expand(3, -1, -1)
            hidden = self.hidden(embeds, where, keep[:, None, None], cache)[:, -1]
        rows = [
            self._trim(ids, lps)
            for ids, lps in zip(
                torch.stack(drawn, 1).tolist(), torch.stack(logps, 1).tolist(), strict=True
            )
        ]
        return [rows[i : i + n] for i in range(0, len(rows), n)]

    def _prefill(self, prompts: Sequence[Encoded], width: int, cache: Any) -> tuple[Tensor, Tensor]:
        """Last hidden state (B, H) of each prompt, and the (B, width) mask of real tokens."""
        pad = self.processor.tokenizer.pad_token_id
        ids = torch.full((len(prompts), width), pad, dtype=torch.long)
        positions = torch.zeros(3, len(prompts), width, dtype=torch.long)
        keep = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            start = width - len(prompt.ids)
            ids[row, start:], keep[row, start:] = prompt.ids, True
            positions[:, row, start:] = prompt.positions
        ids, positions, keep = (x.to(self.device) for x in (ids, positions, keep))
        features = [f for f in self.features(prompts) if f is not None]
        embeds = self.embed(ids, torch.cat(features) if features else None)
        causal = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        attend = causal & keep[:, None, None, :]
        attend |= torch.eye(width, dtype=torch.bool, device=self.device)  # pads see themselves
        return self.hidden(embeds, positions, attend, cache)[:, -1], keep

    def _draw(
        self, hidden: Tensor, decoding: Decoding, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        logits = self.model.lm_head(hidden).float()
        logp = logits.log_softmax(-1)
        logits[:, self.banned] = float("-inf")
        if decoding.temperature == 0:
            token = logits.argmax(-1)
        else:
            probabilities = _truncate(logits / decoding.temperature, decoding).softmax(-1)
            # The largest p / Exponential(1) is a draw from p; each prompt has its own noise.
            noise = torch.empty_like(probabilities).view(len(generators), -1, logits.shape[-1])
            for part, generator in zip(noise, generators, strict=True):
                part.exponential_(generator=generator)
            token = (probabilities / noise.view_as(probabilities)).argmax(-1)
        return token, logp.gather(-1, token[:, None])[:, 0]

    def _trim(self, ids: list[int], logps: list[float]) -> Sampled:
        finished = self.end in ids
        n = ids.index(self.end) + 1 if finished else len(ids)
        return Sampled(tuple(ids[:n]), tuple(logps[:n]), finished)

    def text(self, ids: Sequence[int]) -> str:
        """The completion's text without its end token."""
        return cast(str, self.processor.tokenizer.decode(list(ids), skip_special_tokens=True))


def _truncate(logits: Tensor, decoding: Decoding) -> Tensor:
    """Top-k, then top-p: what is outside becomes -inf; the likeliest token always stays."""
    if decoding.top_k:
        k = min(decoding.top_k, logits.shape[-1])
        logits = logits.masked_fill(logits < logits.topk(k).values[:, -1:], float("-inf"))
    if decoding.top_p < 1:
        order, index = logits.sort(descending=True)
        outside = order.softmax(-1).cumsum(-1) - order.softmax(-1) >= decoding.top_p
        outside[:, 0] = False
        order = order.masked_fill(outside, float("-inf"))
        logits = torch.empty_like(logits).scatter(-1, index, order)
    return logits


def _media(clip: VideoClip, size: dict[str, int]) -> dict[str, Any]:
    from transformers.video_utils import VideoMetadata

    if clip.modality == "image":
        return {
            "images": [clip.frames[0]],
            "images_kwargs": {"input_data_format": "channels_last", "size": size},
        }
    metadata = VideoMetadata(
        total_num_frames=clip.total,
        fps=clip.fps,
        duration=clip.duration,
        frames_indices=list(clip.indices),
    )
    return {
        "videos": [clip.frames],
        "videos_kwargs": {
            "video_metadata": [[metadata]],
            "do_sample_frames": False,
            "cap_pixels_per_frame": False,
            "input_data_format": "channels_last",
            "size": size,
        },
    }


def load(path: str | Path, *, dtype: str = "float32", device: str = "cpu") -> VLM:
    """Load a checkpoint folder. Raises BadInput when it is not a whole Qwen2.5-VL checkpoint."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    if not Path(path, "config.json").is_file():
        raise BadInput(f"{path} holds no checkpoint (config.json is missing)")
    config = AutoConfig.from_pretrained(path)
    if config.model_type != "qwen2_5_vl":
        raise BadInput(f"{path} is a {config.model_type} model; this reads qwen2_5_vl")
    model, found = AutoModelForImageTextToText.from_pretrained(
        path, dtype=getattr(torch, dtype), output_loading_info=True
    )
    if missing := sorted(found["missing_keys"]):  # transformers would leave them random
        raise BadInput(f"{path} lacks {len(missing)} weights, {missing[0]} among them")
    processor = AutoProcessor.from_pretrained(path)
    return VLM(model.to(device).eval(), processor)
