"""A small scene for the tests that need no clock; TRL is imported only where it is needed."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from evals.vlm import VLM
from tests.perf.steps import Scene, given


@pytest.fixture(scope="session")
def trl_peer() -> ModuleType:
    """tests.perf.trl_peer, whose import takes seconds."""
    return importlib.import_module("tests.perf.trl_peer")


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """save(model, processor) -> folder of the checkpoint, its weights made three times larger, so
    that what a random student sees moves what it says."""

    def write(model: torch.nn.Module, processor: object) -> Path:
        loud = copy.deepcopy(model)
        with torch.no_grad():
            for weight in loud.parameters():
                if weight.ndim > 1:
                    weight.mul_(3)
        folder = tmp_path_factory.mktemp("checkpoint")
        loud.save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def scene(
    student: VLM, save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """8 frames of 56 x 56 pixels, 4 completions of 6 tokens."""
    checkpoint = save(student.model, student.processor)
    words = given(4, 6, len(student.processor.tokenizer))
    return Scene.make(checkpoint, tmp_path_factory.mktemp("scene"), 8, 56, words)
