"""The cpu image on a real engine: what the first screen of the README promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro import container
from repro.container import Setting

pytestmark = [pytest.mark.container, pytest.mark.timeout(3600)]


def ran(setting: Setting) -> tuple[int, str]:
    """(exit code, all that it printed)."""
    printed: list[bytes] = []
    code = container.run(setting, out=printed.append, err=printed.append)
    return code, b"".join(printed).decode()


def ours(*words: str) -> subprocess.Popen[str]:
    """`repro container run` as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "repro.cli", "container", "run", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of a user that no image knows."""
    folder = tmp_path / "runs"
    folder.mkdir()
    folder.chmod(0o777)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    tmp_path.chmod(0o755)
    return folder


def test_help(cpu: str) -> None:
    code, said = ran(Setting(cpu, ("--help",)))
    assert code == 0 and "Usage: repro" in said


@pytest.mark.parametrize("user", ["65532:65532", "12345:0", "12345:12345"])
def test_doctor_as_anybody(cpu: str, user: str) -> None:
    code, said = ran(Setting(cpu, ("doctor", "--json"), user=user))
    assert code == 0, said
    assert json.loads(said)["micro"]


@pytest.mark.parametrize("user", ["12345:0", "12345:12345"])
def test_an_oracle_without_network(cpu: str, runs: Path, user: str) -> None:
    ask = ("eval", "--benchmark", "microworld", "--model", "oracle", "--limit", "40")
    code, said = ran(
        Setting(cpu, (*ask, "--out", "/runs/oracle"), runs=runs, user=user, offline=True)
    )
    assert code == 0, said
    record = json.loads((runs / "oracle" / "record.json").read_text())
    assert record["score"] == 1.0
    owner = (runs / "oracle" / "record.json").stat()
    assert f"{owner.st_uid}:{owner.st_gid}" == user


def test_two_training_steps_on_a_read_only_root(cpu: str) -> None:
    code, said = ran(Setting(cpu, ("smoke",), offline=True))
    assert code == 0, said
    assert "2 steps, loss finite" in said


def test_reproduce_in_short_form(cpu: str, runs: Path) -> None:
    """What `make reproduce-ktr` runs, with few steps; the record names the image's commit."""
    words = ("reproduce", "ktr", "--steps", "2", "--seeds", "0", "--arms", "ktr", "--limit", "16")
    code, said = ran(Setting(cpu, words, runs=runs))
    assert code == 0, said
    record = json.loads((runs / "ktr-micro" / "ktr-s0" / "record.json").read_text())
    assert len(record["git"]["commit"]) == 40
    assert all(p.stat().st_uid == os.getuid() for p in runs.rglob("*"))


def test_exit_codes_pass_through(cpu: str) -> None:
    assert ran(Setting(cpu, ("reproduce", "ktr", "--profile", "none")))[0] == 2
    assert ran(Setting(cpu, ("train", "ktr", "--profile", "paper", "--out", "/tmp/x")))[0] == 4


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_leaves_a_valid_checkpoint(
    cpu: str, runs: Path, how: signal.Signals
) -> None:
    words = ("train", "ktr", "--steps", "40", "--out", "/runs/stopped", "--resume")
    process = ours("--image", cpu, "--runs", str(runs), "--cache", str(runs / "hf"), "--", *words)
    metrics = runs / "stopped" / "metrics.jsonl"
    end = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.5)
    process.send_signal(how)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 128 + how, said
    assert "run the same command again" in said
    saved = sorted((runs / "stopped").glob("checkpoint-*"))
    assert saved and (saved[-1] / "model.safetensors").stat().st_size > 0
    step = int(saved[-1].name.partition("-")[2])
    code, said = ran(Setting(cpu, (*words[:3], str(step + 1), *words[4:]), runs=runs))
    assert code in (0, 2), said  # 2: another --steps is another recipe
    with container.engine() as client:
        assert not client.containers.list(all=True), "nothing is left behind"


def test_what_the_image_is_made_of(cpu: str) -> None:
    shared = "/opt/reelproof"
    code, said = ran(Setting(cpu, (f"{shared}/sbom.cdx.json",), entrypoint=("cat",)))
    assert code == 0
    sbom = json.loads(said)
    assert sbom["bomFormat"] == "CycloneDX"
    places = {c["purl"].split("@")[0] for c in sbom["components"] if "purl" in c}
    assert {"pkg:pypi/torch", "pkg:pypi/transformers", "pkg:deb/debian/libc6"} <= places
    code, said = ran(Setting(cpu, (f"{shared}/LICENCES.txt",), entrypoint=("cat",)))
    assert code == 0 and "click 8" in said and "BSD" in said


def test_what_the_engine_knows_of_it(cpu: str) -> None:
    with container.engine() as client:
        found = client.images.get(cpu)
        config = found.attrs["Config"]
        history = json.dumps(found.history())
    assert config["User"] == "65532:65532" and config["StopSignal"] == "SIGTERM"
    assert set(config["Volumes"]) == {"/cache", "/runs"}
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "PIP_" not in history, "where packages came from is not kept"
    assert not [line for line in config["Env"] if "TOKEN" in line or "KEY" in line]


def test_a_missing_image_and_a_missing_runtime(cpu: str) -> None:
    from evals.errors import EnvironmentFault

    with pytest.raises(EnvironmentFault, match="repro container build"):
        container.run(Setting("reelproof:none", ()))
    if not Path("/usr/bin/nvidia-container-runtime").exists():
        with pytest.raises(EnvironmentFault, match="nvidia-container-toolkit"):
            container.run(Setting(cpu, ("--help",), gpus="all"))
