"""What the vLLM engine refuses, and the frames it sends; no vLLM needed (tests/vllm runs one)."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals.errors import BadInput, BlindForward, EnvironmentFault
from evals.types import Decoding, VideoClip
from evals.vllm_model import frames
from evals.vlm import VLM
from repro.core import lora
from repro.core.trainer import GroupTrainer
from repro.core.vllm_engine import VLLMSampler, max_length
from repro.recipe import Recipe
from repro.tiny import model as tiny

Change = dict[str, Any]


def build(student: VLM, **settings: str) -> VLLMSampler:
    return VLLMSampler(student, Decoding(), "nowhere", max_length=64, **settings)


def test_a_server_is_refused(student: VLM) -> None:
    with pytest.raises(BadInput, match="without its video; set vllm_mode: colocate"):
        build(student, mode="server")


def test_an_unknown_mode_is_refused(student: VLM) -> None:
    with pytest.raises(BadInput, match="vllm_mode is 'remote'; known: colocate, server"):
        build(student, mode="remote")


def test_several_processes_are_refused(student: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="one process"):
        build(student)


def test_without_vllm_the_machine_is_named(student: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"install vllm 0\.31\.0 .*: use_vllm: false"):
        build(student)


def test_split_weights_are_refused(student: VLM) -> None:
    """ZeRO-3 marks the parameters it has split with `ds_id`."""
    model = torch.nn.Linear(2, 2)
    model.bias.ds_id = 0  # type: ignore[assignment]
    with pytest.raises(BadInput, match="ZeRO-3"):
        object.__new__(VLLMSampler).sync(model)


def test_a_model_that_tells_time_in_words_is_refused(other: VLM) -> None:
    with pytest.raises(BadInput, match=r"Qwen2\.5-VL only.*use_vllm: false"):
        build(other)


# --- as a recipe asks for it ---------------------------------------------------------------------


def test_what_an_engine_must_hold(recipe: Recipe) -> None:
    settings = replace(recipe.trainer, max_completion_length=8)
    with pytest.raises(BadInput, match="set vllm_max_model_length, or max_prompt_length"):
        max_length(settings)
    assert max_length(replace(settings, max_prompt_length=100)) == 108
    assert max_length(replace(settings, max_prompt_length=100, vllm_max_model_length=300)) == 300


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vllm_mode": "server"}, "set vllm_mode: colocate"),
        ({"vllm_max_model_length": None}, "set vllm_max_model_length"),
    ],
)
def test_a_trainer_refuses_before_it_starts(
    trainer: Callable[..., GroupTrainer], monkeypatch: pytest.MonkeyPatch, settings: Change,
    words: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(BadInput, match=words):
        trainer("grpo", use_vllm=True, **{"vllm_max_model_length": 64, **settings})


def test_a_recipe_turns_it_on(tmp_path: Path, recipe: Recipe) -> None:
    """And one that does not keeps the fingerprint under which its runs are filed."""
    text = recipe.file.read_text()
    found = "      loss_type:              {value: grpo,     source"
    more = "      use_vllm: {value: true, source: chosen}\n" + found
    assert text.count(found) == 1
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(found, more))
    changed = Recipe.load(path)
    assert changed.arm("ktr").trainer.use_vllm and not recipe.arm("ktr").trainer.use_vllm
    assert changed.fingerprint != recipe.fingerprint
    path.write_text(text.replace(found, more.replace("true", "false")))
    assert Recipe.load(path).fingerprint == recipe.fingerprint
    path.write_text(
        text.replace(found, more.replace("use_vllm: {value: true", "vllm_mode: {value: x"))
    )
    with pytest.raises(BadInput, match="vllm_mode: expected one of colocate, server, got 'x'"):
        Recipe.load(path)


def test_adapters_are_added_to_the_weights_that_are_sent(student: VLM) -> None:
    """As PEFT merges them, under the plain model's names, and the model keeps its bits."""
    own = lora.adapted(student.around(copy.deepcopy(student.model)), r=4, alpha=8, seed=0)
    with torch.no_grad():
        for name, weight in own.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    before = {name: p.clone() for name, p in own.model.state_dict().items()}
    sent = dict(lora.weights(own.model))
    assert sent.keys() == dict(student.model.named_parameters()).keys()
    assert all(torch.equal(p, before[name]) for name, p in own.model.state_dict().items())
    merged = dict(lora.merged(own).model.named_parameters())
    for name, value in sent.items():
        torch.testing.assert_close(value, merged[name], rtol=0, atol=0)
    changed = {n for n, p in student.model.named_parameters() if not torch.equal(p, sent[n])}
    assert changed and all("language_model" in name for name in changed)


def test_a_plain_model_sends_its_own_weights(student: VLM) -> None:
    sent = dict(lora.weights(student.model))
    named = dict(student.model.named_parameters())
    assert sent.keys() == named.keys()
    assert all(sent[n].data_ptr() == p.data_ptr() for n, p in named.items())
    assert not any(p.requires_grad for p in sent.values())


# --- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "side"), [(4, (56, 56)), (6, (84, 140))])
def test_frames_are_read_back_exactly(student: VLM, n: int, side: tuple[int, int]) -> None:
    """Of a size that the processor leaves alone, so that the clip itself must come back."""
    shot = np.random.default_rng(0).integers(0, 256, (n, *side, 3), dtype=np.uint8)
    clip = VideoClip(shot, tuple(range(n)), 2.0, n)
    area = side[0] * side[1]
    protocol = replace(tiny.PROTOCOL, min_pixels=area, max_pixels=area)
    encoded = student.encode(clip, "What is it?", protocol)
    assert np.array_equal(frames(student, encoded)[0], shot)


def test_an_image_is_a_frame_twice(student: VLM) -> None:
    shot = np.random.default_rng(0).integers(0, 256, (1, 56, 56, 3), dtype=np.uint8)
    still = VideoClip(shot, (0,), 1.0, 1, modality="image")
    (seen,) = frames(student, student.encode(still, "What is it?", tiny.PROTOCOL))
    assert np.array_equal(seen, np.concatenate([shot, shot]))


def test_pixels_that_are_no_frames_stop(student: VLM) -> None:
    clip = VideoClip(np.zeros((4, 56, 56, 3), np.uint8), (0, 1, 2, 3), 2.0, 4)
    encoded = student.encode(clip, "What is it?", tiny.PROTOCOL)
    assert encoded.pixels is not None
    with pytest.raises(BlindForward, match="8-bit"):
        frames(student, replace(encoded, pixels=encoded.pixels + 0.001))
