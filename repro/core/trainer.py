"""GroupTrainer: one optimizer step on groups of rollouts, on transformers.Trainer.

    records(step) -> Prompt -> Group of G rollouts -> [repair] -> rewards
    -> policy forward -> [counterfactual passes] -> token weights -> advantages -> loss -> metrics

Trainer brings devices, DeepSpeed, schedules and callbacks; sampling, scoring, loss and checkpoints
are ours. Every random draw comes from (seed, step, slot): resuming needs no generator state.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments

from evals.errors import BadInput
from evals.seeds import derive
from evals.types import Decoding
from evals.vlm import VLM
from repro.core import checkpoint
from repro.core.advantages import advantages
from repro.core.data import Prompts, Records
from repro.core.health import MetricsLog, alarms, refuse_nan
from repro.core.losses import LossConfig, LossTerms, group_loss
from repro.core.method import Method, Rewards
from repro.core.packing import pack, plain, rows_of
from repro.core.passes import token_scores
from repro.core.rollout import Sampler
from repro.core.scoring import score_rows
from repro.core.tokenview import view
from repro.core.types import Group, TokenScores
from repro.recipe import Switches
from repro.recipe import Trainer as Settings


class Slots(Dataset[int]):
    """Item i is slot i: which prompt of which step. What it holds is decided by the method."""

    def __init__(self, steps: int, per_step: int):
        self.length = steps * per_step

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class GroupTrainer(Trainer):
    """Trains a VLM with a Method.

    pool: records to draw from. prompts: builds model inputs. out: the run's folder.
    packed: one packed row per prompt (the default), or one padded row per rollout (the reference).
    Raises BadInput for a setting that it would not obey.
    """

    def __init__(
        self,
        vlm: VLM,
        method: Method,
        settings: Settings,
        switches: Switches,
        pool: Records,
        prompts: Prompts,
        out: Path,
        *,
        seed: int,
        packed: bool = True,
        on_step: Callable[[dict[str, Any]], None] = lambda row: None,
    ):
        if settings.num_iterations != 1:
            raise BadInput(
                f"num_iterations is {settings.num_iterations}, but a batch of rollouts is used for "
                "one update; set it to 1"
            )
        self.vlm, self.method, self.settings, self.switches = vlm, method, settings, switches
        self.pool, self.prompts, self.out, self.seed = pool, prompts, out, seed
        self.pack, self.on_step = (pack if packed else plain), on_step
        self.metrics: dict[str, Any] = {}
        self.metrics_log: MetricsLog
        args = TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=settings.prompts_per_step,
            max_steps=settings.max_steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            gradient_checkpointing=settings.gradient_checkpointing,
            bf16=settings.bf16,
            save_steps=settings.save_steps,
            logging_steps=1,
            logging_nan_inf_filter=False,
            seed=seed,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
        )
        if args.world_size > 1:
            raise BadInput("training runs in one process; start it without torchrun or accelerate")
        slots = Slots(settings.max_steps, settings.prompts_per_step)
        collate = lambda items: {"slots": torch.tensor(items)}  # noqa: E731
        super().__init__(vlm.model, args, data_collator=collate, train_dataset=slots)
        self.reference = _frozen(vlm) if settings.beta else None  # now that the model is placed

    # --- the step ------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Sample, score and return the loss of one step; leaves its metrics in `self.metrics`."""
        step = self.state.global_step
        self._began, tokens = time.perf_counter(), self._tokens()
        groups, parts = self._collect(step, inputs["slots"].tolist())
        rows = [row for group in groups for row in rows_of(group)]
        precision = self.switches.precision
        logp, entropy = score_rows(self.vlm, rows, self.pack, precision=precision)
        reference = None
        with torch.no_grad():
            scores = token_scores(
                self.vlm, groups, logp.detach(), entropy, self.method.needs, self.switches,
                self.pack,
            )  # fmt: skip
            if self.reference is not None:
                reference, _ = score_rows(self.reference, rows, self.pack, precision=precision)
        weights = [self.method.token_weights(g, s) for g, s in zip(groups, scores, strict=True)]
        parts = [
            self.method.adjust(g, p, w) for g, p, w in zip(groups, parts, weights, strict=True)
        ]
        rewards = [torch.stack(list(p.values())).sum(0) for p in parts]
        gains = advantages(rewards, scale=self.settings.scale_rewards)
        loss, kl = self._loss(logp, reference, gains, weights, scores)
        refuse_nan(loss.item(), step + 1)
        self.metrics = {
            **_reward_metrics(groups, parts, rewards),
            **_token_metrics(scores, weights),
            "kl": kl,
            "mismatch": mismatch(groups, logp),
            "tokens": self._tokens() - tokens,
        }
        if step + 1 == self.settings.max_steps:
            self._write_view(groups, rewards, gains, scores, weights)
        return loss

    def _collect(self, step: int, slots: Sequence[int]) -> tuple[list[Group], list[Rewards]]:
        """This process's groups of a step; their draws depend on the step and the slot alone."""
        sampler, records = Sampler(self.vlm, self._decoding()), self.method.records(step, self.pool)
        places = [slot % self.settings.prompts_per_step for slot in slots]
        prompts = [self.prompts.build(records[place]) for place in places]
        seeds = [derive(self.seed, step, place) for place in places]
        groups = sampler.groups(prompts, self.settings.num_generations, seeds)
        groups = [g.with_auxiliary(self.method.auxiliary(g, sampler)) for g in groups]
        groups = [self.method.repair(g, sampler) for g in groups]
        return groups, [self.method.rewards(g) for g in groups]

    def _tokens(self) -> int:
        """Language-model tokens forwarded so far, the reference model's included."""
        return self.vlm.tokens + (self.reference.tokens if self.reference else 0)

    def _decoding(self) -> Decoding:
        s = self.settings
        return Decoding(s.temperature, s.top_p, s.top_k, s.max_completion_length)

    def _loss(
        self,
        logp: Tensor,
        reference: Tensor | None,
        gains: Sequence[Tensor],
        weights: Sequence[Tensor],
        scores: Sequence[TokenScores],
    ) -> tuple[Tensor, float]:
        """The batch's loss, and the KL over all valid tokens, comparable between arms."""
        s, w = self.settings, self.switches
        config = LossConfig(
            beta=s.beta, epsilon=s.epsilon, loss_type=s.loss_type, kl_on=w.kl_on,
            normaliser=w.normaliser, max_completion_length=s.max_completion_length,
        )  # fmt: skip
        by_tokens = s.loss_type in ("bnpo", "dapo", "cispo")
        counted = [sc.valid if w.normaliser == "valid" else wt > 0
                   for sc, wt in zip(scores, weights, strict=True)]  # fmt: skip
        total = float(sum(int(c.sum()) for c in counted)) if by_tokens else None
        terms: list[LossTerms] = []
        at = 0
        for gain, weight, score_ in zip(gains, weights, scores, strict=True):
            part = slice(at, at + len(gain))
            at = part.stop
            terms.append(
                group_loss(
                    logp[part], gain.to(logp), weight, score_.valid, config,
                    ref_logp=None if reference is None else reference[part], total_tokens=total,
                )
            )  # fmt: skip
        losses = torch.stack([t.loss for t in terms])
        kls = [float(t.kl_valid) for t in terms if t.kl_valid is not None]
        return losses.sum() if by_tokens else losses.mean(), sum(kls) / max(1, len(kls))

    def _write_view(self, groups: Any, rewards: Any, gains: Any, scores: Any, weights: Any) -> None:
        shown = view(self.vlm, self.method, groups, rewards, gains, scores, weights)
        (self.out / "tokens.json").write_text(json.dumps(shown))

    # --- what transformers.Trainer asks --------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One row of metrics.jsonl per optimizer step."""
        if "loss" not in logs:  # Trainer's closing summary
            return
        step, seconds = self.state.global_step, time.perf_counter() - self._began
        if "grad_norm" in logs:  # absent when max_grad_norm is 0
            refuse_nan(logs["grad_norm"], step, "gradient norm")  # before the step is saved
        row = {"step": step, **self.metrics, "seconds": seconds, **logs}
        row["alarms"] = alarms(row)
        self.metrics_log.write(row)
        self.on_step(row)

    def train(self, resume: Path | None = None) -> Any:  # type: ignore[override]
        """Train to max_steps; `resume` continues a checkpoint to the same weights."""
        done = int(resume.name.rsplit("-", 1)[1]) if resume else 0
        self.metrics_log = MetricsLog(self.out / "metrics.jsonl", upto=done)
        return super().train(resume_from_checkpoint=str(resume) if resume else None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.out / f"checkpoint-{self.state.global_step}"
        checkpoint.write_aside(folder, self._fill)
        for old in self.out.glob("checkpoint-*"):
            if old != folder:
                checkpoint.discard(old)

    def _fill(self, folder: Path) -> None:
        self.save_policy(folder)
        checkpoint.save_optimizer(self.optimizer, self.lr_scheduler, folder)
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def save_policy(self, folder: Path) -> None:
        """Model and processor, loadable by plain transformers."""
        self.vlm.model.save_pretrained(folder)
        self.vlm.processor.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.load_weights(self.vlm.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint_folder))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: every draw is seeded by its step."""


def mismatch(groups: Sequence[Group], logp: Tensor) -> float:
    """Largest |sampler - scorer| log-probability of a token scored under the prompt it was sampled
    under."""
    worst, scored = 0.0, logp.detach().cpu()
    for row, rollout in enumerate(r for g in groups for r in g.rollouts):
        if rollout.loss_prompt is rollout.prompt and rollout.logp:
            drawn = torch.tensor(rollout.logp)
            worst = max(worst, float((scored[row, : len(drawn)] - drawn).abs().max()))
    return worst


def _frozen(vlm: VLM) -> VLM:
    model = copy.deepcopy(vlm.model).eval()
    model.requires_grad_(False)
    return VLM(model, vlm.processor)


def _reward_metrics(
    groups: Sequence[Group], parts: Sequence[Rewards], rewards: Sequence[Tensor]
) -> dict[str, float]:
    rollouts = [r for g in groups for r in g.rollouts]
    names = sorted({name for p in parts for name in p})
    means = {n: torch.cat([p[n] for p in parts if n in p]).mean() for n in names}
    flat = [float(r.std()) < 1e-6 for r in rewards]
    return {
        "reward": float(torch.cat(list(rewards)).mean()),
        **{name: float(value) for name, value in means.items()},
        "length": sum(len(r.ids) for r in rollouts) / len(rollouts),
        "truncated": sum(not r.finished for r in rollouts) / len(rollouts),
        "zero_std": sum(flat) / len(flat),
    }


def _token_metrics(scores: Sequence[TokenScores], weights: Sequence[Tensor]) -> dict[str, float]:
    valid = sum(int(s.valid.sum()) for s in scores)
    return {
        "entropy": sum(float(s.entropy.sum()) for s in scores) / valid,
        "kept": sum(int((w > 0).sum()) for w in weights) / valid,
    }
