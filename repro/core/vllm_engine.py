"""Sampling with vLLM inside the trainer's process (TRL's `colocate`), videos included.

    prompt ids with one pad per clip, frames, metadata -> vLLM -> ids, log-probabilities -> Rollout

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
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evals.errors import BadInput, BlindForward, EnvironmentFault
from evals.types import Decoding
from evals.vlm import VLM, Encoded
from repro.core.rollout import Sampler
from repro.core.types import Prompt, Rollout

MODES = ("colocate", "server")
KV_CACHE_ON_CPU = 1 << 30  # bytes (chosen): half a million tokens of the embedded student


class VLLMSampler(Sampler):
    """Draws completions of the policy from an engine built once; call `sync` after every update.

    folder: checkpoint the engine starts from. max_length: longest prompt + completion, in tokens.
    memory: share of the GPU for the engine (unused on a CPU). positions: the protocol's rule.
    sleep_mode: allow `sleep` and `wake`. mode: `colocate`; a server cannot be given videos.
    Raises BadInput for settings it would not obey, EnvironmentFault where vLLM is missing.
    """

    def __init__(
        self,
        vlm: VLM,
        decoding: Decoding,
        folder: str | Path,
        *,
        max_length: int,
        memory: float = 0.3,
        positions: str = "original",
        sleep_mode: bool = False,
        mode: str = "colocate",
    ):
        super().__init__(vlm, decoding)
        _refuse(mode)
        self.max_length, self.sleep_mode = max_length, sleep_mode
        self.llm = _engine(vlm, folder, max_length, memory, sleep_mode)
        self.llm.apply_model(lambda model: _use_our_positions(model, vlm, positions))

    def __call__(
        self, prompts: Sequence[Prompt], n: int, seeds: Sequence[int]
    ) -> list[list[Rollout]]:
        """n completions for each prompt, in order; seeds: one per prompt.

        Raises BadInput for a prompt too long, BlindForward when vLLM expanded it differently.
        """
        requests = [self._request(p.encoded) for p in prompts]
        params = [self._params(n, seed) for seed in seeds]
        outputs = self.llm.generate(requests, params, use_tqdm=False)
        return [self._rollouts(p, out) for p, out in zip(prompts, outputs, strict=True)]

    def sync(self, model: Any) -> None:
        """Give the engine the model's current weights, and drop what the old ones left behind."""
        if any(hasattr(p, "ds_id") for p in model.parameters()):
            raise BadInput(
                "use_vllm cannot read weights that DeepSpeed ZeRO-3 has split over processes; "
                "use ZeRO-2, or set use_vllm: false"
            )
        weights = ((name, p.detach()) for name, p in model.named_parameters())
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self.llm.apply_model(_pack_head)
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM still holds requests, so its caches cannot be dropped")
        self.llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> None:
        """Free the engine's GPU memory: weights move to host memory, the KV cache is dropped."""
        if self.sleep_mode:
            self.llm.sleep(level=1)

    def wake(self) -> None:
        """Take the memory back; before `sync` and before sampling."""
        if self.sleep_mode:
            self.llm.wake_up()

    def _request(self, prompt: Encoded) -> dict[str, Any]:
        if len(prompt.ids) + self.decoding.max_new_tokens > self.max_length:
            raise BadInput(
                f"a prompt of {len(prompt.ids)} tokens and a completion of up to "
                f"{self.decoding.max_new_tokens} do not fit into vllm_max_model_length "
                f"{self.max_length}; raise it, or lower max_frames or max_pixels"
            )
        pads = self.vlm.is_pad(prompt.ids)
        repeated = pads & torch.cat([pads.new_zeros(1), pads[:-1]])  # all pads of a clip but one
        request: dict[str, Any] = {"prompt_token_ids": prompt.ids[~repeated].tolist()}
        if prompt.pixels is not None:
            request["multi_modal_data"] = self._media(prompt)
            request["mm_processor_kwargs"] = {"do_resize": False, "do_sample_frames": False}
        return request

    def _media(self, prompt: Encoded) -> dict[str, Any]:
        seen = frames(self.vlm, prompt)
        if bool((prompt.ids == self.vlm.image_pad).any()):
            return {"image": [seen[0]]}
        fps = 2 / prompt.second_per_grid  # of the sampled frames: a grid row is two of them
        metadata = {
            "fps": fps,
            "total_num_frames": len(seen),
            "frames_indices": list(range(len(seen))),
            "duration": len(seen) / fps,
            "do_sample_frames": False,
        }
        return {"video": [(seen, metadata)]}

    def _params(self, n: int, seed: int) -> Any:
        from vllm import SamplingParams

        d = self.decoding
        return SamplingParams(
            n=n,
            temperature=d.temperature,
            top_p=d.top_p,
            top_k=d.top_k,
            max_tokens=d.max_new_tokens,
            seed=seed >> 1,  # vLLM adds the number of the completion: 63 bits could overflow
            logprobs=0,  # the drawn token's alone
            logit_bias=dict.fromkeys(self.vlm.banned, float("-inf")),
            stop_token_ids=[self.vlm.end],
            ignore_eos=True,  # a generation_config may name other ends than the tokenizer's
            detokenize=False,
        )

    def _rollouts(self, prompt: Prompt, out: Any) -> list[Rollout]:
        if out.prompt_token_ids != prompt.encoded.ids.tolist():
            raise BlindForward(
                f"vLLM read {len(out.prompt_token_ids)} tokens where the prompt of record "
                f"{prompt.record.id} has {len(prompt.encoded.ids)}: its video would be another"
            )
        rollouts = []
        for drawn in out.outputs:
            ids = tuple(drawn.token_ids)
            logp = tuple(at[token].logprob for at, token in zip(drawn.logprobs, ids, strict=True))
            text, finished = self.vlm.text(ids), drawn.finish_reason == "stop"
            rollouts.append(Rollout(prompt, prompt, ids, text, finished, logp=logp))
        return rollouts


def frames(vlm: VLM, prompt: Encoded) -> npt.NDArray[np.uint8]:
    """(F, H, W, 3) uint8 frames whose patches are the prompt's pixels, as resized for the model.

    The inverse of the processor: a patch row holds (C, 2, 14, 14), rows run over (t, H, W) in
    merged blocks. Works on pixels rather than on the clip, whose frames a counterfactual prompt
    may have in another order. Raises BlindForward when the pixels are not whole numbers again.
    """
    assert prompt.pixels is not None and prompt.grid is not None
    processor, merge = vlm.processor.video_processor, vlm.merge
    side = processor.patch_size
    t, h, w = (int(x) for x in prompt.grid[0])
    patches = prompt.pixels.view(t, h // merge, w // merge, merge, merge, 3, 2, side, side)
    scaled = patches.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(2 * t, h * side, w * side, 3)
    mean, std = Tensor(processor.image_mean), Tensor(processor.image_std)
    values = (scaled * std + mean) * 255
    whole = values.round()
    if float((values - whole).abs().max()) > 0.01:
        raise BlindForward("the prompt's pixels are not those of 8-bit frames")
    return whole.byte().numpy()


def _refuse(mode: str) -> None:
    if mode not in MODES:
        raise BadInput(f"vllm_mode is {mode!r}; known: {', '.join(MODES)}")
    if mode == "server":
        raise BadInput(
            "vllm_mode is server, but TRL's vLLM server takes text and images only and would "
            "answer a video prompt without its video; set vllm_mode: colocate"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadInput("use_vllm works in one process; start without torchrun, or set it to false")
    if importlib.util.find_spec("vllm") is None:
        raise EnvironmentFault("vLLM is not installed; set use_vllm: false, or install vllm 0.31.0")


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
    return LLM(
        model=str(folder),
        dtype=str(vlm.model.dtype).removeprefix("torch."),
        max_model_len=max_length,
        max_num_batched_tokens=max(8192, max_length),  # a clip must fit into one step
        limit_mm_per_prompt={"image": 1, "video": 1},
        logprobs_mode="raw_logprobs",
        disable_log_stats=True,
        **place,
    )


def _pack_head(model: Any) -> None:
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
        grid, seconds = None, 0.0
        for feature in features:  # at most one (limit_mm_per_prompt)
            grid = feature.data[f"{feature.modality}_grid_thw"].data[None]
            if feature.modality == "video":
                seconds = float(feature.data["second_per_grid_ts"].data)
        none = torch.empty(3, 0, dtype=torch.long)
        table = vlm.positions(Encoded(torch.tensor(ids), none, None, grid, seconds), rule)
        return table, int(table.max()) + 1 - len(ids)

    model.get_mrope_input_positions = positions
