"""evals.fetch: one commit from a hub, continued where it stopped; a branch is refused.

The hub is a small server in this process that speaks the few requests huggingface_hub makes; the
client is the real one, in a process of its own since it reads HF_ENDPOINT when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from evals import fetch
from evals.errors import BadInput
from evals.verify import verify

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "yale-nlp/MMVU"
CLIP = bytes(range(256)) * 4096  # 1 MiB
FILES = {
    "validation.json": b"[]",
    "videos/Art/0.mp4": CLIP,
    "videos/Art/1.mp4": CLIP[::-1],
    "README.md": b"not asked for",
}


class Hub(BaseHTTPRequestHandler):
    """GET /api/datasets/REPO/revision/COMMIT, HEAD and GET /datasets/REPO/resolve/COMMIT/FILE."""

    protocol_version = "HTTP/1.1"
    sent: ClassVar[Counter[str]] = Counter()  # bytes of each file
    cut: ClassVar[set[str]] = set()  # files whose next download breaks off half way

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith(f"/api/datasets/{REPO}/") and COMMIT in path:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            tree = [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40}
                    for n, d in FILES.items()]  # fmt: skip
            info = {"id": REPO, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
            return self.send(json.dumps(tree if "/tree/" in path else info).encode(), body)
        head = f"/datasets/{REPO}/resolve/{COMMIT}/"
        name = path.removeprefix(head)
        if not path.startswith(head) or name not in FILES:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self.send(FILES[name], body, name)

    def send(self, data: bytes, body: bool, name: str = "") -> None:
        start = 0
        if (asked := self.headers.get("Range", "")).startswith("bytes="):
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Type", "application/json")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if name:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            part = data[start:]
            if name in self.cut:
                self.cut.discard(name)
                part = part[: len(part) // 2]
                self.close_connection = True
            self.wfile.write(part)
            self.sent[name] += len(part)


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.sent, Hub.cut = Counter(), set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def repro(hub: str, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(root.parent / "hf"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "repro.cli", "data", "fetch", "mmvu", "--root", str(root)]
    return subprocess.run(
        [*command, *words], env=environment, capture_output=True, text=True, timeout=120
    )


def test_fetches_what_the_card_names_once(hub: str, tmp_path: Path) -> None:
    root = tmp_path / "mmvu"
    done = repro(hub, root, "--revision", COMMIT)
    assert (done.returncode, done.stdout) == (0, f"{root}\n"), done.stderr
    found = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*")
             if p.is_file() and ".cache" not in p.parts}  # fmt: skip
    assert found == {name: data for name, data in FILES.items() if name != "README.md"}
    sent = Hub.sent.copy()
    assert repro(hub, root, "--revision", COMMIT).returncode == 0
    assert {n: Hub.sent[n] - sent[n] for n in FILES} == dict.fromkeys(FILES, 0)
    assert "hash" not in {f.check for f in verify("mmvu", root, videos=False).findings}
    (root / "videos/Art/1.mp4").write_bytes(CLIP)  # changed afterwards: the hash says so
    report = verify("mmvu", root, videos=False)
    assert "hash" in {f.check for f in report.findings} and report.revision == COMMIT


def test_continues_where_it_stopped(hub: str, tmp_path: Path) -> None:
    root = tmp_path / "mmvu"
    Hub.cut.add("videos/Art/0.mp4")
    first = repro(hub, root, "--revision", COMMIT)
    if first.returncode:  # else the client itself has already continued
        assert first.returncode == 4 and "run the command again to continue" in first.stderr
        assert repro(hub, root, "--revision", COMMIT).returncode == 0
    assert (root / "videos/Art/0.mp4").read_bytes() == CLIP
    assert Hub.sent["videos/Art/0.mp4"] < 1.6 * len(CLIP)  # not from the beginning again


def test_what_the_hub_does_not_have(hub: str, tmp_path: Path) -> None:
    done = repro(hub, tmp_path / "mmvu", "--revision", "f" * 40)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"has no commit {'f' * 40}" in done.stderr


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    done = repro("http://127.0.0.1:9", tmp_path / "mmvu", "--revision", COMMIT)
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: the hub cannot be reached")


@pytest.mark.parametrize("revision", ["main", "v1.0", "b937f41", "B" * 40, "refs/pr/1", " "])
def test_only_a_commit_will_do(revision: str) -> None:
    with pytest.raises(BadInput, match="is no commit; write the 40 hex digits"):
        fetch.commit("mmvu", revision)


def test_without_a_checked_commit_one_must_be_named() -> None:
    with pytest.raises(BadInput, match=r"choose one with --revision.*newest seen.*b937f41"):
        fetch.commit("mmvu", None)
    assert fetch.commit("mmvu", COMMIT) == COMMIT


def test_what_is_not_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"take it from https://github\.com/doc-doc/NExT-GQA"):
        fetch.fetch("nextgqa", tmp_path, COMMIT)
