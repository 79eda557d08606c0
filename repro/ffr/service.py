"""Teachers at a distance from training: asked at once, waited for with a deadline, never a hang.

    start(failures) -> Pending, at once      Pending.result(deadline) -> one Repair per failure

An asyncio loop in a thread of its own asks the teacher, at most `parallel` at a time, with a time
limit, retries with back-off, a cache, the leak gate and a circuit breaker. Whatever befalls a
teacher is a status (ffr.md 6.5); training goes on without a patch, and `alarm` says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import cast

import numpy as np

from evals.seeds import derive
from repro.ffr.breaker import Breaker
from repro.ffr.cache import Cache, Entry
from repro.ffr.case import Case
from repro.ffr.gate import Finding, Gate
from repro.ffr.patch import Patch
from repro.ffr.teacher import (
    Busy,
    Down,
    Failure,
    Invalid,
    Late,
    Leaks,
    Repair,
    Teacher,
    TeacherFault,
    counting,
)

_log = logging.getLogger(__name__)
_began: ContextVar[float] = ContextVar("began")  # when the failure at hand was handed in


@dataclass(frozen=True)
class Limits:
    """All chosen. timeout: seconds of one try, and for which a server may say that it is asked too
    often. backoff: seconds before the second try, doubled for each further one, drawn from half to
    all of it. opens_after, pause, longest_pause: the circuit
    breaker's failures in a row and seconds."""

    parallel: int = 8
    timeout: float = 60.0
    tries: int = 3
    backoff: float = 1.0
    opens_after: int = 5
    pause: float = 30.0
    longest_pause: float = 600.0


class Pending:
    """Failures on their way to a teacher."""

    def __init__(
        self, futures: Sequence[concurrent.futures.Future[Repair]], waiting: set[int], kept: bool
    ):
        self._futures, self._waiting, self._kept = futures, waiting, kept
        self._began = time.monotonic()

    def result(self, deadline: float) -> list[Repair]:
        """One repair per failure, in order, at most `deadline` seconds from now; what is late is a
        `timeout`. Late calls already made go on into the cache, if there is one; others are taken
        back.

        Raises what a teacher raised that is not a TeacherFault: a defect, not an outage.
        """
        end = time.monotonic() + deadline
        done, late = [], []
        for number, future in enumerate(self._futures):
            try:
                done.append(future.result(max(0.0, end - time.monotonic())))
            except (TimeoutError, concurrent.futures.CancelledError):
                late.append(number)
                done.append(Repair("timeout", seconds=time.monotonic() - self._began))
        waiting = [number for number in late if number in self._waiting]
        for number in (*waiting, *late):  # first those that would take a freed place
            if number in waiting or not self._kept:
                self._futures[number].cancel()
        return done

    @property
    def done(self) -> bool:
        """Whether `result` would return at once."""
        return all(future.done() for future in self._futures)


class Service:
    """A teacher behind a queue; a context manager that ends its thread.

    gate: None lets every patch pass. cache: None asks anew each time. counts: failures by status,
    `asked` and `retried` calls, `limited` ones (too many at once), `blind_tests`, `leak_<stage>`,
    and what teachers spent (tokens, tool_calls, ...).
    """

    def __init__(
        self, teacher: Teacher, gate: Gate | None = None, cache: Cache | None = None,
        limits: Limits | None = None,
    ):  # fmt: skip
        self.teacher, self.gate, self.cache = teacher, gate, cache
        self.limits = limits or Limits()
        self.counts: Counter[str] = Counter()
        self._alarm, self._closing = "", False
        self._breaker = Breaker(
            self.limits.opens_after, self.limits.pause, self.limits.longest_pause
        )
        self._loop = asyncio.new_event_loop()
        self._seats = asyncio.Semaphore(self.limits.parallel)
        self._running: dict[str, asyncio.Task[Repair]] = {}
        self._thread = threading.Thread(target=self._run, name="teacher", daemon=True)
        self._thread.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def close(self, patience: float = 5.0) -> None:
        """Take back what is under way and end the thread; a stuck one is left to its fate."""
        if self._loop.is_closed() or not self._thread.is_alive():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(patience)
        except TimeoutError:
            return
        except concurrent.futures.CancelledError:  # by another `close`
            pass
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patience)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        self._closing = True
        me = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not me]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self.teacher, "close"):
            await self.teacher.close()

    @property
    def alarm(self) -> str:
        """What to tell the user, "" while all is well: training goes on, but without a teacher."""
        if not self._breaker.open:
            return ""
        return (
            f"the teacher {self.teacher.id} does not answer ({self._alarm}); rollouts stay "
            f"unrepaired, next try in {self._breaker.left:.0f} s"
        )

    def start(self, failures: Sequence[Failure]) -> Pending:
        """Begin to ask; returns at once. Raises RuntimeError after `close`."""
        if not self._thread.is_alive():
            raise RuntimeError("this service is closed")
        waiting = set(range(len(failures)))
        futures = [
            asyncio.run_coroutine_threadsafe(self._one(failure, number, waiting), self._loop)
            for number, failure in enumerate(failures)
        ]
        return Pending(futures, waiting, self.cache is not None and self.teacher.stores)

    # --- in the loop's thread ------------------------------------------------------------------

    async def _one(self, failure: Failure, number: int, waiting: set[int]) -> Repair:
        began, spent = time.monotonic(), counting()
        _began.set(began)
        case = Case.of(failure)
        key = await self._key(failure)
        repair = await self._known(key, failure, case) if key else None
        if repair is None:
            task = cast("asyncio.Task[Repair]", asyncio.current_task())
            if key:
                self._running[key] = task
            try:
                async with self._seats:
                    waiting.discard(number)
                    repair = await self._ask(failure, case)
            finally:
                if key and self._running.get(key) is task:
                    del self._running[key]
            if key and self.cache is not None:
                place = key if repair.patch else self.cache.refusal(key, self._gate)
                await asyncio.to_thread(self.cache.put, place, repair, self.teacher.id, failure)
        self.counts[repair.status] += 1
        self.counts.update(spent)
        return replace(repair, usage=dict(spent), seconds=time.monotonic() - began)

    async def _key(self, failure: Failure) -> str:
        if self.cache is None or not self.teacher.stores:
            return ""
        return await asyncio.to_thread(self.cache.key, self.teacher.id, failure)

    @property
    def _gate(self) -> str:
        return self.gate.id if self.gate else "no gate"

    async def _known(self, key: str, failure: Failure, case: Case) -> Repair | None:
        """From the same failure under way, else from the cache; None to ask for it."""
        while (running := self._running.get(key)) is not None:
            await asyncio.wait([running])
            if not running.cancelled() and running.exception() is None:
                found = running.result()
                if found.patch is None:
                    return Repair(found.status)
                return await self._again(found.patch, case, blind=False)  # it just stood the test
        if self.cache is None:
            return None
        kept: Entry | None = await asyncio.to_thread(self.cache.get, key)
        refusal = self.cache.refusal(key, self._gate)
        refused: Entry | None = await asyncio.to_thread(self.cache.get, refusal)
        repair = None
        if kept is not None and kept.patch is not None:
            repair = await self._again(kept.patch, case)
        if repair is None and refused is not None:
            repair = Repair(refused.status)
        if key in self._running:  # begun meanwhile
            return await self._known(key, failure, case)
        return repair

    async def _again(self, patch: Patch, case: Case, *, blind: bool = True) -> Repair | None:
        """A known patch for this failure; None if today's gate refuses it here."""
        found = await self._found(patch, case, blind=blind)
        if found is not None and self.gate is not None and not self.gate.audit:
            self.counts["stale"] += 1
            return None
        return Repair("cached", patch)

    async def _found(self, patch: Patch, case: Case, *, blind: bool = True) -> Finding | None:
        """What the gate has against a patch: rules first, then the blind test."""
        if self.gate is None:
            return None
        found: Finding | None = self.gate.check(patch, case)
        if found is None and blind and self.gate.blind is not None:
            self.counts["blind_tests"] += 1
            found = await asyncio.to_thread(self.gate.test, patch, case)
        return found

    async def _ask(self, failure: Failure, case: Case) -> Repair:
        """One patch that the gate lets pass, or what became of it; a second chance after a patch
        that leaks or a reply that is none."""
        last: TeacherFault | None = None
        for chance in range(2):
            if last is not None:
                why = "it gave the answer away" if isinstance(last, Leaks) else "it was no patch"
                failure = replace(failure, rejected=why, seed=derive(failure.seed, "again", chance))
                self.counts["regenerated"] += 1
            try:
                patch = await self._patiently(failure)
                if patch is None:
                    return Repair("retry" if self.teacher.second_try else "none")
                await self._judge(patch, case)
                return Repair("ok", patch)
            except (Leaks, Invalid) as error:
                last = error
            except TeacherFault as error:
                return Repair(error.status)
            except _Open:
                return Repair("circuit_open")
        assert last is not None
        return Repair(last.status)

    async def _judge(self, patch: Patch, case: Case) -> None:
        """Raises Leaks, with the stage counted."""
        found = await self._found(patch, case)
        if found is not None:
            self.counts[f"leak_{found.stage}"] += 1
            if self.gate and not self.gate.audit:
                raise Leaks(f"{found.stage}: {found.reason}")

    async def _patiently(self, failure: Failure) -> Patch | None:
        """Ask, again after a fault that may pass; a server that is only asked too often costs no
        try, but time. Raises TeacherFault, or _Open."""
        rng = np.random.default_rng(derive(failure.seed, "backoff"))
        most, tried, limited = self.limits.pause, 0, 0
        until = time.monotonic() + self.limits.timeout
        fault: Down
        while True:
            try:
                return await self._once(failure)
            except Busy as error:
                limited, fault = limited + 1, error
                self.counts["limited"] += 1
                pause = self.limits.backoff * 2 ** min(limited - 1, 10)
                if time.monotonic() >= until:  # so long that it is no better than an outage
                    self._failed(str(error))
                    raise
            except Down as error:
                tried, fault = tried + 1, error
                pause = self.limits.backoff * 2 ** (tried - 1)
                if not error.retryable or tried == self.limits.tries:
                    raise
            self.counts["retried"] += 1
            pause *= float(rng.uniform(0.5, 1.0))
            await asyncio.sleep(min(max(pause, fault.wait), most))

    async def _once(self, failure: Failure) -> Patch | None:
        if not self._breaker.admits():
            raise _Open
        self.counts["asked"] += 1
        called = time.monotonic()
        try:
            patch = await asyncio.wait_for(self.teacher.patch(failure), self.limits.timeout)
        except TimeoutError:
            late = f"no reply within {self.limits.timeout:g} s"
            self._failed(late)
            raise Late(late) from None
        except Busy:
            self._breaker.abandoned()
            raise
        except (Down, Late) as error:
            self._failed(str(error))
            raise
        except TeacherFault:
            self._breaker.succeeded()
            raise
        except asyncio.CancelledError:
            self._taken_back(called)
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return patch

    def _taken_back(self, called: float) -> None:
        """A call given up at its round's deadline is a failure if it had half of the round or more
        to itself (chosen): one made late says nothing about the server."""
        now = time.monotonic()
        if self._closing or now - called < (now - _began.get()) / 2:
            self._breaker.abandoned()
        else:
            self._failed(f"no reply within {now - called:.3g} s, when its round ended")

    def _failed(self, why: str) -> None:
        self._alarm = why
        if self._breaker.failed():
            self.counts["opened"] += 1
            _log.warning("%s", self.alarm)


class _Open(Exception):
    """Nobody is asked for now."""
