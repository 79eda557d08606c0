"""A real engine: the one that answers here, else one started by hand where root may do that.

The one by hand keeps images as the kernel lets it (overlay2, else vfs: plain folders, a copy each),
or as $DOCKER_DRIVER says, and gives containers no network of their own but the host's; its base
image is a Debian made by debootstrap. It ends with the tests, and so does what it stored.

    DOCKER_DRIVER=vfs make test-container
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SUITE = "bookworm"
ROOM = 25 * 2**30  # bytes; what an engine that copies every layer needs for one target
AUTHORITIES = Path("/usr/local/share/ca-certificates")  # added to the system's own


@dataclass(frozen=True)
class Engine:
    """base: the image that the cpu target stands on, None for the lock's own."""

    host: str
    base: str | None


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if _answers(None):
        yield Engine(os.environ.get("DOCKER_HOST", ""), None)
        return
    for wanted in ("dockerd", "debootstrap", "docker"):
        if shutil.which(wanted) is None:
            pytest.skip(f"no Docker engine answers, and {wanted} is not installed to start one")
    if os.getuid() != 0:
        pytest.skip("no Docker engine answers, and only root may start one")
    if shutil.disk_usage(tempfile.gettempdir()).free < ROOM:
        pytest.skip(f"no Docker engine answers, and {ROOM / 2**30:.0f} GiB are not free for one")
    with tempfile.TemporaryDirectory(prefix="reelproof-engine-") as place:
        yield from _by_hand(Path(place))


def _answers(host: str | None) -> bool:
    environ = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
    try:
        run = subprocess.run(["docker", "info"], env=environ, capture_output=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0


def _by_hand(place: Path) -> Iterator[Engine]:
    with started(place) as host, asked(host):
        yield Engine(host, _debian(place))


@contextmanager
def asked(host: str) -> Iterator[None]:
    """Meanwhile the client and the SDK speak to this engine."""
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    try:
        yield
    finally:
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before


@contextmanager
def started(place: Path, *flags: str) -> Iterator[str]:
    """An engine that keeps everything below `place`; its address. Skips where none starts."""
    host = f"unix://{place}/docker.sock"
    command = [
        "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none",
        "--data-root", str(place / "data"), "--exec-root", str(place / "exec"),
        "--pidfile", str(place / "pid"), "-H", host, *flags,
    ]  # fmt: skip
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while not _answers(host):
            if daemon.poll() is not None or time.monotonic() > end:
                said = (place / "log").read_text().splitlines()[-3:]
                pytest.skip("dockerd does not start here: " + " | ".join(said))
            time.sleep(0.5)
        yield host
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        # The engine leaves the host's network name space mounted here.
        subprocess.run(["umount", str(place / "exec/netns/default")], capture_output=True)


def _debian(place: Path) -> str:
    """A base image from this machine's own package source; it trusts whom this machine trusts."""
    tree, name = place / "rootfs", f"reelproof-test/debian:{SUITE}"
    subprocess.run(
        ["debootstrap", "--variant=minbase", SUITE, str(tree)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    if AUTHORITIES.is_dir():
        shutil.copytree(AUTHORITIES, tree / AUTHORITIES.relative_to("/"), dirs_exist_ok=True)
    with subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", name], stdin=tar.stdout, check=True)
    shutil.rmtree(tree)
    return name


@pytest.fixture(scope="session")
def cpu(engine: Engine) -> str:
    """The cpu target, built."""
    from repro.image import build

    base = {"CPU_BASE": engine.base} if engine.base else None
    return build("cpu", network="host" if engine.base else "default", base=base)
