"""How fast films become masked-prediction records, against one seek per picture.

    make bench          writes results/perf/synthesis.json and synthesis.md

Processor time of one thread, round by round, medians; the pictures are the same.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from repro.machine import cores
from repro.mvp.synthesis import worker
from repro.mvp.synthesis.films import Filming, pictures
from repro.mvp.synthesis.items import Sampling
from repro.mvp.synthesis.make import Settings, synthesize
from repro.mvp.synthesis.store import Store
from tests.perf import table
from tests.perf.synthesizing import by_seeking, children, film, lengthened, peak_of, told_apart

pytestmark = [pytest.mark.perf, pytest.mark.timeout(3600)]

SEEKING = 4.0  # at least so many times the baseline
WORKERS = 1.6  # at least, from 1 to 2
MEMORY = 1024.0  # MiB, of a film of 30 minutes
ROUNDS, SECONDS, FILMS = 3, 180, 8
SETTINGS = Settings(Filming(), Sampling(0.85, (2, 3, 4)), "built-in")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Filled by the tests, written by the last one."""
    return {}


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / "minute.mp4", 60)


@pytest.fixture(scope="module")
def long(minute: Path) -> Path:
    """Three minutes."""
    return lengthened(minute, minute.with_name("long.mp4"), SECONDS // 60)


def spent(path: Path, folder: Path) -> dict[str, float]:
    """Processor seconds of pass 1 and 2 on one film, in this process."""
    shutil.rmtree(folder, ignore_errors=True)
    cost = dict(worker.see(path, Store(folder / "cache", SETTINGS.filming), "built-in")["cost"])
    return cost


def test_pictures_per_second(
    long: Path, tmp_path: Path, measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
    benchmark: Any,
) -> None:  # fmt: skip
    ours, plain = list(pictures(long, Filming())), list(by_seeking(long, Filming()))
    assert len(ours) == len(plain) == SECONDS
    assert all((a[1] == b[1]).all() for a, b in zip(ours, plain, strict=True))
    spent(long, tmp_path / "warm")
    costs, ratios = [], []
    for _ in range(ROUNDS):
        costs.append(spent(long, tmp_path / "ours"))
        with monkeypatch.context() as patch:
            patch.setattr(worker, "pictures", by_seeking)
            other = spent(long, tmp_path / "plain")
        ratios.append(sum(other.values()) / sum(costs[-1].values()))
    medians = {name: statistics.median(c[name] for c in costs) for name in costs[0]}
    measured["one core"] = {
        "seconds": SECONDS, "times_real": SECONDS / sum(medians.values()), "spent": medians,
        "ratio": statistics.median(ratios),
    }  # fmt: skip
    benchmark.pedantic(spent, args=(long, tmp_path / "last"), rounds=1)
    assert measured["one core"]["ratio"] >= SEEKING


def test_two_workers(
    long: Path, tmp_path: Path, measured: dict[str, Any], benchmark: Any
) -> None:  # fmt: skip
    """What the processor times allow: all the workers' share halves, the rest does not. The clock
    is asked too where two cores are free."""
    for number in range(FILMS):
        told_apart(long, tmp_path / f"films/{number}.mp4", number)
    took: dict[int, tuple[float, float, float]] = {}
    free = cores() >= 2 and os.getloadavg()[0] < 0.5
    for workers in (1, 2):
        began = time.perf_counter(), time.process_time(), children()
        synthesize(
            tmp_path / "films", tmp_path / f"out{workers}", SETTINGS, tmp_path / f"cache{workers}",
            workers=workers,
        )  # fmt: skip
        ended = time.perf_counter(), time.process_time(), children()
        took[workers] = tuple(b - a for a, b in zip(began, ended, strict=True))  # type: ignore[assignment]
    (_, own, one), (_, own2, two) = took[1], took[2]
    hours = FILMS * SECONDS / 3600
    measured["two workers"] = {
        "films": FILMS, "allowed": (own + one) / (own2 + two / 2),
        "clock": took[1][0] / took[2][0] if free else None, "records_share": own / (own + one),
        "times_real": hours * 3600 / (own + one),
    }  # fmt: skip
    benchmark.pedantic(lambda: None, rounds=1)
    assert measured["two workers"]["allowed"] >= WORKERS
    if free:
        assert measured["two workers"]["clock"] >= WORKERS


def test_memory_does_not_grow_with_the_film(
    minute: Path, tmp_path: Path, measured: dict[str, Any], benchmark: Any
) -> None:
    half_an_hour = lengthened(minute, tmp_path / "half.mp4", 30)

    def peak(path: Path) -> float:
        return peak_of(
            "from pathlib import Path\nfrom repro.mvp.synthesis.films import Filming\n"
            "from repro.mvp.synthesis.store import Store\n"
            "from repro.mvp.synthesis.worker import see\n"
            f"see(Path({str(path)!r}), Store(Path({str(tmp_path / path.stem)!r}), Filming()), "
            "'built-in')"
        )

    measured["memory"] = {"1": peak(minute), "30": peak(half_an_hour)}
    benchmark.pedantic(lambda: None, rounds=1)
    assert measured["memory"]["30"] < min(MEMORY, measured["memory"]["1"] + 64)


def test_the_table_is_written(measured: dict[str, Any], benchmark: Any) -> None:
    if set(measured) != {"one core", "two workers", "memory"}:
        pytest.skip("only part of it was measured")
    text = benchmark.pedantic(table.write_synthesis, args=(measured,), rounds=1)
    assert "x real time" in text
