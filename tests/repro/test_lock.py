"""Commits are looked up on a hub and on GitHub (two small servers), kept, and put into recipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from evals.errors import BadInput
from repro import lock, needs
from repro.lock import Pin
from repro.recipe import UNRESOLVED, Recipe, papers

SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


class Servers(BaseHTTPRequestHandler):
    """The hub's repo_info, GitHub's commits and contents; all repositories are at one commit."""

    asked: ClassVar[list[str]] = []
    sha = SHA
    missing: ClassVar[str] = ""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        code, data = 200, dict[str, Any]()
        if self.missing and self.missing in path:
            code = 404
        elif path.startswith("/api/"):
            name = path.split("/", 3)[3]
            files = [{"rfilename": "a", "size": 2**30}, {"rfilename": "b", "size": 5}]
            data = {"id": name, "sha": self.sha, "tags": [], "private": False, "siblings": files}
        elif "/commits/" in path:
            data = {"sha": self.sha}
        else:
            data = {"size": 9_101_920}
        body = json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        if code == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[str]:
    Servers.asked, Servers.sha, Servers.missing = [], SHA, ""
    running = ThreadingHTTPServer(("127.0.0.1", 0), Servers)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return Path(shutil.copy(papers()["ktr"], tmp_path / "recipe.yaml"))


def repro(server: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "HF_ENDPOINT": server, "GITHUB_API_URL": server,
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "repro.cli", *words], env=environment, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


def test_everything_is_looked_up_once_and_kept(server: str, recipe: Path) -> None:
    before = Recipe.load(recipe, "paper")
    assert UNRESOLVED in (before.model.revision, before.data.revision)
    with pytest.raises(BadInput, match=r"names no commit of model:Video-R1/.*repro data lock"):
        needs.require_resolved(before, ("train",))
    done = repro(server, "data", "lock", str(recipe))
    assert done.returncode == 0, done.stderr
    assert "1.0 GiB" in done.stdout and str(recipe.with_name("lock.json")) in done.stdout
    after = Recipe.load(recipe, "paper")
    assert after.scoring and after.sft
    revisions = (after.model.revision, after.data.revision, after.scoring.revision,
                 after.sft.model.revision, after.sft.data.revision)  # fmt: skip
    assert set(revisions) == {SHA}
    assert after.fingerprint != before.fingerprint
    for stage in ("score-released", "sft", "train", "eval"):
        needs.require_resolved(after, (stage,))
    sizes = {need.key: need.bytes for need in needs.needs(after)}
    assert sizes["model:Video-KTR/Video-KTR-7B"] == 2**30 + 5
    assert next(n for key, n in sizes.items() if key.startswith("github:")) == 9_101_920
    asked = len(Servers.asked)
    Servers.sha = OTHER
    assert repro(server, "data", "lock", str(recipe)).returncode == 0
    assert len(Servers.asked) == asked and Recipe.load(recipe, "paper").model.revision == SHA
    assert repro(server, "data", "lock", str(recipe), "--update").returncode == 0
    assert Recipe.load(recipe, "paper").model.revision == OTHER


def test_what_is_not_there_and_a_server_that_does_not_answer(server: str, recipe: Path) -> None:
    Servers.missing = "Video-KTR-7B"
    done = repro(server, "data", "lock", str(recipe))
    assert done.returncode == 2 and "model:Video-KTR/Video-KTR-7B is not on the hub" in done.stderr
    done = repro("http://127.0.0.1:9", "data", "lock", str(recipe))
    assert done.returncode == 4, done.stderr
    assert "network access and copy lock.json here" in done.stderr
    assert not recipe.with_name("lock.json").exists()


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"a": 1}', '{"a": {"revision": "main", "bytes": 1}}', '{"a": {}}']
)
def test_a_lock_that_is_none(recipe: Path, text: str) -> None:
    recipe.with_name("lock.json").write_text(text)
    with pytest.raises(BadInput, match=r"lock.json"):
        Recipe.load(recipe, "paper")


def test_keys() -> None:
    assert lock.key_of("dataset", "a/b") == "dataset:a/b"
    assert lock.key_of("dataset", "github:a/b/c@d") == "github:a/b/c@d"
    assert lock.resolve(["x"], {"x": Pin(SHA, None)}) == {"x": Pin(SHA, None)}
    with pytest.raises(BadInput, match="should read github:OWNER/NAME/PATH@REF"):
        lock.resolve(["github:nothing"], {})


def test_the_micro_profile_needs_nothing() -> None:
    micro = Recipe.load("ktr")
    assert [n.key for n in needs.needs(micro)] == []
    needs.require_resolved(micro, ("train", "eval"))
