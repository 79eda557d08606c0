"""From a folder of films to records: outcomes, the same bytes always, nothing decoded twice."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from evals import microworld
from evals.benchmarks.jsonl import read
from evals.errors import BadInput, EnvironmentFault
from evals.types import Protocol
from evals.video import Clips
from repro.cli import cli
from repro.mvp.method import MVP
from repro.mvp.synthesis import audits, make, seeing, sheet
from repro.mvp.synthesis.embed import BuiltIn
from repro.mvp.synthesis.films import Filming
from repro.mvp.synthesis.items import Sampling, items
from repro.mvp.synthesis.make import Settings, synthesize
from repro.mvp.synthesis.records import GAP, context_paths, name, record, shown
from repro.mvp.synthesis.store import Store
from tests import scenes

SETTINGS = Settings(Filming(), Sampling(0.85, (2, 3)), "built-in")
EVIL = "<script>alert(1)</script>"


def bytes_of(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file but the lock."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"
    }  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of every kind that a corpus has."""
    root = tmp_path_factory.mktemp("odd")
    for number, at in enumerate(("a.mp4", "deep/b.mp4")):
        scenes.film(root / at, number, 60)
    scenes.film(root / "short.mp4", 2, 12)
    scenes.film(root / "static.mp4", 3, 60, shots=[5], steps=(60, 60), drift=0)
    scenes.film(root / "looping.mp4", 4, 60, shots=range(9), steps=(1, 1))
    (root / "copy.mp4").write_bytes((root / "a.mp4").read_bytes())
    half = scenes.frames(1, 60)[:, ::2, ::2]
    microworld.write_film(half, root / "uploaded again.mp4", fps=2)
    whole = (root / "a.mp4").read_bytes()
    (root / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(9000))
    (root / "empty.mkv").touch()
    scenes.sound(root / "sound.mp4")
    scenes.rotated(root / "deep/b.mp4", root / f"{EVIL.replace('/', '_')}.mov")
    (root / "notes.txt").write_text("no film")
    (root / ".hidden.mp4").write_bytes((root / "a.mp4").read_bytes())
    shots = [scenes.scene(n, 112, 56) for n in range(130)]
    times = np.cumsum(np.random.default_rng(1).choice([0.2, 0.45, 0.9], 130))
    scenes.timed(root / "varying.mp4", shots, times.tolist())
    return root


@pytest.fixture(scope="module")
def made(odd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, make.Made]:
    """(output folder, cache, what was made) with one worker."""
    root = tmp_path_factory.mktemp("made")
    return root / "out", root / "cache", synthesize(odd, root / "out", SETTINGS, root / "cache")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def test_every_file_has_an_outcome(made: tuple[Path, Path, make.Made]) -> None:
    out, _, result = made
    became = {film["film"]: film["outcome"] for film in lines(out / "films.jsonl")}
    assert became == {
        "a.mp4": "used", "deep/b.mp4": "used", "varying.mp4": "used",
        "<script>alert(1)<_script>.mov": "used", "short.mp4": "short", "static.mp4": "static",
        "looping.mp4": "looping", "copy.mp4": "duplicate", "noise.mp4": "unreadable",
        "uploaded again.mp4": "duplicate", "broken.mp4": "unreadable",
        "empty.mkv": "unreadable", "sound.mp4": "no video",
    }  # fmt: skip
    assert result.videos == {
        "duplicate": 2, "looping": 1, "no video": 1, "short": 1, "static": 1, "unreadable": 3,
        "used": 4,
    }  # fmt: skip
    assert set(result.cost) >= {"decode", "embed", "write"}
    why = {film["film"]: film["why"] for film in lines(out / "films.jsonl")}
    assert why["copy.mp4"] == "the same bytes as a.mp4"
    assert why["uploaded again.mp4"] == "shows the same as deep/b.mp4"


def test_records_are_read_as_training_reads_them(made: tuple[Path, Path, make.Made]) -> None:
    out, _, result = made
    samples = read(out / "records.jsonl", out)
    assert len(samples) == sum(result.items.values()) >= 8
    for sample, raw in zip(samples, lines(out / "records.jsonl"), strict=True):
        k = raw["mvp"]["k"]
        assert sample.kind == "ordering" and len(sample.gold.split(",")) == k
        assert int(sample.facts["candidates"]) == 2 * k
        assert len(sample.images) == 16 + k == sample.question.count("<image>")
        assert all(path.is_file() for path in sample.images)
        assert sample.cluster == raw["film"]
        masked = [raw["mvp"]["candidate_seconds"][int(g) - 1] for g in sample.gold.split(", ")]
        before, after = raw["mvp"]["context_seconds"]
        assert before == sorted(before) and after == sorted(after)
        assert before[-1] < masked[0] and masked == sorted(masked) and masked[-1] < after[0]
    assert {s.tags["family"] for s in samples} == {"mvp 2+2", "mvp 3+3"}


def test_names_and_dates_of_pictures_say_nothing(made: tuple[Path, Path, make.Made]) -> None:
    out, _, _ = made
    for path in out.glob("shards/*/media/*/*.jpg"):
        assert path.name == name(path.read_bytes())
        assert b"Exif" not in path.read_bytes()[:400]


def test_pictures_are_those_of_the_film(made: tuple[Path, Path, make.Made], odd: Path) -> None:
    """Decoded again by another way: frame number = seconds x 2."""
    from evals.video import decode, read_image

    out, _, _ = made
    raw = next(r for r in lines(out / "records.jsonl") if r["film"] == "a.mp4")
    seconds = raw["mvp"]["candidate_seconds"]
    order = np.argsort(seconds)
    frames = decode(odd / "a.mp4", tuple(round(2 * seconds[i]) for i in order))
    for i, frame in zip(order, frames, strict=True):
        kept = read_image(out / raw["images"][len(raw["images"]) - len(seconds) + i])[0]
        assert np.abs(kept.astype(int) - frame).mean() < 5


def test_the_same_bytes_from_two_workers(
    made: tuple[Path, Path, make.Made], odd: Path, tmp_path: Path
) -> None:
    synthesize(odd, tmp_path / "out", SETTINGS, tmp_path / "cache", workers=2)
    assert bytes_of(tmp_path / "out") == bytes_of(made[0])


def test_other_numbers_need_no_second_decode(
    made: tuple[Path, Path, make.Made], odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cache, _ = made
    monkeypatch.setattr(seeing, "Worker", None)  # whoever would start one fails
    other = replace(SETTINGS, sampling=Sampling(0.8, (4,), per_film=1, frames=12))
    found = synthesize(odd, tmp_path / "out", other, cache)
    assert found.items[4] >= 2
    with pytest.raises(BadInput, match="other settings"):
        synthesize(odd, out, other, cache)


def test_what_is_excluded_gives_no_items(
    made: tuple[Path, Path, make.Made], odd: Path, tmp_path: Path
) -> None:
    """Films of a benchmark, one of them encoded otherwise; the cache is the first run's."""
    benchmark = tmp_path / "benchmark"
    benchmark.mkdir()
    (benchmark / "one.mp4").write_bytes((odd / "uploaded again.mp4").read_bytes())
    (benchmark / "two.mp4").write_bytes((odd / "varying.mp4").read_bytes())
    synthesize(odd, tmp_path / "out", SETTINGS, made[1], excluding=benchmark)
    became = {f["film"]: (f["outcome"], f["why"]) for f in lines(tmp_path / "out/films.jsonl")}
    assert became["deep/b.mp4"] == ("excluded", "shows the same as one.mp4 of the excluded ones")
    assert became["varying.mp4"] == ("excluded", "the same bytes as two.mp4 of the excluded ones")
    assert became["a.mp4"][0] == "used" and became["copy.mp4"][0] == "duplicate"


def test_the_context_as_a_clip(
    made: tuple[Path, Path, make.Made], odd: Path, tmp_path: Path
) -> None:
    """The same items; no row of two frames holds both sides of the gap."""
    out = tmp_path / "out"
    found = synthesize(odd, out, replace(SETTINGS, context="clip"), made[1])
    assert (found.items, found.audits) == (made[2].items, made[2].audits)
    plain, filmed = (lines(root / "records.jsonl") for root in (made[0], out))
    clips = Clips(Protocol("clip", max_frames=32))
    for one, other, sample in zip(plain, filmed, read(out / "records.jsonl", out), strict=True):
        assert (one["solution"], one["problem_id"]) == (other["solution"], other["problem_id"])
        before, after = context_paths(other)
        assert [(out / p).read_bytes() for p in (*before, *after)] == [
            (made[0] / p).read_bytes() for side in context_paths(one) for p in side
        ]
        assert sample.modality == "video" and sample.cluster == other["film"]
        shown = clips.load(sample)
        assert shown is not None and len(shown.images) == other["candidates"]
        left, right = (len(side) + len(side) % 2 for side in (before, after))
        assert len(shown.frames) == left + GAP + right
        grey = np.abs(shown.frames.astype(int) - 128).max((1, 2, 3)) <= 2
        assert grey.nonzero()[0].tolist() == [left, left + 1]
        assert (shown.frames[left - 1] == shown.frames[len(before) - 1]).all()


def test_a_second_run_changes_nothing(made: tuple[Path, Path, make.Made], odd: Path) -> None:
    out, cache, _ = made
    before, changed = bytes_of(out), (out / "shards/00000").stat().st_mtime_ns
    synthesize(odd, out, SETTINGS, cache)
    assert bytes_of(out) == before and (out / "shards/00000").stat().st_mtime_ns == changed


def test_a_folder_of_something_else_is_refused(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BadInput, match="not empty"):
        synthesize(odd, tmp_path, SETTINGS, tmp_path / "cache")
    with pytest.raises(BadInput, match="holds no video"):
        synthesize(tmp_path, tmp_path / "out", SETTINGS, tmp_path / "cache")


def test_a_full_disk_is_no_fault_of_a_film(tmp_path: Path) -> None:
    """The store cannot be written: the run stops and no film is called unreadable."""
    scenes.film(tmp_path / "films/a.mp4", 0, 5)
    blocked = tmp_path / "cache" / SETTINGS.filming.key
    blocked.mkdir(parents=True)
    for first in range(256):
        (blocked / f"{first:02x}").touch()  # where a folder should be
    with pytest.raises(EnvironmentFault, match="could not be kept"):
        synthesize(tmp_path / "films", tmp_path / "out", SETTINGS, tmp_path / "cache")
    assert not (blocked / "journal.jsonl").exists()


def test_what_hangs_is_ended_and_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that never answers: its film is a timeout, the others are used."""
    scenes.film(tmp_path / "films/a.mp4", 0, 60)
    scenes.film(tmp_path / "films/b.mp4", 1, 60)
    real, started = seeing.Worker, []

    class Stuck(real):  # type: ignore[misc,valid-type]
        def ask(self, request: dict[str, Any], deadline: float) -> Any:
            if request["path"].endswith("a.mp4"):
                started.append(request["path"])
                self.process.send_signal(signal.SIGSTOP)
                deadline = time.monotonic() + 0.2
            return super().ask(request, deadline)

    monkeypatch.setattr(seeing, "Worker", Stuck)
    arguments = (tmp_path / "films", tmp_path / "out", SETTINGS, tmp_path / "cache")
    assert synthesize(*arguments).videos == {"timeout": 1, "used": 1}
    for _ in range(2):
        assert synthesize(*arguments).videos == {"timeout": 1, "used": 1}
    assert len(started) == 2


def test_killed_at_any_time_it_ends_with_the_same_bytes(
    made: tuple[Path, Path, make.Made], odd: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "repro", "data", "synthesize", "mvp", "--videos", str(odd), "--out",
        str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--k", "2,3", "--workers", "1",
    ]  # fmt: skip
    for wait in (1, 6):  # films in the journal
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = tmp_path / "cache" / SETTINGS.filming.key / "journal.jsonl"
        while run.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= wait:
                os.kill(run.pid, signal.SIGKILL)
                run.wait()
            time.sleep(0.01)
    with journal.open("a") as file:
        file.write('{"file": "half a li')  # as a kill inside a write leaves it
    subprocess.run(command, check=True, capture_output=True)
    assert bytes_of(tmp_path / "out") == bytes_of(made[0])
    assert all(json.loads(x) for x in journal.read_text().splitlines() if "half" not in x)


# --- audits ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """(root, records) of 56 films that were never encoded: items of K = 3."""
    root = tmp_path_factory.mktemp("many")
    store, sampling, records = Store(root, Filming()), Sampling(0.85, (3,)), []
    for seed in range(56):
        film_id = hashlib.sha256(bytes([seed])).hexdigest()
        with store.writing(film_id) as writer:
            for n, picture in enumerate(scenes.frames(seed, 70, 1, width=84, height=56)):
                writer.add(float(n), picture)
        store.embed(film_id, BuiltIn())
        film = store.load(film_id, "built-in")
        for item in items(film, sampling)[0]:
            paths = {}
            for n, data in zip(shown(item), store.pictures(film, shown(item)), strict=True):
                paths[n] = f"{name(data)}"
                (root / paths[n]).write_bytes(data)
            records.append(record(item, film, f"{seed}.mp4", paths, {}, "full"))
    return root, records


def test_guessers_stay_within_their_bounds(many: tuple[Path, list[dict[str, Any]]]) -> None:
    root, records = many
    assert len(records) >= 80
    rows = audits.audit(records, root)
    assert [row["audit"] for row in rows] == [
        "slots of the gold", "slots", "names", "sizes", "nearest"
    ]  # fmt: skip
    assert all(row["ok"] for row in rows), rows
    assert all(row["chance"] == 0.5 for row in rows[1:])
    assert all(row["exact"] < 0.08 for row in rows[1:]), rows  # chance is 1 in 120


def test_an_audit_can_fail(many: tuple[Path, list[dict[str, Any]]]) -> None:
    """The gold always in the first slots; and candidates that a look at pixels would find."""
    root, records = many
    leaking, alike = [], []
    for raw in records:
        order = [g - 1 for g in audits.gold(raw)]
        order += [i for i in range(6) if i not in order]
        pool = raw["images"][-6:]
        context = raw["images"][:-6]
        solution = {"solution": "<answer>1, 2, 3</answer>"}
        leaking.append({**raw, "images": context + [pool[i] for i in order], **solution})
        edge = context[len(raw["mvp"]["context_seconds"][0]) - 1]
        alike.append({**raw, "images": context + [edge] * 3 + [pool[i] for i in order[3:]],
                      **solution})  # fmt: skip
    failed = {row["audit"] for row in audits.audit(leaking, root) if not row["ok"]}
    assert failed >= {"slots of the gold", "slots"}
    near = next(row for row in audits.audit(alike, root) if row["audit"] == "nearest")
    assert near["sel"] == 1 and not near["ok"]


# --- the page and the command ------------------------------------------------------------------


class Page(HTMLParser):
    """Elements opened, and every address that the page would ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.asked += [v or "" for k, v in attrs if k in ("src", "href") and tag != "link"]


def test_the_page_asks_for_nothing_and_escapes(made: tuple[Path, Path, make.Made]) -> None:
    text = (made[0] / "index.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert "default-src 'none'" in text and "script" not in page.elements
    assert "&lt;script&gt;alert(1)&lt;_script&gt;.mov" in text
    assert page.elements.count("article") == min(sheet.SHOWN, sum(made[2].items.values()))
    assert page.asked and all(a.startswith("data:image/jpeg;base64,") for a in page.asked)
    for outcome in ("duplicate", "looping", "no video", "short", "static", "unreadable"):
        assert outcome in text


@pytest.fixture
def run(tmp_path: Path, made: tuple[Path, Path, make.Made], odd: Path) -> Iterator[Any]:
    def invoke(*arguments: str) -> Any:
        words = ["data", arguments[0], "mvp", "--videos", str(odd), "--cache", str(made[1])]
        return CliRunner().invoke(cli, [*words, *arguments[1:]])

    yield invoke


def test_the_command(run: Any, tmp_path: Path, made: tuple[Path, Path, make.Made]) -> None:
    done = run("synthesize", "--out", str(tmp_path / "out"), "--k", "2,3", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["videos"] == made[2].videos
    assert bytes_of(tmp_path / "out") == bytes_of(made[0])
    done = run("synthesize", "--out", str(tmp_path / "out"), "--k", "2,3")
    assert done.exit_code == 0 and "records.jsonl" in done.output and "x real time" in done.output
    done = run("synthesize", "--out", str(tmp_path / "other"), "--k", "11")
    assert done.exit_code == 2 and "3 of the 16 pictures" in done.output


def test_calibrate_prints_the_curve(run: Any) -> None:
    done = run("calibrate", "--json")
    curve = json.loads(done.stdout)["curve"]
    assert len(curve) == 50 and done.exit_code in (0, 5)
    steps = [p["step"] for p in curve]
    assert steps == sorted(steps, reverse=True)
    said = run("calibrate", "--frames", "12").output
    assert "no kappa does" in said or "synthesize mvp --videos" in said.splitlines()[-1]


def test_the_records_train(made: tuple[Path, Path, make.Made]) -> None:
    """They are drawn by tier, and a right reply earns all."""
    from repro.core.data import Records
    from repro.mvp.switches import Curriculum, Switches

    samples = read(made[0] / "records.jsonl", made[0])
    method = MVP(Switches(share=1.0, curriculum=Curriculum((2, 3), steps=1, carry=0.0)))
    for step, k in ((0, 2), (1, 3)):
        drawn = method.records(step, Records(samples, 4, 0))
        assert {len(r.gold.split(",")) for r in drawn} == {k}
