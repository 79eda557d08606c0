"""How fast questions are answered and films decoded, against plain ways of doing the same.

    make bench          writes results/perf/evaluation.json and evaluation.md

Ratios of CPU time of one thread, round by round, medians; the answers and frames are the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from evals.models import Scripted
from evals.rows import RowFile
from evals.run import evaluate, stream
from evals.vlm import VLM
from evals.vlm import load as load_vlm
from repro import tiny
from repro.recipe import Recipe
from tests.perf import table
from tests.perf.evaluating import DECODERS, PER_FILM, appended, ours, plain, shaped

pytestmark = [pytest.mark.perf, pytest.mark.timeout(3600)]

QUESTIONS = 3.0  # at least so many times the plain path
ORACLE = 2.0  # at most so many times the loop
ROUNDS = 3
GOPS = {"48": 48, "250": 250}  # frames between key frames


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Filled by the tests, written by the last one."""
    return {}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load_vlm(Path(tiny.__file__).parent / "ktr")


def test_questions_per_second(
    vlm: VLM, films: Callable[..., Path], measured: dict[str, Any], benchmark: Any
) -> None:
    recipe = Recipe.load("ktr")
    protocol = recipe.protocol(recipe.decoding(greedy=True))
    asked = shaped(films("test", 16))
    n, ratios, rate = len(asked.samples), [], []
    assert n == 16 * PER_FILM
    ours(vlm, asked, protocol)  # warm
    for _ in range(ROUNDS):
        fast, rows = cpu(lambda: ours(vlm, asked, protocol))
        slow, same = cpu(lambda: plain(vlm, asked, protocol))
        assert rows == same, "another way to the same answers"
        ratios.append(slow / fast)
        rate.append((n / fast, n / slow))
    measured["questions"] = {
        "films": 16, "questions": n, "ratio": statistics.median(ratios),
        "per_second": {"ours": statistics.median(r[0] for r in rate),
                       "plain": statistics.median(r[1] for r in rate)},
    }  # fmt: skip
    benchmark.pedantic(ours, args=(vlm, asked, protocol), rounds=1)
    assert measured["questions"]["ratio"] >= QUESTIONS


def test_the_oracle_costs_little_more_than_writing(
    films: Callable[..., Path], measured: dict[str, Any], tmp_path: Path, benchmark: Any
) -> None:
    recipe = Recipe.load("ktr")
    protocol = recipe.protocol(recipe.decoding(greedy=True))
    asked, model = shaped(films("test", 160)), Scripted("oracle")
    rows = evaluate(model, asked, protocol)

    def whole(path: Path) -> None:
        with RowFile(path, {}, 1) as file:
            for part in stream(
                model, asked, protocol, limit=None, seed=0, progress=lambda done, total: None,
                save_replies=False, resume_rows=(), batch=64,
            ):  # fmt: skip
                file.add(part)

    ratios = []
    for number in range(5):
        loop, _ = cpu(lambda number=number: appended(rows, tmp_path / f"loop{number}"))
        ours_, _ = cpu(lambda number=number: whole(tmp_path / f"ours{number}"))
        ratios.append(ours_ / loop)
    measured["oracle"] = {"questions": len(rows), "ratio": statistics.median(ratios)}
    benchmark.pedantic(whole, args=(tmp_path / "last",), rounds=1)
    assert measured["oracle"]["ratio"] <= ORACLE


@pytest.mark.parametrize("gop", GOPS)
def test_frames_per_second(
    tmp_path: Path, measured: dict[str, Any], gop: str, benchmark: Any
) -> None:
    """30 s at 30 frames/s, 640 x 360, 16 frames evenly spread."""
    path = tmp_path / "film.mp4"
    _film(path, GOPS[gop])
    indices = tuple(int(i) for i in np.linspace(0, 899, 16).round())
    seconds: dict[str, list[float]] = {name: [] for name in DECODERS}
    for _ in range(ROUNDS):
        frames = {}
        for name, decode in DECODERS.items():
            took, frames[name] = cpu(lambda decode=decode: decode(path, indices))
            seconds[name].append(took)
        assert all((f == frames["per index"]).all() for f in frames.values())
    rates = {name: 16 / statistics.median(took) for name, took in seconds.items()}
    measured.setdefault("decoding", {})[gop] = {
        "per_second": rates, "ratio": rates["ours"] / rates["per index"]
    }  # fmt: skip
    benchmark.pedantic(DECODERS["ours"], args=(path, indices), rounds=1)
    assert rates["ours"] >= 2 * rates["per index"]


def test_the_table_is_written(measured: dict[str, Any], benchmark: Any) -> None:
    if set(measured) != {"questions", "oracle", "decoding"}:
        pytest.skip("only part of it was measured")
    text = benchmark.pedantic(table.write_evaluation, args=(measured,), rounds=1)
    assert "questions/s" in text


def _film(path: Path, gop: int) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (45, 80, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as out:
        stream_ = out.add_stream("libx264", rate=30)
        stream_.height, stream_.width, stream_.pix_fmt = 360, 640, "yuv420p"
        stream_.options = {"g": str(gop), "preset": "veryfast"}
        for i in range(900):
            frame = av.VideoFrame.from_ndarray(np.roll(base, i, 1), format="rgb24")
            out.mux(stream_.encode(frame))
        out.mux(stream_.encode())
