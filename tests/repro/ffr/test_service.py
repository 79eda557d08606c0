"""repro.ffr.service and cache: whatever befalls a teacher is a status, in time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from evals.errors import BadInput, EnvironmentFault
from evals.types import Sample, VideoClip
from repro.ffr.breaker import Breaker
from repro.ffr.cache import Cache, Replay
from repro.ffr.gate import Gate
from repro.ffr.patch import Patch, told
from repro.ffr.service import Limits, Service, _began
from repro.ffr.teacher import (
    Busy,
    Down,
    Failure,
    Invalid,
    Late,
    Leaks,
    Leaky,
    Oracle,
    Refused,
    Repair,
    Retry,
    TeacherFault,
    spend,
)

SAMPLE = Sample(
    "q", "What colour is the circle?", "multiple choice", "B", "video", Path("a.mp4"),
    ("A. red", "B. blue", "C. green"),
)  # fmt: skip
CLIP = VideoClip(np.zeros((4, 8, 8, 3), np.uint8), (0, 4, 8, 12), 4.0, 16)
FAILURE = Failure(SAMPLE, CLIP, "<think>x</think><answer>A</answer>", "A", 0.0, 7)
PATCH = Patch("spatial", (1, 2), ("1 s to 2 s",), (), "Look at frames 1 and 2.")
LEAK = replace(PATCH, guidance="It is blue.")
QUICK = Limits(tries=3, backoff=0.01, opens_after=3, pause=0.2, longest_pause=1.0)
LONG = 120.0  # a busy machine


def failures(n: int) -> list[Failure]:
    return [replace(FAILURE, reply=f"reply {i}", seed=i) for i in range(n)]


@dataclass
class Scripted:
    """Does what `script` says, call by call; afterwards gives PATCH."""

    script: list[Patch | Exception | None] = field(default_factory=list)
    id: str = "scripted@1"
    second_try: bool = False
    stores: bool = True
    seconds: float = 0.0
    calls: list[Failure] = field(default_factory=list)
    most: int = 0
    now: int = 0

    async def patch(self, failure: Failure) -> Patch | None:
        self.calls.append(failure)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            spend(tokens=10)
            step = self.script.pop(0) if self.script else PATCH
            if isinstance(step, Exception):
                raise step
            return step
        finally:
            self.now -= 1


def statuses(repairs: list[Repair]) -> list[str]:
    return [r.status for r in repairs]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    found = Cache(tmp_path / "cache" / "patches.sqlite")
    yield found
    found.close()


# --- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "calls"),
    [
        ([PATCH], "ok", 1), ([None], "none", 1), ([Refused("no")], "refused", 1),
        ([Late("slow")], "timeout", 1), ([Down("401")], "backend_error", 1),
        ([Down("500", retryable=True)], "ok", 2),
        ([Down("500", retryable=True)] * 2 + [PATCH], "ok", 3),
        ([Down("500", retryable=True)] * 3, "backend_error", 3),
        ([Invalid("x")], "ok", 2), ([Invalid("x")] * 2, "invalid", 2),
        ([LEAK], "ok", 2), ([LEAK, LEAK], "leak_rejected", 2), ([LEAK, None], "none", 2),
        ([LEAK, Down("401")], "backend_error", 2), ([Leaks("there")] * 2, "leak_rejected", 2),
    ],
)  # fmt: skip
def test_outcomes(script: list[Patch | Exception | None], status: str, calls: int) -> None:
    teacher = Scripted(list(script))
    with Service(teacher, Gate(), limits=QUICK) as service:
        (repair,) = service.start([FAILURE]).result(LONG)
    assert (repair.status, len(teacher.calls)) == (status, calls)
    assert repair.patch == (PATCH if status == "ok" else None)
    assert repair.again == (status == "ok") and repair.usage == {"tokens": 10 * calls}
    assert service.counts[status] == 1 and service.counts["asked"] == calls


def test_a_second_chance_says_why_and_draws_anew() -> None:
    teacher = Scripted([LEAK])
    with Service(teacher, Gate(), limits=QUICK) as service:
        service.start([FAILURE]).result(LONG)
    first, second = teacher.calls
    assert (first.rejected, second.rejected) == ("", "it gave the answer away")
    assert first.seed != second.seed and service.counts["leak_content"] == 1


def test_offline_teachers_through_the_service() -> None:
    for teacher, gate, status in (
        (Retry(), Gate(), "retry"), (Leaky(), Gate(), "leak_rejected"), (Leaky(), None, "ok"),
        (Leaky(), Gate(audit=True), "ok"), (Oracle(), Gate(), "none"),
    ):  # fmt: skip
        with Service(teacher, gate, limits=QUICK) as service:
            (repair,) = service.start([FAILURE]).result(LONG)
        assert repair.status == status
        assert repair.again == (status in ("ok", "retry"))


def test_the_blind_test_is_the_last_word() -> None:
    seen = []

    def blind(case: object, words: str | None) -> float:
        seen.append(words)
        return 0.3 if words is None else 0.5

    with Service(Scripted(), Gate(blind), limits=QUICK) as service:
        assert statuses(service.start([FAILURE]).result(LONG)) == ["leak_rejected"]
        assert service.counts["leak_blind"] == service.counts["blind_tests"] == 2
    with Service(Scripted(), Gate(blind, bound=0.25), limits=QUICK) as service:
        assert statuses(service.start([FAILURE]).result(LONG)) == ["ok"]
    words = told(PATCH, seconds=CLIP.seconds)  # also when each frame that it names is seen
    assert set(seen) == {None, words} and " s)" in words


def test_a_defect_is_not_an_outage() -> None:
    with Service(Scripted([ZeroDivisionError()]), limits=QUICK) as service:
        with pytest.raises(ZeroDivisionError):
            service.start([FAILURE]).result(LONG)
        assert statuses(service.start([FAILURE]).result(LONG)) == ["ok"]


# --- time -----------------------------------------------------------------------------------------


def test_start_returns_at_once_and_late_is_a_timeout() -> None:
    class Stuck(Scripted):
        async def patch(self, failure: Failure) -> Patch | None:
            self.calls.append(failure)
            await asyncio.Event().wait()
            return None

    teacher = Stuck()
    with Service(teacher, limits=replace(QUICK, parallel=2)) as service:
        pending = service.start(failures(5))
        assert not pending.done
        assert statuses(pending.result(0.3)) == ["timeout"] * 5
        assert len(teacher.calls) <= 2  # the others were taken back


def test_late_calls_go_on_only_where_their_patch_is_kept(cache: Cache) -> None:
    for kept in (cache, None):
        let = threading.Event()

        class Waiting(Scripted):
            async def patch(self, failure: Failure, let: threading.Event = let) -> Patch | None:
                self.calls.append(failure)
                while not let.is_set():
                    await asyncio.sleep(0.01)
                return PATCH

        teacher = Waiting()
        with Service(teacher, None, kept, replace(QUICK, parallel=1)) as service:
            pending = service.start(failures(3))
            while not teacher.calls:
                time.sleep(0.01)
            assert statuses(pending.result(0)) == ["timeout"] * 3
            let.set()
            found = statuses(service.start(failures(1)).result(LONG))
            assert found == (["cached"] if kept else ["ok"])
            assert len(teacher.calls) == (1 if kept else 2)


def test_a_call_has_a_time_limit_of_its_own() -> None:
    teacher = Scripted(seconds=3600)
    with Service(teacher, limits=replace(QUICK, timeout=0.05, opens_after=9)) as service:
        assert statuses(service.start(failures(3)).result(LONG)) == ["timeout"] * 3
        assert service.counts["timeout"] == 3


def test_concurrency_is_bounded_and_real() -> None:
    teacher = Scripted(seconds=0.02)
    with Service(teacher, limits=replace(QUICK, parallel=4)) as service:
        repairs = service.start(failures(20)).result(LONG)
    assert statuses(repairs) == ["ok"] * 20 and teacher.most == 4


def test_a_teacher_that_blocks_its_thread_hangs_nobody() -> None:
    let = threading.Event()

    class Blocking(Scripted):
        async def patch(self, failure: Failure) -> Patch | None:
            let.wait(LONG)
            return PATCH

    service = Service(Blocking(), limits=QUICK)
    assert statuses(service.start([FAILURE]).result(0.2)) == ["timeout"]
    service.close(patience=0.1)
    let.set()
    service.close()


def test_the_circuit_opens_probes_and_closes() -> None:
    teacher = Scripted([Down("refused")] * 4)
    with Service(teacher, limits=replace(QUICK, parallel=1, pause=0.3)) as service:
        assert not service.alarm
        found = statuses(service.start(failures(10)).result(LONG))
        assert found == ["backend_error"] * 3 + ["circuit_open"] * 7
        assert "scripted@1 does not answer (refused)" in service.alarm
        assert service.counts["opened"] == 1
        while service._breaker.left:
            time.sleep(0.02)
        found = statuses(service.start(failures(5)).result(LONG))
        assert found == ["backend_error"] + ["circuit_open"] * 4  # one probe, twice the pause
        while service._breaker.left:
            time.sleep(0.02)
        assert statuses(service.start(failures(5)).result(LONG)) == ["ok"] * 5
        assert not service.alarm and service.counts["opened"] == 2


def test_a_server_that_is_asked_too_often_is_no_outage() -> None:
    """24 calls at once are served, more are told to wait; all are served in the end."""

    class Limited(Scripted):
        async def patch(self, failure: Failure) -> Patch | None:
            if self.now >= 24:
                raise Busy("429")
            return await super().patch(failure)

    teacher = Limited(seconds=0.05)
    with Service(teacher, limits=replace(QUICK, parallel=32)) as service:
        assert statuses(service.start(failures(64)).result(LONG)) == ["ok"] * 64
        assert service.counts["limited"] >= 8 and not service.counts["opened"]
        assert not service.alarm and teacher.most <= 24


def test_a_server_that_is_always_asked_too_often_is_one() -> None:
    class Full(Scripted):
        async def patch(self, failure: Failure) -> Patch | None:
            raise Busy("429", wait=0.01)

    with Service(Full(), limits=replace(QUICK, timeout=0.05, parallel=1)) as service:
        found = statuses(service.start(failures(5)).result(LONG))
        assert found == ["backend_error"] * 3 + ["circuit_open"] * 2 and "429" in service.alarm


def test_calls_that_outlast_their_round_open_the_circuit() -> None:
    class Hung(Scripted):
        async def patch(self, failure: Failure) -> Patch | None:
            self.calls.append(failure)
            await asyncio.Event().wait()
            return None

    teacher = Hung(stores=False)
    with Service(teacher, limits=replace(QUICK, parallel=4, pause=300.0)) as service:
        assert statuses(service.start(failures(8)).result(0.2)) == ["timeout"] * 8
        pending = service.start(failures(8))  # not waited for: no deadline is left to wait for
        assert statuses(pending.result(LONG)) == ["circuit_open"] * 8
        assert "when its round ended" in service.alarm and len(teacher.calls) == 4


def test_a_call_made_late_in_a_round_is_no_failure() -> None:
    with Service(Scripted(), limits=QUICK) as service:
        now = time.monotonic()
        _began.set(now - 1000)
        service._taken_back(now - 400)
        assert service._breaker.failures == 0
        service._taken_back(now - 600)
        assert service._breaker.failures == 1
        service._closing = True  # what is taken back at the end says nothing
        service._taken_back(now - 600)
        assert service._breaker.failures == 1


def test_the_breaker_itself() -> None:
    now = [0.0]
    breaker = Breaker(2, 10.0, 25.0, lambda: now[0])
    assert breaker.admits() and not breaker.failed() and breaker.admits() and breaker.failed()
    assert not breaker.failed()  # a call from before
    assert not breaker.admits() and breaker.left == 10
    for pause in (20.0, 25.0, 25.0):
        now[0] += breaker.left
        assert breaker.admits() and not breaker.admits() and breaker.failed()
        assert breaker.left == pause
    now[0] += 25
    assert breaker.admits()
    breaker.abandoned()
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.admits() and breaker.admits() and not breaker.failed()


# --- the cache ------------------------------------------------------------------------------------


def test_what_was_paid_for_is_not_asked_again(cache: Cache) -> None:
    teacher = Scripted()
    with Service(teacher, Gate(), cache, QUICK) as service:
        first = service.start(failures(3)).result(LONG)
        again = service.start(failures(4)).result(LONG)
    assert statuses(first) == ["ok"] * 3 and statuses(again) == ["cached"] * 3 + ["ok"]
    assert len(teacher.calls) == 4 and [r.patch for r in again] == [PATCH] * 4
    assert again[0].usage == {}


def test_the_same_failure_at_the_same_time_is_asked_once(cache: Cache) -> None:
    teacher = Scripted(seconds=0.05)
    with Service(teacher, Gate(), cache, QUICK) as service:
        found = statuses(service.start([FAILURE] * 8).result(LONG))
    assert sorted(found) == ["cached"] * 7 + ["ok"] and len(teacher.calls) == 1


def test_a_restart_keeps_it_and_faults_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.sqlite"
    script: list[Patch | Exception | None] = [PATCH, Down("gone")]
    for expected, calls in ((["ok", "backend_error"], 2), (["cached", "ok"], 1)):
        teacher = Scripted(script)
        cache = Cache(path)
        with Service(teacher, Gate(), cache, replace(QUICK, parallel=1)) as service:
            assert statuses(service.start(failures(2)).result(LONG)) == expected
        assert len(teacher.calls) == calls
        cache.close()
        script = []


def test_no_patch_is_remembered_for_a_while(tmp_path: Path) -> None:
    now = [1000.0]
    cache = Cache(tmp_path / "p", negative=60, clock=lambda: now[0])
    teacher = Scripted([Refused("no")])
    with Service(teacher, Gate(), cache, QUICK) as service:
        for _ in range(2):
            assert statuses(service.start([FAILURE]).result(LONG)) == ["refused"]
        assert len(teacher.calls) == 1
        now[0] += 61
        assert statuses(service.start([FAILURE]).result(LONG)) == ["ok"]
        now[0] += 10**9
        assert statuses(service.start([FAILURE]).result(LONG)) == ["cached"]
    key = cache.key(teacher.id, FAILURE)
    cache.put(key, Repair("refused"), teacher.id, FAILURE)  # never in place of a patch
    assert (entry := cache.get(key)) is not None and entry.patch == PATCH


def test_a_kept_patch_meets_todays_rules(cache: Cache) -> None:
    teacher = Scripted([LEAK])
    with Service(teacher, None, cache, QUICK) as service:
        assert statuses(service.start([FAILURE]).result(LONG)) == ["ok"]
    with Service(teacher, Gate(), cache, QUICK) as service:
        (repair,) = service.start([FAILURE]).result(LONG)
    assert (repair.status, repair.patch, service.counts["stale"]) == ("ok", PATCH, 1)


def test_a_kept_patch_meets_todays_blind_test(cache: Cache) -> None:
    def blind(case: object, words: str | None) -> float:
        return float(words is not None)

    teacher, strict = Scripted(), Gate(blind)
    for gate, status, calls, tests in (
        (Gate(), "ok", 1, 0), (Gate(), "cached", 1, 0),
        (strict, "leak_rejected", 3, 3),  # the kept one and two new ones
        (strict, "leak_rejected", 3, 1),  # remembered
        (Gate(blind, bound=0.5), "leak_rejected", 5, 3), (Gate(blind, bound=1.0), "cached", 5, 1),
        (Gate(), "cached", 5, 0), (None, "cached", 5, 0), (Gate(blind, audit=True), "cached", 5, 1),
    ):  # fmt: skip
        with Service(teacher, gate, cache, QUICK) as service:
            (repair,) = service.start([FAILURE]).result(LONG)
        assert (repair.status, len(teacher.calls)) == (status, calls), gate
        assert service.counts["blind_tests"] == tests


def test_a_refusal_holds_under_its_own_gate_alone(cache: Cache) -> None:
    teacher = Scripted([LEAK, LEAK, LEAK])
    for gate, status, calls in (
        (Gate(), "leak_rejected", 2), (Gate(), "leak_rejected", 2),
        (Gate(audit=True), "ok", 3), (None, "cached", 3), (Gate(), "leak_rejected", 3),
    ):  # fmt: skip
        with Service(teacher, gate, cache, QUICK) as service:
            (repair,) = service.start([FAILURE]).result(LONG)
        assert (repair.status, len(teacher.calls)) == (status, calls), gate


def test_what_the_key_depends_on(tmp_path: Path) -> None:
    exact, by_answer = Cache(tmp_path / "a"), Cache(tmp_path / "b", match="by_answer")
    other = VideoClip(CLIP.frames + 1, CLIP.indices, CLIP.fps, CLIP.total)
    later = VideoClip(CLIP.frames, (0, 4, 8, 13), CLIP.fps, CLIP.total)
    same = VideoClip(CLIP.frames.copy(), CLIP.indices, CLIP.fps, CLIP.total)
    base = exact.key("t", FAILURE)
    changes = [
        replace(FAILURE, clip=other), replace(FAILURE, clip=later), replace(FAILURE, clip=None),
        replace(FAILURE, reply="else"), replace(FAILURE, record=replace(SAMPLE, question="?")),
        replace(FAILURE, record=replace(SAMPLE, options=SAMPLE.options[:2])),
        replace(FAILURE, record=replace(SAMPLE, gold="C")),
    ]  # fmt: skip
    keys = [exact.key("t", f) for f in changes] + [exact.key("u", FAILURE), base]
    assert len(set(keys)) == len(keys)
    alike = (
        replace(FAILURE, clip=same), replace(FAILURE, seed=1), replace(FAILURE, score=0.4),
        replace(FAILURE, record=replace(SAMPLE, id="z", media=Path("moved.mp4"))),
    )  # fmt: skip
    assert {exact.key("t", f) for f in alike} == {base}
    said = replace(FAILURE, reply="else")
    assert by_answer.key("t", said) == by_answer.key("t", FAILURE) != base
    assert by_answer.key("t", replace(said, answer="C")) != by_answer.key("t", said)
    unread = replace(FAILURE, answer=None)
    assert by_answer.key("t", unread) != by_answer.key("t", replace(unread, reply="else"))


WRITER = """
import sys
from pathlib import Path
from repro.ffr.cache import Cache
from repro.ffr.patch import Patch, told
from evals.types import Sample
from repro.ffr.teacher import Failure, Repair
cache = Cache(Path(sys.argv[1]))
failure = Failure(Sample("q", "?", "numerical", "1", "text", None), None, "", None, 0.0, 0)
for i in range(40):
    patch = Patch("spatial", (i,), (), (), f"Look, says {sys.argv[2]}.")
    cache.put(f"{sys.argv[2]}-{i}", Repair("ok", patch), "t", failure)
    cache.put(f"shared-{i}", Repair("ok", patch), "t", failure)
"""


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(n)]) for n in range(3)]
    assert [w.wait() for w in writers] == [0] * 3
    cache = Cache(path, readonly=True)
    assert len(cache) == 160 and all(entry.patch for entry in cache.entries())
    cache.put("x", Repair("ok", PATCH), "t", FAILURE)
    assert len(cache) == 160


def test_what_is_no_cache(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(BadInput, match="not a cache of patches"):
        Cache(rubbish)
    with pytest.raises(BadInput, match="no such cache"):
        Cache(tmp_path / "none", readonly=True)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(BadInput, match="not a cache of patches"):
        Cache(tmp_path / "other", readonly=True)
    with pytest.raises(EnvironmentFault, match="cannot be used"):
        Cache(tmp_path)


def test_replay_gives_what_is_kept_and_nothing_else(cache: Cache) -> None:
    with Service(Scripted(), Gate(), cache, QUICK) as service:
        service.start([FAILURE]).result(LONG)
    with Service(Replay(cache), Gate(), limits=QUICK) as service:
        found = service.start([FAILURE, replace(FAILURE, reply="else")]).result(LONG)
    assert statuses(found) == ["ok", "none"] and found[0].patch == PATCH
    cache.put("k", Repair("ok", PATCH), "another@1", FAILURE)
    with pytest.raises(BadInput, match=r"another@1, scripted@1: name one"):
        Replay(cache)


def test_a_damaged_entry_is_named(cache: Cache) -> None:
    cache.put("k", Repair("ok", PATCH), "t", FAILURE)
    with sqlite3.connect(cache.path) as other:
        other.execute("UPDATE repairs SET patch = '{}'")
    other.close()
    with pytest.raises(BadInput, match="no patch under k"):
        cache.get("k")


def test_a_cache_can_be_read_by_hand(cache: Cache) -> None:
    with Service(Scripted(), None, cache, QUICK) as service:
        service.start([FAILURE]).result(LONG)
    (row,) = sqlite3.connect(cache.path).execute("SELECT * FROM repairs").fetchall()
    assert row[1:4] == ("scripted@1", "q", "ok") and json.loads(row[4])["key_frames"] == [1, 2]


def test_every_fault_has_a_status() -> None:
    faults: list[type[TeacherFault]] = [Down, Late, Invalid, Refused, Leaks]
    assert len({fault.status for fault in faults}) == len(faults)
