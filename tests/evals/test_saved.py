"""evals.saved: replies of every evaluator as questions and replies, or one clear sentence."""

from __future__ import annotations

import gzip
import importlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.benchmarks import OWNED
from evals.errors import BadInput
from evals.extract import extract
from evals.saved import Replies, read

openpyxl = pytest.importorskip("openpyxl")


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def xlsx(path: Path, names: Sequence[str], *rows: Sequence[Any]) -> Path:
    book = openpyxl.Workbook()
    for row in (names, *rows):
        book.active.append(list(row))
    book.save(path)
    return path


def one(found: Replies) -> tuple[str, str, tuple[str, ...], str]:
    (pair,) = found.pairs
    return pair.sample.kind, pair.sample.gold, pair.sample.options, pair.reply.text


# --- ours --------------------------------------------------------------------------------------


def test_rows_with_their_own_gold(tmp_path: Path) -> None:
    row = {"id": 7, "reply": "<answer>B</answer>", "answer": "B", "type": "multiple choice",
           "options": ["A. red", "B. blue"], "finished": False}  # fmt: skip
    found = read(jsonl(tmp_path / "a.jsonl", row))
    assert one(found) == ("multiple choice", "B", ("A. red", "B. blue"), "<answer>B</answer>")
    assert found.tool == "rows" and found.pairs[0].sample.id == "7"
    assert not found.pairs[0].reply.finished


def test_rows_of_our_own_runs_and_several_replies(tmp_path: Path) -> None:
    row = {"id": "q", "gold": "3", "kind": "numerical", "reply": ["3", "4"], "cluster": "v",
           "tags": {"family": "count"}}  # fmt: skip
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    found = read(path)
    assert [pair.reply.text for pair in found.pairs] == ["3", "4"]
    sample = found.pairs[0].sample
    assert (sample.cluster, sample.tags, sample.kind) == ("v", {"family": "count"}, "numerical")


def test_a_list_in_one_json_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"reply": "x", "answer": "y"}]))
    assert one(read(path, kind="free-form")) == ("free-form", "y", (), "x")


# --- lmms-eval ---------------------------------------------------------------------------------


def lmms(doc: dict[str, Any], target: Any, **replies: Any) -> dict[str, Any]:
    return {"doc_id": 0, "doc": doc, "target": str(target), "doc_hash": "x", **replies}


VIDEOMME = {
    "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Geography",
    "videoID": "abc", "question_id": "001-1", "task_type": "OCR Problems", "question": "Which?",
    "options": ["A. red", "B. blue", "C. green", "D. man"], "answer": "C",
}  # fmt: skip


@pytest.mark.parametrize(
    ("replies", "text"),
    [
        ({"filtered_resps": "C"}, ["C"]),  # resps left out where filtering changed nothing
        ({"resps": ["<think>x</think>C"], "filtered_resps": "C"}, ["<think>x</think>C"]),
        ({"resps": [["<think>x</think>C"]], "filtered_resps": ["C"]}, ["<think>x</think>C"]),
        ({"resps": ["A", "B"], "filtered_resps": ["A", "B"]}, ["A", "B"]),
    ],
)
def test_lmms_eval_replies(tmp_path: Path, replies: dict[str, Any], text: list[str]) -> None:
    found = read(jsonl(tmp_path / "x_samples_videomme.jsonl", lmms(VIDEOMME, "C", **replies)))
    assert found.tool == "lmms-eval"
    assert [pair.reply.text for pair in found.pairs] == text
    sample = found.pairs[0].sample
    assert (sample.kind, sample.gold, sample.id) == ("multiple choice", "C", "001-1")
    assert sample.options == tuple(VIDEOMME["options"])


def test_lmms_eval_documents_are_read_by_the_benchmark(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", lmms(VIDEOMME, "C", filtered_resps="C"))
    (pair,) = read(path, "videomme").pairs
    assert pair.sample.tags["domain"] == "Knowledge" and pair.sample.cluster == "abc"
    assert pair.sample.gold == "C"
    # A document that is not the owner's record is read like any other.
    path = jsonl(tmp_path / "t.jsonl", lmms({"question": "?"}, "C", filtered_resps="C"))
    assert one(read(path, "videomme")) == ("multiple choice", "C", (), "C")


@pytest.mark.parametrize("name", OWNED)
def test_every_benchmark_reads_its_owners_records(tmp_path: Path, name: str) -> None:
    golden = importlib.import_module(f"evals.benchmarks.{name}").GOLDEN
    path = jsonl(tmp_path / "s.jsonl", lmms(dict(golden.row), "?", filtered_resps="x"))
    (pair,) = read(path, name).pairs
    assert pair.sample.gold == golden.gold


def test_lines_with_one_id_are_different_questions(tmp_path: Path) -> None:
    line = lmms({**VIDEOMME}, "C", filtered_resps="C")
    found = read(jsonl(tmp_path / "s.jsonl", line, line))
    assert [pair.sample.id for pair in found.pairs] == ["001-1", "001-1#2"]


@pytest.mark.parametrize(
    ("doc", "target", "kind", "gold", "options"),
    [
        ({"candidates": ["red", "blue"]}, "blue", "multiple choice", "B", ("A. red", "B. blue")),
        ({"options": ["(A) red", "(B) blue"]}, "B", "multiple choice", "B", ("A. red", "B. blue")),
        ({"choices": {"B": "blue", "A": "red"}}, "A", "multiple choice", "A",
         ("A. red", "B. blue")),
        ({"a0": "red", "a1": "blue"}, 1, "multiple choice", "B", ("A. red", "B. blue")),
        ({"options": ["A. red", "B. blue"]}, "B. blue", "multiple choice", "B",
         ("A. red", "B. blue")),
        ({"question": "Which?\nA. red\nB. blue"}, "A. red", "multiple choice", "A",
         ("A. red", "B. blue")),
        ({"candidates": ["2", "1", "0"]}, "0", "multiple choice", "C", ("A. 2", "B. 1", "C. 0")),
        ({}, "C", "multiple choice", "C", ()), ({}, "3.5", "numerical", "3.5", ()),
        ({}, "[24.3, 30.4]", "temporal grounding", "[24.3, 30.4]", ()),
        ({}, "a red car", "free-form", "a red car", ()),
    ],
)  # fmt: skip
def test_questions_follow_from_the_document(
    tmp_path: Path, doc: dict[str, Any], target: Any, kind: str, gold: str, options: tuple[str, ...]
) -> None:
    found = read(jsonl(tmp_path / "s.jsonl", lmms(doc, target, filtered_resps="x")))
    assert one(found) == (kind, gold, options, "x")


def test_a_named_type_wins(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", lmms({}, "3.5", filtered_resps="3"))
    assert read(path, kind="regression").pairs[0].sample.kind == "regression"


# --- VLMEvalKit --------------------------------------------------------------------------------


def test_vlmevalkit_columns(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path / "m_Video-MME.xlsx",
        ("index", "video", "question", "candidates", "answer", "duration", "prediction"),
        (0, "abc", "Which?", "['A. red', 'B. \"blue\"']", "B", "short", 'B. "blue"'),
        (1, "abc", "How?", "['A. yes', 'B. no']", "A", "long", None),
        (2, "abd", "Why?", "['A. so', 'B. not']", "A", "long", "Failed to obtain answer via API."),
    )
    found = read(path)
    assert found.tool == "VLMEvalKit" and len(found.pairs) == 3
    first = found.pairs[0].sample
    assert (first.id, first.cluster, first.gold) == ("0", "abc", "B")
    assert first.options == ("A. red", 'B. "blue"') and first.tags["duration"] == "short"
    assert found.pairs[1].reply.text == "" and not found.pairs[1].failed
    assert found.pairs[2].failed


def test_vlmevalkit_letters_in_columns_and_numbers(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path / "a.xlsx", ("index", "A", "B", "C", "answer", "prediction"),
        (0, "red", "blue", None, "B", "B"),
    )  # fmt: skip
    assert one(read(path)) == ("multiple choice", "B", ("A. red", "B. blue"), "B")
    path = xlsx(tmp_path / "f.xlsx", ("answer", "prediction"), ("B", "=B, I think"))
    assert one(read(path))[3] == "=B, I think"
    path = xlsx(tmp_path / "b.xlsx", ("index", "answer", "prediction"), (0, 3.0, 3))
    assert one(read(path)) == ("numerical", "3", (), "3")


def test_vlmevalkit_tsv(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('index\tanswer\tA\tB\tprediction\n0\tB\tred\tblue\t"B\nbecause"\n')
    assert one(read(path)) == ("multiple choice", "B", ("A. red", "B. blue"), "B\nbecause")


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no reply"),
        ('{"reply": "x"}\n{"reply": ', "line 2: not valid JSON"),
        ('{"reply": "x", "answer": "B", "type": "multiple choice"}\n3\n',
         "row 2: expected an object"),
        ('{"answer": "B"}', "row 1: `reply` is missing"),
        ('{"reply": 3, "answer": "B", "type": "OCR"}', "`reply` must be a text or a list of texts"),
        ('{"reply": "x", "type": "riddle", "answer": "B"}', "a `type` out of"),
        ('{"reply": "x", "type": "OCR"}', "a row needs `answer`"),
        ('{"reply": "x", "type": "multiple choice", "answer": "B", "options": "AB"}',
         "list of texts"),
        ('{"reply": "x", "type": "multiple choice", "answer": "B", "options": ["red"]}',
         "row 1: option 'red' needs a letter"),
        ('{"doc": {}, "filtered_resps": "x"}', "`target` is missing"),
        ('{"doc": {}, "target": "B", "filtered_resps": null, "resps": null}', "is missing"),
        ('{"doc": {"options": ["a", "b"]}, "target": "E", "filtered_resps": "x"}',
         "the answer 'E' is not one of 2 options"),
        ("[" * 100_000, "beyond reason"),
    ],
)  # fmt: skip
def test_broken_rows_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read(tmp_path / "none.jsonl")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        read(path)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}" * 99)[:20])
    with pytest.raises(BadInput, match="no complete gzip file"):
        read(path)
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK not a zip")
    with pytest.raises(BadInput, match=r"no readable .xlsx file"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(BadInput, match=r"no readable .xlsx file"):
        read(path)
    with pytest.raises(BadInput, match="no column `prediction`"):
        read(xlsx(path, ("index", "answer"), (0, "B")))
    with pytest.raises(BadInput, match="row 2: `answer` is empty"):
        read(xlsx(path, ("answer", "prediction"), (None, "B")))
    with pytest.raises(BadInput, match="expected a list"):
        read_json = tmp_path / "a.json"
        read_json.write_text("{}")
        read(read_json)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=st.text(), answer=st.sampled_from("AB"))
def test_any_text_survives_the_file(tmp_path: Path, reply: str, answer: str) -> None:
    """Control characters, lone surrogates, U+2028, <script>: read as written, and scored."""
    row = {"reply": reply, "answer": answer, "type": "multiple choice", "options": ["A. x", "B. y"]}
    (pair,) = read(jsonl(tmp_path / "a.jsonl", row)).pairs
    assert pair.reply.text == reply
    extract(pair.reply.text, "multiple choice", options=pair.sample.options)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=200),
    ending=st.sampled_from(["jsonl", "json", "tsv", "xlsx", "jsonl.gz"]),
)
def test_rubbish_is_bad_input(tmp_path: Path, data: bytes, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data)
    with pytest.raises(BadInput):
        read(path)
