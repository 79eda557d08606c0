"""evals.benchmarks: anyone's records, read completely or refused with the record's place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from evals import benchmarks
from evals.benchmarks.jsonl import read, rows
from evals.errors import BadInput
from evals.types import Evidence, Sample

RECORD: dict[str, Any] = {
    "problem_id": 7,
    "problem": "Which came first?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. red circle", "B. blue square"],
    "process": "<think>red, then blue</think>",
    "solution": "<answer>B</answer>",
    "path": "./sub/a.mp4",
    "data_source": "mine",
    "evidence": {"interval": [0, 1.5], "region": [0, 0, 0.5, 1]},
}


def save(folder: Path, *records: Any, name: str = "my.jsonl") -> Path:
    path = folder / name
    text = json.dumps(records) if name.endswith(".json") else "\n".join(map(json.dumps, records))
    path.write_text(text, encoding="utf-8")
    return path


def one(folder: Path, **changes: Any) -> Sample:
    """The sample of RECORD with changes; a value of `...` removes the field."""
    record = {k: v for k, v in {**RECORD, **changes}.items() if v is not ...}
    return read(save(folder, record), folder)[0]


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(BadInput) as caught:
        one(folder, **changes)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'my.jsonl'}, record 1: ") and "\n" not in message
    return message.split("record 1: ")[1]


@pytest.mark.parametrize("name", ["my.jsonl", "my.json"])
def test_every_field(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, RECORD, {**RECORD, "problem_id": "x"}, name=name)
    first, second = read(path, tmp_path / "videos")
    assert first == Sample(
        id="7",
        question="Which came first?",
        kind="multiple choice",
        gold="B",
        modality="video",
        media=tmp_path / "videos" / "sub" / "a.mp4",
        options=("A. red circle", "B. blue square"),
        cluster="./sub/a.mp4",
        tags={"data_source": "mine"},
        evidence=Evidence((0.0, 1.5), (0.0, 0.0, 0.5, 1.0)),
    )
    assert second.id == "x"


def test_load_names_and_hashes_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, RECORD)
    loaded = benchmarks.load("jsonl", data=path)
    assert (loaded.name, loaded.split, loaded.revision) == ("jsonl", "test", "my.jsonl")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.samples[0].media == tmp_path / "sub" / "a.mp4"  # beside the file
    other = benchmarks.load("jsonl", data=path, root=tmp_path / "else")
    assert other.samples[0].media == tmp_path / "else" / "sub" / "a.mp4"


def test_what_may_be_left_out_or_null(tmp_path: Path) -> None:
    """Exporters write null where a field is absent."""
    text: dict[str, Any] = {
        "problem": "1 + 1?", "problem_type": "numerical", "solution": 2, "data_type": "text",
    }  # fmt: skip
    nulls = dict.fromkeys(("problem_id", "options", "path", "evidence", "process", "family"))
    samples = read(save(tmp_path, text, {**text, **nulls}), tmp_path)
    assert [s.id for s in samples] == ["1", "2"]
    assert [s.cluster for s in samples] == ["1", "2"]  # texts without a video do not cluster
    for sample in samples:
        assert (sample.gold, sample.media, sample.options, sample.evidence) == ("2", None, (), None)
    assert one(tmp_path, data_type=None).modality == "video"
    assert one(tmp_path, problem_id=0).id == "0"


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        ("<answer> B </answer>", "B"),
        ("<think>A?</think>\n<answer>B</answer>", "B"),
        (" B ", "B"),
        (0, "0"),
        (1.5, "1.5"),
    ],
)
def test_golds(tmp_path: Path, solution: Any, gold: str) -> None:
    assert one(tmp_path, solution=solution).gold == gold


def test_lines_are_split_only_where_lines_end(tmp_path: Path) -> None:
    """U+2028, U+0085 and form feeds may stand inside a JSON string."""
    said = "one\u2028two\u0085three"
    path = tmp_path / "my.jsonl"
    lines = [json.dumps({**RECORD, "problem_id": i, "problem": said}, ensure_ascii=False)
             for i in range(2)]  # fmt: skip
    path.write_bytes("\r\n\n".join([*lines, " "]).encode())
    assert [s.question for s in read(path, tmp_path)] == [said, said]


@pytest.mark.parametrize("key", ["problem", "problem_type", "solution", "path"])
@pytest.mark.parametrize("value", [..., None, ""])
def test_missing_keys(tmp_path: Path, key: str, value: Any) -> None:
    assert refused(tmp_path, **{key: value}) == f"`{key}` is missing"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"problem_type": "essay"}, "unknown problem_type 'essay'"),
        ({"problem_type": ["OCR"]}, "unknown problem_type ['OCR']"),
        ({"data_type": "audio"}, "unknown data_type 'audio'"),
        ({"rate": 0}, "`rate` must be a number"),
        ({"options": None}, "multiple choice without options"),
        ({"options": []}, "multiple choice without options"),
        ({"options": None, "problem_type": "grounded qa"}, "grounded qa without options"),
        ({"options": "A. red B. blue"}, '`options` must be a list of texts like "A. red"'),
        ({"options": [1, 2]}, '`options` must be a list of texts like "A. red"'),
        ({"evidence": {"interval": [0, 1]}}, "`evidence` needs an interval of 2 numbers"),
        ({"evidence": {"interval": [0], "region": [0, 0, 1, 1]}}, "`evidence` needs"),
        ({"evidence": "at the start"}, "`evidence` needs"),
    ],
)
def test_unusable_values(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert refused(tmp_path, **changes).startswith(said)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.mp4", "a/../../b.mp4", "..", "//host/a"])
def test_a_record_stays_below_the_videos(tmp_path: Path, name: str) -> None:
    assert "leaves the folder of the videos" in refused(tmp_path, path=name)


def test_harmless_names_are_kept(tmp_path: Path) -> None:
    for name in ("./a.mp4", "a..b/c.mp4", "a:b.mp4", "...mp4"):
        assert one(tmp_path, path=name).media == tmp_path / name


def test_the_place_of_the_bad_record(tmp_path: Path) -> None:
    path = save(tmp_path, RECORD, {**RECORD, "problem_id": 8, "solution": ""})
    with pytest.raises(BadInput, match=r"my\.jsonl, record 2: `solution` is missing"):
        read(path, tmp_path)
    with pytest.raises(BadInput, match="record 2: expected an object, not 5"):
        read(save(tmp_path, RECORD, 5), tmp_path)


def test_bad_json_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps(RECORD) + "\n\n{'problem': 1}\n")
    with pytest.raises(BadInput, match=r"my\.jsonl, line 3: not valid JSON"):
        rows(path)
    path = tmp_path / "my.json"
    path.write_text('[{"problem": 1},\n{"problem" 1}]')
    with pytest.raises(BadInput, match=r"my\.json, line 2: not valid JSON"):
        rows(path)


def test_files_that_hold_no_records(tmp_path: Path) -> None:
    cases = {
        "none.jsonl": (None, "no such file"),
        "empty.jsonl": (b"", "holds no record"),
        "blank.jsonl": (b"\n \n", "holds no record"),
        "list.json": (b"[]", "holds no record"),
        "object.json": (b'{"problem": 1}', "expected a list of records"),
        "clip.jsonl": (b"\x00\x00\x00\x1cftypmp42\xff\xfe", "not a text file"),
    }
    for name, (data, said) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=said) as caught:
            read(tmp_path / name, tmp_path)
        assert name in str(caught.value)


def test_ids_must_differ(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="problem_id 7 occurs more than once"):
        read(save(tmp_path, RECORD, RECORD), tmp_path)
    with pytest.raises(BadInput, match="problem_id 2 occurs"):  # 2 is also the second's own place
        read(save(tmp_path, {**RECORD, "problem_id": 2}, {**RECORD, "problem_id": None}), tmp_path)


def test_unknown_benchmark_split_and_missing_data() -> None:
    with pytest.raises(BadInput, match="unknown benchmark 'imagenet'; known: jsonl, microworld"):
        benchmarks.load("imagenet")
    with pytest.raises(BadInput, match="needs --data"):
        benchmarks.load("jsonl")
    with pytest.raises(BadInput, match="microworld has no split 'dev'"):
        benchmarks.load("microworld", split="dev")
