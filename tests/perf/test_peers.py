"""The peers are fair: TRL repaired sees the video, the re-enacted release scores what we score."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tests.perf.released import KTRRelease
from tests.perf.steps import Ours, Scene, Step

#: fp32; the same numbers by other orders of summation.
TOLERANCE = 1e-5


def gradients(model: Any) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def moved(step: Step) -> None:
    """Move the reference away from the policy, or its KL is 0 whatever it saw."""
    with torch.no_grad():
        for weight in step.reference.parameters():
            weight.mul_(0.5)


def assert_same_step(ours: Step, theirs: Step) -> None:
    moved(ours), moved(theirs)
    a = ours.backward()
    theirs.order = ours.order
    b = theirs.backward()
    assert abs(a) > 1e-3
    assert torch.isclose(a, b, rtol=TOLERANCE, atol=0), (a, b)
    mine, other = gradients(ours.model), gradients(theirs.model)
    assert mine.keys() == other.keys()
    for name, gradient in other.items():
        error = (mine[name] - gradient).norm() / gradient.norm()
        assert error < TOLERANCE, (name, error)


def seen(model: Any) -> list[bool]:
    """For every weight of the vision tower: has it a gradient that is not zero?"""
    return [p.grad is not None and bool(p.grad.any()) for p in model.model.visual.parameters()]


def test_stock_trl_trains_blind_and_the_repaired_one_does_not(
    scene: Scene, trl_peer: ModuleType, tmp_path: Path
) -> None:
    stock = trl_peer.TRL(scene, tmp_path / "stock", trl_peer.GRPOTrainer)
    repaired = trl_peer.TRL(scene, tmp_path / "repaired")
    stock.backward(), repaired.backward()
    assert not any(seen(stock.model))
    assert all(seen(repaired.model))


def test_repaired_trl_takes_our_grpo_step(
    scene: Scene, trl_peer: ModuleType, tmp_path: Path
) -> None:
    assert_same_step(Ours(scene, "grpo", tmp_path / "ours"), trl_peer.TRL(scene, tmp_path / "trl"))


def test_the_released_schedule_takes_our_ktr_step(
    scene: Scene, trl_peer: ModuleType, tmp_path: Path
) -> None:
    ours, theirs = Ours(scene, "ktr_released", tmp_path), KTRRelease(scene)
    assert_same_step(ours, theirs)
    for name in ("logp", "entropy", "visual", "temporal"):
        mine, other = getattr(ours.scores, name), getattr(theirs.last, name)
        assert other.abs().mean() > 0.1
        assert torch.allclose(mine, other.detach(), rtol=0, atol=TOLERANCE), name
    assert torch.equal(ours.weights > 0, theirs.last.kept)
    assert 0 < theirs.last.kept.float().mean() < 1


def test_the_comparison_would_notice_another_film(
    scene: Scene, trl_peer: ModuleType, tmp_path: Path
) -> None:
    """The scores agree because both looked at the film."""
    other = Scene.make(scene.checkpoint, tmp_path, 8, 56, scene.given, seed=1)
    first, second = KTRRelease(scene), KTRRelease(other)
    first.backward(), second.backward()
    for name in ("logp", "visual", "temporal"):
        gap = getattr(first.last, name) - getattr(second.last, name)
        assert gap.abs().max() > 1000 * TOLERANCE, name
