"""Supervised fine-tuning on transformers.Trainer: the cold start before reinforcement learning.

    loss = - mean over counted tokens of log p(token | prompt, earlier tokens)

`completion_only_loss` counts the completion's tokens; without it every token counts but the vision
pads and their markers, the prompt's included, as in Video-R1's release.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from evals.vlm import VLM, Encoded
from repro.core import checkpoint
from repro.core.demonstrations import Draws, Example, Examples
from repro.core.durable import DurableTrainer
from repro.core.health import MetricsLog, refuse_nan
from repro.core.packing import Packed, tree
from repro.core.scoring import packed_for, score
from repro.core.stages import Stage
from repro.recipe import SFT

FLOOR = 0.1  # where `cosine_with_min_lr` ends, as a share of the rate (chosen)


class SFTTrainer(DurableTrainer):
    """One phase of supervised fine-tuning; every weight that requires a gradient trains.

    first: steps of the phases before this one. stop: asked after every step of the phase, ends it
    early. on_step: given each row of metrics.jsonl.
    """

    def __init__(
        self,
        vlm: VLM,
        examples: Examples,
        settings: SFT,
        out: Path,
        *,
        steps: int,
        seed: int,
        first: int = 0,
        on_step: Callable[[dict[str, Any]], None] = lambda row: None,
        stop: Callable[[int], bool] = lambda step: False,
    ):
        self.vlm, self.examples, self.settings, self.out = vlm, examples, settings, out
        self.first, self.on_step = first, on_step
        self.metrics_log: MetricsLog
        args = TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=settings.per_device_train_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            max_steps=steps,
            max_grad_norm=settings.max_grad_norm,
            gradient_checkpointing=settings.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            save_steps=settings.save_steps,
            logging_steps=1,
            logging_nan_inf_filter=False,
            use_cache=True,  # else the saved config would tell others not to
            seed=seed,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
        )
        batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        draws = Draws(len(examples), batch, steps, seed, settings.shuffle)
        collate = lambda items: {"examples": torch.tensor(items)}  # noqa: E731
        super().__init__(vlm.model, args, data_collator=collate, train_dataset=draws)
        self.add_callback(_Stop(stop))

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Mean over the micro-batch's counted tokens; micro-batches weigh the same."""
        self._began = time.perf_counter()
        chosen = [self.examples[i] for i in inputs["examples"].tolist()]
        return loss(self.vlm, chosen, completion_only=self.settings.completion_only_loss)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW on every trained weight, norms and biases decayed too."""
        if self.optimizer is None:
            s = self.settings
            trained = [p for p in (model or self.model).parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(
                trained, lr=s.learning_rate, weight_decay=s.weight_decay
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Linear warm-up over warmup_ratio of the phase, then what lr_scheduler_type says."""
        if self.lr_scheduler is None:
            s = self.settings
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: share(step / num_training_steps, s.warmup_ratio, s.lr_scheduler_type),
            )
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One row of metrics.jsonl per optimizer step."""
        if "loss" not in logs:  # Trainer's closing summary
            return
        step = self.first + self.state.global_step
        refuse_nan(logs["loss"], step)
        if "grad_norm" in logs:  # absent when max_grad_norm is 0
            refuse_nan(logs["grad_norm"], step, "gradient norm")
        seconds = time.perf_counter() - self._began
        row = {"step": step, "blind": int(self.examples.blind), "seconds": seconds, **logs}
        self.metrics_log.write(row)
        self.on_step(row)

    def train(self, resume: Path | None = None) -> Any:  # type: ignore[override]
        """Train the phase; `resume` continues a checkpoint of it, or of the phase before.

        Raises EnvironmentFault, naming what to turn, when memory runs out.
        """
        done = checkpoint.step_of(resume) if resume else 0
        self.metrics_log = MetricsLog(self.out / "metrics.jsonl", upto=done)
        if resume and done <= self.first:  # this phase is still to begin, with a fresh optimizer
            checkpoint.load_weights(self.vlm.model, resume)
            resume = None
        with Stage("fine-tuning").named():
            return super().train(resume_from_checkpoint=str(resume) if resume else None)


class _Stop(TrainerCallback):
    """Asked before a step is saved, so that a resumed run asks again what was not answered."""

    def __init__(self, stop: Callable[[int], bool]):
        self.stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if self.stop(state.global_step):
            control.should_training_stop, control.should_save = True, False
        return control


def loss(vlm: VLM, examples: Sequence[Example], *, completion_only: bool = True) -> Tensor:
    """Mean negative log-probability of the counted tokens of a batch, with gradient."""
    packed = packed_for(vlm, [tree(e.prompt, [e.completion]) for e in examples])
    if not completion_only:
        packed = _counting_prompts(vlm, packed, examples)
    logp, _ = score(vlm, packed, vlm.features([_apart(e.prompt) for e in examples]))
    return -logp.sum() / int(packed.valid.sum())


def _apart(prompt: Encoded) -> Encoded:
    """A prompt whose clip is encoded for itself. One encoding for two examples of a film would have
    the same gradient, rounded otherwise, and the cold start that ships could not be built again."""
    if prompt.pixels is None:
        return prompt
    return replace(prompt, pixels=prompt.pixels.view_as(prompt.pixels))


def _counting_prompts(vlm: VLM, packed: Packed, examples: Sequence[Example]) -> Packed:
    """The same forward, read at every token but the first, vision pads and markers left out."""
    width = packed.ids.shape[1]
    source = torch.zeros(len(examples), width, dtype=torch.long)
    targets, valid = torch.zeros_like(source), torch.zeros_like(source, dtype=torch.bool)
    unseen = torch.tensor(vlm.banned)
    for row, example in enumerate(examples):
        text = torch.cat([example.prompt.ids, torch.tensor(example.completion)])[1:]
        n = len(text)
        source[row, :n] = row * width + torch.arange(n)
        targets[row, :n], valid[row, :n] = text, ~torch.isin(text, unseen)
    return replace(packed, source=source, targets=targets, valid=valid)


def share(done: float, warmup: float, kind: str) -> float:
    """Learning rate as a share of its largest, when a share `done` of the phase is over."""
    if done < warmup:
        return done / warmup
    left = (done - warmup) / (1 - warmup)
    if kind == "linear":
        return 1 - left
    cosine = 1 + float(np.cos(np.pi * left))
    return cosine / 2 if kind == "cosine" else FLOOR + (1 - FLOOR) / 2 * cosine
