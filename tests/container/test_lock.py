"""`repro container lock` against a real registry on the loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.errors import EnvironmentFault
from repro import container
from tests.container.conftest import Engine

pytestmark = [pytest.mark.container, pytest.mark.timeout(3600)]  # the engine's end counts too

CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "config.yml").write_text(CONFIG.format(folder=tmp_path / "store", port=port))
    with subprocess.Popen(
        ["docker-registry", "serve", str(tmp_path / "config.yml")], stderr=subprocess.DEVNULL
    ) as process:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        process.terminate()


def locked(tag: str, folder: Path) -> Path:
    path = folder / "bases.lock"
    path.write_text(f"# kept\nCPU_BASE:\n  tag: {tag}\n  digest: unresolved\n")
    return path


def test_a_digest_is_asked_for_and_written(engine: Engine, registry: str, tmp_path: Path) -> None:
    tag = f"{registry}/base:1"
    made = tmp_path / "empty.tar"
    subprocess.run(["tar", "-cf", str(made), "-T", "/dev/null"], check=True)
    subprocess.run(["docker", "import", str(made), tag], check=True)
    pushed = subprocess.run(["docker", "push", tag], check=True, capture_output=True, text=True)
    path = locked(tag, tmp_path)
    (base,) = container.lock(path)
    assert base.digest in pushed.stdout and base.reference == f"{tag}@{base.digest}"
    assert container.bases(path) == (base,) and path.read_text().startswith("# kept\n")
    subprocess.run(["docker", "pull", base.reference], check=True)
    subprocess.run(["docker", "rmi", tag], check=True, capture_output=True)


def test_a_registry_that_is_not_there(engine: Engine, tmp_path: Path) -> None:
    path = locked("127.0.0.1:9/base:1", tmp_path)
    before = path.read_text()
    with pytest.raises(EnvironmentFault, match="cannot reach the registry"):
        container.lock(path)
    assert path.read_text() == before
