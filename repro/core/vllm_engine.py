"""Sampling with vLLM inside the trainer's process (TRL's `colocate`), videos included.

    prompt ids with one pad per clip, frames, metadata -> vLLM -> ids, log-probabilities -> Rollout

What vLLM computes for itself, and which of its caches go stale: see evals.vllm_model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evals.errors import BadInput, EnvironmentFault
from evals.types import Decoding
from evals.vllm_model import VLLM, pack_head, refuse_words, require
from evals.vlm import VLM, Sampled
from repro.core import lora
from repro.core.rollout import Sampler
from repro.core.types import Prompt
from repro.recipe import Trainer as Settings

MODES = ("colocate", "server")


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
        check(vlm, mode)
        self.max_length, self.sleep_mode = max_length, sleep_mode
        self.engine = VLLM(
            vlm, folder, max_length=max_length, memory=memory, positions=positions,
            sleep=sleep_mode,
        )  # fmt: skip
        self.llm = self.engine.llm

    def draw(
        self, prompts: Sequence[Prompt], decoding: Decoding, seeds: Sequence[int],
        ended: Callable[[int, list[Sampled]], None], shared: bool,
    ) -> None:  # fmt: skip
        """vLLM tells of all completions when the last one ends, and shares what it can by itself.

        Raises BadInput for a prompt too long, BlindForward when vLLM expanded it differently.
        """
        drawn = self.engine.generate([p.encoded for p in prompts], decoding, seeds)
        for place, samples in enumerate(drawn):
            ended(place, samples)

    def sync(self, model: Any) -> None:
        """Give the engine the model's current weights, and drop what the old ones left behind."""
        if any(hasattr(p, "ds_id") for p in model.parameters()):
            raise BadInput(
                "use_vllm cannot read weights that DeepSpeed ZeRO-3 has split over processes; "
                "use ZeRO-2, or set use_vllm: false"
            )
        weights = {"weights_iterator": lora.weights(model)}
        self.llm.collective_rpc("reload_weights", kwargs=weights)
        self.llm.apply_model(pack_head)
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


def for_training(
    vlm: VLM, settings: Settings, decoding: Decoding, folder: Path, positions: str
) -> VLLMSampler:
    """The engine that a recipe's trainer fields describe, started from the checkpoint `folder`."""
    return VLLMSampler(
        vlm,
        decoding,
        folder,
        max_length=max_length(settings),
        memory=settings.vllm_gpu_memory_utilization,
        positions=positions,
        sleep_mode=settings.vllm_enable_sleep_mode,
        mode=settings.vllm_mode,
    )


def max_length(settings: Settings) -> int:
    """Longest prompt and completion together, in tokens. Raises BadInput where nothing says it."""
    if settings.vllm_max_model_length is not None:
        return settings.vllm_max_model_length
    if settings.max_prompt_length is None:
        raise BadInput(
            "use_vllm reserves memory for the longest prompt and completion: set "
            "vllm_max_model_length, or max_prompt_length"
        )
    return settings.max_prompt_length + settings.max_completion_length


def check(vlm: VLM, mode: str) -> None:
    """Raises BadInput or EnvironmentFault for what no engine could do, before one is started."""
    if mode not in MODES:
        raise BadInput(f"vllm_mode is {mode!r}; known: {', '.join(MODES)}")
    if mode == "server":
        raise BadInput(
            "vllm_mode is server, but TRL's vLLM server takes text and images only and would "
            "answer a video prompt without its video; set vllm_mode: colocate"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadInput("use_vllm works in one process; start without torchrun, or set it to false")
    refuse_words(vlm)
    try:
        require()
    except EnvironmentFault as error:
        raise EnvironmentFault(f"{error}: use_vllm: false") from error
