"""The cpu image on a real engine: what the first screen of the README promises."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evals import vlm
from evals.errors import EnvironmentFault
from repro import container, machine
from repro.container import Setting
from repro.core import checkpoint
from tests.container.conftest import asked, started

pytestmark = [pytest.mark.container, pytest.mark.timeout(3600)]
FILED = machine.ROOT / "results" / "runs"


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


# --- stopped, and continued ---------------------------------------------------------------------

STEPS = 8
TRAIN = ("train", "ktr", "--steps", str(STEPS), "--out", "/runs/stopped", "--resume")


def learnt(runs: Path) -> list[int]:
    """The steps that metrics.jsonl has lines of, as they stand there."""
    path = runs / "stopped" / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line)["step"] for line in lines]


def wait_for_steps(runs: Path, count: int, alive: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while len(learnt(runs)) < count:
        assert alive() and time.monotonic() < end, "it ended before it was stopped"
        time.sleep(0.2)


def goes_on(cpu: str, runs: Path) -> None:
    """The checkpoint loads, and the very same command ends the run: no step lost, none twice."""
    saved = checkpoint.latest(runs / "stopped")
    assert saved is not None
    step = checkpoint.step_of(saved)
    assert 2 <= step < STEPS, "stopped early enough"
    assert vlm.load(saved).model.config.model_type == "qwen2_5_vl"
    code, said = ran(Setting(cpu, TRAIN, runs=runs))
    assert code == 0, said
    assert learnt(runs) == list(range(1, STEPS + 1)), "no step twice and none left out"
    assert (runs / "stopped" / "final" / "model.safetensors").is_file()
    assert ran(Setting(cpu, TRAIN, runs=runs))[0] == 0, "finished: nothing to do"
    assert learnt(runs) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_goes_on_where_it_stopped(
    cpu: str, runs: Path, how: signal.Signals
) -> None:
    """Ctrl-C (130) or SIGTERM (143) to `repro container run`."""
    process = ours("--image", cpu, "--runs", str(runs), "--cache", str(runs / "hf"), "--", *TRAIN)
    wait_for_steps(runs, 2, lambda: process.poll() is None)
    process.send_signal(how)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 128 + how, said
    assert "run the same command again" in said
    with container.engine() as client:
        assert not client.containers.list(all=True), "nothing is left behind"
    goes_on(cpu, runs)


def test_docker_stop_saves_too(cpu: str, runs: Path) -> None:
    """What a cluster does: STOPSIGNAL to the container's first process, which ends with 143."""
    started = docker("run", "--detach", "--user", f"{os.getuid()}:{os.getgid()}",
                     "--volume", f"{runs}:/runs", cpu, *TRAIN)  # fmt: skip
    name = started.stdout.strip()
    try:
        inspect = ("inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", name)
        wait_for_steps(runs, 2, lambda: docker(*inspect).stdout.startswith("true"))
        docker("stop", "--time", "120", name)
        assert docker(*inspect).stdout.strip() == "false 143", docker("logs", name).stderr
    finally:
        docker("rm", "--force", "--volumes", name)
    goes_on(cpu, runs)


# --- as the README's first screen has it --------------------------------------------------------


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The client, as a user types it."""
    return subprocess.run(["docker", *words], check=check, capture_output=True, text=True)


def test_plain_docker_run(cpu: str, runs: Path) -> None:
    assert "profile micro can run here" in docker("run", "--rm", cpu, "doctor").stdout
    ask = ("eval", "--benchmark", "microworld", "--model", "oracle", "--split", "validation",
           "--out", "/runs/gate")  # fmt: skip
    tight = ("--user", "12345:0", "--network", "none", "--read-only", "--tmpfs", "/tmp",
             "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # fmt: skip
    docker("run", "--rm", *tight, "--volume", f"{runs}:/runs", cpu, *ask)
    assert (runs / "gate" / "record.json").stat().st_uid == 12345
    # A gate compares runs of the same weights, and an oracle has none.
    filed = FILED / "ktr/microworld/cold-s0-greedy"
    mounts = ("--volume", f"{filed}:/before:ro", "--volume", f"{filed}:/after:ro")
    gate = docker("run", "--rm", *mounts, cpu, "gate", "/after", "--baseline", "/before")
    assert "gate: ok" in gate.stdout


def test_the_ledger_in_a_container(cpu: str, runs: Path) -> None:
    """Without a volume the runs that the image carries; with one, what is filed goes there."""
    code, said = ran(Setting(cpu, ("verify",), offline=True))
    assert code == 0 and "0 differences" in said, said
    shutil.copytree(FILED / "ktr/microworld/cold-s0-greedy", runs / "mine")
    code, said = ran(Setting(cpu, ("ledger", "add", "/runs/mine"), runs=runs))
    assert code == 0 and "filed: /runs/ktr/microworld/cold-s0-greedy" in said, said
    assert (runs / "ktr/microworld/cold-s0-greedy/record.json").stat().st_uid == os.getuid()


def test_a_full_volume(cpu: str, runs: Path) -> None:
    """One that holds the first lines of a training and no checkpoint."""
    if os.getuid() != 0:
        pytest.skip("only root can make a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(runs)], check=True)
    try:
        code, said = ran(
            Setting(cpu, ("train", "ktr", "--steps", "1", "--out", "/runs/x"), runs=runs)
        )
    finally:
        subprocess.run(["umount", str(runs)], check=True)
    assert code == 4 and "no space left on the disk" in said, said
    assert "Traceback" not in said


# --- what it is ---------------------------------------------------------------------------------


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
    labels = {name.rpartition(".")[2]: said for name, said in config["Labels"].items()}
    assert labels["title"] == "reelproof cpu" and labels["licenses"] == "Apache-2.0"
    assert labels["revision"].removesuffix("-dirty") == machine.git()["commit"]
    assert labels["created"] == machine.committed_at() and labels["source"] == machine.origin()
    assert "REPRO_RUNS=/runs" in config["Env"]
    assert "PIP_" not in history, "where packages came from is not kept"
    assert not [line for line in config["Env"] if "TOKEN" in line or "KEY" in line]


def test_our_code_in_it_is_what_git_tracks(cpu: str) -> None:
    """No key, cache or run that lay around came along."""
    look = ("-c", "cd /opt/reelproof && find . -type f -not -name '*.pyc' -printf '%P\\n'")
    code, said = ran(Setting(cpu, look, entrypoint=("sh",)))
    assert code == 0, said
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=machine.ROOT,
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    made = {line for line in said.splitlines() if "-info/" not in line} - set(tracked)
    assert made == {"sbom.cdx.json", "LICENCES.txt"}  # and the name and version: *-info


def test_a_missing_image_and_a_missing_runtime(cpu: str) -> None:
    with pytest.raises(EnvironmentFault, match="repro container build"):
        container.run(Setting("reelproof:none", ()))
    if not Path("/usr/bin/nvidia-container-runtime").exists():
        with pytest.raises(EnvironmentFault, match="nvidia-container-toolkit"):
            container.run(Setting(cpu, ("--help",), gpus="all"))


def test_an_engine_whose_disk_is_full(tmp_path: Path) -> None:
    """A second engine on a file system of 64 MiB: the image fits, a container's copy does not."""
    if os.getuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("only root can start an engine, and only where dockerd is installed")
    small = tmp_path / "data"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small)], check=True)
    try:
        (tmp_path / "filling").write_bytes(os.urandom(24 << 20))
        with started(tmp_path, "--storage-driver=vfs") as host, asked(host):
            tar = subprocess.run(["tar", "-C", str(tmp_path), "-c", "filling"],
                                 check=True, capture_output=True).stdout  # fmt: skip
            subprocess.run(["docker", "import", "-", "full:1"], input=tar, check=True)
            with pytest.raises(EnvironmentFault, match="disk is full: docker system df"):
                container.run(Setting("full:1", ("x",)))
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
