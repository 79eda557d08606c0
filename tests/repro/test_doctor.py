"""The doctor's findings and the plan's arithmetic."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from repro import doctor, doctor_gpu, machine, sight
from repro.doctor import Finding, can_run, examine
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
    assert can_run([optional]) and not can_run([needed, optional])


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


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_film_is_decoded(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(decoder.replace("pyav", "av"))
    assert doctor._decodes(decoder).ok
    monkeypatch.setattr(sight, "write_film", swapped)
    wrong = doctor._decodes(decoder)
    assert not wrong.ok and "other frames" in wrong.found and wrong.mend == "make setup"


def swapped(frames: np.ndarray, path: Path) -> None:
    """The same film with two scenes in each other's place."""
    from evals.microworld import write_film

    write_film(frames[[*range(4, 8), *range(4), *range(8, 16)]], path)


def test_a_blind_model_is_seen_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from evals.vlm import VLM

    assert doctor._sight().ok
    real = VLM.features
    monkeypatch.setattr(VLM, "features", lambda self, p: [0 * f for f in real(self, p)])
    blind = doctor._sight()
    assert not blind.ok and blind.found.startswith("blind")


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "file"))
    finding = doctor._cache()
    assert not finding.ok and str(tmp_path / "file") in finding.mend
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "new"))
    assert doctor._cache().ok and not list((tmp_path / "new").iterdir())


def test_versions_are_held_against_the_lock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert doctor._locked().ok, doctor._locked()
    (tmp_path / "cpu.txt").write_text("# pins\nclick==0.1 ; python_version > '3'\nabsent==1\n")
    monkeypatch.setattr(doctor, "LOCKS", tmp_path)
    finding = doctor._locked()
    assert not finding.ok and not finding.needed and "for 0.1" in finding.found
    assert "absent" not in finding.found


PAPER = Recipe.load("ktr", "paper")
H100 = doctor_gpu.Device("H100", (9, 0), 79.2)
OLD = doctor_gpu.Device("V100", (7, 0), 31.7)


def test_the_micro_profile_needs_nothing_more(tmp_path: Path) -> None:
    assert doctor_gpu.examine(Recipe.load("ktr"), tmp_path) == []


@pytest.mark.parametrize(
    ("build", "found", "ok"),
    [("13.0", "580.65.06", True), ("13.0", "570.86.15", False), ("12.8", "570.86.15", True),
     ("13.0", None, False), (None, None, False)],
)  # fmt: skip
def test_driver_against_cuda(build: str | None, found: str | None, ok: bool) -> None:
    finding = doctor_gpu.driver(build, found)
    assert finding.ok == ok and (ok or "driver 580" in finding.mend)


def test_a_cpu_build_and_a_missing_device_are_told_apart() -> None:
    assert "CPU build" in doctor_gpu.cuda(None, []).found
    blind = doctor_gpu.cuda("13.0", [])
    assert not blind.ok and "sees no device" in blind.found and "nvidia-smi" in blind.mend
    assert doctor_gpu.cuda("13.0", [H100, H100]).found == "13.0, 2 x H100"


def test_devices_against_the_recipe() -> None:
    assert doctor_gpu.capability(PAPER, [H100]).ok
    assert "bf16" in doctor_gpu.capability(PAPER, [H100, OLD]).mend
    small = doctor_gpu.vram(PAPER, [H100])  # 107.9 GiB by the released run
    assert not small.ok and small.found == "79 GiB a device, 107.9 GiB needed"
    assert doctor_gpu.vram(PAPER, [replace(H100, memory=141.0)]).ok
    unknown = replace(PAPER, cost=replace(PAPER.cost, memory_gib=None))
    assert "unknown" in doctor_gpu.vram(unknown, [H100]).found


def test_little_shared_memory_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_gpu, "SHM_GIB", 1e9)
    assert "--shm-size" in doctor_gpu.shm().mend
    assert not doctor_gpu.shm(Path("/nowhere")).ok


def test_data_model_and_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REELPROOF_DATA", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    found = {f.name: f for f in doctor_gpu.examine(PAPER, tmp_path)}
    assert "repro data fetch video_holmes" in found["data"].mend
    assert "hf download Video-R1/" in found["model"].mend and "unresolved" not in str(found)
    assert found["token"].ok
    monkeypatch.setenv("REELPROOF_DATA", str(tmp_path))
    assert not doctor_gpu._data(PAPER).ok
    (tmp_path / "video_holmes" / "x").mkdir(parents=True)
    assert doctor_gpu._data(PAPER).ok
    gated = replace(PAPER, evaluation=replace(PAPER.evaluation, benchmark="longvideobench"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "HF_TOKEN" in doctor_gpu._token(gated).mend and not doctor_gpu._token(gated).ok
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    assert doctor_gpu._token(gated).ok and "hf_secret" not in str(doctor_gpu._token(gated))


@pytest.mark.skipif(machine.gpu() is not None, reason="this machine has a GPU")
def test_a_recipe_for_gpus_fails_loudly_on_a_cpu() -> None:
    from click.testing import CliRunner

    from repro.cli import cli

    done = CliRunner().invoke(cli, ["doctor", "--profile", "paper", "--recipe", "ktr"])
    assert done.exit_code == 4 and "profile paper cannot run here" in done.output
    for line in done.output.splitlines():
        assert not line.startswith("MISSING") or len(line.split("  ")) >= 4, "no line without cure"


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
