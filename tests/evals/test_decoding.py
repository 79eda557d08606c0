"""evals.decoding: real workers, stopped, killed and starved; the same frames as without them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from evals.decoding import Decoding, Limits, Worker
from evals.errors import BadInput, TimedOut, Undecodable
from evals.types import Protocol, Sample
from evals.video import Exactly, Wanted, read_clip

LAW = Protocol("test", fps=2.0, min_frames=4, max_frames=16)
Writer = Callable[..., Path]


def noise(n: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def wanted(path: Path, modality: str = "video") -> Wanted:
    return Wanted(path, modality)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain() -> Iterator[Decoding]:
    with Decoding() as decoding:
        yield decoding


def alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


# --- the same as in this process -----------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_workers_give_the_frames_of_this_process(mp4: Writer, decoder: str) -> None:
    path = mp4(noise(40))
    here = read_clip(wanted(path), LAW)
    with Decoding(decoder=decoder) as decoding:  # type: ignore[arg-type]
        there = decoding.read(wanted(path), LAW)
    assert (there.frames == here.frames).all()
    assert (there.indices, there.fps, there.total) == (here.indices, here.fps, here.total)
    assert decoding.counts == {"decoded": 1}


def test_frames_by_number(mp4: Writer, plain: Decoding) -> None:
    """Numbers count from the start of the question's part."""
    whole = read_clip(wanted(mp4(noise(40))), Exactly(tuple(range(40))))
    assert whole.indices == tuple(range(40)) and whole.total == 40
    part = Wanted(mp4(noise(40)), "video", (2.0, 5.0))
    for read in (read_clip, plain.read):
        clip = read(part, Exactly((0, 5, 12)))
        assert (clip.frames == whole.frames[[8, 13, 20]]).all()
        assert (clip.indices, clip.total) == ((0, 5, 12), 13)
        for numbers in ((), (13,), (-1,), (5, 3), (2, 2)):
            with pytest.raises(Undecodable, match="within 0 to 12"):
                read(part, Exactly(numbers))


def test_images_and_what_cannot_be_read(plain: Decoding, mp4: Writer, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    clip = plain.read(wanted(tmp_path / "a.png", "image"), LAW)
    assert clip.modality == "image" and clip.frames.shape == (1, 20, 30, 3)
    (tmp_path / "bad.mp4").write_text("no film")
    for path, why in (
        (tmp_path / "none.mp4", "no such file"),
        (tmp_path / "bad.mp4", "not a readable video"),
        (tmp_path / "a.png", "not a video"),
        (mp4(np.zeros((4, 4, 1000, 3), np.uint8)), "too slim"),
    ):
        with pytest.raises(Undecodable, match=why) as caught:
            plain.read(wanted(path), LAW)
        assert str(caught.value).startswith(str(path))
    assert plain.counts["killed"] == 0  # a bad file costs no worker


def test_clips_are_read_ahead_and_once(mp4: Writer) -> None:
    paths = [mp4(noise(8), name=f"{i}.mp4") for i in range(3)]
    samples = [Sample(f"{i}{k}", "?", "numerical", "1", "video", p)
               for i, p in enumerate(paths) for k in range(7)]  # fmt: skip
    with Decoding(workers=2) as decoding:
        clips = decoding.clips(LAW)
        clips.prefetch(samples)
        clips.prefetch(samples)
        loaded = [clips.load(sample) for sample in samples]
        assert clips.decodes == 3 and decoding.counts == {"decoded": 3}
        assert len({id(clip) for clip in loaded}) == 3
        workers = list(decoding._alive)
    assert workers and not any(alive(w.process) for w in workers)


def test_a_broken_file_is_tried_once(tmp_path: Path, plain: Decoding) -> None:
    (tmp_path / "bad.mp4").write_text("no film")
    clips = plain.clips(LAW)
    sample = Sample("q", "?", "numerical", "1", "video", tmp_path / "bad.mp4")
    for _ in range(3):
        with pytest.raises(Undecodable, match="not a readable video"):
            clips.load(sample)
    assert clips.decodes == 1


# --- limits --------------------------------------------------------------------------------------


def stopping(decoding: Decoding, number: int) -> threading.Thread:
    """Sends `number` to the first worker of `decoding` as soon as there is one."""

    def send() -> None:
        while not decoding._alive:
            time.sleep(0.001)
        os.kill(next(iter(decoding._alive)).process.pid, number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_worker_that_hangs_is_killed_and_the_file_named(mp4: Writer, tmp_path: Path) -> None:
    path, other = mp4(noise(8), name="hangs.mp4"), mp4(noise(9), name="well.mp4")
    with Decoding(limits=Limits(seconds=5.0)) as decoding:
        thread = stopping(decoding, signal.SIGSTOP)  # as decord#373: it answers nobody
        with pytest.raises(TimedOut, match=r"hangs\.mp4: reading it took more than 5 s"):
            decoding.read(wanted(path), LAW)
        thread.join()
        assert decoding.counts["killed"] == 1 and not decoding._alive
        assert decoding.read(wanted(other), LAW).total == 9  # by a new worker


def test_a_worker_that_dies_is_a_named_outcome(mp4: Writer) -> None:
    path = mp4(noise(8))
    with Decoding() as decoding:
        thread = stopping(decoding, signal.SIGKILL)
        with pytest.raises(Undecodable, match=r"ended the decoder \(signal 9\)"):
            decoding.read(wanted(path), LAW)
        thread.join()


class Fragile(Worker):
    """Loses its process, really, when asked to decode with `victim`."""

    victim, number = "decord", signal.SIGSTOP

    def ask(self, request, deadline):  # type: ignore[no-untyped-def]
        if request.get("decoder") == self.victim:
            os.kill(self.process.pid, self.number)
        return super().ask(request, deadline)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_where_decord_hangs_pyav_reads(
    mp4: Writer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("evals.decoding.Worker", Fragile)
    monkeypatch.setattr(Fragile, "number", number)
    path = mp4(noise(8))
    with Decoding(decoder="decord", limits=Limits(seconds=5.0)) as decoding:
        clip = decoding.read(wanted(path), LAW)
    assert (clip.frames == read_clip(wanted(path), LAW).frames).all()
    assert decoding.counts == {"rescued": 1, "killed": 1, "decoded": 1}


def test_quarantine(mp4: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once is enough: not tried again by a later run, unless limits or file change."""
    monkeypatch.setattr("evals.decoding.Worker", Fragile)
    monkeypatch.setattr(Fragile, "victim", "pyav")
    monkeypatch.setattr(Fragile, "number", signal.SIGSTOP)
    path, cache, limits = mp4(noise(8)), tmp_path / "cache", Limits(seconds=4.0)
    with Decoding(limits=limits, cache=cache) as decoding, pytest.raises(TimedOut):
        decoding.read(wanted(path), LAW)
    entry = json.loads((cache / "quarantine.jsonl").read_text())
    assert entry["outcome"] == "timeout" and entry["path"] == str(path)
    monkeypatch.undo()
    with (cache / "quarantine.jsonl").open("a") as file:
        file.write('{"key": "cut sho')  # as a kill leaves it
    with Decoding(limits=limits, cache=cache) as decoding:
        copy = path.with_name("copy.mp4")
        copy.write_bytes(path.read_bytes())
        for same in (path, copy):
            with pytest.raises(TimedOut, match=r"took more than 4 s; listed in .*quarantine"):
                decoding.read(wanted(same), LAW)
        assert decoding.counts == {"quarantined": 2}
    with Decoding(limits=Limits(seconds=60), cache=cache) as decoding:
        assert decoding.read(wanted(path), LAW).total == 8


def test_memory_is_limited(mp4: Writer) -> None:
    path = mp4(noise(8, 720, 1280))
    with Decoding(limits=Limits(memory=1 << 30)) as decoding:
        assert decoding.read(wanted(path), LAW).total == 8
    with Decoding(limits=Limits(memory=200 << 20)) as decoding, pytest.raises(Undecodable) as why:
        decoding.read(wanted(path), LAW)
    assert str(path) in str(why.value)


def test_frames_and_pixels_are_limited(mp4: Writer) -> None:
    path = mp4(noise(8))
    with (
        Decoding(limits=Limits(frames=7)) as decoding,
        pytest.raises(Undecodable, match="8 frames are more than the limit of 7"),
    ):
        decoding.read(wanted(path), LAW)
    with (
        Decoding(limits=Limits(pixels=4 * 64 * 64 * 3 - 1)) as decoding,
        pytest.raises(Undecodable, match="4 frames of 64 x 64 pixels are more than"),
    ):
        decoding.read(wanted(path), LAW)


def test_an_unknown_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.decoding.versions", lambda: {"pyav": "pyav 18"})
    with pytest.raises(BadInput, match="decord is not installed"):
        Decoding(decoder="decord")


def test_no_worker_outlives_a_killed_parent(mp4: Writer) -> None:
    """Its input ends, and so does it."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom evals.decoding import Decoding\n"
        "from evals.types import Protocol\nfrom evals.video import Wanted\n"
        "d = Decoding()\nd.read(Wanted(Path(sys.argv[1]), 'video'), Protocol('t'))\n"
        "print(next(iter(d._alive)).process.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(mp4(noise(4)))], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        if not stat.exists() or ") Z" in stat.read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the worker is still there")


# --- the store -----------------------------------------------------------------------------------


def test_a_second_run_decodes_nothing(mp4: Writer, tmp_path: Path) -> None:
    path, cache = mp4(noise(20)), tmp_path / "cache"
    clips = []
    for expected in ("decoded", "stored"):
        with Decoding(cache=cache, worth=0) as decoding:
            clips.append(decoding.read(wanted(path), LAW))
            assert decoding.counts == {expected: 1}
    assert (clips[0].frames == clips[1].frames).all() and clips[0].indices == clips[1].indices
    with Decoding(cache=cache, worth=0) as decoding:  # the same film elsewhere, another law
        moved = path.rename(path.with_name("moved.mp4"))
        decoding.read(wanted(moved), LAW)
        decoding.read(wanted(moved), Protocol("other", max_frames=4))
        assert decoding.counts == {"stored": 1, "decoded": 1}
        moved.write_bytes(mp4(noise(20) // 2, name="new.mp4").read_bytes())
        decoding.read(wanted(moved), LAW)  # the same name, another film
        assert decoding.counts == {"stored": 1, "decoded": 2}


def test_what_decodes_fast_is_not_stored(mp4: Writer, tmp_path: Path) -> None:
    with Decoding(cache=tmp_path / "cache", worth=60) as decoding:
        decoding.read(wanted(mp4(noise(4))), LAW)
    assert not list((tmp_path / "cache").rglob("frames/*/*"))
