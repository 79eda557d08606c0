"""repro teacher serve, probe and replay: real processes, a client over HTTP, the command line."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from evals.benchmarks.jsonl import read
from evals.errors import BadInput
from evals.types import Protocol, Sample
from evals.video import Clips, Wanted, read_clip
from repro.cli import cli
from repro.ffr.cache import Cache
from repro.ffr.gate import Gate
from repro.ffr.openai_teacher import KEY
from repro.ffr.patch import Patch
from repro.ffr.remote import PATH, TOKEN, Remote, item
from repro.ffr.serve import LARGEST, Library, NotOurs
from repro.ffr.service import Limits, Service
from repro.ffr.teacher import Failure, Repair, named

SECRET = "reelproof-not-a-real-token"
LIMITS = Limits(tries=2, backoff=0.01, timeout=120, opens_after=2, pause=300)
LONG = 240.0
Films = Callable[..., Path]


def failures(folder: Path, n: int) -> list[Failure]:
    law = Protocol("test", prompt="micro", fps=4, max_frames=16)
    found = [s for s in read(folder / "records.json", folder) if s.modality == "video"][:n]
    clips = {s.media: read_clip(Wanted.of(s), law) for s in found}
    return [Failure(s, clips[s.media], f"hm {i}", "A", 0.0, i) for i, s in enumerate(found)]


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    folder: Path

    def post(self, body: bytes | str, path: str = PATH, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)
        given = {"Authorization": f"Bearer {SECRET}", **headers}
        connection.request("POST", path, body, given)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found


def start(folder: Path, *more: str) -> Served:
    process = subprocess.Popen(
        [sys.executable, "-m", "repro.cli", "teacher", "serve", "--data",
         str(folder / "records.json"), "--port", "0", *more],
        env={**os.environ, TOKEN: SECRET}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    return Served(process, int(line.rpartition(":")[2]), folder)


@pytest.fixture(scope="module")
def served(films: Films, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = start(films("validation", 10))
    yield found
    found.process.kill()
    found.process.wait()


def ask(port: int, *given: Failure) -> tuple[list[Repair], Service]:
    with Service(Remote(f"http://127.0.0.1:{port}"), Gate(), limits=LIMITS) as service:
        return service.start(given).result(LONG), service


# --- over HTTP -----------------------------------------------------------------------------------


def test_a_trainer_elsewhere_gets_the_same_patches(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    given = failures(served.folder, 6)
    with Service(named("oracle"), Gate(), limits=LIMITS) as service:
        here = service.start(given).result(LONG)
    there, _ = ask(served.port, *given)
    assert [(r.status, r.patch) for r in there] == [(r.status, r.patch) for r in here]
    assert sum(r.status == "ok" for r in there) >= 5
    # Evidence and gold are the server's own: what the client holds does not matter.
    record = replace(given[0].record, evidence=None, gold="?", media=None)
    (repair,), _ = ask(served.port, replace(given[0], record=record))
    assert repair.patch == here[0].patch


def test_nothing_secret_travels(served: Served) -> None:
    failure = failures(served.folder, 1)[0]
    sent = item(failure)
    assert "gold" not in json.dumps(sent) and "evidence" not in json.dumps(sent)
    code, reply = served.post(json.dumps({"items": [sent, {**sent, "id": "1"}], "wait": 60}))
    assert code == 200 and [i["id"] for i in reply["items"]] == ["0", "1"]
    assert set(reply["items"][0]) == {"id", "status", "patch", "usage", "latency_ms"}
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=LONG)
    connection.request("GET", "/health", headers={"Authorization": f"Bearer {SECRET}"})
    health = connection.getresponse().read().decode()
    connection.close()
    assert '"teacher": "oracle@1"' in health and SECRET not in health


def test_what_is_refused(served: Served) -> None:
    good = item(failures(served.folder, 1)[0])
    whole = json.dumps({"items": [good], "wait": 60})
    assert served.post(whole, Authorization="Bearer no")[0] == 401
    assert served.post(whole, Authorization="")[0] == 401
    assert served.post(whole, "/v1/other")[0] == 404
    assert served.post(b"\xff\xfe")[0] == 400 and served.post("[]")[0] == 400
    assert served.post("[" * 10**5)[0] == 400
    assert served.post(b"", **{"Content-Length": str(LARGEST + 1)})[0] == 413
    assert served.post(json.dumps({"items": [good] * 65, "wait": 1}))[0] == 400
    changes: list[tuple[dict[str, Any], int]] = [
        ({"record_id": "../../etc/passwd"}, 404), ({"record_id": "http://x/a.mp4"}, 404),
        ({"record_id": 3}, 400), ({"question": "Another?"}, 409), ({"options": ["A. x"]}, 409),
        ({"frames": list(range(65))}, 400), ({"frames": ["0"]}, 400), ({"frames": [True]}, 400),
        ({"score": float("inf")}, 400), ({"score": 10**400}, 400), ({"seed": 0.5}, 400),
        ({"student_reply": None}, 400), ({"options": None}, 400),
    ]  # fmt: skip
    for change, expected in changes:
        code, said = served.post(json.dumps({"items": [{**good, **change}], "wait": 60}))
        assert code == expected, (change, said)
        assert str(served.folder) not in json.dumps(said)
    for frames in ([], [99], [-1], [3, 2]):  # of no such video
        code, said = served.post(json.dumps({"items": [{**good, "frames": frames}], "wait": 60}))
        assert (code, said["items"][0]["status"]) == (200, "invalid")
    assert served.post(whole)[0] == 200


def test_faults_on_the_way(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    given = failures(served.folder, 4)
    monkeypatch.setenv(TOKEN, "another-token-than-theirs")
    repairs, _ = ask(served.port, *given)
    assert {r.status for r in repairs} <= {"backend_error", "circuit_open"}
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(BadInput, match="16 characters"):
        ask(served.port, given[0])
    with pytest.raises(BadInput, match="remote:URL"):
        named("remote:file:///etc")


def test_statuses_cross_and_a_killed_server_hangs_nobody(
    films: Films, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    folder = films("validation", 10)
    given = failures(folder, 3)
    for name, status in (("retry", "retry"), ("null", "none"), ("leaky", "leak_rejected")):
        found = start(folder, "--teacher", name)
        repairs, service = ask(found.port, *given)
        assert [r.status for r in repairs] == [status] * 3
        assert service.counts["asked"] == 3  # what the server found is final
        found.process.send_signal(signal.SIGINT)
        assert found.process.stdout is not None
        assert f"3 {status}" in found.process.communicate()[0]
    repairs, service = ask(found.port, *given)  # it is gone
    assert {r.status for r in repairs} <= {"backend_error", "circuit_open"}


def test_records_that_lead_out_of_the_folder(films: Films, tmp_path: Path) -> None:
    folder = films("validation", 10)
    found = read(folder / "records.json", folder)
    with pytest.raises(BadInput, match="leads out of"):
        Library(found, tmp_path, read_clip)
    inside = tmp_path / "videos"
    inside.mkdir()
    (inside / "a.mp4").symlink_to(folder / "films")
    with pytest.raises(BadInput, match="leads out of"):
        Library([replace(found[0], media=inside / "a.mp4")], inside, read_clip)
    with pytest.raises(BadInput, match="leads out of"):
        Library([replace(found[0], media=inside / ".." / "x.mp4")], inside, read_clip)
    Library([replace(found[0], media=inside / "b.mp4")], inside, read_clip)


def test_the_pictures_of_a_record_come_with_it(tmp_path: Path) -> None:
    for number, shade in enumerate((50, 200)):
        Image.new("RGB", (28, 28), (shade,) * 3).save(tmp_path / f"{number}.png")
    paths = (tmp_path / "0.png", tmp_path / "1.png")
    asked = "What differs between <image> and <image>?"
    sample = Sample("p", asked, "free-form", "the shade", "image", None, images=paths)
    still = Sample("q", "Which is <image>?", "free-form", "x", "image", paths[0], images=paths[1:])
    library = Library([sample, still], tmp_path, read_clip)
    clips = Clips(Protocol("test", prompt="micro"))
    for record in (sample, still):
        here = Failure(record, clips.load(record), "hm", None, 0.0, 1)
        there = library.failure(item(here))
        assert there.clip is not None and here.clip is not None
        assert there.clip.indices == here.clip.indices
        assert len(there.clip.images) == len(record.images)
        for one, other in zip(there.clip.images, here.clip.images, strict=True):
            assert (one == other).all()
    paths[1].unlink()
    paths[1].symlink_to("/etc/hostname")  # changed since the start
    with pytest.raises(NotOurs, match="leads out of"):
        library.failure(item(here))


# --- the command line ----------------------------------------------------------------------------


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["teacher", *words], env=environment)


def test_probe(films: Films) -> None:
    data = ["--data", str(films("validation", 10) / "records.json")]
    shown = run("probe", *data)
    assert shown.exit_code == 0, shown.output
    assert "status    ok" in shown.output and "the student reads" in shown.output
    leak = run("probe", *data, "--teacher", "leaky", "--json")
    told = json.loads(leak.output)
    assert (told["status"], told["student_reads"]) == ("leak_rejected", "")
    assert told["gate"]["phrases"].startswith("a phrase") and told["gate"]["form"] == "passes"
    assert run("probe", *data, "--record", "nope").exit_code == 2
    assert run("probe", *data, "--teacher", "gpt").exit_code == 2
    here = "http://127.0.0.1:9/v1"  # nobody listens
    gone = run("probe", *data, "--teacher", "openai:m", REELPROOF_TEACHER_URL=here)
    assert gone.exit_code == 4 and f"why: {here} cannot be reached" in gone.output, gone.output
    content = run("probe", *data, "--fields", "content")
    assert "Key frames" not in content.output
    retry = json.loads(run("probe", *data, "--teacher", "retry", "--json").output)
    assert (retry["status"], retry["patch"]) == ("retry", None)


def test_probe_of_a_server_that_is_not_there(films: Films) -> None:
    key = "sk-reelproof-not-a-real-key"
    done = run(
        "probe", "--data", str(films("validation", 10) / "records.json"), "--teacher",
        "openai:m@http://127.0.0.1:9/v1", **{KEY: key},
    )  # fmt: skip
    assert done.exit_code == 4 and "backend_error" in done.output and key not in done.output


def test_every_kind_of_question_can_be_probed(films: Films) -> None:
    from repro.ffr.probe import probe

    folder, kinds = films("validation", 10), set()
    for sample in read(folder / "records.json", folder):
        if sample.kind not in kinds:
            kinds.add(sample.kind)
            assert probe(named("oracle"), sample).repair.status == "ok", sample
    assert len(kinds) >= 4


def test_probe_with_a_blind_test(films: Films) -> None:
    """The shipped student saw no patch in training: its letters hardly move, and that is shown."""
    from repro import tiny

    words = ["--data", str(films("validation", 10) / "records.json"), "--prompt", "micro"]
    told = run("probe", *words, "--blind", str(Path(tiny.__file__).parent / "ktr"), "--json")
    assert told.exit_code == 0, told.output
    assert "blind" in json.loads(told.stdout)["gate"]
    assert run("probe", *words, "--blind", str(films("validation", 10))).exit_code == 2


def test_replay(films: Films, tmp_path: Path) -> None:
    folder = films("validation", 10)
    cache = Cache(tmp_path / "patches.sqlite")
    given = failures(folder, 3)
    leak = Patch("spatial", (1,), (), (), "The answer is A.")
    good = replace(leak, guidance="Look at the frame.")
    for number, (failure, patch) in enumerate(zip(given, (good, leak, good), strict=True)):
        cache.put(str(number), Repair("ok", patch), "glm@1", failure)
    cache.put("none", Repair("refused"), "glm@1", given[0])
    cache.close()
    words = ["replay", str(tmp_path / "patches.sqlite")]
    told = json.loads(run(*words, "--data", str(folder / "records.json"), "--json").output)
    assert told["entries"] == [
        {"teacher": "glm@1", "status": "ok", "n": 3},
        {"teacher": "glm@1", "status": "refused", "n": 1},
    ]
    assert (told["judged"], told["refused"], told["unknown"]) == (3, {"phrases": 1}, 0)
    assert "3 without their record" in run(*words).output
    (tmp_path / "rubbish").write_text("x" * 5000)
    assert run("replay", str(tmp_path / "rubbish")).exit_code == 2


def test_serving_needs_a_token(films: Films) -> None:
    words = ["serve", "--data", str(films("validation", 10) / "records.json"), "--port", "0"]
    done = run(*words, **{TOKEN: ""})
    assert done.exit_code == 2 and "openssl rand" in done.output
