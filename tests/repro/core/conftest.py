"""Prompts of every modality, groups of made-up completions, and small trainers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evals.benchmarks.jsonl import read
from evals.prompts import question_text
from evals.types import Protocol, Sample
from evals.vlm import VLM
from repro.core.data import Prompts, Records
from repro.core.method import Method, Rewards
from repro.core.trainer import GroupTrainer
from repro.core.types import Group, Prompt, Rollout
from repro.ktr.method import METHODS
from repro.recipe import Recipe
from tests.tiny import tiny_qwen3_vl

Change = dict[str, Any]


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.load("ktr")


@pytest.fixture(scope="session")
def records(films: Callable[..., Path]) -> list[Sample]:
    """The questions of eight training films: videos and one still."""
    folder = films("train", n=8)
    return read(folder / "records.json", folder)


@pytest.fixture(scope="session")
def loud(student: VLM) -> VLM:
    return louder(student)


def louder(vlm: VLM) -> VLM:
    """A copy with weights three times larger, so that what it sees moves what it says."""
    model = copy.deepcopy(vlm.model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    return vlm.around(model)


@dataclass(frozen=True)
class Modalities:
    """One prompt of each kind; `other` is a second film, `pictures` a film and two pictures among
    the words after it."""

    video: Prompt
    other: Prompt
    image: Prompt
    text: Prompt
    pictures: Prompt


@pytest.fixture(scope="session")
def prompts(student: VLM, recipe: Recipe, records: list[Sample]) -> Prompts:
    return Prompts(student, recipe.training_protocol)


def modalities(prompts: Prompts, records: list[Sample]) -> Modalities:
    """Prompts of every kind from the records."""
    videos = [r for r in records if r.modality == "video"]
    other = next(r for r in videos if r.media != videos[0].media)
    image = next(r for r in records if r.modality == "image")
    text = Sample("text", "How many shapes are there?", "numerical", "3", "text", None)
    pictures = replace(
        videos[1], id="pictures", question="Which is next, 1: <image> or 2: <image>?",
        images=(image.media, image.media),
    )  # fmt: skip
    return Modalities(*(prompts.build(r) for r in (videos[0], other, image, text, pictures)))


@pytest.fixture(scope="session")
def asked(prompts: Prompts, records: list[Sample]) -> Modalities:
    return modalities(prompts, records)


def repaired(vlm: VLM, asked: Prompt, protocol: Protocol, hint: str) -> Prompt:
    """The same question about the same clip, with a hint after it."""
    text = f"{question_text(asked.record, protocol.prompt)} Hint: {hint}"
    encoded = replace(vlm.encode(asked.clip, text, protocol), pixels=asked.encoded.pixels)
    return Prompt(asked.record, asked.clip, encoded)


def sharp(protocol: Protocol) -> Protocol:
    """The protocol for Qwen3-VL's larger patches: 64 x 64 pixels are 2 x 2 vision tokens."""
    return replace(protocol, min_pixels=64 * 64, max_pixels=64 * 64)


@pytest.fixture(scope="session")
def other(student: VLM) -> VLM:
    """A tiny Qwen3-VL with loud random weights and the student's tokenizer."""
    return louder(tiny_qwen3_vl(student.processor.tokenizer))


@pytest.fixture(scope="session")
def complete(student: VLM) -> Callable[..., list[Rollout]]:
    """complete(prompt, lengths, seed=0) -> rollouts of random, ordinary tokens."""
    ordinary = range(20, len(student.processor.tokenizer))

    def make(prompt: Prompt, lengths: Sequence[int], seed: int = 0) -> list[Rollout]:
        generator = torch.Generator().manual_seed(seed)
        drawn = [
            torch.randint(ordinary.start, ordinary.stop, (n,), generator=generator).tolist()
            for n in lengths
        ]
        return [Rollout(prompt, prompt, tuple(ids), student.text(ids), False) for ids in drawn]

    return make


@pytest.fixture(scope="session")
def group_of(complete: Callable[..., list[Rollout]]) -> Callable[..., Group]:
    """group_of(prompt, lengths, seed=0) -> a group of random completions."""
    return lambda prompt, lengths, seed=0: Group(prompt, tuple(complete(prompt, lengths, seed)))


def parities(group: Group) -> Rewards:
    """A random student earns nothing, so it is paid by the parity of what it wrote."""
    return {
        "accuracy": torch.tensor([float(sum(r.ids) % 2) for r in group.rollouts]),
        "format": torch.tensor([float(len(r.ids) > 4) for r in group.rollouts]),
    }


def _paid(method: type[Method]) -> type[Method]:
    return type(f"Paid{method.__name__}", (method,), {"rewards": lambda self, g: parities(g)})


@pytest.fixture
def trainer(
    student: VLM, recipe: Recipe, records: list[Sample], tmp_path: Path
) -> Callable[..., GroupTrainer]:
    """trainer("ktr", steps=2, paid=True, switches={...}, method=..., **settings) -> a trainer of
    a fresh copy of the student, 2 prompts x 4 rollouts x 8 tokens, in a folder of its own."""
    made = 0

    def make(
        arm: str = "ktr", *, steps: int = 2, seed: int = 0, paid: bool = True,
        switches: Change | None = None, method: type[Method] | None = None, vlm: VLM = student,
        packed: bool = True, freeze: bool = False, lora: VLM | None = None,
        pool: Sequence[Sample] = tuple(records), **settings: Any,
    ) -> GroupTrainer:  # fmt: skip
        nonlocal made
        made += 1
        out = tmp_path / f"run{made}"
        out.mkdir()
        chosen = recipe.arm(arm)
        small = {
            "prompts_per_step": 2, "num_generations": 4, "max_completion_length": 8,
            "max_steps": steps, "learning_rate": 1e-3,
        }  # fmt: skip
        ours = lora or vlm.around(copy.deepcopy(vlm.model))
        if lora is None:
            ours.visual.requires_grad_(not freeze)
        kind = method or METHODS[chosen.method]
        kept = replace(chosen.switches, **(switches or {}))
        own = replace(chosen.trainer, **{**small, **settings})
        return GroupTrainer(
            ours,
            (_paid(kind) if paid else kind)(kept, seed),
            own,
            kept,
            Records(pool, own.prompts_per_step, seed),
            Prompts(ours, recipe.training_protocol),
            out,
            seed=seed,
            packed=packed,
        )

    return make


@pytest.fixture(scope="session")
def gradients() -> Callable[[Any], dict[str, Tensor]]:
    """gradients(model) -> a copy of every parameter's gradient by name."""

    def read_all(model: Any) -> dict[str, Tensor]:
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    return read_all
