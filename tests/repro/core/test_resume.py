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
from pathlib import Path
from typing import Any

import pytest

from evals.vlm import VLM
from repro.core.checkpoint import latest, weights_sha256

pytestmark = pytest.mark.timeout(600)  # real processes, perhaps on a busy machine

STEPS = 4
Answer = dict[str, Any]
Run = Callable[..., Answer]


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
def unbroken(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An unbroken run's folder, and how many file operations it took."""
    out = tmp_path_factory.mktemp("unbroken")
    answer = run(out)
    assert answer["code"] == 0, answer["said"]
    return out, answer["events"]


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
) -> int:
    """Runs arms under the given kills, each continuing what the last one left; a run that ends
    before its kill is compared and a new one begun. How many kills struck."""
    struck, number = 0, 0
    out = folder / "run0"
    for kill in [*kills, {}]:
        answer = run(out, **kill, **more)
        assert_no_pickle(out)
        if answer["code"] == -signal.SIGKILL:
            struck += 1
            continue
        assert answer["code"] == 0, answer["said"]
        assert_same(out, unbroken)
        number += 1
        out = folder / f"run{number}"
    return struck


def test_kill_9_at_three_random_points(
    run: Run, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    out, events = unbroken
    draw = random.Random(3)
    kills = [{"kill": draw.randint(1, events // 2)} for _ in range(3)]
    assert kill_and_resume(run, tmp_path, out, kills) == 3
    assert not list((tmp_path / "run0").glob("checkpoint-*"))  # nothing left to resume


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("save_steps", [1, 2])
def test_kill_9_at_many_random_points(
    run: Run, unbroken: tuple[Path, int], tmp_path: Path, save_steps: int
) -> None:
    out, events = unbroken
    draw = random.Random(save_steps)
    by_operation = [{"kill": draw.randint(1, events)} for _ in range(40)]
    by_time = [{"kill_in": draw.uniform(0.2, 2.0)} for _ in range(10)]
    kills = by_operation + by_time
    draw.shuffle(kills)
    assert kill_and_resume(run, tmp_path, out, kills, save_steps=save_steps) >= 20


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
