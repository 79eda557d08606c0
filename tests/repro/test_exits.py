"""Which failure ends the command line how."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evals.errors import BadInput, EnvironmentFault, NotComparable, TimedOut, Undecodable
from repro import exits, folder
from repro.exits import Interrupted, StageFailed, continues, explain, resuming


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("x"), 2),
        (Undecodable("x"), 2),
        (TimedOut("x"), 2),
        (NotComparable("x"), 3),
        (EnvironmentFault("x"), 4),
        (StageFailed("x", 6), 6),
        (KeyboardInterrupt(), 130),
        (Interrupted(), 143),
        (OSError(errno.ENOSPC, "No space left on device", "/full/file"), 4),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/full/file"), 4),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), 4),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2),
        (OSError(errno.EROFS, "Read-only file system", "/ro/x"), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/file/x"), 2),
    ],
)
def test_code(error: BaseException, code: int) -> None:
    found = explain(error)
    assert found is not None and found[0] == code and "\n" not in found[1]


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError(2, "No such file", "x"), OSError(5, "I/O", "x")]
)
def test_the_unexpected_keeps_its_traceback(error: BaseException) -> None:
    assert explain(error) is None


def test_a_full_disk_names_the_path_and_the_way_on() -> None:
    with pytest.raises(OSError) as caught, open("/dev/full", "w") as file:
        file.write("x")
        file.flush()
    caught.value.filename = "/runs/rows"
    found = explain(caught.value)
    assert found is not None
    assert found[0] == 4 and "/runs/rows" in found[1] and "run the same command again" in found[1]
    with pytest.raises(OSError), continues(resuming(False)):
        raise caught.value
    found = explain(caught.value)
    assert found is not None and "free some, then add --resume to the same command" in found[1]
    assert "run the same command again" in resuming(True)


def test_an_interruption_says_how_to_continue() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, continues("add --resume"):
        raise KeyboardInterrupt
    assert explain(caught.value) == (130, "interrupted; add --resume")


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)]
)
def test_signals_reach_the_command_line(signum: signal.Signals, code: int) -> None:
    program = (
        "import click, os, time\n"
        "from repro import cli, exits\n"
        "@cli.cli.command('wait')\n"
        "def wait():\n"
        "    with exits.continues('again'):\n"
        "        print('ready', flush=True); time.sleep(30)\n"
        "import sys; sys.argv = ['repro', 'wait']\n"
        "cli.main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.send_signal(signum)
    _, said = child.communicate(timeout=20)
    assert (child.returncode, said) == (code, "error: interrupted; again\n")


# --- output folders ---------------------------------------------------------------------------


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with folder.writing(tmp_path / "a" / "b") as out:
        assert out.is_dir()
        with pytest.raises(BadInput, match="another process"), folder.writing(out, resume=True):
            pass
    with folder.writing(out):  # nothing but the lock is there, and nobody holds it
        pass


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(BadInput, match="not empty: --resume"), folder.writing(tmp_path):
        pass
    with folder.writing(tmp_path, resume=True):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        refused = pytest.raises(BadInput, match=r"cannot write .* choose another --out")
        with refused, folder.writing(path):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="cannot write"), folder.writing(tmp_path / "x"):
        pass


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    folder.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        folder.write_json(path, {"a": object()})
    assert folder.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    path.write_text("{")
    with pytest.raises(BadInput, match="is not JSON"):
        folder.read_json(path)


def test_codes_are_the_documented_ones() -> None:
    assert (exits.OK, exits.INTERNAL, exits.BAD_INPUT, exits.NOT_COMPARABLE) == (0, 1, 2, 3)
    assert (exits.ENVIRONMENT, exits.INCONCLUSIVE, exits.REGRESSION) == (4, 5, 6)
