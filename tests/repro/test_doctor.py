"""The doctor's findings and the plan's arithmetic."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path

import pytest

from repro import doctor
from repro.doctor import Finding, can_run_micro, examine
from repro.plan import forecast
from repro.recipe import Recipe
from repro.show import clock


def test_this_machine_is_examined(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in examine(tmp_path / "not" / "yet")}
    assert {"python", "torch", "torchvision", "h264", "disk", "cores", "memory"} <= findings.keys()
    for name in ("python", "torch", "torchvision", "transformers", "h264"):
        assert findings[name].ok, findings[name]
    assert str(tmp_path) in findings["disk"].found
    assert all(finding.mend for finding in findings.values() if not finding.ok)


def test_optional_things_may_be_missing() -> None:
    needed, optional = Finding("a", False, "", "make a"), Finding("b", False, "", "make b", False)
    assert can_run_micro([optional]) and not can_run_micro([needed, optional])


@pytest.mark.parametrize("name", ["torch", "av"])
def test_what_is_missing_names_the_command(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = builtins.__import__

    def without(module: str, *args: object, **more: object) -> object:
        if module == name:
            raise ImportError(f"No module named {name!r}")
        return real(module, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    finding = {"torch": doctor._torch, "av": doctor._codec}[name]()
    assert not finding.ok and finding.mend == "make setup" and name in finding.found


def test_a_full_disk_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "DISK_GIB", 1e9)
    finding = doctor._disk(tmp_path)
    assert not finding.ok and "--out" in finding.mend


def test_forecast_counts_by_hand() -> None:
    recipe = Recipe.load("ktr")
    recipe = replace(
        recipe,
        cost=replace(recipe.cost, step_seconds=2.0, evaluation_seconds=30.0),
        evaluation=replace(recipe.evaluation, greedy=True, cold=True),
    )
    trainer = recipe.trainer
    found = forecast(recipe, ("grpo", "ktr", "random"), (0, 1), jobs=2)
    assert (
        found.rollouts == 6 * trainer.max_steps * trainer.prompts_per_step * trainer.num_generations
    )
    # three rounds of two chains, each its steps and two evaluations, and the start checkpoint's two
    assert found.minutes == pytest.approx((3 * (trainer.max_steps * 2.0 + 60.0) + 60.0) / 60)
    assert forecast(recipe, ("grpo",), (0,), jobs=1).rollouts == found.rollouts // 6
    unknown = replace(recipe, cost=replace(recipe.cost, step_seconds=None))
    found = forecast(unknown, ("grpo",), (0,), jobs=1)
    assert found.minutes is None and "cost.step_seconds" in found.unknown


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65, "1:05"), (7384, "2:03:04")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
