"""DeepSpeed's ZeRO: its configuration made from a trainer's settings, and what stage 3 asks of us.

| stage | split over the ranks                        | weights outside a forward            |
|-------|---------------------------------------------|--------------------------------------|
| 2     | gradients and Adam's moments                | whole on every rank                  |
| 3     | the weights too, the reference model's also | a part each; `whole` gathers them    |

Under stage 3 every module call gathers its weights from all ranks, so all must make the same calls
in the same order; where a rank has nothing to do, it makes a small one (`repro.core.blank`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from repro.recipe import Trainer as Settings


def config(settings: Settings) -> dict[str, Any] | None:
    """What TrainingArguments(deepspeed=) takes; None without DeepSpeed. `auto` is filled in by
    transformers from its own arguments, which we made of the same settings."""
    if not settings.deepspeed:
        return None
    import deepspeed

    # On a CPU it would compile itself a collective for minutes, where gloo is there already.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,  # Trainer's torch AdamW, the one of a run without
        "zero_force_ds_cpu_optimizer": False,  # likewise; DeepSpeed's own would have to be compiled
        "bf16": {"enabled": settings.bf16},  # KTR: bf16 weights
        "fp16": {"enabled": False},
        "zero_optimization": _stage(settings.deepspeed),
    }


def _stage(stage: int) -> dict[str, Any]:
    """KTR trains with ZeRO-3, no offload and overlapped communication (ktr.md 3.4, zero3.json)."""
    found: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": torch.cuda.is_available(),  # KTR; it needs CUDA streams
        "contiguous_gradients": True,  # chosen: DeepSpeed's default
        "reduce_bucket_size": "auto",  # chosen: hidden size squared, transformers' rule
    }
    if stage == 3:
        found |= {
            "stage3_param_persistence_threshold": "auto",  # chosen: ten hidden sizes, likewise
            # chosen: which passes run differs from step to step, so no order can be foreseen
            "stage3_prefetch_bucket_size": 0,
            "stage3_max_reuse_distance": 0,
        }
    return found


def is_sharded(model: nn.Module) -> bool:
    """Whether this rank holds only a part of the weights."""
    return any(hasattr(p, "ds_id") for p in model.parameters())


@contextmanager
def whole(model: nn.Module, engine: Any = None) -> Iterator[None]:
    """All weights whole on every rank, and module calls free of collectives, if they were split.

    Every rank must enter; inside, each may call the model as often as it likes, without gradient.
    engine: the one whose hooks split the weights again after each call.
    """
    if not is_sharded(model):
        yield
        return
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        if engine is not None:
            remove_hooks(engine)
        try:
            yield
        finally:
            if engine is not None:
                add_hooks(engine)


def split(model: nn.Module, settings: Settings) -> Any:
    """A frozen model, each rank keeping a part of its weights; DeepSpeed's engine around it."""
    import deepspeed

    own = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": settings.bf16},
        "zero_optimization": {
            "stage": 3, "stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0,
        },
    }  # fmt: skip
    engine, *_ = deepspeed.initialize(model=model, config=own)
    engine.eval()
    return engine
