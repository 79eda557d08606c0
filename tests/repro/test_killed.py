"""An evaluation killed with SIGKILL, really: at most the batch in flight is lost, and the file of
the finished run is that of an unbroken one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evals.benchmarks import load
from evals.models import Scripted
from evals.types import Decoding, Protocol
from repro import tiny
from repro.measure import PART, WORK, Label, Weights, measure
from results.ledger import ROWS

#: Eight questions of two replies a batch, and a pause after each.
PROGRAM = """
import sys, time
from pathlib import Path
from evals.benchmarks import load
from evals.models import Scripted
from evals.types import Decoding, Protocol
from repro.measure import Label, Means, Weights, measure
folder, out = map(Path, sys.argv[1:])
out.mkdir(exist_ok=True)
measure(
    Scripted("random"), Weights("random"), load("jsonl", data=folder / "records.json", root=folder),
    Protocol("test", decoding=Decoding(temperature=1.0, samples=2)),
    Label("own", "own", "random", 3), out, means=Means(batch=8),
    progress=lambda done, total: time.sleep(0.05),
)
"""
PROTOCOL = Protocol("test", decoding=Decoding(temperature=1.0, samples=2))


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(command: list[str], part: Path, rows: int, done: Path) -> int:
    """Start, wait for `rows` rows in the file, SIGKILL; rows that were in the file then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while lines(part) < 1 + rows:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not done.exists()
    return lines(part) - 1


def test_killed_again_and_again(films: Callable[..., Path], tmp_path: Path) -> None:
    folder = films("test", 12)
    benchmark = load("jsonl", data=folder / "records.json", root=folder)
    label, weights = Label("own", "own", "random", 3), Weights("random")
    (tmp_path / "whole").mkdir()
    whole = measure(Scripted("random"), weights, benchmark, PROTOCOL, label, tmp_path / "whole")
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(folder), str(out)]
    seen = 0
    for target in (1, 30, 60):
        kept = killed(command, out / PART, max(target, seen + 1), out / "record.json")
        assert kept >= seen, "a resumed run lost rows"
        seen = kept
    subprocess.run(command, check=True)
    assert (out / ROWS).read_bytes() == (tmp_path / "whole" / ROWS).read_bytes()
    asked = json.loads((out / WORK).read_text())["asked"]
    assert asked <= len(benchmark.samples) - seen // 2 + 8  # what was kept is not asked again
    assert not (out / PART).exists() and whole.record.n == len(benchmark.samples)


@pytest.mark.slow
def test_a_real_model_killed_in_the_middle(films: Callable[..., Path], tmp_path: Path) -> None:
    """The command line, decoder processes and a checkpoint; resumed with --resume."""
    folder = films("test", 12)
    environment = {**os.environ, "REELPROOF_CACHE": str(tmp_path / "cache")}

    def command(out: Path) -> list[str]:
        return [
            sys.executable, "-m", "repro.cli", "eval", "--recipe", "ktr", "--benchmark", "jsonl",
            "--data", str(folder / "records.json"), "--videos", str(folder), "--split", "test",
            "--model", str(Path(tiny.__file__).parent / "ktr"), "--samples", "2", "--batch", "4",
            "--seed", "3", "--no-cache", "--save-replies", "--resume", "--out", str(out),
        ]  # fmt: skip

    whole, out = tmp_path / "whole", tmp_path / "out"
    subprocess.run(command(whole), check=True, env=environment)
    seen = 0
    for target in (8, 40):
        seen = killed(command(out), out / PART, target, out / "record.json")
    subprocess.run(command(out), check=True, env=environment)
    assert (out / ROWS).read_bytes() == (whole / ROWS).read_bytes()
    work = json.loads((out / WORK).read_text())
    assert work["asked"] <= 48 - seen // 2 + 4
