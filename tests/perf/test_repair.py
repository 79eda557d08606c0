"""What FFR's repair adds to a step: one sampling pass over the failed rows, and no waiting in line.

A teacher that takes a second for each call is asked for all failures of a step at once, while other
prompts are still sampled: the step may grow by less than 30 % of what the calls would take one
after another (chosen).
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from evals.benchmarks.jsonl import read
from evals.vlm import VLM
from repro.core.data import Prompts, Records
from repro.core.rollout import Sampler
from repro.core.trainer import GroupTrainer
from repro.ffr.method import FFR
from repro.ffr.patch import Patch
from repro.ffr.service import Limits, Service
from repro.ffr.teacher import Failure
from repro.recipe import Recipe

SECONDS, SHARE, PARALLEL = 1.0, 0.3, 16
PATCH = Patch("temporal", (2, 3), (), (), "Look again at these frames.")


class Slow:
    """Takes `seconds` for a call, as a server would; counts calls and how many ran at once."""

    id, second_try, stores = "slow@1", False, False

    def __init__(self, seconds: float):
        self.seconds, self.calls, self.running, self.most = seconds, 0, 0, 0

    async def patch(self, failure: Failure) -> Patch:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        return PATCH


@pytest.fixture
def step(
    student: VLM, films: Callable[..., Path], tmp_path: Path
) -> Callable[[Slow], GroupTrainer]:
    """step(teacher) -> a trainer of one step: 4 prompts x 4 completions of a student that fails."""
    recipe, folder = Recipe.load("ffr"), films("train", n=8)
    samples = read(folder / "records.json", folder)

    def make(teacher: Slow) -> GroupTrainer:
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        arm = recipe.arm("ffr")
        own = replace(arm.switches, patch_words="short", patch_images=0)
        settings = replace(
            arm.trainer,
            prompts_per_step=4,
            num_generations=4,
            max_completion_length=16,
            max_steps=1,
        )
        ours = student.around(copy.deepcopy(student.model))
        service = Service(teacher, limits=Limits(parallel=PARALLEL))
        return GroupTrainer(
            ours, FFR(own, 0, service), settings, own, Records(samples, 4, 0),
            Prompts(ours, recipe.training_protocol), out, seed=0,
        )  # fmt: skip

    return make


def _timed(trainer: GroupTrainer) -> float:
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


def test_repair_adds_one_pass_over_the_failed_rows(
    step: Callable[[Slow], GroupTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deterministic: rows of each sampling pass, and calls of the teacher."""
    rows: list[int] = []
    draw = Sampler.draw

    def counting(self: Sampler, prompts: Any, decoding: Any, *rest: Any) -> None:
        rows.append(len(prompts) * decoding.samples)
        draw(self, prompts, decoding, *rest)

    monkeypatch.setattr(Sampler, "draw", counting)
    teacher = Slow(0.0)
    trainer = step(teacher)
    trainer.train()
    failed = trainer.metrics["n_failed"]
    assert 0 < failed <= 16 and rows == [16, failed] and teacher.calls == failed
    assert trainer.metrics["n_repaired"] == failed


@pytest.mark.perf
@pytest.mark.timeout(600)
def test_a_slow_teacher_is_waited_for_once(
    step: Callable[[Slow], GroupTrainer], benchmark: BenchmarkFixture
) -> None:
    quick, slow = Slow(0.0), Slow(SECONDS)
    without = min(_timed(step(quick)) for _ in range(2))
    trainer = step(slow)
    taken = benchmark.pedantic(lambda: _timed(trainer), rounds=1, iterations=1)
    serial = slow.calls * SECONDS
    grown = taken - without
    benchmark.extra_info |= {
        "seconds": {"without": without, "with": taken}, "calls": slow.calls, "at_once": slow.most,
        "share_of_serial": grown / serial,
    }  # fmt: skip
    assert slow.calls >= 8 and slow.most > 1
    assert grown < SHARE * serial, f"{grown:.2f} s for {slow.calls} calls of {SECONDS} s"
