"""A vision-language model with its positions in our hands: load, encode, embed, run, sample.

A clip is encoded once, a prompt is prefilled once and its cache shared by the samples drawn from
it; position ids are computed by `evals.mrope` and given to every forward, in generation too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from evals import attention, mrope, sharing
from evals._torchvision import install as _install_torchvision
from evals.errors import BadInput, BlindForward
from evals.frames import frame_pixels
from evals.prompts import Turn, between_pictures
from evals.types import Decoding, Protocol, VideoClip

_install_torchvision()


@dataclass(frozen=True)
class Encoded:
    """Model inputs of one prompt.

    ids: (P,) long. positions: (3, P) long. pixels: (patches, C * 2 * 14 * 14) float or None.
    grid: (M, 3) long or None: of each clip or picture, in the order of their pads, its patches in
    time, height and width. second_per_grid: of the clip.
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


#: (place of a prompt, its completions)
Ended = Callable[[int, list[Sampled]], None]

#: Model types that `VLM` understands. Qwen3-VL tells time in words between the frames; its tower
#: also feeds the first layers of the language model (DeepStack).
KNOWN = ("qwen2_5_vl", "qwen3_vl")


class VLM:
    """A Qwen2.5-VL or Qwen3-VL model, plain or under PEFT, and its processor. `patches` counts
    patches the vision tower has encoded and `tokens` language-model tokens forwarded, for tests and
    for cost.

    kernel: of attention over packed rows; by default FlexAttention on CUDA, SDPA elsewhere.
    compute: dtype of the forward where it is not the weights' own (autocast).
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        kernel: attention.Kernel | None = None,
        compute: torch.dtype | None = None,
    ):
        self.model, self.processor, self.compute = model, processor, compute
        config = model.config
        self.image_pad, self.video_pad = config.image_token_id, config.video_token_id
        self.merge = config.vision_config.spatial_merge_size
        self.tells_time = config.model_type == "qwen3_vl"
        self.tokens_per_second = getattr(config.vision_config, "tokens_per_second", 0)
        self.end = processor.tokenizer.eos_token_id
        self.ends = (self.end, *_other_ends(model, self.end))
        self.kernel = kernel or ("flex" if model.device.type == "cuda" else "sdpa")
        if self.kernel == "flex":
            attention.install(self.net)
        self.markers = (config.vision_start_token_id, config.vision_end_token_id)
        self.banned = [self.image_pad, self.video_pad, *self.markers]
        self.patches = self.tokens = 0

    def around(self, model: Any) -> VLM:
        """Another model of the same kind, run in the same way."""
        return VLM(model, self.processor, self.kernel, self.compute)

    def _casting(self) -> Any:
        if self.compute is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self.model.device)

    @property
    def net(self) -> Any:
        """The transformers model itself; under PEFT its layers hold the adapters."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def visual(self) -> Any:
        """The vision tower."""
        return self.net.model.visual

    # --- prompts -------------------------------------------------------------------------------

    def encode(self, clip: VideoClip | None, text: str | Turn, protocol: Protocol) -> Encoded:
        """Chat template, processor with video metadata, positions by the protocol's rule.

        text: the words after the clip, or all words of the turn. Raises BadInput when they contain
        the token that stands for a clip.
        """
        turn = Turn(None, "", text) if isinstance(text, str) else text
        for pad in self._words(self.image_pad, self.video_pad):
            for said in (turn.system or "", turn.before, turn.text, turn.prefix):
                if pad in said:
                    raise BadInput(f"a question must not contain {pad}: {said[:80]!r}")
        media: dict[str, Any] = {} if clip is None else self._media(clip, protocol)
        prompt = self.written(turn, clip)
        if self.tells_time:  # transformers 5 wraps the clip in markers that its rows bring along
            start, pad, end = self._words(self.markers[0], self.video_pad, self.markers[1])
            prompt = prompt.replace(f"{start}{pad}{end}", pad)
        prompt += turn.prefix
        out = self.processor(text=[prompt], return_tensors="pt", **media)
        ids = out["input_ids"][0]
        # The clip comes before the words, and so before the pictures among them.
        pixels, grid = (
            torch.cat(parts) if (parts := [out[key] for key in keys if key in out]) else None
            for keys in (("pixel_values_videos", "pixel_values"),
                         ("video_grid_thw", "image_grid_thw"))
        )  # fmt: skip
        seconds = 0.0
        if clip is not None and clip.modality == "video" and not self.tells_time:
            seconds = 1.0 if protocol.time == "constant" else float(out["second_per_grid_ts"][0])
        encoded = Encoded(ids, torch.empty(3, 0, dtype=torch.long), pixels, grid, seconds)
        return replace(encoded, positions=self.positions(encoded, protocol.positions))

    def written(self, turn: Turn, clip: VideoClip | None) -> str:
        """The chat template filled, one pad where the clip goes."""
        return cast(
            str,
            self.processor.apply_chat_template(
                messages(turn, clip), add_generation_prompt=True, tokenize=False
            ),
        )

    def _words(self, *ids: int) -> list[str]:
        return cast(list[str], self.processor.tokenizer.convert_ids_to_tokens(list(ids)))

    def _media(self, clip: VideoClip, protocol: Protocol) -> dict[str, Any]:
        """What the processor is told about a clip: its frames, their times, its size in pixels; and
        about the pictures beside it."""
        low, high = protocol.min_pixels, frame_pixels(protocol, max(1, len(clip.frames)))
        media: dict[str, Any] = {}
        pictures = [*clip.images]
        if clip.modality == "image":
            pictures = [*clip.frames, *pictures]
        if pictures:
            size = {"shortest_edge": low, "longest_edge": frame_pixels(protocol, len(pictures))}
            kwargs = {"input_data_format": "channels_last", "size": size}
            media = {"images": pictures, "images_kwargs": kwargs}
        if clip.modality == "image":
            return media
        if self.tells_time:
            if protocol.time == "constant":
                raise BadInput("time: constant is a habit of Qwen2.5-VL; Qwen3-VL reads real times")
            low, high = low * len(clip.frames), high * len(clip.frames)  # of the whole clip
        return {
            **media,
            "videos": [clip.frames],
            "videos_kwargs": {
                "video_metadata": [[_metadata(clip)]],
                "do_sample_frames": False,
                "cap_pixels_per_frame": False,
                "input_data_format": "channels_last",
                "size": {"shortest_edge": low, "longest_edge": high},
            },
        }

    def positions(self, encoded: Encoded, rule: str) -> Tensor:
        """(3, P) position ids of a prompt; raises BlindForward if pads and grid disagree."""
        is_pad = self.is_pad(encoded.ids).tolist()
        blocks = iter(self._blocks(encoded))
        segments: list[mrope.Text | mrope.Vision] = []
        for pads, run in itertools.groupby(is_pad):
            n = len(list(run))
            if not pads:
                segments.append(mrope.Text(n))
                continue
            grid = next(blocks, (0, 0, 0))
            if n != np.prod(grid):
                raise BlindForward(f"{n} vision pads for a grid of {np.prod(grid)} features")
            segments.append(mrope.Vision(grid, encoded.second_per_grid))
        if (rest := next(blocks, None)) is not None:
            raise BlindForward(f"no vision pads for a grid of {np.prod(rest)} features")
        table = mrope.positions(segments, tokens_per_second=self.tokens_per_second, rule=rule)
        return torch.from_numpy(table)

    def _blocks(self, encoded: Encoded) -> list[tuple[int, int, int]]:
        """Merged grids of the runs of pads: one for a clip or picture, or one per row of time
        between times told in words."""
        found: list[tuple[int, int, int]] = []
        for t, h, w in [] if encoded.grid is None else encoded.grid.tolist():
            h, w = h // self.merge, w // self.merge
            found += [(1, h, w)] * t if self.tells_time else [(t, h, w)]
        return found

    def is_pad(self, ids: Tensor) -> Tensor:
        """Boolean mask of image and video pads, same shape as ids."""
        return cast(Tensor, (ids == self.image_pad) | (ids == self.video_pad))

    # --- forward -------------------------------------------------------------------------------

    def features(self, prompts: Sequence[Encoded]) -> list[Tensor | None]:
        """Vision features (n, H) per prompt, the tower run once over all their clips; prompts that
        hold the same pixels share them. (n, H + D H) for a tower that also feeds D layers. Without
        gradient where the tower is frozen, whatever transformers makes of its inputs."""
        clips = {id(p.pixels): p for p in prompts if p.pixels is not None}
        if not clips:
            return [None] * len(prompts)
        pixels = torch.cat([cast(Tensor, p.pixels) for p in clips.values()]).to(self.device)
        grids = torch.cat([cast(Tensor, p.grid) for p in clips.values()]).to(self.device)
        self.patches += len(pixels)
        trains = any(p.requires_grad for p in self.visual.parameters())
        with self._casting(), torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            out = self.visual(pixels.to(self.visual.dtype), grid_thw=grids)
        wide = torch.cat([out.pooler_output, *(getattr(out, "deepstack_features", None) or ())], -1)
        sizes = [int(cast(Tensor, p.grid).prod(-1).sum()) // self.merge**2 for p in clips.values()]
        parts = dict(zip(clips, torch.split(wide, sizes), strict=True))
        return [parts.get(id(p.pixels)) for p in prompts]

    def embed(self, ids: Tensor, features: Tensor | None) -> Tensor:
        """Token embeddings (..., L, H) with the features put where the pads are, in order.

        Raises BlindForward unless there are exactly as many features as pads.
        """
        embeds = self.net.get_input_embeddings()(ids)
        mask = self.is_pad(ids)
        have = 0 if features is None else len(features)
        if int(mask.sum()) != have:
            raise BlindForward(f"{int(mask.sum())} vision pads but {have} vision features")
        if features is None:
            return cast(Tensor, embeds)
        spots = mask.unsqueeze(-1).expand_as(embeds)
        own = features[:, : embeds.shape[-1]].to(embeds.dtype)
        return cast(Tensor, embeds.masked_scatter(spots, own))

    def hidden(
        self, embeds: Tensor, positions: Tensor, attend: Any, cache: Any = None, **deep: Any
    ) -> Tensor:
        """Last hidden states (B, L, H). positions: (3, B, L). attend: boolean (B, 1, L, K), True
        where a query may look, a block mask, or None for plain causal attention over a batch
        without padding. deep: what `deepstack` says."""
        self.tokens += embeds.shape[0] * embeds.shape[1]
        masks = {"full_attention": attend, "sliding_attention": attend}
        with self._casting():
            out = self.net.model.language_model(
                inputs_embeds=embeds,
                position_ids=positions,
                attention_mask=attend if self.tells_time else masks,
                past_key_values=cache,
                use_cache=cache is not None,
                **deep,
            )
        return cast(Tensor, out.last_hidden_state)

    def run(
        self,
        ids: Tensor,
        features: Tensor | None,
        positions: Tensor,
        attend: Any,
        cache: Any = None,
    ) -> Tensor:
        """`embed`, then `hidden`: last hidden states (B, L, H) of token ids (B, L)."""
        embeds = self.embed(ids, features)
        return self.hidden(embeds, positions, attend, cache, **self.deepstack(ids, features))

    def deepstack(self, ids: Tensor, features: Tensor | None) -> dict[str, Any]:
        """Arguments of `hidden` for a tower that feeds the first layers too; else none."""
        width = self.net.config.text_config.hidden_size
        if features is None or features.shape[-1] == width:
            return {}
        layers = list(features[:, width:].split(width, dim=-1))
        return {"visual_pos_masks": self.is_pad(ids), "deepstack_visual_embeds": layers}

    # --- sampling ------------------------------------------------------------------------------

    def sample(
        self,
        prompts: Sequence[Encoded],
        decoding: Decoding,
        seeds: Sequence[int],
        features: Sequence[Tensor | None] | None = None,
        *,
        shared: bool = False,
        ended: Ended = lambda place, samples: None,
    ) -> list[list[Sampled]]:
        """`decoding.samples` completions per prompt. Vision pads and markers cannot be drawn.

        Prompts are prefilled once, left-padded to one length; their completions share its cache.
        seeds: one per prompt; what is drawn for a prompt does not depend on the prompts beside it.
        features: of the prompts' clips, where they are known already. shared: prefill once what
        prompts with the same pixels have in common (evals.sharing). ended: told the place of each
        prompt and its completions as soon as the last of them ends, while others still grow.
        """
        training = self.model.training
        self.model.eval()  # in training mode, gradient checkpointing would drop the cache
        try:
            with torch.no_grad():
                known = self.features(prompts) if features is None else features
                return self._sample(prompts, decoding, seeds, known, shared, ended)
        finally:
            self.model.train(training)

    def _sample(
        self,
        prompts: Sequence[Encoded],
        decoding: Decoding,
        seeds: Sequence[int],
        features: Sequence[Tensor | None],
        shared: bool,
        ended: Ended,
    ) -> list[list[Sampled]]:
        from transformers import DynamicCache

        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        n, cache = decoding.samples, DynamicCache()
        if shared:
            hidden, keep = sharing.prefill(self, prompts, features, cache)
        else:
            width = max(len(p.ids) for p in prompts)
            hidden, keep = self._prefill(prompts, features, width, cache)
        hidden = hidden.repeat_interleave(n, 0)
        # A prompt's completions grow side by side in its row: the cache is never repeated.
        attend = keep[:, None, None].expand(-1, 1, n, -1)
        own = torch.eye(n, dtype=torch.bool, device=self.device).expand(len(prompts), 1, n, n)
        at = torch.tensor([p.next_position for p in prompts], device=self.device)
        drawn: list[Tensor] = []
        logps: list[Tensor] = []
        found: dict[int, list[Sampled]] = {}
        done = torch.zeros(len(hidden), dtype=torch.bool, device=self.device)
        for step in range(decoding.max_new_tokens):
            token, logp = self._draw(hidden, decoding, generators)
            drawn.append(torch.where(done, self.end, token))
            logps.append(logp)
            done |= torch.isin(token, torch.tensor(self.ends, device=self.device))
            last = step + 1 == decoding.max_new_tokens
            for place, over in enumerate(done.view(-1, n).all(1).tolist()):
                if (over or last) and place not in found:
                    found[place] = self._rows(drawn, logps, slice(place * n, place * n + n))
                    ended(place, found[place])
            if len(found) == len(prompts):
                break
            attend = torch.cat([attend, own], -1)
            where = (at + step).view(1, -1, 1).expand(3, -1, n)
            embeds = self.net.get_input_embeddings()(drawn[-1].view(-1, n))
            hidden = self.hidden(embeds, where, attend, cache).flatten(0, 1)
        return [found[place] for place in range(len(prompts))]

    def _rows(self, drawn: list[Tensor], logps: list[Tensor], rows: slice) -> list[Sampled]:
        """The completions of these rows, as far as they have been drawn."""
        ids, lps = (torch.stack([t[rows] for t in part], 1).tolist() for part in (drawn, logps))
        return [self._trim(*row) for row in zip(ids, lps, strict=True)]

    def _prefill(
        self,
        prompts: Sequence[Encoded],
        features: Sequence[Tensor | None],
        width: int,
        cache: Any,
    ) -> tuple[Tensor, Tensor]:
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
        seen = [f for f in features if f is not None]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        attend = causal & keep[:, None, None, :]
        attend |= torch.eye(width, dtype=torch.bool, device=self.device)  # pads see themselves
        known = torch.cat(seen) if seen else None
        return self.run(ids, known, positions, attend, cache)[:, -1], keep

    def _draw(
        self, hidden: Tensor, decoding: Decoding, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        logits = self.net.lm_head(hidden).float()
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
        places = [place for place, token in enumerate(ids) if token in self.ends]
        finished = bool(places)
        n = places[0] + 1 if finished else len(ids)
        return Sampled(tuple(ids[:n]), tuple(logps[:n]), finished)

    def text(self, ids: Sequence[int]) -> str:
        """The completion's text without its end token."""
        return cast(str, self.processor.tokenizer.decode(list(ids), skip_special_tokens=True))


def _other_ends(model: Any, end: int) -> list[int]:
    """Qwen's checkpoints also end a reply with <|endoftext|>; their generation_config says so."""
    config = getattr(model, "generation_config", None)
    told = [] if config is None else config.eos_token_id
    return [i for i in (told if isinstance(told, list) else [told]) if i not in (None, end)]


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


def messages(turn: Turn, clip: VideoClip | None) -> list[dict[str, Any]]:
    """A turn and its clip in the form that chat templates take.

    Raises BadInput unless the words have a mark for every picture beside the clip.
    """
    seen = clip is not None and len(clip.frames) > 0
    content: list[dict[str, str]] = [{"type": clip.modality}] if clip is not None and seen else []
    if turn.before:
        content.insert(0, {"type": "text", "text": turn.before})
    parts = between_pictures(turn.text, 0 if clip is None else len(clip.images))
    for number, part in enumerate(parts):
        if number:
            content.append({"type": "image"})
        if part or not content:
            content.append({"type": "text", "text": part})
    told = [] if turn.system is None else [{"role": "system", "content": turn.system}]
    return [*told, {"role": "user", "content": content}]


def _metadata(clip: VideoClip) -> Any:
    from transformers.video_utils import VideoMetadata

    return VideoMetadata(
        total_num_frames=clip.total,
        fps=clip.fps,
        duration=clip.duration,
        frames_indices=list(clip.indices),
    )


def _config(path: str | Path) -> Any:
    from transformers import AutoConfig

    if not Path(path, "config.json").is_file():
        raise BadInput(f"{path} holds no checkpoint (config.json is missing)")
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if config.model_type not in KNOWN:
        raise BadInput(f"{path} is a {config.model_type} model; this reads {' and '.join(KNOWN)}")
    if not any(Path(path).glob("*.safetensors")):
        raise BadInput(f"{path} holds no weights as safetensors, and nothing else is loaded")
    return config


def load(path: str | Path, *, dtype: str = "float32", device: str = "cpu") -> VLM:
    """Load a checkpoint folder. Raises BadInput when it is no whole checkpoint of a known kind."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    _config(path)
    model, found = AutoModelForImageTextToText.from_pretrained(
        path, dtype=getattr(torch, dtype), output_loading_info=True, use_safetensors=True,
        trust_remote_code=False,
    )  # fmt: skip
    if missing := sorted(found["missing_keys"]):  # transformers would leave them random
        raise BadInput(f"{path} lacks {len(missing)} weights, {missing[0]} among them")
    processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
    return VLM(model.to(device).eval(), processor)


def outline(path: str | Path) -> VLM:
    """A checkpoint's processor and shape without its weights, for engines that load their own.

    It encodes and counts positions; it cannot run. Raises BadInput as `load` does.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    config = _config(path)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=config.dtype)
    return VLM(model.eval(), AutoProcessor.from_pretrained(path, trust_remote_code=False))
