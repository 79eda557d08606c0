"""What several packages' tests share: small films, a random student, and a writer of clips."""

from __future__ import annotations

import importlib.util
import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: two threads are slower, not faster

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from evals import microworld

if TYPE_CHECKING:
    from evals.vlm import VLM

if importlib.util.find_spec("hypothesis"):  # the environment of vLLM has none
    from hypothesis import settings

    settings.register_profile("suite", deadline=None)  # a busy machine is not a defect
    settings.load_profile("suite")

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, children would inherit it ignored

#: What the student's tokenizer is trained on: the words of microworld and of the trained format.
TEXTS = (
    "<think>I see red circle, then blue square, so red circle</think><answer>A</answer>",
    "Which came first? A. green triangle B. yellow square. How many shapes are there?",
    "What made the blue circle move? When is the red square visible? [1.0, 2.0] 0 1 2 3 4 5",
)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """films(split="test", n=40) -> folder of that split (records.json, films/), made once."""
    cache = tmp_path_factory.mktemp("microworld")
    return lambda split="test", n=40: microworld.make(split, n=n, cache=cache)


@pytest.fixture(scope="session")
def student() -> VLM:
    """The tiny Qwen2.5-VL with random weights (seed 0), in evaluation mode."""
    import torch

    torch.set_num_threads(1)
    from evals.vlm import VLM
    from repro.tiny import model as tiny

    tokens = tiny.tokenizer(TEXTS, vocab=400)
    return VLM(tiny.model(tokens, seed=0).eval(), tiny.processor(tokens))


@pytest.fixture
def mp4(tmp_path: Path) -> Callable[..., Path]:
    """mp4(frames, fps=4, name="clip.mp4") -> path of an H.264 file of (F, H, W, 3) uint8 frames."""

    def write(frames: np.ndarray, *, fps: int = 4, name: str = "clip.mp4") -> Path:
        path = tmp_path / name
        microworld.write_film(frames, path, fps=fps)
        return path

    return write
