"""Supervised fine-tuning lowers the loss of the completion, by the formula it states."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evals.vlm import VLM
from repro.core import sft
from repro.core.packing import rows_of
from repro.core.scoring import score_rows
from repro.core.types import Group


def test_it_learns_the_completions_and_nothing_else_first(
    student: VLM, asked: Any, group_of: Callable[..., Group]
) -> None:
    vlm = VLM(copy.deepcopy(student.model), student.processor)
    groups = [group_of(asked.video, [6], seed=1), group_of(asked.text, [2], seed=2)]
    examples = [sft.Example(g.prompt.encoded, g.rollouts[0].ids) for g in groups]
    losses: list[float] = []
    sft.train(
        vlm, examples, steps=12, learning_rate=3e-3, batch=4, seed=0, warmup=0.25,
        progress=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    drawn = torch.tensor([len(e.completion) for e in examples])
    with torch.no_grad():
        before = [score_rows(student, rows_of(g))[0].sum() for g in groups]
    # The first batch, drawn by seed: the mean over its completion tokens.
    chosen = np.random.default_rng(0).integers(0, 2, 4)
    wanted = -sum(float(before[i]) for i in chosen) / int(drawn[chosen].sum())
    assert losses[0] == pytest.approx(wanted, rel=1e-5)
    assert losses[-1] < 0.5 * losses[0]
    assert not vlm.model.training


def test_the_schedule_warms_up_then_falls_to_a_tenth() -> None:
    assert sft._schedule(0.0, 0.1) == 0
    assert sft._schedule(0.05, 0.1) == pytest.approx(0.5)
    assert sft._schedule(0.1, 0.1) == pytest.approx(1)
    assert sft._schedule(0.55, 0.1) == pytest.approx(0.55)
    assert sft._schedule(1.0, 0.1) == pytest.approx(0.1)
    assert sft._schedule(0.0, 0.0) == pytest.approx(1)
