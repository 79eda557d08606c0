"""The SFT stage: records with worked answers, two phases, an early end, one code path."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals import benchmarks
from evals.errors import BadInput
from repro.coldstart import total_steps, train_sft
from repro.core import demonstrations
from repro.core.checkpoint import latest, step_of, weights_sha256
from repro.exits import Interrupted
from repro.recipe import Recipe
from repro.tiny import build

Change = dict[str, Any]


def small(**changes: Any) -> Recipe:
    """ktr's micro recipe with a shorter cold start."""
    recipe = Recipe.load("ktr")
    assert recipe.sft is not None
    short = {"blind_steps": 2, "max_steps": 4, "per_device_train_batch_size": 2, **changes}
    return replace(recipe, sft=replace(recipe.sft, **short))


@pytest.fixture(scope="module")
def records(films: Callable[..., Path]) -> Path:
    return films("cold", n=4) / "records.json"


@pytest.fixture(scope="module")
def whole(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run of `small()`, and what it told."""
    out, seen = tmp_path_factory.mktemp("whole"), list[Change]()
    train_sft(small(), 0, out, data=records, progress=seen.append)
    assert seen == rows_of(out)
    return out


def rows_of(out: Path) -> list[Change]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_student_from_scratch_in_two_phases(whole: Path, records: Path, tmp_path: Path) -> None:
    out, recipe = whole, small()
    rows = rows_of(out)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["blind"] for row in rows] == [True] * 2 + [False] * 4
    assert total_steps(recipe) == 6 and total_steps(recipe, 9) == 11
    done = json.loads((out / "done.json").read_text())
    assert done["steps"] == 6 and done["sha256"] == weights_sha256(out / "final")
    begun = json.loads((out / "provenance.json").read_text())
    assert begun["arm"] == "sft" and begun["start"] == {"id": "scratch", "sha256": None}
    assert begun["fingerprint"] == recipe.sft_fingerprint
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == [
        "done.json", "final", "metrics.jsonl", "provenance.json",
    ]  # fmt: skip
    again = tmp_path / "again"
    train_sft(recipe, 0, again, data=records, model=out / "final", steps=1)
    assert json.loads((again / "done.json").read_text())["steps"] == 3
    other = tmp_path / "other"
    train_sft(recipe, 1, other, data=records)
    assert json.loads((other / "done.json").read_text())["sha256"] != done["sha256"]


@pytest.mark.parametrize("at", [2, 4])
def test_a_signal_is_obeyed_in_either_phase(
    whole: Path, records: Path, tmp_path: Path, at: int
) -> None:
    """In the first, as it ends, and in the second; what is saved continues to the same weights."""

    def stop(row: Change) -> None:
        if row["step"] == at:
            signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_sft(small(), 0, out, data=records, progress=stop)
    saved = latest(out)
    assert saved is not None and 2 <= step_of(saved) <= 5 and not (out / "done.json").exists()
    train_sft(small(), 0, out, data=records, resume=True)
    done = [json.loads((p / "done.json").read_text()) for p in (out, whole)]
    assert done[0]["sha256"] == done[1]["sha256"] and done[0]["steps"] == 6
    rows = [{**row, "seconds": 0} for row in rows_of(out)]
    assert rows == [{**row, "seconds": 0} for row in rows_of(whole)]


@pytest.mark.parametrize(
    ("stop_at", "kind", "steps"), [(0.0, "", 4), (1.1, "", 6), (0.0, "multiple choice", 4)]
)
def test_it_ends_when_the_student_reads_enough(
    films: Callable[..., Path], tmp_path: Path, stop_at: float, kind: str,
    steps: int, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Asked every second step of the second phase, on the validation split."""
    asked = list[str]()
    load = benchmarks.load

    def few(name: str, *, split: str) -> benchmarks.Benchmark:
        asked.append(f"{name} {split}")
        folder = films("validation", n=2)
        return load("jsonl", data=folder / "records.json")

    monkeypatch.setattr(benchmarks, "load", few)
    monkeypatch.setattr("evals.microworld.SIZES", {"cold": 4, "validation": 2})
    recipe = small(stop_at=stop_at, stop_kind=kind, check_every=2)
    train_sft(recipe, 0, tmp_path / "run", videos=tmp_path / "films")
    assert [row["step"] for row in rows_of(tmp_path / "run")] == list(range(1, steps + 1))
    assert asked == ["microworld validation"]
    with pytest.raises(BadInput, match="holds no question of the kind ordering"):
        train_sft(
            small(stop_at=0.0, stop_kind="ordering"),
            0,
            tmp_path / "none",
            videos=tmp_path / "films",
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": None}, "record 2: `process` is missing or no text"),
        ({"process": " "}, "record 2: `process` is missing or no text"),
        ({"process": ["a"]}, "record 2: `process` is missing or no text"),
        ({"solution": 4}, "record 2: `solution` is missing or no text"),
        ({"solution": None}, "record 2: `solution` is missing"),
        ({"problem_type": "riddle"}, "record 2: unknown problem_type 'riddle'"),
    ],
)
def test_a_record_that_teaches_nothing_is_named(
    records: Path, tmp_path: Path, change: Change, words: str
) -> None:
    rows = json.loads(records.read_text())[:3]
    rows[1].update(change)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(BadInput) as caught:
        train_sft(small(), 0, tmp_path / "run", data=path, videos=records.parent)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_the_separator_stands_between_process_and_solution(records: Path) -> None:
    row = json.loads(records.read_text())[0]
    (first, *_) = demonstrations.read(records, records.parent, "\n")
    assert first.completion == f"{row['process']}\n{row['solution']}"
    (bare, *_) = demonstrations.read(records, records.parent, "")
    assert bare.completion == row["process"] + row["solution"]


def test_what_is_not_here_is_named(tmp_path: Path) -> None:
    paper = Recipe.load("ktr", "paper")
    with pytest.raises(BadInput, match=r"Video-R1-COT-165k is not on this machine.*--data"):
        train_sft(paper, 0, tmp_path / "a")
    with pytest.raises(BadInput, match="no section sft in profile micro"):
        train_sft(replace(small(), sft=None), 0, tmp_path / "b")


def test_the_fingerprint_is_of_what_shapes_the_weights() -> None:
    known = small().sft_fingerprint
    assert small(max_length=4096, save_steps=7).sft_fingerprint == known
    assert small(learning_rate=1e-3).sft_fingerprint != known
    assert small().fingerprint == Recipe.load("ktr").fingerprint  # an arm does not depend on it


def test_the_students_to_build_are_those_of_the_recipes() -> None:
    assert "ktr" in build.variants()
    with pytest.raises(BadInput, match="no cold start for 'kt'; there are ffr, ktr"):
        build.build("kt")


def test_building_ships_what_was_trained_and_measured(
    films: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("evals.microworld.SIZES", {"cold": 4, "validation": 2})
    monkeypatch.setattr(build, "variants", lambda: {"ktr": small(max_steps=1, stop_at=None)})
    seen = list[tuple[Any, ...]]()
    folder = tmp_path / "shipped" / "ktr"
    entry = build.build("ktr", folder, lambda *told: seen.append(told))
    assert [told[:3] for told in seen] == [("ktr", n, 3) for n in (1, 2, 3)]
    assert entry["sha256"] == weights_sha256(folder) and entry["command"].endswith("--for ktr")
    assert set(entry["validation"]) == {"greedy", "avg@8", "pass@8", "format"}
    assert json.loads((tmp_path / "shipped" / "manifest.json").read_text()) == {"ktr": entry}
    assert not (tmp_path / "runs" / "tiny-ktr").exists()
