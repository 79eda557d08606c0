"""A transformers.Trainer whose checkpoints are safetensors and JSON, whole or not there at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import SequentialSampler
from transformers import Trainer

from evals.vlm import VLM
from repro.core import checkpoint, lora, ranks


class DurableTrainer(Trainer):
    """Saves and resumes to the same weights; every draw is seeded by its step, so no generator
    state is kept. Subclasses set `vlm` and `out` before they call `Trainer.__init__`.

    first: steps of earlier phases in the same folder.
    """

    vlm: VLM
    out: Path
    first: int = 0

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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.out / f"checkpoint-{self.first + self.state.global_step}"
        if ranks.rank() == 0:
            checkpoint.write_aside(folder, self._fill)
            for old in self.out.glob("checkpoint-*"):
                if old != folder:
                    checkpoint.discard(old)
        ranks.wait()

    def _fill(self, folder: Path) -> None:
        self.save_policy(folder)
        checkpoint.save_optimizer(self.optimizer, self.lr_scheduler, folder)
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load = lora.load_adapters if lora.is_adapted(self.vlm.model) else checkpoint.load_weights
        load(self.vlm.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint_folder))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load."""
