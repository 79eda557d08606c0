"""Evaluation that survives being killed: no question twice, the same draws as unbroken."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from evals import made
from evals.benchmarks import Benchmark, load
from evals.errors import BadInput
from evals.models import Question, Scripted
from evals.types import Decoding, Protocol, Reply
from repro.measure import PART, Label, Weights, measure
from results import filing, ledger
from results.ledger import ROWS

LABEL = Label("ktr", "micro", "random", 0)
PROTOCOL = Protocol("test", decoding=Decoding(temperature=1.0, samples=2))


class Watched(Scripted):
    """The random model, counting questions, and breaking off after `last` of them."""

    def __init__(self, last: int = 10**9):
        super().__init__("random")
        self.asked, self.last = 0, last

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        if self.asked >= self.last:
            raise KeyboardInterrupt
        self.asked += len(questions)
        return super().answer(questions, protocol, decoding)


@pytest.fixture
def benchmark_(films: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    monkeypatch.setattr(Scripted, "at_once", 16)  # eight questions of two replies at a time
    folder = films("test", 8)
    return load("jsonl", data=folder / "records.json", root=folder)


def ask(model: Scripted, benchmark: Benchmark, out: Path, **more: object) -> bytes:
    out.mkdir(exist_ok=True)
    weights = more.pop("weights", Weights("random"))
    measure(model, weights, benchmark, PROTOCOL, LABEL, out, **more)  # type: ignore[arg-type]
    return (out / ROWS).read_bytes()


def test_broken_off_and_resumed_equals_unbroken(benchmark_: Benchmark, tmp_path: Path) -> None:
    whole = ask(Watched(), benchmark_, tmp_path / "whole")
    out = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        ask(Watched(last=16), benchmark_, out)
    assert not (out / "record.json").exists() and (out / PART).exists()
    with (out / PART).open("a") as file:
        file.write('{"id": "half a li')  # as a kill leaves it
    again = Watched()
    assert ask(again, benchmark_, out) == whole
    assert again.asked == len(benchmark_.samples) - 16
    assert not (out / PART).exists()


def test_rows_begun_by_another_model_are_refused(benchmark_: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        ask(Watched(last=8), benchmark_, out)
    with pytest.raises(BadInput, match="another model, protocol or seed"):
        ask(Watched(), benchmark_, out, weights=Weights("other"))


def test_progress_and_rows_grow_together(benchmark_: Benchmark, tmp_path: Path) -> None:
    seen: list[int] = []
    out = tmp_path / "out"

    def look(done: int, total: int) -> None:
        assert total == len(benchmark_.samples)
        seen.append(done)

    ask(Watched(), benchmark_, out, progress=look)
    assert seen[-1] == len(benchmark_.samples) and seen == sorted(seen)


def test_curves_are_filed_with_a_trained_arm(benchmark_: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "arm"
    out.mkdir()
    (out / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward": 1.0}) + "\n")
    (out / "done.json").write_text("{}")
    ask(Watched(), benchmark_, out)
    record = json.loads((out / "record.json").read_text())
    assert record["curves"]["path"] == "metrics.jsonl" and record["tokens"] is None


class Halves(Scripted):
    """Names the first half of the true segment: IoU and IoP are 0.5 and 1."""

    def __init__(self) -> None:
        super().__init__("oracle")

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        said = []
        for question in questions:
            start, end = json.loads(question.sample.gold)
            said.append([Reply(f"<answer>[{start}, {(start + end) / 2}]</answer>", 3)])
        return said


def test_the_further_numbers_of_a_benchmark_are_runs_of_their_own(tmp_path: Path) -> None:
    root = made.make("charades_sta", tmp_path / "data")
    loaded = load("charades_sta", root=root)
    protocol = Protocol("test", grader="strict")
    label, out = Label("temporal_r1", "paper", "halves", 0), tmp_path / "out"
    out.mkdir()
    run = measure(Halves(), Weights("halves"), loaded, protocol, label, out)
    assert run.record.metric == "accuracy" and run.record.score == 1.0  # R1@0.5
    runs = {r.record.metric: r for r in ledger.load(out)}
    assert {m: r.record.score for m, r in runs.items()} == {
        "accuracy": 1.0, "mIoU": 0.5, "R1@0.3": 1.0, "R1@0.5": 1.0, "R1@0.7": 0.0
    }  # fmt: skip
    assert all(not ledger.verify(r) for r in runs.values())
    places = {filing.place(r).name for r in runs.values()}
    assert len(places) == 5 and sum(p.endswith("-mIoU") for p in places) == 1
    filed = filing.add(out, tmp_path / "ledger")
    assert [f.word for f in filed] == ["filed"] * 5
