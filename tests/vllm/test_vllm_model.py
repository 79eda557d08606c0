"""`vllm:FOLDER` in an evaluation: a real vLLM on a CPU answers as our own path does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evals.benchmarks import Benchmark
from evals.benchmarks.jsonl import read
from evals.models import Checkpoint, load
from evals.run import evaluate
from evals.types import Decoding, Row
from evals.vllm_model import Engine
from evals.vlm import load as load_vlm
from repro import tiny
from repro.tiny.model import PROTOCOL

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]
GREEDY = replace(PROTOCOL, decoding=Decoding(max_new_tokens=40))


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(tiny.__file__).parent / "ktr"


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    model = load(f"vllm:{folder}")
    assert isinstance(model, Engine)
    return model


@pytest.fixture(scope="module")
def benchmark_(films: Callable[..., Path]) -> Benchmark:
    """Six films, four questions each, and one film that cannot be read."""
    made = films("test", 6)
    samples = read(made / "records.json", made)
    lost = made.parent / "lost.mp4"
    lost.write_text("no film")
    return Benchmark(
        "test", "test", (*samples, replace(samples[0], id="lost", media=lost)), "r", "0" * 64
    )


def test_greedy_replies_are_ours(engine: Engine, folder: Path, benchmark_: Benchmark) -> None:
    theirs = evaluate(engine, benchmark_, GREEDY, save_replies=True)
    ours = evaluate(Checkpoint(load_vlm(folder), "ours"), benchmark_, GREEDY, save_replies=True)
    assert theirs == ours
    assert theirs[-1].outcome == "undecodable" and len({r.reply for r in theirs}) > 5


def test_draws_are_repeatable_and_seeded(engine: Engine, benchmark_: Benchmark) -> None:
    drawn = replace(PROTOCOL, decoding=Decoding(temperature=1.0, max_new_tokens=40, samples=3))

    def run(seed: int) -> list[Row]:
        return evaluate(engine, benchmark_, drawn, save_replies=True, seed=seed)

    first = run(1)
    assert run(1) == first != run(2)
    assert len(first) == 3 * (len(benchmark_.samples) - 1) + 1
    few = replace(benchmark_, samples=benchmark_.samples[:3])
    assert evaluate(engine, few, drawn, save_replies=True, seed=1) == first[:9]  # nor of company


def test_probes_reach_it(engine: Engine, benchmark_: Benchmark) -> None:
    plain = evaluate(engine, benchmark_, GREEDY, save_replies=True)
    blind = evaluate(engine, benchmark_, GREEDY, save_replies=True, probe="no-video")
    assert [r.id for r in plain] == [r.id for r in blind]
    assert sum(a.reply != b.reply for a, b in zip(plain, blind, strict=True)) > 10
