"""KTR's training records: a made copy in the published schema, each kind of damage, the builder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from evals import made
from evals.benchmarks import jsonl
from evals.errors import BadInput
from repro import training
from repro.cli import cli
from repro.recipe import Recipe
from repro.training import Manifest, Report
from results.reported import load_reported

ROOT = Path(__file__).parents[2]
REAL = Manifest.load("ktr")
KTR = Recipe.load("ktr", "paper")


def small(manifest: Manifest = REAL) -> Manifest:
    """The manifest of three records of the one part and two of the other."""
    first, second = manifest.parts
    return replace(
        manifest,
        file=replace(manifest.file, records=5, images=1, videos=4, sha256=("", "")),
        parts=(replace(first, records=3), replace(second, records=2, films=2)),
    )


def record(number: int, path: str, **more: Any) -> dict[str, Any]:
    return {
        "problem_id": number, "problem": f"What {number}?", "data_type": "video",
        "problem_type": "multiple choice", "options": ["A. one", "B. two"],
        "solution": "<answer>B</answer>", "path": path, "data_source": "CLEVRER", **more,
    }  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the published file, one image and four films."""
    rows = [
        record(112, "./a/1.png", data_type="image", problem_type="free-form", options=[]),
        record(30001, "./a/2.mp4", problem="Which one?\nOptions:"),
        record(263036, "./b/3.mp4"),
        record(30001, "./videos_train/f0.mp4", data_source="videoHolmes"),
        record(30002, "./videos_train/f1.mp4", data_source="videoHolmes"),
    ]
    made.save(tmp_path / REAL.file.name, rows)
    made.on_disk(tmp_path, ["a/2.mp4", "b/3.mp4", "videos_train/f0.mp4", "videos_train/f1.mp4"])
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a/1.png")
    return tmp_path


def check(copy: Path, manifest: Manifest | None = None, **more: Any) -> Report:
    manifest = manifest or small()
    return training.verify(manifest, copy / manifest.file.name, copy, **more)


def damage(copy: Path, change: Callable[[list[dict[str, Any]]], Any]) -> Report:
    path = copy / REAL.file.name
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    return check(copy)


def test_the_manifest_adds_up() -> None:
    assert sum(part.records for part in REAL.parts) == REAL.file.records == 16_916
    assert REAL.file.images + REAL.file.videos == REAL.file.records
    recipe = Recipe.load("ktr", "paper")
    assert (recipe.data.records, recipe.data.size) == (REAL.name, REAL.file.records)
    share = REAL.file.images / REAL.file.records
    assert recipe.cost.image_share == pytest.approx(share, abs=1e-3)
    assert REAL.part_of(15_364).name == "video-r1" and REAL.part_of(15_365).name == "video-holmes"
    first, last = REAL.parts[1].ids
    assert last - first + 1 == REAL.parts[1].records
    assert "sampl" in REAL.unknown[0] or "chosen" in REAL.unknown[0]


@pytest.mark.parametrize("name", ["ktr", "ffr"])
def test_in_domain_flags_reach_the_cells(name: str) -> None:
    """Those of the paper's own runs: what others trained on is their business."""
    from results.cells import cells

    found = [c.reported for c in cells(load_reported(ROOT / "repro" / name / "reported.yaml"))]
    own = [number for number in found if number.model.role != "other"]
    flagged = [number for number in own if "in-domain" in number.note]
    assert {number.benchmark for number in flagged} == set(Manifest.load(name).in_domain)
    assert len(flagged) == sum(number.benchmark in Manifest.load(name).in_domain for number in own)


def test_a_whole_copy(copy: Path) -> None:
    report = check(copy)
    assert report.ok and (report.records, report.media) == (5, 5)
    notes = {f.check: f.examples for f in report.findings}
    assert notes == {
        "clash": ["id 30001 is one of video-r1 and one of video-holmes"],
        "options": ["record 2 already ends in Options:"],
    }
    assert report.unknown == REAL.unknown


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        (lambda r: r.pop(), "count", "4 records, where the manifest has 5"),
        (lambda r: r[1].pop("solution"), "record", "record 2: `solution` is missing"),
        (lambda r: r[2].update(path="../x.mp4"), "record", "leaves the folder"),
        (lambda r: r[2].update(problem_id=5), "part", "record 3: id 5 is none of video-r1"),
        (lambda r: r[4].update(problem_id=30001), "part", "id 30001 of video-holmes is not in"),
        (lambda r: r[3].update(data_source="x"), "part", "record 4: data_source 'x'"),
        (lambda r: r[4].update(path="./videos_train/f0.mp4"), "count", "1 films of video-holmes"),
        (lambda r: r[0].update(data_type="video"), "count", "0 images, where the manifest has 1"),
        (lambda r: r.insert(0, "text"), "record", "expected an object"),
    ],
)
def test_damaged_records(
    copy: Path, change: Callable[[list[dict[str, Any]]], Any], name: str, says: str
) -> None:
    report = damage(copy, change)
    assert not report.ok
    assert says in " ".join(e for f in report.findings if f.check == name for e in f.examples)


def test_media_that_are_missing_or_do_not_open(copy: Path) -> None:
    (copy / "videos_train/f1.mp4").unlink()
    (copy / "b/3.mp4").write_bytes(made.film()[:900])
    (copy / "a/1.png").write_bytes(b"no image")
    found = {f.check: f.examples for f in check(copy).findings}
    assert len(found["media"]) == 2
    assert found["missing"][0].startswith("video-holmes: ") and "f1.mp4" in found["missing"][0]
    assert check(copy, media=False).ok


def test_another_file_than_the_published(copy: Path) -> None:
    manifest = replace(small(), file=replace(small().file, sha256=("19025cd0", "6a1f")))
    (hashed,) = (f for f in check(copy, manifest).findings if f.check == "hash")
    assert "published 19025cd0...6a1f" in hashed.examples[0]


def owner(folder: Path, options: str = "one") -> Path:
    path = folder / "train_Video-Holmes.json"
    rows = [
        {"video ID": f"f{i}", "Question ID": f"q{i}", "Question Type": "SR",
         "Question": f"What {30001 + i}?", "Options": {"A": options, "B": "two"}, "Answer": "B",
         "Explanation": "seen"}
        for i in range(2)
    ]  # fmt: skip
    made.save(path, rows)
    return path


def test_building_gives_every_record_an_id_of_its_own(copy: Path) -> None:
    built = training.build(
        small(), copy / "records.json", published=copy / REAL.file.name, holmes=owner(copy)
    )
    assert (built.records, built.lacks) == (5, ())
    samples = jsonl.read(built.file, copy)
    assert [s.id for s in samples] == [
        "video-r1/112", "video-r1/30001", "video-r1/263036", "video-holmes/30001",
        "video-holmes/30002",
    ]  # fmt: skip
    assert all(s.media and s.media.is_file() for s in samples)


def test_without_a_published_copy_the_known_part_is_built_and_the_rest_said(copy: Path) -> None:
    built = training.build(small(), copy / "records.json", holmes=owner(copy))
    assert built.records == 2
    (sample, _) = jsonl.read(built.file, copy)
    assert (sample.id, sample.gold) == ("video-holmes/30001", "B")
    assert built.lacks[0].startswith("the 3 records of video-r1; By which rule")
    with pytest.raises(BadInput, match="name a published copy"):
        training.build(small(), copy / "records.json")


def test_a_copy_that_changed_the_owner_s_questions(copy: Path) -> None:
    with pytest.raises(BadInput, match="Video-Holmes record 1 differs from its owner's in options"):
        training.build(
            small(), copy / "records.json", published=copy / REAL.file.name,
            holmes=owner(copy, "other"),
        )  # fmt: skip


def test_the_commands(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELPROOF_DATA", str(copy.parent))
    run = CliRunner().invoke
    done = run(cli, ["data", "verify", "ktr", "--root", str(copy)])
    assert done.exit_code == 2 and "PROBLEM count" in done.output
    assert "note options: 1" in done.output and "unknown: By which rule" in done.output
    few = copy / "few.json"
    few.write_text(json.dumps(json.loads((copy / REAL.file.name).read_text())[:3]))
    words = ["--published", str(few), "--out", str(copy / "records.json")]
    done = run(cli, ["data", "build", "ktr", *words])
    assert done.exit_code == 0 and done.output.startswith("3 records: ")
    done = run(cli, ["data", "build", "ktr"])
    assert done.exit_code == 2 and "name a published copy" in done.output
    done = run(cli, ["data", "build", "kinetics"])
    assert done.exit_code == 2 and "no manifest of training records for 'kinetics'" in done.output


def test_where_training_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELPROOF_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=r"records.json\): repro data build ktr"):
        training.located(KTR)
    made.save(tmp_path / "ktr-train" / "records.json", [])
    assert training.located(KTR) == (
        tmp_path / "ktr-train" / "records.json", tmp_path / "ktr-train"
    )  # fmt: skip
