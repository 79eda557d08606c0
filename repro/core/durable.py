"""A transformers.Trainer whose checkpoints are safetensors and JSON, whole or not there at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from evals.vlm import VLM
from repro.core import checkpoint, lora, ranks, zero


class DurableTrainer(Trainer):
    """Saves and resumes to the same weights; every draw is seeded by its step, so no generator
    state is kept. Subclasses set `vlm` and `out` before they call `Trainer.__init__`.

    first: steps of earlier phases in the same folder.
    """

    vlm: VLM
    out: Path
    first: int = 0

    def __init__(self, model: nn.Module, args: TrainingArguments, **kwargs: Any):
        """One process works on one GPU: on more, Trainer would copy the model to all of them, split
        the features of every clip and multiply the batch."""
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(model, args, **kwargs)

    @property
    def between_batches(self) -> bool:
        """Whether the run may stop here: nothing is held that a checkpoint would not have."""
        return True

    def save_policy(self, folder: Path) -> None:
        """Model and processor, loadable by plain transformers; adapters alone where there are."""
        self.vlm.model.save_pretrained(folder)
        self.vlm.processor.save_pretrained(folder)

    def save_final(self, folder: Path) -> None:
        """As `save_policy`, with adapters added to the weights; training is then over."""
        if lora.is_adapted(self.vlm.model):
            self.vlm = lora.merged(self.vlm)
        self.save_policy(folder)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def publish(self, folder: Path) -> None:
        """Write the trained model; every process comes here, the first one writes."""
        with zero.whole(self.vlm.model, self.deepspeed):
            _first(lambda: checkpoint.write_aside(folder, self.save_final))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.out / f"checkpoint-{self.first + self.state.global_step}"
        with ExitStack() as held:
            _first(lambda: held.enter_context(checkpoint.aside(folder)))
            scratch = checkpoint.scratch_of(folder)
            with zero.whole(self.vlm.model, self.deepspeed):
                _first(lambda: self._fill(scratch))
            if self.deepspeed is not None:
                self.deepspeed.save_checkpoint(str(scratch))
                _first(lambda: self._vouch(folder.name, scratch))
        _first(lambda: self._only(folder))

    def _fill(self, folder: Path) -> None:
        self.save_policy(folder)
        if self.deepspeed is None:
            checkpoint.save_optimizer(self.optimizer, self.lr_scheduler, folder)
        else:  # DeepSpeed's shards hold the optimizer, not the schedule
            checkpoint.save_scheduler(self.lr_scheduler, folder)
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _vouch(self, name: str, scratch: Path) -> None:
        for program in scratch.glob("*.py"):  # that nobody asked for
            program.unlink()
        checkpoint.vouch(self.out, name, scratch)

    def _only(self, folder: Path) -> None:
        for old in self.out.glob("checkpoint-*"):
            if old != folder:
                checkpoint.discard(old)

    def trust(self, resume: Path) -> None:
        """Raises BadInput for DeepSpeed shards that this run did not write."""
        if self.is_deepspeed_enabled:
            _first(lambda: checkpoint.trust(self.out, resume))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load = lora.load_adapters if lora.is_adapted(self.vlm.model) else checkpoint.load_weights
        load(self.vlm.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is None:
            return
        if self.deepspeed is not None:  # which has loaded its own shards
            checkpoint.load_scheduler(self.lr_scheduler, Path(checkpoint_folder))
        else:
            checkpoint.load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint_folder))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load."""


def _first(work: Callable[[], Any]) -> None:
    """Done by the first process alone; all go on when it is done, or fail with it."""
    ranks.together(lambda: work() if ranks.rank() == 0 else None)
