"""The doctor's findings and the plan's arithmetic."""

from __future__ import annotations

import builtins
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import made
from repro import doctor, doctor_data, doctor_gpu, lock, machine, sight
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
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    hub = doctor._hub_cache()
    assert not hub.ok and not hub.needed and "HF_HOME" in hub.mend


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


def test_the_token_of_gated_data(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_gpu._token(PAPER).ok
    gated = replace(PAPER, evaluation=replace(PAPER.evaluation, benchmark="longvideobench"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "HF_TOKEN" in doctor_gpu._token(gated).mend and not doctor_gpu._token(gated).ok
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    assert doctor_gpu._token(gated).ok and "hf_secret" not in str(doctor_gpu._token(gated))


def test_the_disk_against_what_is_downloaded(tmp_path: Path) -> None:
    found = doctor_gpu._disk(PAPER, tmp_path)
    assert "at least" in found.found and "repro data lock ktr" in found.found
    vast = replace(PAPER, cost=replace(PAPER.cost, download_gib=1e9))
    assert (
        not doctor_gpu._disk(vast, tmp_path).ok and "--out" in doctor_gpu._disk(vast, tmp_path).mend
    )


# --- what would be downloaded -------------------------------------------------------------------


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("REELPROOF_DATA", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


def taken() -> dict[str, Finding]:
    """Findings by the first word of what was found."""
    return {f.found.partition(":")[0]: f for f in doctor_data.examine(PAPER)}


def test_nothing_is_here(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = taken()
    assert {"ktr-train", "video_holmes", "mmvu/mc", PAPER.model.id} <= found.keys()
    for one in found.values():
        assert not one.ok and one.found.endswith("not here")
    assert found["video_holmes"].mend == "repro data lock ktr && repro data fetch ktr"
    assert "repro data build ktr" in found["ktr-train"].mend
    assert not found["Qwen/Qwen2.5-VL-7B-Instruct"].needed, "only the cold start takes it"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("REELPROOF_DATA")
    mend = taken()["video_holmes"].mend
    assert mend.endswith("REELPROOF_DATA=DIR repro data fetch ktr, where there is a network")


def test_a_benchmark_is_whole_when_every_film_is_there(data: Path) -> None:
    root = made.make("video_holmes", data)  # its films lie in a zip
    assert taken()["video_holmes"].ok
    (root / "videos.zip").unlink()
    lacking = taken()["video_holmes"]
    assert not lacking.ok and "3 films or pictures are missing" in lacking.found
    (root / "test_Video-Holmes.json").write_text("[{]")
    assert "not valid JSON" in taken()["video_holmes"].found


def test_a_checkpoint_is_whole_when_every_shard_is(data: Path) -> None:
    from repro import weights

    place = weights.folder_of(PAPER.model.id)
    shutil.copytree(machine.ROOT / "repro/tiny/ktr", place)
    assert taken()[PAPER.model.id].ok
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[:-1])
    assert "model.safetensors cut short" in taken()[PAPER.model.id].found
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (place / "model.safetensors").write_bytes(whole)
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "1 of 2 shards are missing, model-2.safetensors first" in taken()[PAPER.model.id].found
    (place / "model.safetensors.index.json").write_text("{}")
    assert "index.json" in taken()[PAPER.model.id].found
    (place / "model.safetensors.index.json").unlink()
    (place / "tokenizer.json").unlink()
    assert "no tokenizer.json" in taken()[PAPER.model.id].found


def test_a_checkpoint_of_another_commit(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repro import weights

    place = weights.folder_of(PAPER.model.id)
    shutil.copytree(machine.ROOT / "repro/tiny/ktr", place)
    note = place / ".cache/huggingface/download/config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text("b" * 40 + "\netag\n0\n")
    assert taken()[PAPER.model.id].ok, "no commit is locked"
    key = f"model:{PAPER.model.id}"
    monkeypatch.setattr("repro.lock.read", lambda file: {key: lock.Pin("a" * 40, None)})
    assert f"commit {'b' * 40}, not {'a' * 40}" in taken()[PAPER.model.id].found


@given(st.binary(max_size=64))
def test_any_bytes_are_whole_or_not(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        assert doctor_data._is_whole(path) in (True, False)


def test_records_and_their_media(data: Path, films: Callable[..., Path]) -> None:
    source = films("test", 8)
    shutil.copytree(source, data / "ktr-train")
    assert taken()["ktr-train"].ok, taken()["ktr-train"]
    gone = sorted((data / "ktr-train").rglob("*.mp4"))[0]
    gone.unlink()
    assert f"1 films or pictures are missing, {gone}" in taken()["ktr-train"].found
    (data / "ktr-train" / "records.json").write_text("[]")
    assert "holds no record" in taken()["ktr-train"].found


# --- the engine ---------------------------------------------------------------------------------


def test_an_engine_that_does_not_answer_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docker").write_text("")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    found = doctor._docker()
    assert not found.ok and not found.needed
    assert found.found == "no Docker engine answers" and "systemctl start docker" in found.mend


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
