"""A run that was killed, stopped or starved continues to the weights of an unbroken one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from evals.vlm import VLM
from repro.core.checkpoint import latest, weights_sha256
from repro.core.trainer import GroupTrainer

pytestmark = pytest.mark.timeout(600)  # real processes, perhaps on a busy machine

STEPS = 4
Answer = dict[str, Any]
Run = Callable[..., Answer]


@dataclass(frozen=True)
class Whole:
    """An unbroken run: its folder, its file operations, and those of writing one checkpoint."""

    out: Path
    events: int
    per_checkpoint: int


@pytest.fixture(scope="module")
def model(student: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    student.model.save_pretrained(folder)
    student.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(model: Path, films: Callable[..., Path]) -> Iterator[Run]:
    """run(out, arm="ktr", ...) -> how a child process that trained there ended."""
    driver = Path(__file__).with_name("driver.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    data = str(films("train", n=8) / "records.json")

    with subprocess.Popen(
        [sys.executable, str(driver)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=env,
    ) as process:  # fmt: skip
        assert json.loads(process.stdout.readline())["ready"]

        def ask(out: Path, **more: Any) -> Answer:
            request = {
                "out": str(out), "model": str(model), "data": data, "arm": "ktr", "seed": 0,
                "steps": STEPS, "save_steps": 1, "resume": True, **more,
            }  # fmt: skip
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """whole(arm) -> the folder of an unbroken run, and how many file operations it took."""
    made: dict[str, Whole] = {}

    def make(arm: str) -> Whole:
        if arm not in made:
            out = tmp_path_factory.mktemp("unbroken")
            answer = run(out, arm=arm)
            assert answer["code"] == 0, answer["said"]
            made[arm] = Whole(out, answer["events"], answer["writing"] // STEPS)
        return made[arm]

    return make


@pytest.fixture(scope="module")
def unbroken(whole: Callable[[str], Whole]) -> tuple[Path, int]:
    """The folder of an unbroken KTR run, and how many file operations it took."""
    return whole("ktr").out, whole("ktr").events


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same(out: Path, unbroken: Path) -> None:
    """The same weights bit for bit, the same metrics, every step exactly once."""
    done, wanted = (json.loads((p / "done.json").read_text()) for p in (out, unbroken))
    assert done["sha256"] == wanted["sha256"] == weights_sha256(out / "final")
    assert done["steps"] == STEPS
    assert [row["step"] for row in rows_of(out)] == list(range(1, STEPS + 1))
    assert rows_of(out) == rows_of(unbroken)
    if (unbroken / "tokens.json").exists():
        view = [json.loads((p / "tokens.json").read_text()) for p in (out, unbroken)]
        assert view[0] == view[1]
    left = {p.name for p in out.iterdir()} - {p.name for p in unbroken.iterdir()}
    assert not left, "killed writers and removals leave nothing behind"


def assert_no_pickle(out: Path) -> None:
    for path in out.rglob("*"):
        if path.is_file() and "." in path.name.lstrip("."):
            assert path.suffix not in {".pt", ".pth", ".bin", ".pkl"}, path
            assert path.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04"), path


def kill_and_resume(
    run: Run, folder: Path, unbroken: Path, kills: list[Answer], **more: Any
) -> list[Answer]:
    """Runs arms under the given kills, each continuing what the last one left; a run that ends
    before its kill is compared and a new one begun. The answers of the kills that struck."""
    struck, number = list[Answer](), 0
    out = folder / "run0"
    for kill in [*kills, {}]:
        before = latest(out)
        answer = run(out, **kill, **more)
        assert_no_pickle(out)
        if answer["code"] == -signal.SIGKILL:
            struck.append({**kill, **answer})
            assert latest(out) is not None or before is None or (out / "done.json").exists()
            if "kill_torn" in kill:
                assert answer["torn"] is not None and list(out.glob(".checkpoint-*.writing"))
            continue
        assert answer["code"] == 0, answer["said"]
        assert_same(out, unbroken)
        number += 1
        out = folder / f"run{number}"
    return struck


@pytest.mark.parametrize("arm", ["ktr", "sft"])
def test_kill_9_at_three_random_points(
    run: Run, whole: Callable[[str], Whole], tmp_path: Path, arm: str
) -> None:
    """Anywhere, between two files of a checkpoint, and within one: its weights half written."""
    known, draw = whole(arm), random.Random(3)
    kills = [
        {"kill": draw.randint(1, known.events // 2)},
        {"kill_writing": draw.randint(1, known.per_checkpoint)},
        {"kill_torn": 1},
    ]
    assert len(kill_and_resume(run, tmp_path, known.out, kills, arm=arm)) == 3
    assert not list((tmp_path / "run0").glob("checkpoint-*"))  # nothing left to resume


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("arm", "save_steps"), [("ktr", 1), ("ktr", 2), ("sft", 1)])
def test_kill_9_at_many_random_points(
    run: Run, whole: Callable[[str], Whole], tmp_path: Path, arm: str, save_steps: int
) -> None:
    known, draw = whole(arm), random.Random(save_steps)
    kills = [{"kill": draw.randint(1, known.events)} for _ in range(16)]
    kills += [{"kill_writing": draw.randint(1, 2 * known.per_checkpoint)} for _ in range(8)]
    kills += [{"kill_torn": draw.randint(1, 2)} for _ in range(8)]
    kills += [{"kill_in": draw.uniform(0.2, 2.0)} for _ in range(8)]
    draw.shuffle(kills)
    struck = kill_and_resume(run, tmp_path, known.out, kills, arm=arm, save_steps=save_steps)
    assert len(struck) >= 20
    assert sum("kill_writing" in s or "kill_torn" in s for s in struck) >= 5


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_under_way(
    run: Run, unbroken: tuple[Path, int], tmp_path: Path, signum: int, code: int
) -> None:
    out = tmp_path / "run"
    stopped = run(out, signals=[3, signum, 1], save_steps=100)
    assert stopped["code"] == code and stopped["said"].startswith("interrupted")
    assert latest(out) == out / "checkpoint-3"
    assert [row["step"] for row in rows_of(out)] == [1, 2, 3]
    assert not (out / "done.json").exists()
    assert run(out, save_steps=100)["code"] == 0
    assert_same(out, unbroken[0])


def test_a_second_signal_is_obeyed_at_once(
    run: Run, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(out, signals=[3, signal.SIGTERM, 2])["code"] == 143
    assert latest(out) == out / "checkpoint-2"
    assert run(out)["code"] == 0
    assert_same(out, unbroken[0])


def test_another_run_is_not_resumed_in_this_folder(
    run: Run, unbroken: tuple[Path, int], tmp_path: Path, model: Path, films: Callable[..., Path]
) -> None:
    """Neither a half-done nor a finished one."""
    half = tmp_path / "half"
    assert run(half, signals=[1, signal.SIGTERM, 1])["code"] == 143
    other = tmp_path / "other"
    shutil.copytree(model, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    changes = {
        "seed": {"seed": 1}, "arm": {"arm": "grpo"}, "steps": {"steps": STEPS + 1},
        "fingerprint": {"learning_rate": 2e-3}, "start": {"model": str(other)},
        "data": {"data": str(films("train", n=4) / "records.json")},
    }  # fmt: skip
    for out in (half, unbroken[0]):
        before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
        for key, change in changes.items():
            answer = run(out, **change)
            assert answer["code"] == 2, (out.name, key, answer)
            assert f"begun with another {key}" in answer["said"]
        fresh = run(out, resume=False)
        assert fresh["code"] == 2 and "is not empty" in fresh["said"]
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_run_killed_after_its_last_step_takes_no_other(
    trainer: Callable[..., GroupTrainer],
) -> None:
    """Between the last checkpoint and done.json; the rate is constant, so a step would show."""
    settings = {"steps": 2, "save_steps": 1, "lr_scheduler_type": "constant"}
    first = trainer("grpo", **settings)
    first.train()
    wanted = {name: p.clone() for name, p in first.vlm.model.state_dict().items()}
    again = trainer("grpo", **settings)
    again.train(resume=latest(first.out))
    assert again.state.global_step == 2 and not rows_of(again.out)
    assert all(torch.equal(p, wanted[name]) for name, p in again.vlm.model.state_dict().items())


def test_a_finished_arm_is_not_repeated(run: Run, unbroken: tuple[Path, int]) -> None:
    out = unbroken[0]
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"}
    assert run(out)["code"] == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"} == before


def test_a_write_that_fails_keeps_the_checkpoint_before_it(
    run: Run, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    failed = run(out, limit=[2, 100_000])  # smaller than the weights, larger than the metrics
    assert failed["code"] != 0 and not (out / "done.json").exists()
    assert latest(out) == out / "checkpoint-1"
    assert not list(out.glob(".checkpoint-*"))  # what was half written is given back
    assert run(out)["code"] == 0
    assert_same(out, unbroken[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that one checkpoint fits on, and two do not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_keeps_the_checkpoint_before_it(
    run: Run, unbroken: tuple[Path, int], small_disk: Path
) -> None:
    out = small_disk / "run"
    full = run(out)
    assert full["code"] == 4 and "no space left on the disk" in full["said"], full
    assert latest(out) == out / "checkpoint-1"
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    assert run(out)["code"] == 0
    assert_same(out, unbroken[0])
