"""evals.verify: a whole copy passes, and each kind of damage is found and named."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals import made
from evals import verify as checking
from evals.errors import BadInput
from evals.verify import Report, verify


def findings(report: Report) -> dict[str, int]:
    """check -> count; the made sets are smaller than the real ones, which is not looked at here."""
    return {f.check: f.count for f in report.findings if f.check not in ("count", "card")}


@pytest.fixture
def holmes(tmp_path: Path) -> Path:
    return made.make("video_holmes", tmp_path)


def rewrite(root: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    path = root / "test_Video-Holmes.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(change(rows) or rows))


@pytest.mark.parametrize("name", sorted(made.MADE))
def test_every_made_set_is_whole_but_for_its_size(name: str, tmp_path: Path) -> None:
    report = verify(name, made.make(name, tmp_path))
    assert set(findings(report)) <= {"float16", "subtitles"}, report.findings
    assert report.questions and report.videos and len(report.sha256) == 64


def test_counts(holmes: Path) -> None:
    (count,) = verify("video_holmes", holmes).findings
    assert (count.check, count.problem) == ("count", True)
    assert count.examples == [
        "12 questions, where the card has 1837", "3 videos, where the card has 270",
    ]  # fmt: skip
    (one,) = verify("video_holmes", holmes, split="train").findings
    assert one.examples == ["2 questions, where the card has 1551"]


def test_the_right_number_of_questions_is_whole(
    holmes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from evals.benchmarks import video_holmes

    card = replace(video_holmes.CARD, splits={"test": 12}, videos=3)
    monkeypatch.setattr(video_holmes, "CARD", card)
    report = verify("video_holmes", holmes)
    assert report.ok and not report.findings


def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows[0]["Answer"] = "Z"
    rows[1]["Options"]["B"] = " "
    rows[2]["Options"]["B"] = rows[2]["Options"]["A"]
    del rows[3]["Question"]
    rows[4]["Options"] = {"A": "alone"}
    rows[4]["Answer"] = "A"
    again = {**rows[5], "Question ID": "again"}
    other = {**rows[6], "Question ID": "other", "Answer": "F"}
    return [*rows, again, other]


def test_bad_records_are_counted_and_none_stops_the_rest(holmes: Path) -> None:
    rewrite(holmes, spoil)
    report = verify("video_holmes", holmes)
    assert report.questions == 14 and not report.ok
    assert findings(report) == {
        "gold": 1, "record": 1, "options": 3, "duplicate": 1, "contradict": 1,
    }  # fmt: skip
    said = {f.check: f.examples for f in report.findings}
    assert "record 1: `Answer` 'Z' is not one of 6 options" in said["gold"][0]
    assert "record 4: `Question` is missing" in said["record"][0]
    assert said["options"] == [
        "f1_q1: an empty option", "f2_q2: two options are equal", "f1_q4: only 1 option",
    ]  # fmt: skip
    assert said["duplicate"] == ["f2_again asks what f2_q5 asks"]


def test_videos_that_are_missing_damaged_or_no_videos(holmes: Path) -> None:
    with zipfile.ZipFile(holmes / "videos.zip", "w") as out:
        out.writestr("videos/f0.mp4", made.film())
        out.writestr("videos/f1.mp4", b"not a film")
    report = verify("video_holmes", holmes)
    assert findings(report) == {"missing": 1, "video": 1}
    said = {f.check: f.examples for f in report.findings}
    assert said["missing"] == [f"{holmes / 'f2.mp4'}: no such file"]
    assert findings(verify("video_holmes", holmes, videos=False)) == {}


def test_durations_and_intervals(tmp_path: Path) -> None:
    root = made.make("activitynet_rtl", tmp_path)
    path = root / "temporal_reasoning" / "annot_val_1_q229.json"
    rows = json.loads(path.read_text())
    rows[0] |= {"duration": 30.0, "answer": "<10> <20> He waits."}
    path.write_text(json.dumps(rows))
    report = verify("activitynet_rtl", root)
    assert findings(report) == {"duration": 1, "interval": 1}
    said = {f.check: f.examples[0] for f in report.findings}
    assert said["duration"].endswith("v_x0.mp4: 2.0 s, not 30 s")
    assert said["interval"] == "q0 ends at 20 s of 2.0 s"


def test_float16_times_are_a_note(tmp_path: Path) -> None:
    import numpy as np

    root = made.make("charades_sta", tmp_path)
    rows = [{"video": "AB0.mp4", "caption": "a.", "timestamp": [np.float16(0.3), np.float16(1.7)]}]
    made.save(root / "data" / "test-00000-of-00001.parquet", rows)
    report = verify("charades_sta", root)
    assert findings(report) == {"float16": 1}
    rows[0]["timestamp"] = [0.3, 1.7]
    made.save(root / "data" / "test-00000-of-00001.parquet", rows)
    assert findings(verify("charades_sta", root)) == {}


@pytest.mark.parametrize("digits", [40, 64])
def test_hashes_that_the_hub_recorded(holmes: Path, digits: int) -> None:
    """A small file's is git's id of its content, a large one's the sha256."""
    file = holmes / "test_Video-Holmes.json"
    content = file.read_bytes()
    blob = f"blob {len(content)}\0".encode() + content
    etag = (hashlib.sha1(blob) if digits == 40 else hashlib.sha256(content)).hexdigest()
    note = holmes / ".cache/huggingface/download/test_Video-Holmes.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{'a' * 40}\n{etag}\n1.0\n")
    report = verify("video_holmes", holmes)
    assert findings(report) == {} and report.revision == "a" * 40
    rewrite(holmes, lambda rows: rows[::-1])
    assert findings(verify("video_holmes", holmes)) == {"hash": 1}
    assert findings(verify("video_holmes", holmes, hashes=False)) == {}
    file.rename(holmes / "elsewhere")
    with pytest.raises(BadInput, match="no annotations of video_holmes"):
        verify("video_holmes", holmes)


def test_a_damaged_archive_stops_with_a_sentence(holmes: Path) -> None:
    path = holmes / "videos.zip"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match=r"videos\.zip is cut short or no zip"):
        verify("video_holmes", holmes)


def test_examples_are_few(holmes: Path) -> None:
    rewrite(holmes, lambda rows: [{**row, "Answer": "Z"} for row in rows])
    gold = next(f for f in verify("video_holmes", holmes).findings if f.check == "gold")
    assert gold.count == 12 and len(gold.examples) == checking.EXAMPLES


def test_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        verify("mmvu", tmp_path / "none")
    with pytest.raises(BadInput, match="unknown benchmark 'microworld'; with data of its owner"):
        verify("microworld", tmp_path)
