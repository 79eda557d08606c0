"""What the vLLM engine refuses, and the frames it sends; no vLLM needed (tests/vllm runs one)."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from evals.errors import BadInput, BlindForward, EnvironmentFault
from evals.types import Decoding, VideoClip
from evals.vllm_model import frames
from evals.vlm import VLM
from repro.core.vllm_engine import VLLMSampler
from repro.tiny import model as tiny


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


@pytest.mark.parametrize(("n", "side"), [(4, (56, 56)), (6, (84, 140))])
def test_frames_are_read_back_exactly(student: VLM, n: int, side: tuple[int, int]) -> None:
    """Of a size that the processor leaves alone, so that the clip itself must come back."""
    shot = np.random.default_rng(0).integers(0, 256, (n, *side, 3), dtype=np.uint8)
    clip = VideoClip(shot, tuple(range(n)), 2.0, n)
    area = side[0] * side[1]
    protocol = replace(tiny.PROTOCOL, min_pixels=area, max_pixels=area)
    encoded = student.encode(clip, "What is it?", protocol)
    assert np.array_equal(frames(student, encoded), shot)


def test_an_image_is_a_frame_twice(student: VLM) -> None:
    shot = np.random.default_rng(0).integers(0, 256, (1, 56, 56, 3), dtype=np.uint8)
    still = VideoClip(shot, (0,), 1.0, 1, modality="image")
    seen = frames(student, student.encode(still, "What is it?", tiny.PROTOCOL))
    assert np.array_equal(seen, np.concatenate([shot, shot]))


def test_pixels_that_are_no_frames_stop(student: VLM) -> None:
    clip = VideoClip(np.zeros((4, 56, 56, 3), np.uint8), (0, 1, 2, 3), 2.0, 4)
    encoded = student.encode(clip, "What is it?", tiny.PROTOCOL)
    assert encoded.pixels is not None
    with pytest.raises(BlindForward, match="8-bit"):
        frames(student, replace(encoded, pixels=encoded.pixels + 0.001))
