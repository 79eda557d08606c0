"""GroupTrainer: optimizer steps on groups of rollouts, on transformers.Trainer.

    records(batch) -> Prompt -> clip encoded once -> Group of G rollouts -> [repair] -> rewards
    -> policy forward -> [counterfactual passes] -> token weights -> advantages -> loss -> metrics

Trainer brings devices, DDP, DeepSpeed, schedules and callbacks; sampling, scoring, loss and
checkpoints are ours. A batch of rollouts serves `num_iterations` steps: what the first of them
measured (old and reference log-probabilities, token weights, advantages) serves the others too.
Every random draw comes from (seed, batch, place): resuming needs no generator state, and the number
of processes changes no draw. A group never crosses a rank.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments

from evals.errors import BadInput
from evals.types import Decoding
from evals.vlm import VLM
from repro.core import blank, lora, ranks, vllm_engine, zero
from repro.core.advantages import advantages
from repro.core.collect import Collected, Collector, is_flat, total
from repro.core.data import Prompts, Records
from repro.core.durable import DurableTrainer
from repro.core.health import MetricsLog, alarms, refuse_nan
from repro.core.losses import LossConfig, LossTerms, entropy_mask, group_loss
from repro.core.method import Method, Rewards
from repro.core.packing import Tree, pack, plain, trees_of
from repro.core.passes import token_scores
from repro.core.policy import Policy
from repro.core.rollout import Sampler
from repro.core.scoring import packed_for, score_trees
from repro.core.stages import Stage
from repro.core.tokenview import view
from repro.core.types import Group, Prompt, TokenScores
from repro.core.vision import Vision
from repro.recipe import Switches
from repro.recipe import Trainer as Settings

BY_TOKENS = ("bnpo", "dapo", "cispo")  # losses divided by the batch's tokens, not a completion's
COUNT = "n_"  # a metric of this beginning is a count of the method's
#: How a metric of several parts of a step becomes one; the mean, where nothing else is said.
COMBINED: dict[str, Callable[[Sequence[float]], float]] = {
    "tokens": sum, "patches": sum, "resampled": sum, "mismatch": max
}  # fmt: skip


class Slots(Dataset[int]):
    """Items without content, as many as a run asks for: what they hold is decided by the method."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


@dataclass(frozen=True)
class Scored:
    """A part of a batch as its first step measured it; N completions in all, C the longest.

    logp: (N, C) of the policy that sampled, without gradient; reference: (N, C) or None.
    parts, rewards, gains, weights, scores: one entry per group.
    """

    groups: list[Group]
    parts: list[Rewards]
    rewards: list[Tensor]
    gains: list[Tensor]
    weights: list[Tensor]
    scores: list[TokenScores]
    logp: Tensor
    reference: Tensor | None
    again: int
    told: dict[str, float] = field(default_factory=dict)  # Method.measure, over the groups


class GroupTrainer(DurableTrainer):
    """Trains a VLM with a Method.

    pool: records to draw from. prompts: builds model inputs. out: the run's folder. start: the
    checkpoint that `vlm` was loaded from, which vLLM starts from too.
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
        start: Path | None = None,
        packed: bool = True,
        on_step: Callable[[dict[str, Any]], None] = lambda row: None,
    ):
        self.vlm, self.method, self.settings, self.switches = vlm, method, settings, switches
        self.out, self.seed = out, seed
        self.pack, self.on_step = (pack if packed else plain), on_step
        self.collector = Collector(method, pool, prompts, settings, seed)
        self.stage = Stage()
        self.metrics: dict[str, Any] = {}
        self.metrics_log: MetricsLog
        ranks.begin()
        # Before DeepSpeed is told of: from then on a checkpoint would be loaded in shards.
        ranks.together(lambda: method.begin(start, vlm, prompts.protocol))
        args = self._arguments()
        ranks.together(lambda: check(settings, switches, args.world_size))
        if settings.use_vllm:
            vllm_engine.check(vlm, settings.vllm_mode)
            vllm_engine.max_length(settings)
            if start is None:
                raise ValueError("vLLM starts from a checkpoint: give `start`")
        self.start = start
        self.engine: vllm_engine.VLLMSampler | None = None  # started when first sampled from
        self.share = settings.prompts_per_step // args.world_size  # of a batch's prompts
        self.part = self.share // settings.gradient_accumulation_steps
        self._parts: list[Scored] = []  # of the batch under way, one per accumulated part
        self._measured: list[dict[str, float]] = []  # of the step under way, likewise
        self._at = (-1, 0)  # step and part
        slots = Slots(settings.max_steps * settings.prompts_per_step)
        collate = lambda items: {"slots": torch.tensor(items)}  # noqa: E731
        super().__init__(Policy(vlm), args, data_collator=collate, train_dataset=slots)
        self.frozen_tower = not any(p.requires_grad for p in vlm.visual.parameters())
        keep = max(64, self.part)
        self._vision = (
            Vision(vlm, keep, lockstep=self.lockstep) if self.frozen_tower else None
        )  # fmt: skip
        with self.stage.named():
            self.reference = self._make_reference()  # now that the model is placed

    @property
    def prompts(self) -> Prompts:
        """Builds the model inputs of records."""
        return self.collector.prompts

    def _arguments(self) -> TrainingArguments:
        s = self.settings
        return TrainingArguments(
            output_dir=str(self.out),
            per_device_train_batch_size=1,
            max_steps=s.max_steps,
            learning_rate=s.learning_rate,
            lr_scheduler_type=s.lr_scheduler_type,
            warmup_steps=s.warmup_steps,
            weight_decay=s.weight_decay,
            max_grad_norm=s.max_grad_norm,
            gradient_accumulation_steps=s.gradient_accumulation_steps,
            gradient_checkpointing=s.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            save_steps=s.save_steps,
            logging_steps=1,
            logging_nan_inf_filter=False,
            use_cache=True,  # else the saved config would tell others not to
            seed=self.seed,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,
            use_cpu=not torch.cuda.is_available(),
            deepspeed=zero.config(s),
            bf16=s.bf16 and s.deepspeed > 0,  # else the forward computes in bf16 by itself
        )

    @property
    def lockstep(self) -> bool:
        """Whether all processes must make the same module calls (ZeRO-3)."""
        return self.settings.deepspeed == 3

    def _make_reference(self) -> VLM | None:
        """The frozen start: a copy, or the model itself where adapters can be switched off."""
        if not self.settings.beta:
            return None
        if lora.is_adapted(self.vlm.model):
            return self.vlm
        model = copy.deepcopy(self.vlm.model).eval()
        model.requires_grad_(False)
        vlm = self.vlm.around(model)
        if self.lockstep:
            self._reference = zero.split(Policy(vlm), self.settings)
        return vlm

    # --- the step ------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss of one part of a step, with gradient; its metrics join those of the step."""
        step, part = self._next()
        began = self._spent()
        vision = self._vision or Vision(self.vlm)
        first = step % self.settings.num_iterations == 0
        if first:
            scored, logp = self._fresh(model, vision, step // self.settings.num_iterations, part)
            self._parts = [*self._parts[:part], scored]
        else:
            scored = self._parts[part]
            logp, _ = self._score(model, self._trees(scored.groups), vision)
        self.stage("loss")
        loss, measured = self._loss(scored, logp, old=self.settings.num_iterations > 1)
        with ranks.alike():
            refuse_nan(ranks.total(loss.item(), loss.device), step + 1)
        spent = {name: now - began[name] for name, now in self._spent().items()}
        counts = {f"{COUNT}{name}": n for name, n in self.method.counted(scored.groups).items()}
        self._measured.append({**_metrics(scored), **measured, **spent, **counts})
        self.metrics = self._rated(_combined(self._measured))
        if step + 1 == self.settings.max_steps and part == 0 and ranks.rank() == 0:
            self._write_view(scored)
        self.stage("backward")
        return loss

    def _next(self) -> tuple[int, int]:
        """Step and part of the call under way."""
        step = self.state.global_step
        part = self._at[1] + 1 if self._at[0] == step else 0
        if part == 0:
            self._began, self._measured = time.perf_counter(), []
        self._at = (step, part)
        return self._at

    def _places(self, part: int) -> range:
        """Places of a batch that this process works on in this part."""
        first = ranks.rank() * self.share + part * self.part
        return range(first, first + self.part)

    def _fresh(self, model: Any, vision: Vision, batch: int, part: int) -> tuple[Scored, Tensor]:
        """A part's groups, sampled, scored and weighed, and the policy's (N, C) logp."""
        self.stage("sampling")
        with self._sampling():
            sampler = self._sampler(vision)
            drawn = self.collector.collect(sampler, batch, self._places(part), self._see(vision))
        groups, trees = drawn.groups, self._trees(drawn.groups)
        logp, entropy = self._score(model, trees, vision)
        self.stage("reference pass")
        reference = self._refer(model, trees, vision)
        self.stage("counterfactual passes")
        skip = self._skipped(drawn)
        scores = token_scores(
            self.vlm, groups, logp.detach(), entropy, self.method.needs, self.switches, self.pack,
            vision=vision, skip=skip, model=model if self.lockstep else None,
        )  # fmt: skip
        weights = [s.valid.float() if known else self.method.token_weights(g, s)
                   for g, s, known in zip(groups, scores, skip, strict=True)]  # fmt: skip
        parts = [
            self.method.adjust(g, p, w)
            for g, p, w in zip(groups, drawn.parts, weights, strict=True)
        ]
        rewards = [total(p) for p in parts]
        told = [self.method.measure(g, p) for g, p in zip(drawn.groups, drawn.parts, strict=True)]
        gains = self._advantages(rewards, [g.prompt.record.kind for g in groups])
        scored = Scored(
            groups, parts, rewards, gains, weights, scores, logp.detach(), reference, drawn.again,
            _combined(told),
        )  # fmt: skip
        return scored, logp

    def _sampler(self, vision: Vision) -> Sampler:
        return self.engine or Sampler(self.vlm, self._decoding(), vision)

    def _decoding(self) -> Decoding:
        s = self.settings
        return Decoding(s.temperature, s.top_p, s.top_k, s.max_completion_length)

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        """Around sampling: vLLM, where it samples, is awake and has the policy's weights."""
        if not self.settings.use_vllm:
            with zero.whole(self.vlm.model, self.deepspeed):
                yield
            return
        if self.engine is None and self.start is not None:
            self.engine = vllm_engine.for_training(
                self.vlm, self.settings, self._decoding(), self.start,
                self.prompts.protocol.positions,
            )  # fmt: skip
        assert self.engine is not None
        self.engine.wake()
        if self._at[1] == 0:  # the first part of a step: the weights are new
            with zero.whole(self.vlm.model, self.deepspeed):
                self.engine.sync(self.vlm.model)
        try:
            yield
        finally:
            self.engine.sleep()

    def _see(self, vision: Vision) -> Callable[[Sequence[Prompt]], None]:
        """Encodes clips before they are sampled from, with the gradient that the loss will need;
        not while vLLM, which has a tower of its own, holds the memory, nor in lockstep, where all
        processes encode them together for the loss."""

        def see(prompts: Sequence[Prompt]) -> None:
            if self.engine is None and not self.lockstep:
                vision([p.encoded for p in prompts])

        return see

    def _trees(self, groups: Sequence[Group]) -> list[Tree]:
        return [tree for group in groups for tree in trees_of(group, self.vlm.is_pad)]

    def _score(self, model: Any, trees: Sequence[Tree], vision: Vision) -> tuple[Tensor, Tensor]:
        """The policy pass, through whatever Trainer has wrapped the policy in."""
        self.stage("policy pass")
        packed = packed_for(self.vlm, trees, self.pack)
        features = vision(packed.prompts)
        unused = None
        if ranks.world() > 1 and not self.frozen_tower and all(f is None for f in features):
            unused = blank.features(self.vlm)  # so that its weights have gradients everywhere
        out: tuple[Tensor, Tensor] = model(packed, features, self.switches.precision, unused)
        return out

    @torch.no_grad()
    def _refer(self, model: Any, trees: Sequence[Tree], vision: Vision) -> Tensor | None:
        if self.reference is None:
            return None
        own = lora.is_adapted(self.vlm.model)
        look = partial(blank.look, self.reference) if self.lockstep else None
        with self.vlm.model.disable_adapter() if own else nullcontext():
            logp, _ = score_trees(
                self.reference, trees, self.pack, precision=self.switches.precision,
                vision=vision.look if self.frozen_tower else look,
                model=(model if own else self._reference) if self.lockstep else None,
            )  # fmt: skip
        return logp

    def _skipped(self, drawn: Collected) -> list[bool]:
        """Groups that need no counterfactual pass. Their rewards are known before any token is
        weighed: `check` refuses a bonus that counts selected tokens."""
        if self.switches.flat_groups == "score":
            return [False] * len(drawn.groups)
        adjust = self.method.adjust
        weights = (torch.ones(len(g.rollouts), 1) for g in drawn.groups)
        return [is_flat(adjust(g, p, w))
                for g, p, w in zip(drawn.groups, drawn.parts, weights, strict=True)]  # fmt: skip

    def _advantages(self, rewards: list[Tensor], kinds: list[str]) -> list[Tensor]:
        scale, eps = self.settings.scale_rewards, self.settings.advantage_eps
        if scale in ("group", "none"):
            return advantages(rewards, scale=scale, eps=eps)
        everyones, types = rewards, kinds
        if ranks.world() > 1:  # every rank has as many groups, of as many rollouts
            everyones = list(ranks.stack(torch.stack(rewards).to(self.vlm.device)).cpu())
            types = [kind for each in ranks.gather(kinds) for kind in each]
        types_ = types if scale == "kind" else None
        gains = advantages(everyones, scale="batch", types=types_, eps=eps)
        first = ranks.rank() * len(rewards)
        return gains[first : first + len(rewards)]

    def _loss(self, scored: Scored, logp: Tensor, old: bool) -> tuple[Tensor, dict[str, float]]:
        """Loss of a part, and what was measured on the way: kl over all valid tokens, comparable
        between arms; clip_share; mismatch of sampler and scorer."""
        config, total_tokens = self._loss_config(), self._total_tokens(scored)
        keep = entropy_mask(
            [s.entropy for s in scored.scores], [s.valid for s in scored.scores],
            self.settings.top_entropy_quantile, ranks.gather,
        )  # fmt: skip
        terms: list[LossTerms] = []
        at = 0
        for gain, weight, scores, kept in zip(
            scored.gains, scored.weights, scored.scores, keep, strict=True
        ):
            rows = slice(at, at + len(gain))
            at = rows.stop
            terms.append(
                group_loss(
                    logp[rows], gain.to(logp), (weight.to(kept) * kept), scores.valid, config,
                    old_logp=scored.logp[rows] if old else None,
                    ref_logp=None if scored.reference is None else scored.reference[rows],
                    total_tokens=total_tokens,
                )
            )  # fmt: skip
        losses = torch.stack([t.loss for t in terms])
        kls = [float(t.kl_valid) for t in terms if t.kl_valid is not None]
        measured = {
            "kl": sum(kls) / max(1, len(kls)),
            "clip_share": sum(float(t.clip_share) for t in terms) / len(terms),
            "mismatch": mismatch(scored.groups, scored.logp),
        }
        # Trainer takes the mean over ranks; a loss over the batch's tokens is their sum.
        loss = losses.sum() * ranks.world() if total_tokens is not None else losses.mean()
        return loss, measured

    def _loss_config(self) -> LossConfig:
        s, (kl_on, normaliser) = self.settings, self.method.loss_tokens
        return LossConfig(
            beta=s.beta, epsilon=s.epsilon, epsilon_high=s.epsilon_high, loss_type=s.loss_type,
            importance_sampling_level=s.importance_sampling_level, kl_on=kl_on,
            normaliser=normaliser, max_completion_length=s.max_completion_length,
        )  # fmt: skip

    def _total_tokens(self, scored: Scored) -> float | None:
        """What a loss over the batch's tokens is divided by, over all ranks."""
        if self.settings.loss_type not in BY_TOKENS:
            return None
        valid = self.method.loss_tokens[1] == "valid"
        counted = [s.valid if valid else w > 0
                   for s, w in zip(scored.scores, scored.weights, strict=True)]  # fmt: skip
        return ranks.total(float(sum(int(c.sum()) for c in counted)), self.vlm.device)

    def _spent(self) -> dict[str, float]:
        """Language-model tokens and patches forwarded so far, the reference model's included."""
        models = {id(v): v for v in (self.vlm, self.reference) if v is not None}.values()
        return {
            "tokens": sum(v.tokens for v in models), "patches": sum(v.patches for v in models)
        }  # fmt: skip

    def _rated(self, metrics: dict[str, float]) -> dict[str, float]:
        sums = {n.removeprefix(COUNT): v for n, v in metrics.items() if n.startswith(COUNT)}
        return {**metrics, **self.method.rates(sums)} if sums else metrics

    def _write_view(self, scored: Scored) -> None:
        shown = view(
            self.vlm, self.method, scored.groups, scored.rewards, scored.gains, scored.scores,
            scored.weights,
        )  # fmt: skip
        (self.out / "tokens.json").write_text(json.dumps(shown))

    # --- what transformers.Trainer asks --------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.stage("optimizer step")
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One row of metrics.jsonl per optimizer step, over all its parts and ranks."""
        if "loss" not in logs:  # Trainer's closing summary
            return
        step, seconds = self.state.global_step, time.perf_counter() - self._began
        if "grad_norm" in logs:  # absent when max_grad_norm is 0; DeepSpeed says -1 for infinite
            norm = logs["grad_norm"] if logs["grad_norm"] >= 0 else math.inf
            with ranks.alike():
                refuse_nan(norm, step, "gradient norm")  # before the step is saved
        every = [m for each in ranks.gather(self._measured) for m in each]
        measured = self._rated(_combined(every))
        row = {"step": step, **measured, "seconds": seconds, **logs}
        row["alarms"] = alarms(row, exact=not self.settings.bf16) + self.method.alarms(row)
        self.metrics = row
        if ranks.rank() == 0:
            self.metrics_log.write(row)
            self.on_step(row)

    def train(self, resume: Path | None = None) -> Any:  # type: ignore[override]
        """Train to max_steps; `resume` continues a checkpoint to the same weights.

        Raises EnvironmentFault, naming the stage and what to turn, when memory runs out.
        """
        done = int(resume.name.rsplit("-", 1)[1]) if resume else 0
        if resume:
            self.trust(resume)
        if ranks.rank() == 0:
            self.metrics_log = MetricsLog(self.out / "metrics.jsonl", upto=done)
        if resume and done >= self.settings.max_steps:  # Trainer would take one step more
            self._load_from_checkpoint(str(resume))
            self.state.global_step = done
            return None
        with ranks.heard(), self.stage.named():
            return super().train(resume_from_checkpoint=str(resume) if resume else None)

    @property
    def between_batches(self) -> bool:
        """Whether no rollouts are held for a further step: only then can a run be resumed."""
        return self.state.global_step % self.settings.num_iterations == 0


def check(settings: Settings, switches: Switches, world: int) -> None:
    """Raises BadInput for settings that could not be obeyed together."""
    s = settings
    if s.deepspeed and not ranks.launched():
        raise BadInput(
            f"deepspeed: {s.deepspeed} is for processes that torchrun starts: "
            "torchrun --nproc_per_node N -m repro train ..."
        )
    parts = world * s.gradient_accumulation_steps
    if s.prompts_per_step % parts:
        raise BadInput(
            f"prompts_per_step is {s.prompts_per_step}, which {world} processes x "
            f"gradient_accumulation_steps {s.gradient_accumulation_steps} do not divide"
        )
    if s.save_steps % s.num_iterations or s.max_steps % s.num_iterations:
        raise BadInput(
            f"save_steps {s.save_steps} and max_steps {s.max_steps} must be multiples of "
            f"num_iterations {s.num_iterations}: between them rollouts are held that no "
            "checkpoint has"
        )
    if s.loss_type == "cispo" and s.epsilon_high is None:
        raise BadInput(
            "loss_type cispo needs epsilon_high, the largest ratio it lets through (e.g. 5.0)"
        )
    uneven = (switches.kl_on, switches.normaliser) == ("valid", "selected")
    if s.loss_type in BY_TOKENS and uneven:
        raise BadInput(
            f"loss_type {s.loss_type} divides by one count of tokens: with kl_on: valid, set "
            "normaliser: valid"
        )
    if s.loss_type in BY_TOKENS and s.gradient_accumulation_steps > 1:
        raise BadInput(
            f"loss_type {s.loss_type} is divided by the tokens of the whole batch, which are not "
            "known part by part; set gradient_accumulation_steps: 1"
        )
    if s.scale_rewards in ("batch", "kind") and s.gradient_accumulation_steps > 1:
        raise BadInput(f"scale_rewards: {s.scale_rewards} needs gradient_accumulation_steps: 1")
    if s.top_entropy_quantile < 1 and (switches.kl_on, switches.normaliser) != ("valid", "valid"):
        raise BadInput(
            "top_entropy_quantile acts on the policy term alone; set kl_on: valid and "
            "normaliser: valid"
        )
    if switches.flat_groups == "skip" and switches.length_bonus.length == "selected":
        raise BadInput(
            "flat_groups: skip needs rewards that are known before tokens are selected; set "
            "length_bonus.length: valid"
        )


def mismatch(groups: Sequence[Group], logp: Tensor) -> float:
    """Largest |sampler - scorer| log-probability of a token scored under the prompt it was sampled
    under."""
    worst, scored = 0.0, logp.detach().cpu()
    for row, rollout in enumerate(r for g in groups for r in g.rollouts):
        if rollout.loss_prompt is rollout.prompt and rollout.logp:
            drawn = torch.tensor(rollout.logp)
            worst = max(worst, float((scored[row, : len(drawn)] - drawn).abs().max()))
    return worst


def _metrics(scored: Scored) -> dict[str, float]:
    rollouts = [r for g in scored.groups for r in g.rollouts]
    names = sorted({name for p in scored.parts for name in p})
    means = {n: torch.cat([p[n] for p in scored.parts if n in p]).mean() for n in names}
    valid = sum(int(s.valid.sum()) for s in scored.scores)
    return {
        "reward": float(torch.cat(scored.rewards).mean()),
        **{name: float(value) for name, value in means.items()},
        "length": sum(len(r.ids) for r in rollouts) / len(rollouts),
        "truncated": sum(not r.finished for r in rollouts) / len(rollouts),
        "zero_std": sum(map(is_flat, scored.parts)) / len(scored.parts),
        "entropy": sum(float(s.entropy.sum()) for s in scored.scores) / valid,
        "kept": sum(int((w > 0).sum()) for w in scored.weights) / valid,
        "resampled": float(scored.again),
        **scored.told,
    }


def _combined(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """One value per metric, from those of the parts that have it."""
    found: dict[str, list[float]] = defaultdict(list)
    for part in measured:
        for name, value in part.items():
            found[name].append(value)
    mean: Callable[[Sequence[float]], float] = lambda values: sum(values) / len(values)  # noqa: E731
    how = {name: sum if name.startswith(COUNT) else COMBINED.get(name, mean) for name in found}
    return {name: how[name](values) for name, values in found.items()}
