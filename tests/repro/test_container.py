"""What `repro container` asks the engine for, and how it reads what the engine complains about."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from docker.errors import APIError, ImageNotFound

from evals.errors import BadInput, EnvironmentFault
from repro import container, image, machine
from repro.cli import cli
from repro.container import Base, Setting, bases, explain, options

DIGEST = "sha256:" + "a" * 64


def mounts(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(m["Source"], m["Target"], m["ReadOnly"]) for m in found["mounts"]]


def test_a_container_may_do_little_and_writes_as_the_caller(tmp_path: Path) -> None:
    found = options(Setting("reelproof:cpu", ("doctor",), runs=tmp_path, cache=tmp_path / "hf"))
    assert found["user"] == f"{os.getuid()}:{os.getgid()}"
    assert found["cap_drop"] == ["ALL"] and found["security_opt"] == ["no-new-privileges"]
    assert found["read_only"] and "exec" in found["tmpfs"]["/tmp"]
    assert mounts(found) == [
        (str(tmp_path), "/runs", False), (str(tmp_path / "hf"), "/cache/hf", False)
    ]  # fmt: skip
    assert found["shm_size"] == "16g"
    assert not found.keys() & {"privileged", "network_mode", "device_requests", "ipc_mode"}


def test_offline_is_offline_twice() -> None:
    found = options(Setting("x", (), offline=True))
    assert found["network_mode"] == "none" and found["environment"] == {"HF_HUB_OFFLINE": "1"}


def test_gpus_memory_and_data(tmp_path: Path) -> None:
    model = tmp_path / "model"
    found = options(
        Setting("x", (), gpus="all", ipc="host", data=tmp_path, model=model, user="12345:0")
    )
    assert found["device_requests"] == [
        {"Driver": "nvidia", "Capabilities": [["gpu"]], "Count": -1}
    ]
    assert found["ipc_mode"] == "host" and "shm_size" not in found and found["user"] == "12345:0"
    assert mounts(found) == [(str(tmp_path), "/data", True), (str(model), "/model", True)]
    assert found["environment"] == {"REELPROOF_DATA": "/data"}
    (some,) = options(Setting("x", (), gpus="0,2"))["device_requests"]
    assert some["DeviceIDs"] == ["0", "2"] and "Count" not in some


def test_variables_pass_by_name_alone() -> None:
    given = {"HF_TOKEN": "hf_x"}
    found = options(Setting("x", (), env=("HF_TOKEN",)), given)
    assert found["environment"] == given
    with pytest.raises(BadInput, match="process list") as caught:
        options(Setting("x", (), env=("HF_TOKEN=hf_secret",)), given)
    assert "hf_secret" not in str(caught.value)
    with pytest.raises(BadInput, match="HF_HOME: this variable is not set"):
        options(Setting("x", (), env=("HF_HOME",)), given)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "nvidia-ctk"),
        ("failed to discover GPU vendor from CDI: no known GPU vendor found", "nvidia-ctk"),
        ("nvidia-container-cli: initialization error: load library failed", "nvidia-ctk"),
        ("requirement error: unsatisfied condition: cuda>=13.0, please update", "driver 580"),
        ("write /var/lib/docker/tmp/x: no space left on device", "docker system prune"),
        ("dial tcp: lookup registry: no such host", "cannot reach the registry"),
        ("something new", "the Docker engine says: something new"),
    ],
)
def test_complaints_become_sentences(said: str, sentence: str) -> None:
    assert sentence in explain(APIError("500 Server Error", explanation=said))


def test_a_missing_image_names_the_command() -> None:
    found = explain(ImageNotFound("404", explanation="No such image: reelproof:eval"))
    assert "repro container build" in found and "reelproof:eval" in found


@pytest.mark.parametrize("words", [("run", "--", "doctor"), ("smoke",), ("lock",)])
def test_without_an_engine_one_sentence(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    done = CliRunner().invoke(cli, ["container", *words])
    assert done.exit_code == 4
    assert done.stderr.strip().count("\n") == 0 and "systemctl start docker" in done.stderr


#: Loads what the SDK loads while it may still read it, then asks as somebody else.
FOREIGNER = """
import os, sys
from evals.errors import EnvironmentFault
from repro.container import engine

for host, user in ((sys.argv[1] + ".no", 0), (sys.argv[1], 12345)):
    os.environ["DOCKER_HOST"] = "unix://" + host
    os.setuid(user)
    try:
        with engine() as client:
            client.ping()
    except EnvironmentFault as error:
        print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="another user's socket: only root can make one")
def test_an_engine_that_is_not_there_and_one_that_one_may_not_use(tmp_path: Path) -> None:
    """A real socket of root, and a process that has become somebody else."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    place = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        place.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", FOREIGNER, str(place)], capture_output=True, text=True,
            cwd=machine.ROOT, timeout=60,
        )  # fmt: skip
    absent, refused = done.stdout.splitlines()
    assert absent.startswith("no Docker engine answers: ") and "systemctl start docker" in absent
    assert refused.startswith("you may not use the Docker engine: ") and "usermod" in refused


def test_an_engine_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "docker.sock"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        with (
            pytest.raises(EnvironmentFault, match=r"no answer|no Docker engine answers"),
            container.engine(patience=0.5) as client,
        ):
            client.ping()


# --- the bases ----------------------------------------------------------------------------------


def test_a_base_carries_its_digest() -> None:
    assert Base("X", "debian:12", DIGEST).reference == f"debian:12@{DIGEST}"
    assert Base("X", "debian:12", "unresolved").reference == "debian:12"
    assert {base.argument for base in bases()} == {"CPU_BASE", "EVAL_BASE", "TRAIN_BASE"}


@pytest.mark.parametrize(
    "text", ["X:\n  tag: a:1\n", "X: a:1\n", "X:\n  tag: a:1\n  digest: sha256:abc\n"]
)
def test_a_broken_lock(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bases.lock"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"bases\.lock: X"):
        bases(path)


@pytest.mark.parametrize("target", ["cpu", "eval", "train"])
def test_no_release_on_an_unpinned_base(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image.machine, "git", lambda: {"commit": "a" * 40, "dirty": False})
    monkeypatch.setattr(
        container, "bases", lambda: tuple(Base(b.argument, b.tag, "unresolved") for b in bases())
    )
    with pytest.raises(BadInput, match="repro container lock"):
        image.build(target, release=True)


def test_no_release_from_a_changed_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image.machine, "git", lambda: {"commit": "a" * 40, "dirty": True})
    monkeypatch.setattr(
        container, "bases", lambda: tuple(Base(b.argument, b.tag, DIGEST) for b in bases())
    )
    with pytest.raises(BadInput, match="local changes"):
        image.build("cpu", release=True)


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("https://me:token@github.com/lab/suite.git", "https://github.com/lab/suite"),
        ("git@github.com:lab/suite.git", "https://github.com/lab/suite"),
        ("ssh://git@host.example/lab/suite", "https://host.example/lab/suite"),
        ("/srv/suite", ""),
    ],
)
def test_an_image_says_where_its_source_is(
    said: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.origin() == "" == machine.committed_at()
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", said], check=True)
    assert machine.origin() == address


def test_what_the_client_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for docker writes down its arguments; no value of a secret is among them."""
    words = tmp_path / "words"
    (tmp_path / "docker").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$DOCKER_BUILDKIT" "$@" > {words}\n'
    )
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in (*image.PIP, "DOCKER_BUILDKIT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://me:hunter2@x.example/simple\n"
    )
    assert (
        image.build("eval", pip_conf=tmp_path / "pip.conf", say=lambda _: None) == "reelproof:eval"
    )
    told = words.read_text().splitlines()
    assert told[0] == "1" and "hunter2" not in words.read_text()
    assert f"id=pip.conf,src={tmp_path / 'pip.conf'}" in told
    assert any(re.fullmatch(r"CREATED=\d{4}-\d\d-\d\dT.*", w) for w in told)
    assert image.build("cpu", say=lambda _: None) == "reelproof:cpu"
    assert words.read_text().splitlines()[0] == "0", "without BuildKit"


# --- where a build's packages come from ---------------------------------------------------------


def test_a_folder_of_wheels_is_served_while_the_build_runs(tmp_path: Path) -> None:
    (tmp_path / "x-1-py3-none-any.whl").write_bytes(b"wheel")
    with image.sources({"PIP_FIND_LINKS": str(tmp_path), "PIP_INDEX_URL": ""}) as (pip, local):
        assert local and set(pip) == {"PIP_FIND_LINKS"}
        place = pip["PIP_FIND_LINKS"]
        assert place.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(place + "x-1-py3-none-any.whl") as answer:
            assert answer.read() == b"wheel"
    with pytest.raises(OSError):
        urllib.request.urlopen(place, timeout=2)
    with image.sources({"PIP_FIND_LINKS": str(tmp_path)}) as (again, _):
        assert again["PIP_FIND_LINKS"] == place, "another address would miss the build's cache"


def test_addresses_pass_through() -> None:
    given = {"PIP_EXTRA_INDEX_URL": "https://packages.example/simple", "HOME": "/root"}
    with image.sources(given) as (pip, local):
        assert pip == {"PIP_EXTRA_INDEX_URL": given["PIP_EXTRA_INDEX_URL"]} and not local


def test_a_password_is_not_built_in() -> None:
    given = {"PIP_INDEX_URL": "https://me:hunter2@packages.example/simple"}
    with pytest.raises(BadInput, match="--pip-conf") as caught, image.sources(given):
        pass
    assert "hunter2" not in str(caught.value)


def test_without_a_client_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="docker client is missing"):
        image.build("cpu", say=lambda text: None)
