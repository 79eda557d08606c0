"""What SECURITY.md promises, each rule held against the whole tree or against the real thing.

Elsewhere: archives in evals/test_archive.py; videos in evals/test_video.py and test_decoding.py;
the report in results/test_report.py and test_browser.py; images in test_dockerfile.py, container/.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from evals.errors import BadInput, EnvironmentFault
from repro.tiny import build

ROOT = Path(__file__).resolve().parent.parent
OURS = ("repro", "evals", "results", "requirements", "docker")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@cache
def trees() -> dict[str, ast.Module]:
    """File of the project -> its syntax, tests left out."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for package in OURS
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """(file:line, what is called, its keywords) of every call."""
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                named = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
                yield f"{file}:{node.lineno}", ast.unparse(node.func), named


# --- no code out of data ------------------------------------------------------------------------


def test_nothing_is_unpickled() -> None:
    """torch.load and numpy read pickles too."""
    for file, tree in trees().items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = {name.split(".")[0] for name in names}
            assert not found & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve",
                                "marshal"}, f"{file}:{node.lineno}"  # fmt: skip
    for where, name, words in calls():
        assert name != "torch.load" or words.get("weights_only") == "True", where
        assert name != "torch.save", where
        assert words.get("allow_pickle", "False") == "False", where


def test_no_text_is_run() -> None:
    for where, name, words in calls():
        assert name not in ("eval", "exec", "compile", "__import__", "os.system"), where
        assert words.get("shell", "False") == "False", where
        safe = name != "yaml.load" or words["Loader"] in ("_UniqueKeys", "_Text")  # SafeLoaders
        assert safe and name != "yaml.unsafe_load", where


def test_no_code_of_a_checkpoint_is_run() -> None:
    for where, name, words in calls():
        assert words.get("trust_remote_code", "False") == "False", where
        if re.search(r"Auto\w+\.from_pretrained$", name):
            assert words.get("trust_remote_code") == "False", where


def test_weights_come_from_safetensors_only() -> None:
    for where, name, words in calls():
        if name.endswith("from_pretrained") and "output_loading_info" in words:
            assert words.get("use_safetensors") == "True", where


def test_a_checkpoint_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    import torch

    from evals import vlm

    shutil.copytree(build.HERE / "ktr", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(BadInput, match="no weights as safetensors"):
        vlm.load(tmp_path / "model")


def test_a_checkpoint_that_brings_code_does_not_run_it(tmp_path: Path) -> None:
    from evals import vlm

    folder = shutil.copytree(build.HERE / "ktr", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert vlm.load(folder).model.config.model_type == "qwen2_5_vl"
    assert not (tmp_path / "ran").exists()


def test_tars_are_unpacked_with_the_data_filter() -> None:
    for where, name, words in calls():
        assert not name.endswith(".extract"), where
        if name.endswith(".extractall"):
            assert words.get("filter") == "'data'", where


# --- what is fetched, and who may connect -------------------------------------------------------


def test_data_are_fetched_by_commit() -> None:
    from evals import benchmarks

    asked = [(where, words) for where, name, words in calls() if "snapshot_download" in name]
    assert asked and all("revision" in words for _, words in asked)
    for name in benchmarks.OWNED:
        assert re.fullmatch(r"[0-9a-f]{40}|unresolved", benchmarks.card(name).revision), name
    for path in sorted((ROOT / "repro").glob("*/recipe.yaml")):
        for revision in re.findall(r"revision: +\{value: (\w+)", path.read_text()):
            assert re.fullmatch(r"[0-9a-f]{40}|unresolved|null", revision), path


def test_servers_listen_on_the_loopback() -> None:
    servers = 0
    for where, name, _ in calls():
        servers += name.endswith("HTTPServer")
        assert not name.endswith(("TCPServer", ".bind")), where
    text = {file: (ROOT / file).read_text() for file in trees()}
    assert not [file for file, said in text.items() if "0.0.0.0" in said or '"::"' in said]
    bound = sum(said.count('HTTPServer(("127.0.0.1", ') for said in text.values())
    assert servers == bound


# --- secrets ------------------------------------------------------------------------------------

KEY = "sk-reelproof-not-a-real-key"


@pytest.fixture
def rude() -> Iterator[str]:
    """A server that answers every request with an error that repeats the key it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = f"no such key: {self.headers.get('Authorization', '')}".encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server that sends every request on to another one, and the keys that one is shown."""
    seen: list[str] = []

    class Thief(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.headers.get('Authorization')}")
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    class Sends(Thief):
        def do_POST(self) -> None:
            code, place = self.path.split("/")[1], f"http://127.0.0.1:{thief.server_port}/x"
            self.send_response(int(code))
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Thief) as thief,
        ThreadingHTTPServer(("127.0.0.1", 0), Sends) as sends,
    ):
        for server in (thief, sends):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{sends.server_port}", seen
        for server in (thief, sends):
            server.shutdown()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_key_does_not_travel_on_to_another_server(
    code: int, elsewhere: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evals.judge import Judge
    from evals.served import Served

    for name in ("OPENAI_API_KEY", "REPRO_JUDGE_KEY"):
        monkeypatch.setenv(name, KEY)
    url, seen = f"{elsewhere[0]}/{code}", elsewhere[1]
    with pytest.raises(EnvironmentFault, match=f"{code} .*another address"):
        Judge(url, "m", tmp_path / "judge.jsonl")._ask("?")
    with pytest.raises(BadInput, match=f"answered {code}"):
        Served("m", url)._post({})
    assert seen == []


def test_a_password_in_an_address_is_refused(tmp_path: Path) -> None:
    """An address stands in the process list and in the ledger."""
    from evals.judge import Judge

    with pytest.raises(BadInput, match="REPRO_JUDGE_KEY") as caught:
        Judge(f"http://me:{KEY}@127.0.0.1/v1", "m", tmp_path / "judge.jsonl")
    assert KEY not in str(caught.value)


def test_nothing_follows_redirects_with_a_key() -> None:
    """httpx drops a key that was meant for another host; urllib would send it along."""
    for where, name, words in calls():
        assert not name.endswith(("urlopen", "urlretrieve", "requests.get", "requests.post")), where
        assert words.get("follow_redirects", "False") == "False" or name == "httpx.get", where


def test_no_option_takes_a_secret() -> None:
    import click

    from repro.cli import cli

    def walk(command: click.Command) -> Iterator[click.Parameter]:
        yield from command.params
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            yield from walk(inner)

    for parameter in walk(cli):
        assert not re.search(r"token|secret|password|api.?key", " ".join(parameter.opts))


@pytest.mark.parametrize("command", ["eval", "score"])
def test_a_key_reaches_no_file_and_no_line(command: str, rude: str, tmp_path: Path) -> None:
    import os

    (tmp_path / "replies.jsonl").write_text('{"reply": "hm", "answer": "1", "type": "numerical"}\n')
    words = {
        "eval": ["--benchmark", "microworld", "--split", "validation", "--limit", "1",
                 "--model", f"openai:m@{rude}"],
        "score": [str(tmp_path / "replies.jsonl"), "--judge", rude, "--judge-model", "m",
                  "--judge-cache", str(tmp_path / "judge.jsonl")],
    }[command]  # fmt: skip
    out = ["--out", str(tmp_path / "out")] if command == "eval" else []
    done = subprocess.run(
        [sys.executable, "-m", "repro.cli", command, *words, *out],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "OPENAI_API_KEY": KEY, "REPRO_JUDGE_KEY": KEY,
             "PYTHONPATH": str(ROOT), "REELPROOF_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode in (2, 4) and "401" in done.stderr, done.stderr
    assert KEY not in done.stdout + done.stderr
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert KEY.encode() not in path.read_bytes(), path


# --- the workflows ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_can_do_little(path: Path) -> None:
    text = path.read_text()
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in text and "secrets." not in text
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    for used in (step["uses"] for step in steps if "uses" in step):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), used
    for step in steps:
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
        for name in ("github.event", "github.head_ref"):
            assert name not in step.get("run", ""), "text of strangers in a shell"
    for job in flow["jobs"].values():
        assert job["timeout-minutes"] > 0 and "permissions" not in job


# --- known holes --------------------------------------------------------------------------------

HOLE = """[[accepted]]
id = "CVE-1"
package = "x"
reason = "not reached"
since = 2026-11-01
until = {until}
"""


def audit() -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_accepted_hole_has_a_date() -> None:
    today = date(2026, 11, 26)
    assert audit().accepted(HOLE.format(until="2026-12-01"), today) == ["CVE-1"]
    for until, said in (("2026-11-25", "update x"), ("2027-11-01", "more than 90 days")):
        with pytest.raises(SystemExit, match=said):
            audit().accepted(HOLE.format(until=until), today)
    with pytest.raises(SystemExit, match="CVE-1 needs id, package, reason"):
        audit().accepted(HOLE.format(until="2026-12-01").replace("not reached", ""), today)


def test_what_is_accepted_is_dated_and_every_lock_is_audited() -> None:
    text = (ROOT / "requirements" / "audit.toml").read_text()
    audit().accepted(text, date(2026, 11, 26))  # a fixed day: CI's audit, not this, grows old
    assert set(audit().LOCKS) == {p.name for p in (ROOT / "requirements").glob("*.lock")}


#: As pip-audit 2.10.1 writes it (seen, with a made-up hole).
AUDITED = [
    {"name": "click", "version": "8.5.1", "vulns": [
        {"id": "CVE-2026-1", "aliases": ["GHSA-1"], "fix_versions": ["99.0"], "description": "x"}]},
    {"name": "attrs", "version": "26.1.0", "vulns": []},
]  # fmt: skip


def test_a_hole_is_named_unless_it_is_accepted_by_one_of_its_names() -> None:
    (line,) = audit().holes(AUDITED, [])
    assert line == "click 8.5.1: CVE-2026-1 GHSA-1; mended in 99.0"
    assert audit().holes(AUDITED, ["GHSA-1"]) == audit().holes(AUDITED, ["CVE-2026-1"]) == []
    assert audit().holes(AUDITED, ["CVE-2026-2"])


def test_an_audit_that_cannot_be_made_is_not_passed() -> None:
    from importlib.util import find_spec

    if find_spec("pip_audit") is not None:
        pytest.skip("pip-audit is installed here")
    done = subprocess.run(
        [sys.executable, "requirements/audit.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "cpu.lock could not be audited" in done.stderr and "tools.lock" in done.stderr


def test_every_promise_names_its_test() -> None:
    for line in (ROOT / "SECURITY.md").read_text().splitlines():
        if line.startswith("| ") and "Held by" not in line:
            folder = ROOT
            for name in line.rpartition("|")[0].rpartition("|")[2].split(","):
                path = ROOT / name.strip() if "/" in name else folder / name.strip()
                assert path.exists(), name
                folder = path.parent
