"""LoRA: low-rank adapters on every linear layer of the language model; everything else is frozen.

The reference policy is the same model with its adapters switched off, so no copy is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evals.vlm import VLM

#: Attention and MLP projections of the language model, not of the vision tower (chosen).
TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def adapted(vlm: VLM, r: int, alpha: int, seed: int) -> VLM:
    """The VLM with fresh adapters of rank r and scale alpha / r; their draw depends on `seed`."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=TARGETS, task_type="CAUSAL_LM")
    return vlm.around(get_peft_model(vlm.model, config))


def is_adapted(model: Any) -> bool:
    """Whether the model carries adapters."""
    return hasattr(model, "peft_config")


def load_adapters(model: Any, folder: Path) -> None:
    """Adapters of a checkpoint into a model that has the same ones, bit for bit."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    told = set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    if told.unexpected_keys or any("lora_" in key for key in told.missing_keys):
        raise ValueError(f"{folder} does not fit the model's adapters: {told}")


def weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the model's weights as a plain model has them, adapters added; without
    changing the model, since adding and subtracting would not give back the same bits."""
    net = model.get_base_model() if is_adapted(model) else model
    modules = dict(net.named_modules())
    for name, value in net.named_parameters():
        owner, _, kind = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        if kind == "weight" and owner:
            value = value + modules[owner].get_delta_weight("default").to(value.dtype)
        yield name.replace(".base_layer.", "."), value.detach()


def merged(vlm: VLM) -> VLM:
    """A plain model with the adapters added to its weights; the adapted one is used up."""
    return vlm.around(vlm.model.merge_and_unload())
