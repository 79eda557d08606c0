"""One optimizer step of ours, of TRL and of KTR's release, on the same film, tokens and weights.

Sampling is real and timed, but given completions take the place of what was drawn, so that all
score the same tokens; they are paid by parity, since a random student earns nothing. Nothing is
remembered from the step before: each decodes its film and runs the processor again.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import GenerationConfig
from trl import GRPOConfig

from evals import microworld
from evals.prompts import question_text
from evals.types import Protocol, Sample, VideoClip
from evals.video import Clips
from evals.vlm import load
from repro.core.advantages import group_advantages
from repro.core.data import Prompts, Records
from repro.core.passes import permutation
from repro.core.rollout import Sampler
from repro.core.trainer import GroupTrainer
from repro.core.types import Group, TokenScores
from repro.ktr.method import METHODS
from repro.recipe import Recipe
from repro.tiny.model import PROTOCOL
from tests.perf.peers import Released, VideoGRPOTrainer, encode, released_step

RATE, DECAY, CLIP, BETA = 1e-6, 0.01, 5.0, 0.04


@dataclass(frozen=True)
class Scene:
    """A question about a film, the student's checkpoint, and (G, C) completions to score.

    The time base is one second per grid row and positions follow transformers 5, because the peers
    have no other; a film at 2 frames per second makes that its true time.
    """

    checkpoint: Path
    sample: Sample
    protocol: Protocol
    given: Tensor

    @classmethod
    def make(
        cls, checkpoint: Path, folder: Path, frames: int, side: int, given: Tensor, seed: int = 0
    ) -> Scene:
        """A film of noise with `frames` frames of side x side pixels, all of them shown."""
        noise = np.random.default_rng(seed).integers(0, 255, (frames, side, side, 3), dtype=np.uint8)
        film = folder / f"{frames}x{side}-{seed}.mp4"
        microworld.write_film(noise, film, fps=2)
        sample = Sample(
            film.stem, "Which came first?", "multiple choice", "A", "video", film,
            ("A. red circle", "B. blue square"),
        )  # fmt: skip
        area = side * side
        protocol = replace(
            PROTOCOL, max_frames=frames, min_pixels=area, max_pixels=area,
            positions="v5", time="constant",
        )  # fmt: skip
        return cls(checkpoint, sample, protocol, given)

    @property
    def text(self) -> str:
        return question_text(self.sample, self.protocol.prompt)

    def clip(self) -> VideoClip:
        """The film, decoded again."""
        clip = Clips(self.protocol).load(self.sample)
        assert clip is not None
        return clip


def pay(ids: Tensor) -> Tensor:
    """(G,) rewards of (G, C) completions: 1 where the ids sum to an odd number."""
    return (ids.sum(1) % 2).float()


class Step:
    """A trained copy of the checkpoint, its reference, and how one step uses them."""

    model: Any
    reference: Any

    def __init__(self, scene: Scene):
        self.scene = scene

    def backward(self) -> Tensor:
        """Sample, score, loss, gradients; returns the loss."""
        raise NotImplementedError

    def __call__(self) -> None:
        """A whole optimizer step."""
        self.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self._optimizer().step()
        self.model.zero_grad()

    def _optimizer(self) -> torch.optim.Optimizer:
        if not hasattr(self, "_adam"):
            self._adam = torch.optim.AdamW(
                self.model.parameters(), lr=RATE, weight_decay=DECAY, fused=True
            )
        return self._adam


class Ours(Step):
    """GroupTrainer with an arm of the recipe. `order` and `scores` are of the last step."""

    def __init__(self, scene: Scene, arm: str, out: Path, *, packed: bool = True):
        super().__init__(scene)
        chosen = Recipe.load("ktr").arm(arm)
        bonus = replace(chosen.switches.length_bonus, bonus=0.0)
        switches = replace(chosen.switches, length_bonus=bonus)
        g, c = scene.given.shape
        settings = replace(
            chosen.trainer, prompts_per_step=1, num_generations=g, max_completion_length=c,
            max_steps=1_000_000, beta=BETA, loss_type="grpo", temperature=1.0, top_p=1.0, top_k=0,
            gradient_checkpointing=False, bf16=False,
        )  # fmt: skip
        self.vlm = load(scene.checkpoint)
        self.vlm.banned.append(self.vlm.end)  # every completion is C tokens long
        self.trainer = GroupTrainer(
            self.vlm, self._method(METHODS[chosen.method], switches), settings, switches,
            Records([scene.sample], 1, 0), Prompts(self.vlm, scene.protocol), out,
            seed=0, packed=packed,
        )  # fmt: skip
        self.trainer.current_gradient_accumulation_steps = 1
        self.model = self.vlm.model
        self.reference = self.trainer.reference.model

    def _method(self, kind: Any, switches: Any) -> Any:
        ours, given = self, self.scene.given

        class Given(kind):
            def repair(self, group: Group, sample: Sampler) -> Group:
                frames = 2 * int(group.prompt.encoded.grid[0, 0])
                peek = torch.Generator().set_state(sample.generator.get_state())
                ours.order = permutation(frames, switches.identity, peek)
                rows = zip(group.rollouts, given.tolist(), strict=True)
                return replace(
                    group, rollouts=tuple(replace(r, ids=tuple(ids), logp=()) for r, ids in rows)
                )

            def rewards(self, group: Group) -> dict[str, Tensor]:
                return {"accuracy": pay(torch.tensor([r.ids for r in group.rollouts]))}

            def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
                ours.scores = scores
                return super().token_weights(group, scores)

        return Given(switches)

    def backward(self) -> Tensor:
        self.trainer.prompts = Prompts(self.vlm, self.scene.protocol)
        loss = self.trainer.training_step(self.model, {"slots": torch.tensor([0])})
        self.trainer.state.global_step += 1
        return loss


class TRL(Step):
    """TRL's GRPOTrainer; `kind` is the repaired one, or the stock one."""

    def __init__(self, scene: Scene, out: Path, kind: Any = VideoGRPOTrainer):
        super().__init__(scene)
        g, c = scene.given.shape
        self.vlm = load(scene.checkpoint)
        processor = self.vlm.processor
        config = GRPOConfig(
            output_dir=str(out), per_device_train_batch_size=g, num_generations=g,
            max_completion_length=c, beta=BETA, loss_type="grpo", use_bias_correction_kl=False,
            temperature=1.0, top_p=1.0, top_k=0, gradient_checkpointing=False, bf16=False,
            generation_kwargs={
                "min_new_tokens": c,
                "suppress_tokens": [self.vlm.image_pad, self.vlm.video_pad],
            },
            use_cpu=True, report_to=[], disable_tqdm=True, seed=0,
        )  # fmt: skip
        content = [
            {"type": "video", "video": str(scene.sample.media)},
            {"type": "text", "text": scene.text},
        ]
        self.row = {"prompt": [{"role": "user", "content": content}]}
        given = scene.given

        class Given(kind):
            def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
                super()._generate_single_turn(*args, **kwargs)
                return given.tolist(), None

        extra = {"encode": self._encode} if kind is VideoGRPOTrainer else {}
        self.trainer = Given(
            model=self.vlm.model, reward_funcs=[_reward], args=config, processing_class=processor,
            train_dataset=Dataset.from_list([self.row] * g), **extra,
        )  # fmt: skip
        self.trainer.current_gradient_accumulation_steps = 1
        self.model, self.reference = self.vlm.model, self.trainer.ref_model

    def _encode(self, prompts: list[Any]) -> Any:
        clips = [self.scene.clip()] * len(prompts)  # decoded once, processed once per copy
        texts = [part["text"] for p in prompts for part in p[0]["content"] if part.get("text")]
        return encode(self.vlm.processor, self.scene.protocol, texts, clips)

    def backward(self) -> Tensor:
        batch = [copy.deepcopy(self.row) for _ in self.scene.given]
        return self.trainer.training_step(self.model, batch, None)


def _reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return pay(torch.tensor(completion_ids)).tolist()


class KTRRelease(Step):
    """The released schedule. order: frame order of the shuffled pass, None for a random one."""

    order: Tensor | None = None
    last: Released

    def __init__(self, scene: Scene):
        super().__init__(scene)
        g, c = scene.given.shape
        self.vlm = load(scene.checkpoint)
        self.model = self.vlm.model
        self.reference = copy.deepcopy(self.model).requires_grad_(False)
        self.sampling = GenerationConfig(
            do_sample=True, temperature=1.0, top_p=1.0, top_k=0, num_return_sequences=g,
            min_new_tokens=c, max_new_tokens=c, eos_token_id=self.vlm.end,
            pad_token_id=self.vlm.processor.tokenizer.pad_token_id,
            suppress_tokens=[self.vlm.image_pad, self.vlm.video_pad],
        )  # fmt: skip

    def backward(self) -> Tensor:
        clip = self.scene.clip()
        order = torch.randperm(len(clip.frames)) if self.order is None else self.order
        self.last = released_step(
            self.model, self.reference, self._encode, clip, order,
            group_advantages(pay(self.scene.given)), self.sampling, self.scene.given, beta=BETA,
        )  # fmt: skip
        self.last.loss.backward()
        return self.last.loss.detach()

    def _encode(self, clip: VideoClip) -> Any:
        return encode(self.vlm.processor, self.scene.protocol, [self.scene.text], [clip])
