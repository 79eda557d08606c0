"""vLLM in this process, videos included: a checkpoint as a model, and the engine under it.

    prompt ids with one pad per clip, frames, metadata -> vLLM -> ids, log-probabilities

What vLLM computes for itself is tied to what our own forward is given:

| of a prompt  | how they agree                                                                    |
|--------------|-----------------------------------------------------------------------------------|
| pixels       | frames are read back from `Encoded.pixels`, exactly; no second resize or sampling |
| token ids    | one pad per clip is sent; the ids vLLM expands must equal `Encoded.ids`           |
| positions    | computed by `evals.mrope` under the protocol's rule, in vLLM's model too          |
| vocabulary   | vision pads and markers have probability zero                                     |
| logp         | of the untruncated distribution at temperature 1, as `evals.vlm` reports it       |

After the weights change, vLLM's two caches are stale and both must go: the prefix cache holds keys
and values, and the encoder cache holds vision features under a hash of the clip alone, so that
a clip seen again would be answered with what the old vision tower saw (vllm#44910, trl#7198).
Requests go film by film, so that questions about one clip find its features and stem cached.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evals.errors import BadInput, BlindForward, EnvironmentFault
from evals.models import Checkpoint, Question, naming_memory
from evals.types import Decoding, Protocol, Reply
from evals.vlm import VLM, Encoded, Sampled, outline

KV_CACHE_ON_CPU = 1 << 30  # bytes (chosen): half a million tokens of the embedded student
PICTURES = 64  # beside a clip, at most (chosen)
LONGEST = 32768  # tokens of prompt and completion, where the model reads that many (chosen)
AT_ONCE = 512  # replies asked for at once (chosen): vLLM schedules them itself


class Engine(Checkpoint):
    """A checkpoint folder answered by vLLM; prompts, pixels and positions are ours.

    The engine starts with the first question, since the protocol names the rule of positions.
    Raises EnvironmentFault where vLLM is missing.
    """

    at_once = AT_ONCE

    def __init__(self, folder: Path, identity: Mapping[str, str] | None = None):
        require()
        super().__init__(outline(folder), folder.name, identity)
        self.folder = folder
        self._engines: dict[str, VLLM] = {}

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        if not questions:
            return []
        with naming_memory(len(questions)):
            encoded = self._encoded(questions, protocol)
            drawn = self._engine(protocol.positions).generate(
                encoded, decoding, [q.own_seed for q in questions]
            )
        return [
            [Reply(self.vlm.text(r.ids), len(r.ids), r.finished) for r in replies]
            for replies in drawn
        ]

    def _engine(self, rule: str) -> VLLM:
        if rule not in self._engines:
            reads = self.vlm.model.config.text_config.max_position_embeddings
            self._engines = {
                rule: VLLM(
                    self.vlm, self.folder, max_length=min(reads, LONGEST), memory=0.9,
                    positions=rule,
                )
            }  # fmt: skip
        return self._engines[rule]


class VLLM:
    """An engine built once from a checkpoint folder.

    vlm: its processor and shape. max_length: longest prompt + completion, in tokens. memory: share
    of the GPU for the engine (unused on a CPU). positions: the protocol's rule. sleep: allow
    `llm.sleep`.
    """

    def __init__(
        self,
        vlm: VLM,
        folder: str | Path,
        *,
        max_length: int,
        memory: float,
        positions: str,
        sleep: bool = False,
    ):
        require()
        refuse_words(vlm)
        self.vlm, self.max_length = vlm, max_length
        self.llm = _engine(vlm, folder, max_length, memory, sleep)
        self.llm.apply_model(lambda model: _use_our_positions(model, vlm, positions))

    def generate(
        self, prompts: Sequence[Encoded], decoding: Decoding, seeds: Sequence[int]
    ) -> list[list[Sampled]]:
        """`decoding.samples` completions for each prompt, in order; seeds: one per prompt.

        Raises BadInput for a prompt too long, BlindForward when vLLM expanded it differently.
        """
        seen: dict[int, dict[str, Any]] = {}
        requests = [self._request(p, decoding, seen) for p in prompts]
        params = [self._params(decoding, seed) for seed in seeds]
        outputs = self.llm.generate(requests, params, use_tqdm=False)
        return [self._sampled(p, out) for p, out in zip(prompts, outputs, strict=True)]

    def _request(
        self, prompt: Encoded, decoding: Decoding, seen: dict[int, dict[str, Any]]
    ) -> dict[str, Any]:
        if len(prompt.ids) + decoding.max_new_tokens > self.max_length:
            raise BadInput(
                f"a prompt of {len(prompt.ids)} tokens and a completion of up to "
                f"{decoding.max_new_tokens} do not fit into vllm_max_model_length "
                f"{self.max_length}; raise it, or lower max_frames or max_pixels"
            )
        pads = self.vlm.is_pad(prompt.ids)
        repeated = pads & torch.cat([pads.new_zeros(1), pads[:-1]])  # all pads of a clip but one
        request: dict[str, Any] = {"prompt_token_ids": prompt.ids[~repeated].tolist()}
        if prompt.pixels is not None:
            if id(prompt.pixels) not in seen:
                seen[id(prompt.pixels)] = self._media(prompt)
            request["multi_modal_data"] = seen[id(prompt.pixels)]
            request["mm_processor_kwargs"] = {"do_resize": False, "do_sample_frames": False}
        return request

    def _media(self, prompt: Encoded) -> dict[str, Any]:
        shown = frames(self.vlm, prompt)
        if not bool((prompt.ids == self.vlm.video_pad).any()):
            return {"image": [picture[0] for picture in shown]}
        clip, *pictures = shown
        return {"video": [self._video(prompt, clip)], **(
            {"image": [picture[0] for picture in pictures]} if pictures else {}
        )}  # fmt: skip

    def _video(self, prompt: Encoded, shown: npt.NDArray[np.uint8]) -> Any:
        fps = 2 / prompt.second_per_grid  # of the sampled frames: a grid row is two of them
        metadata = {
            "fps": fps,
            "total_num_frames": len(shown),
            "frames_indices": list(range(len(shown))),
            "duration": len(shown) / fps,
            "do_sample_frames": False,
        }
        return shown, metadata

    def _params(self, d: Decoding, seed: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            n=d.samples,
            temperature=d.temperature,
            top_p=d.top_p,
            top_k=d.top_k,
            max_tokens=d.max_new_tokens,
            seed=seed >> 1,  # vLLM adds the number of the completion: 63 bits could overflow
            logprobs=0,  # the drawn token's alone
            logit_bias=dict.fromkeys(self.vlm.banned, float("-inf")),
            stop_token_ids=list(self.vlm.ends),
            ignore_eos=True,  # a generation_config may name other ends than the tokenizer's
            detokenize=False,
        )

    def _sampled(self, prompt: Encoded, out: Any) -> list[Sampled]:
        if out.prompt_token_ids != prompt.ids.tolist():
            raise BlindForward(
                f"vLLM read {len(out.prompt_token_ids)} tokens where the prompt has "
                f"{len(prompt.ids)}: its video would be another"
            )
        found = []
        for drawn in out.outputs:
            ids = tuple(drawn.token_ids)
            logp = tuple(at[token].logprob for at, token in zip(drawn.logprobs, ids, strict=True))
            found.append(Sampled(ids, logp, drawn.finish_reason == "stop"))
        return found


def frames(vlm: VLM, prompt: Encoded) -> list[npt.NDArray[np.uint8]]:
    """Per clip or picture (F, H, W, 3) uint8 frames whose patches are the prompt's pixels, as
    resized for the model.

    The inverse of the processor: a patch row holds (C, 2, 14, 14), rows run over (t, H, W) in
    merged blocks. Works on pixels rather than on the clip, whose frames a counterfactual prompt
    may have in another order. Raises BlindForward when the pixels are not whole numbers again.
    """
    assert prompt.pixels is not None and prompt.grid is not None
    parts = prompt.pixels.split(prompt.grid.prod(-1).tolist())
    return [_frames(vlm, part, grid) for part, grid in zip(parts, prompt.grid, strict=True)]


def _frames(vlm: VLM, pixels: Tensor, grid: Tensor) -> npt.NDArray[np.uint8]:
    processor, merge = vlm.processor.video_processor, vlm.merge
    side = processor.patch_size
    t, h, w = (int(x) for x in grid)
    patches = pixels.view(t, h // merge, w // merge, merge, merge, 3, 2, side, side)
    scaled = patches.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(2 * t, h * side, w * side, 3)
    mean, std = Tensor(processor.image_mean), Tensor(processor.image_std)
    values = (scaled * std + mean) * 255
    whole = values.round()
    if float((values - whole).abs().max()) > 0.01:
        raise BlindForward("the prompt's pixels are not those of 8-bit frames")
    return whole.byte().numpy()


def require() -> None:
    """Raises EnvironmentFault where vLLM is missing."""
    if importlib.util.find_spec("vllm") is None:
        raise EnvironmentFault(
            "vLLM is not installed here; install vllm 0.31.0 (requirements/vllm.py), or do without"
        )


def refuse_words(vlm: VLM) -> None:
    """Raises BadInput for a model that tells time in words, which vLLM would word by itself."""
    if vlm.tells_time:
        raise BadInput(
            "vLLM is given videos of Qwen2.5-VL only here: it words the times of a Qwen3-VL prompt "
            "by itself; leave vLLM off (use_vllm: false)"
        )


def _engine(vlm: VLM, folder: str | Path, max_length: int, memory: float, sleep: bool) -> Any:
    """A vLLM engine in this process: only here can it be handed tensors and a function."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM
    from vllm.platforms import current_platform

    place: dict[str, Any] = {"gpu_memory_utilization": memory, "enable_sleep_mode": sleep}
    if current_platform.is_cpu():
        if sleep:
            raise BadInput("vllm_enable_sleep_mode needs a GPU; set it to false")
        # compiling would take longer than the student's whole run
        place = {"enforce_eager": True, "kv_cache_memory_bytes": KV_CACHE_ON_CPU}
    threads = torch.get_num_threads()
    llm = LLM(
        model=str(folder),
        load_format="safetensors",
        trust_remote_code=False,
        dtype=str(vlm.compute or vlm.model.dtype).removeprefix("torch."),
        max_model_len=max_length,
        max_num_batched_tokens=max(8192, max_length),  # a clip must fit into one step
        limit_mm_per_prompt={"image": PICTURES, "video": 1},
        logprobs_mode="raw_logprobs",
        disable_log_stats=True,
        **place,
    )
    torch.set_num_threads(threads)  # vLLM takes every core, and our own passes would follow it
    return llm


def pack_head(model: Any) -> None:
    """On a CPU vLLM multiplies by a packed copy of each weight, and a head tied to the embedding
    keeps the copy of the old one, because no weight is loaded under its own name."""
    head = model.language_model.lm_head
    head.quant_method.process_weights_after_loading(head)


def _use_our_positions(model: Any, vlm: VLM, rule: str) -> None:
    """Replace the method by which vLLM numbers a prompt's tokens.

    vLLM follows the original rule in float64; the rule of record rounds products to float32, which
    differs for 7/6 seconds per grid row, and a protocol may name another rule altogether.
    """

    def positions(ids: Sequence[int], features: Sequence[Any]) -> tuple[Tensor, int]:
        grids, seconds = [], 0.0
        for feature in sorted(features, key=lambda f: f.mm_position.offset):
            grids.append(feature.data[f"{feature.modality}_grid_thw"].data)
            if feature.modality == "video":  # at most one (limit_mm_per_prompt)
                seconds = float(feature.data["second_per_grid_ts"].data)
        grid = torch.stack(grids) if grids else None
        none = torch.empty(3, 0, dtype=torch.long)
        table = vlm.positions(Encoded(torch.tensor(ids), none, None, grid, seconds), rule)
        return table, int(table.max()) + 1 - len(ids)

    model.get_mrope_input_positions = positions
