"""Supervised fine-tuning: the loss of plain transformers, and the phases of a cold start."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evals.errors import BadInput, EnvironmentFault
from evals.types import Sample
from evals.vlm import VLM
from repro.core import sft
from repro.core.checkpoint import latest
from repro.core.demonstrations import Demonstration, Draws, Example, Examples
from repro.core.health import Diverged
from repro.core.sft import SFTTrainer
from repro.recipe import SFT, Recipe
from tests.repro.core.conftest import sharp


@pytest.fixture(scope="module")
def settings(recipe: Recipe) -> SFT:
    assert recipe.sft is not None
    return replace(
        recipe.sft, per_device_train_batch_size=4, learning_rate=3e-3, warmup_ratio=0.25,
        save_steps=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown(records: list[Sample]) -> list[Demonstration]:
    """A film and its questions, a still, and a text."""
    text = Sample("text", "How many shapes are there?", "numerical", "3", "text", None)
    image = next(r for r in records if r.modality == "image")
    videos = [r for r in records if r.modality == "video"][:4]
    said = ("<think>I see red circle</think>", "<answer>A</answer>", "<think>so blue square")
    return [Demonstration(s, said[i % 3]) for i, s in enumerate([*videos, image, text])]


def examples(vlm: VLM, recipe: Recipe, shown: list[Demonstration], **more: Any) -> Examples:
    return Examples(vlm, recipe.training_protocol, shown, 1024, **more)


def copied(student: VLM) -> VLM:
    return student.around(copy.deepcopy(student.model))


# --- the loss ------------------------------------------------------------------------------------


def labels(vlm: VLM, example: Example, completion_only: bool) -> Tensor:
    """What transformers is told to learn: -100 leaves a token out."""
    ids = torch.cat([example.prompt.ids, torch.tensor(example.completion)])
    if completion_only:
        return torch.cat(
            [torch.full_like(example.prompt.ids, -100), ids[len(example.prompt.ids) :]]
        )
    config = vlm.model.config
    vision = (
        config.image_token_id, config.video_token_id, config.vision_start_token_id,
        config.vision_end_token_id,
    )  # fmt: skip
    return torch.where(torch.isin(ids, torch.tensor(vision)), -100, ids)


def plain_loss(vlm: VLM, batch: list[Example], completion_only: bool) -> Tensor:
    """transformers' own forward and loss, one example after another, weighted by its tokens."""
    total, counted = torch.zeros(()), 0
    for e in batch:
        known = labels(vlm, e, completion_only)
        n = int((known[1:] != -100).sum())
        ends = torch.arange(len(e.completion)) + e.prompt.next_position
        positions = torch.cat([e.prompt.positions, ends.expand(3, -1)], 1)
        still = bool((e.prompt.ids == vlm.image_pad).any())
        kind = ("pixel_values", "image_grid_thw") if still else (
            "pixel_values_videos", "video_grid_thw")  # fmt: skip
        seen = {} if e.prompt.pixels is None else dict(
            zip(kind, (e.prompt.pixels, e.prompt.grid), strict=True))  # fmt: skip
        ids = torch.cat([e.prompt.ids, torch.tensor(e.completion)])
        out = vlm.model(
            input_ids=ids[None], position_ids=positions[:, None], labels=known[None], **seen
        )
        total, counted = total + n * out.loss, counted + n
    return total / counted


@pytest.mark.parametrize("completion_only", [True, False])
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_loss_and_gradient_are_those_of_transformers(
    student: VLM, other: VLM, recipe: Recipe, shown: list[Demonstration], completion_only: bool,
    family: str, gradients: Callable[[Any], dict[str, Tensor]],
) -> None:  # fmt: skip
    """In one padded batch of films, a still and a text; relative error in fp32 at most 1e-5."""
    vlm = copied(other if family == "qwen3" else student)
    protocol = recipe.training_protocol
    made = Examples(vlm, sharp(protocol) if family == "qwen3" else protocol, shown, 1024)
    batch = [made[i] for i in range(len(shown))]
    ours = sft.loss(vlm, batch, completion_only=completion_only)
    ours.backward()
    found = gradients(vlm.model)
    vlm.model.zero_grad()
    wanted = plain_loss(vlm, batch, completion_only)
    wanted.backward()
    assert float(ours.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    for name, gradient in gradients(vlm.model).items():
        error = (found[name] - gradient).norm() / gradient.norm().clamp_min(1e-12)
        assert error < 1e-5, name
    assert any(".visual." in name for name in found)


def test_the_switch_counts_the_prompt_but_no_vision(
    student: VLM, recipe: Recipe, shown: list[Demonstration]
) -> None:
    made = examples(student, recipe, shown)
    batch = [made[0], made[5]]  # a film and a text
    with torch.no_grad():
        only, whole = (sft.loss(student, batch, completion_only=c) for c in (True, False))
    assert float(only) != pytest.approx(float(whole), rel=1e-3)


# --- records as inputs ---------------------------------------------------------------------------


def test_an_example_is_its_prompt_and_its_completion(
    student: VLM, recipe: Recipe, shown: list[Demonstration]
) -> None:
    made, blind = (examples(student, recipe, shown, blind=b) for b in (False, True))
    assert len(made) == len(shown)
    for i, demonstration in enumerate(shown):
        assert student.text(made[i].completion) == demonstration.completion
        assert made[i].completion == blind[i].completion
        assert made[i].completion.index(student.end) == len(made[i].completion) - 1
        assert blind[i].prompt.pixels is None and not student.is_pad(blind[i].prompt.ids).any()
    assert made[0] is made[0] and made[0].prompt.pixels is not None
    same = [i for i in range(4) if shown[i].sample.media == shown[0].sample.media]
    assert len(same) > 1
    assert all(made[i].prompt.pixels is made[0].prompt.pixels for i in same)


def test_pixels_are_forgotten_when_there_are_too_many(
    student: VLM, recipe: Recipe, shown: list[Demonstration]
) -> None:
    made = examples(student, recipe, shown, keep=1)
    first = made[0]
    assert made.held == first.prompt.pixels.nbytes  # the last film stays, however large
    still = made[4]
    assert made.held == still.prompt.pixels.nbytes
    assert made[0] is not first and torch.equal(made[0].prompt.pixels, first.prompt.pixels)


def test_one_too_long_is_refused_with_its_length(
    student: VLM, recipe: Recipe, shown: list[Demonstration]
) -> None:
    made = examples(student, recipe, shown)
    n, m = len(made[0].prompt.ids), len(made[0].completion)
    exact = Examples(student, recipe.training_protocol, shown, n + m)
    assert len(exact[0].prompt.ids) == n
    tight = Examples(student, recipe.training_protocol, shown, n + m - 1)
    named = f"record {shown[0].sample.id}: a prompt of {n} tokens and a completion of {m}"
    with pytest.raises(
        BadInput, match=f"{named} .*max_length {n + m - 1}; raise it.*nothing is cut"
    ):
        tight[0]


def test_draws_are_fixed_by_the_seed() -> None:
    again = [list(Draws(10, 4, 5, seed, "replacement")) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]
    epochs = Draws(10, 4, 5, 1, "epoch")
    assert len(epochs) == 20 and sorted(epochs[i] for i in range(10)) == list(range(10))
    assert sorted(epochs[i] for i in range(10, 20)) == list(range(10))
    assert [epochs[i] for i in range(10)] != [epochs[i] for i in range(10, 20)]
    longer = Draws(10, 4, 9, 1, "epoch")  # a longer run begins as the shorter one
    assert [longer[i] for i in range(20)] == list(epochs)


# --- training ------------------------------------------------------------------------------------


def test_it_learns(
    student: VLM, recipe: Recipe, settings: SFT, shown: list[Demonstration], tmp_path: Path
) -> None:
    vlm, rows = copied(student), list[dict[str, Any]]()
    made = examples(vlm, recipe, shown)
    trainer = SFTTrainer(vlm, made, settings, tmp_path, steps=12, seed=0, on_step=rows.append)
    order = [made[trainer.train_dataset[i]] for i in range(4)]
    with torch.no_grad():
        wanted = float(sft.loss(student, order))
    trainer.train()
    assert rows[0]["loss"] == pytest.approx(wanted, rel=1e-5)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert [row["step"] for row in rows] == list(range(1, 13))
    rates = [3e-3 * sft.share(i / 12, 0.25, "cosine_with_min_lr") for i in range(12)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == rows[-1]


def test_accumulated_batches_weigh_the_same(
    student: VLM, recipe: Recipe, settings: SFT, shown: list[Demonstration], tmp_path: Path
) -> None:
    parts = replace(settings, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    rows = list[dict[str, Any]]()
    vlm = copied(student)
    made = examples(vlm, recipe, shown)
    trainer = SFTTrainer(vlm, made, parts, tmp_path, steps=1, seed=0, on_step=rows.append)
    order = [made[trainer.train_dataset[i]] for i in range(4)]
    with torch.no_grad():
        wanted = (float(sft.loss(student, order[:2])) + float(sft.loss(student, order[2:]))) / 2
    trainer.train()
    assert rows[0]["loss"] == pytest.approx(wanted, rel=1e-5)


def test_it_ends_when_told_and_saves_nothing_unasked(
    student: VLM, recipe: Recipe, settings: SFT, shown: list[Demonstration], tmp_path: Path
) -> None:
    """A step is saved after it was asked whether to stop, so a resumed run asks in its turn."""
    vlm, asked = copied(student), list[int]()
    trainer = SFTTrainer(
        vlm, examples(vlm, recipe, shown), replace(settings, save_steps=1), tmp_path, steps=9,
        first=10, seed=0, stop=lambda step: asked.append(step) or step == 3,
    )  # fmt: skip
    trainer.train()
    assert asked == [1, 2, 3] and trainer.state.global_step == 3
    saved = tmp_path / "checkpoint-12"
    assert latest(tmp_path) == saved
    assert json.loads((saved / "config.json").read_text()).get("use_cache", True)


def test_a_loss_that_is_no_number_stops_the_run(
    student: VLM, recipe: Recipe, settings: SFT, shown: list[Demonstration], tmp_path: Path
) -> None:
    vlm = copied(student)
    with torch.no_grad():
        vlm.model.model.language_model.norm.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="loss of step 1 is nan"):
        SFTTrainer(vlm, examples(vlm, recipe, shown), settings, tmp_path, steps=1, seed=0).train()


def test_running_out_of_memory_names_what_to_turn(
    student: VLM, recipe: Recipe, settings: SFT, shown: list[Demonstration], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    vlm = copied(student)
    monkeypatch.setattr(sft, "loss", lambda *args, **kwargs: torch.zeros(1 << 50))
    with pytest.raises(EnvironmentFault, match="'fine-tuning': try gradient_checkpointing"):
        SFTTrainer(vlm, examples(vlm, recipe, shown), settings, tmp_path, steps=1, seed=0).train()


@pytest.mark.parametrize(
    ("kind", "middle", "end"),
    [("cosine_with_min_lr", 0.55, 0.1), ("cosine", 0.5, 0.0), ("linear", 0.5, 0.0)],
)
def test_the_schedule_warms_up_then_falls(kind: str, middle: float, end: float) -> None:
    assert sft.share(0.0, 0.1, kind) == 0
    assert sft.share(0.05, 0.1, kind) == pytest.approx(0.5)
    assert sft.share(0.1, 0.1, kind) == pytest.approx(1)
    assert sft.share(0.55, 0.1, kind) == pytest.approx(middle)
    assert sft.share(1.0, 0.1, kind) == pytest.approx(end)
    assert sft.share(0.0, 0.0, kind) == pytest.approx(1)
