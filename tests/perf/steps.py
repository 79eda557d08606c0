"""One optimizer step on a given film, question, completions and weights: what is measured.

Sampling is real and timed, but given completions take the place of what was drawn, so that all
score the same tokens; they are paid by their ids, since a random student earns nothing. Nothing is
remembered from the step before: each decodes its film and runs the processor again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evals import microworld
from evals.prompts import question_text
from evals.seeds import derive
from evals.types import Protocol, Sample, VideoClip
from evals.video import Clips
from evals.vlm import VLM, Encoded, load
from repro.core.data import Prompts, Records
from repro.core.passes import permutation, seeded
from repro.core.rollout import Sampler
from repro.core.trainer import GroupTrainer
from repro.core.types import Group, TokenScores
from repro.ktr.method import METHODS
from repro.recipe import Recipe
from repro.tiny import model as tiny

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
    checkpointing: bool = False

    @classmethod
    def make(
        cls, checkpoint: Path, folder: Path, frames: int, side: int, given: Tensor, seed: int = 0
    ) -> Scene:
        """A film of `frames` frames of side x side pixels, 7 x 7 coloured squares that change; all
        its frames are shown."""
        colours = np.random.default_rng(seed).integers(0, 255, (frames, 7, 7, 3), dtype=np.uint8)
        film = folder / f"{frames}x{side}-{seed}.mp4"
        squares = colours.repeat(side // 7, axis=1).repeat(side // 7, axis=2)
        microworld.write_film(squares, film, fps=2)
        sample = Sample(
            film.stem, "Which came first?", "multiple choice", "A", "video", film,
            ("A. red circle", "B. blue square"),
        )  # fmt: skip
        area = side * side
        protocol = replace(
            tiny.PROTOCOL, max_frames=frames, min_pixels=area, max_pixels=area,
            positions="v5", time="constant",
        )  # fmt: skip
        return cls(checkpoint, sample, protocol, given)

    def model(self) -> VLM:
        """A fresh copy of what is trained."""
        return load(self.checkpoint)

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY, fused=True)

    def prompts(self, vlm: VLM) -> Prompts:
        """With nothing remembered."""
        return Prompts(vlm, self.protocol)

    @property
    def text(self) -> str:
        return question_text(self.sample, self.protocol.prompt)

    def clip(self) -> VideoClip:
        """The film, decoded again."""
        clip = Clips(self.protocol).load(self.sample)
        assert clip is not None
        return clip


def given(g: int, c: int, vocab: int) -> Tensor:
    """(G, C) ordinary tokens, the special ones left out."""
    return torch.randint(20, vocab, (g, c), generator=torch.Generator().manual_seed(0))


def pay(ids: Tensor) -> Tensor:
    """(G,) rewards of (G, C) completions: the mean of their ids."""
    return ids.float().mean(1)


class Step:
    """A trained copy of the checkpoint, its reference, and how one step uses them.

    order: the frame order of a shuffled pass; a peer draws one where it is None.
    """

    reference: Any
    order: Tensor | None = None

    def __init__(self, scene: Scene):
        self.scene, self.vlm = scene, scene.model()
        self.model: Any = self.vlm.model
        self.g, self.c = scene.given.shape
        self._optimizer = scene.optimizer(self.model.parameters())

    def backward(self) -> Tensor:
        """Sample, score, loss, gradients; returns the loss."""
        raise NotImplementedError

    def __call__(self) -> None:
        """A whole optimizer step."""
        self.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self._optimizer.step()
        self.model.zero_grad()


class Ours(Step):
    """GroupTrainer with an arm of the recipe. scores, weights, order: of the last step."""

    def __init__(self, scene: Scene, arm: str, out: Path, *, packed: bool = True):
        super().__init__(scene)
        self.arm = arm
        chosen = Recipe.load("ktr").arm(arm)
        bonus = replace(chosen.switches.length_bonus, bonus=0.0)
        switches = replace(chosen.switches, length_bonus=bonus)
        settings = replace(
            chosen.trainer, prompts_per_step=1, num_generations=self.g,
            max_completion_length=self.c,
            max_steps=1_000_000, beta=BETA, loss_type="grpo", temperature=1.0, top_p=1.0, top_k=0,
            gradient_checkpointing=scene.checkpointing, bf16=False,
        )  # fmt: skip
        self.vlm.banned.append(self.vlm.end)  # every completion is C tokens long
        self.trainer = GroupTrainer(
            self.vlm, self._method(METHODS[chosen.method], switches), settings, switches,
            Records([scene.sample], 1, 0), scene.prompts(self.vlm), out,
            seed=0, packed=packed,
        )  # fmt: skip
        self.trainer.current_gradient_accumulation_steps = 1
        self.reference = self.trainer.reference.model

    def _method(self, kind: Any, switches: Any) -> Any:
        ours, given = self, self.scene.given

        class Given(kind):
            def repair(self, groups: list[Group], sample: Sampler, prompts: Prompts) -> list[Group]:
                return [self._given(group) for group in groups]

            def _given(self, group: Group) -> Group:
                frames = 2 * int(group.prompt.encoded.grid[0, 0])
                shuffle = seeded(derive(group.seed, "shuffle"))  # as the shuffled pass will draw
                ours.order = permutation(frames, switches.identity, shuffle)
                rows = zip(group.rollouts, given.tolist(), strict=True)
                return replace(
                    group, rollouts=tuple(replace(r, ids=tuple(ids), logp=()) for r, ids in rows)
                )

            def rewards(self, group: Group) -> dict[str, Tensor]:
                return {"accuracy": pay(torch.tensor([r.ids for r in group.rollouts]))}

            def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
                ours.scores, ours.weights = scores, super().token_weights(group, scores)
                return ours.weights

        return Given(switches)

    def backward(self) -> Tensor:
        self.trainer.collector.prompts = self.scene.prompts(self.vlm)
        loss = self.trainer.training_step(self.trainer.model, {"slots": torch.tensor([0])})
        self.trainer.state.global_step += 1
        return loss


def prompt_of(step: Step) -> Encoded:
    """The scene's prompt as the model is given it."""
    return step.vlm.encode(step.scene.clip(), step.scene.text, step.scene.protocol)


def sized(student: VLM, hidden: int, layers: int, tower: int, depth: int) -> Any:
    """A student of other sizes, random weights (seed 0)."""
    config = tiny.model(
        student.processor.tokenizer, seed=0, hidden=hidden, layers=layers, vision=tower
    ).config
    config.vision_config.depth = depth
    torch.manual_seed(0)
    return type(student.model)(config)
