"""Child processes: run once, side by side, resumable, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from repro.children import Chain, Stage, last_line, run
from repro.exits import StageFailed

#: A child as ours are: appends a line per unit, ends well when asked to, leaves its proof last.
CHILD = textwrap.dedent(
    """
    import pathlib, signal, sys, time
    mode, folder, units = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    def stop(signum, frame):
        (folder / "saved").write_text(signal.Signals(signum).name)
        print("error: interrupted; add --resume", file=sys.stderr)
        sys.exit(128 + signum)
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, signal.SIG_IGN if mode == "deaf" else stop)
    (folder / "starts").open("a").write("x")
    pace = folder / "pace.jsonl"
    done = len(pace.read_text().splitlines()) if pace.exists() else 0
    for _ in range(done, units):
        time.sleep(0.02)
        pace.open("a").write("{}\\n")
    if mode == "fail":
        print("working"); print("error: the disk is full"); sys.exit(4)
    if mode == "die":
        import os; os.kill(os.getpid(), signal.SIGKILL)
    if mode != "lazy":
        (folder / "proof").write_text("done")
    """
)


@dataclass
class Told:
    """A Show that remembers."""

    said: list[str] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, name: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        self.most[name] = max(done, self.most.get(name, 0))

    def drop(self, name: str) -> None:
        pass


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    return [sys.executable, str(path)]


def stage(root: Path, name: str, mode: str = "work", units: int = 3) -> Stage:
    at = root / name
    return Stage(
        name,
        (mode, str(at), str(units)),
        at / "proof",
        at / "pace.jsonl",
        units,
        root / f"{name}.log",
    )


def starts(stage: Stage) -> int:
    return len((stage.proof.parent / "starts").read_text())


def test_chains_run_in_order_and_once(tmp_path: Path, program: list[str]) -> None:
    first: Chain = (stage(tmp_path, "a1"), stage(tmp_path, "a2"))
    second: Chain = (stage(tmp_path, "b1"),)
    told = Told()
    run([first, second], 2, told, program=program, poll=0.01)
    assert all(s.proof.exists() and starts(s) == 1 for s in (*first, *second))
    assert told.said.index("a2: started") > next(
        i for i, text in enumerate(told.said) if text.startswith("a1: done in")
    )
    run([first, second], 2, told, program=program, poll=0.01)
    assert all(starts(s) == 1 for s in (*first, *second)), "a finished stage is never repeated"
    assert told.said[-3:] == [f"{n}: finished earlier" for n in ("a1", "a2", "b1")]


def test_side_by_side_but_no_more_than_jobs(tmp_path: Path, program: list[str]) -> None:
    chains = [(stage(tmp_path, f"c{i}", units=10),) for i in range(4)]
    told = Told()
    run(chains, 2, told, program=program, poll=0.01)
    running = most = 0
    for text in told.said:
        running += 1 if text.endswith("started") else -1
        most = max(most, running)
    assert most == 2


def test_progress_is_counted_from_the_growing_file(tmp_path: Path, program: list[str]) -> None:
    told = Told()
    run([(stage(tmp_path, "a", units=20),)], 1, told, program=program, poll=0.01)
    assert told.most["a"] == 20


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("fail", 4, "a failed: the disk is full"),
        ("die", 4, "was killed, most likely for want of memory"),
        ("lazy", 1, "ended without writing"),
    ],
)
def test_a_failing_child_is_explained(
    tmp_path: Path, program: list[str], mode: str, code: int, words: str
) -> None:
    bad = stage(tmp_path, "a", mode)
    with pytest.raises(StageFailed) as caught:
        run([(bad, stage(tmp_path, "never"))], 1, Told(), program=program, poll=0.01)
    assert caught.value.code == code
    assert words in str(caught.value) and str(bad.log) in str(caught.value)
    assert not (tmp_path / "never").exists()


def test_a_failure_stops_the_others_so_that_they_resume(tmp_path: Path, program: list[str]) -> None:
    bad, slow = stage(tmp_path, "bad", "fail", 10), stage(tmp_path, "slow", units=500)
    with pytest.raises(StageFailed):
        run([(bad,), (slow,)], 2, Told(), program=program, poll=0.01)
    assert (tmp_path / "slow" / "saved").read_text() == "SIGTERM"
    before = len(slow.pace.read_text().splitlines())
    assert 0 < before < 500
    shorter = Stage(slow.name, ("work", slow.argv[1], str(before)), *_rest(slow))
    run([(shorter,)], 1, Told(), program=program, poll=0.01)
    assert len(slow.pace.read_text().splitlines()) == before


def _rest(stage: Stage) -> tuple[Path, Path, int, Path]:
    return stage.proof, stage.pace, stage.total, stage.log


PARENT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from repro.children import Stage, run
    from repro.exits import explain, listen
    from repro.show import Lines
    from rich.console import Console
    listen()
    child, root, mode = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    def stage(name):
        at, argv = root / name, (mode, str(root / name), "1000")
        return (Stage(name, argv, at / "proof", at / "pace.jsonl", 1000, root / "log"),)
    program = [sys.executable, child]
    try:
        run([stage("a"), stage("b")], 2, Lines(Console()), program=program, poll=0.01, grace=1.0)
    except BaseException as error:
        sys.exit(explain(error)[0])
    """
)


@pytest.mark.parametrize(
    ("signum", "mode", "code"),
    [
        (signal.SIGINT, "work", 130),
        (signal.SIGTERM, "work", 143),
        (signal.SIGHUP, "work", 143),
        (signal.SIGTERM, "deaf", 143),
    ],
)
def test_signals_are_passed_on_and_no_child_stays(
    tmp_path: Path, program: list[str], signum: signal.Signals, mode: str, code: int
) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, program[1], str(tmp_path), mode])
    paces = [tmp_path / name / "pace.jsonl" for name in "ab"]
    _until(lambda: all(pace.exists() for pace in paces))
    parent.send_signal(signum)
    assert parent.wait(20) == code
    sizes = [pace.stat().st_size for pace in paces]
    time.sleep(0.2)
    assert sizes == [pace.stat().st_size for pace in paces], "a child is still writing"
    if mode == "work":
        passed = "SIGINT" if signum == signal.SIGINT else "SIGTERM"
        assert [(tmp_path / name / "saved").read_text() for name in "ab"] == [passed, passed]


def _until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_children_use_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    proof = tmp_path / "threads"
    code = f"import os; open({str(proof)!r}, 'w').write(os.environ['OMP_NUM_THREADS'])"
    only = Stage("t", (code,), proof, tmp_path / "pace", 1, tmp_path / "log")
    run([(only,)], 1, Told(), program=[sys.executable, "-c"], poll=0.01)
    assert proof.read_text() == "1"
    assert "OMP_NUM_THREADS" not in os.environ


def test_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n  two \xff \n\n")
    assert last_line(log).startswith("two")
    log.write_text("\n")
    assert last_line(log) == "it printed nothing"
