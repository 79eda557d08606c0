"""Which stage of a step is under way, so that running out of memory names it and what to turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evals.errors import EnvironmentFault, for_want_of_memory

KNOBS = {
    "start": "use_peft: true, a deepspeed stage, or a smaller model",
    "sampling": "a lower num_generations, max_completion_length or vllm_gpu_memory_utilization",
    "policy pass": "gradient_checkpointing: true, more gradient_accumulation_steps, or a lower "
    "max_frames or max_pixels",
    "reference pass": "use_peft: true (no copy is kept), or a lower max_frames or max_pixels",
    "counterfactual passes": "a lower max_frames or max_pixels, or flat_groups: skip",
    "loss": "a lower num_generations or max_completion_length",
    "backward": "gradient_checkpointing: true, more gradient_accumulation_steps, or a lower "
    "max_frames or max_pixels",
    "fine-tuning": "gradient_checkpointing: true, a lower per_device_train_batch_size with more "
    "gradient_accumulation_steps, or a lower max_frames or max_pixels",
    "optimizer step": "use_peft: true, or a deepspeed stage",
}


class Stage:
    """Called with a name when a stage begins; remembers the last one."""

    def __init__(self, name: str = "start") -> None:
        self(name)

    def __call__(self, name: str) -> None:
        if name not in KNOBS:
            raise ValueError(f"unknown stage {name!r}")
        self.name = name

    @contextmanager
    def named(self) -> Iterator[None]:
        """Raises EnvironmentFault in place of an out-of-memory error in the block."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not for_want_of_memory(error):
                raise
            raise EnvironmentFault(
                f"out of memory in the stage {self.name!r}: try {KNOBS[self.name]}; what was saved "
                "stays valid"
            ) from error
