"""`repro data` and `repro eval` on every benchmark's made data, through the command line itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals import benchmarks, made, protocols
from repro.cli import cli


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in made.MADE:
        made.make(name, root)
    return root


@pytest.fixture(autouse=True)
def places(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELPROOF_DATA", str(data))
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "cache"))


def repro(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == code, result.output
    return result


def record(*words: str) -> dict[str, Any]:
    return json.loads(repro("eval", *words, "--json").stdout)


#: Means over questions that grounding benchmarks are also known by; each is a run of its own.
FURTHER = (
    "mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "Acc@QA", "Acc@GQA", "mIoP", "IoP@0.3", "IoP@0.5",
    "IoU@0.3", "IoU@0.5", "Acc and IoU@0.5",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(made.MADE))
def test_eval_oracle_gives_100_per_cent(name: str, tmp_path: Path) -> None:
    """Asked as `repro eval` asks by default."""
    found = record("--benchmark", name, "--model", "oracle", "--out", str(tmp_path / "o"))
    assert found["score"] == 1 and set(found["outcomes"]) == {"correct"}
    assert all(value == 1 for value in found["numbers"].values())
    assert found["n"] == len(benchmarks.load(name).samples)
    again = json.loads((tmp_path / "o" / "numbers.json").read_text())
    assert again == found["numbers"]
    runs = len(list((tmp_path / "o").rglob("record.json")))  # one more per further metric
    assert runs == 1 + sum(n in found["numbers"] for n in FURTHER)
    assert repro("verify", str(tmp_path)).output.startswith(f"{runs} runs computed again, 0 diff")


def test_the_protocol_is_the_one_named(tmp_path: Path) -> None:
    out = ["--model", "oracle", "--out"]
    one = record("--benchmark", "mmvu", "--protocol", "video-r1@32f", *out, str(tmp_path / "1"))
    assert (one["n"], one["protocol"]["subset"], one["protocol"]["max_frames"]) == (6, "mc", 32)
    assert one["protocol_hash"] == protocols.load("video-r1@32f", "mmvu").hash
    whole = record(
        "--benchmark", "mmvu", "--protocol", "video-r1@32f", "--subset", "", *out,
        str(tmp_path / "2"),
    )  # fmt: skip
    assert whole["n"] == 8 and whole["protocol_hash"] != one["protocol_hash"]
    gqa = record("--benchmark", "nextgqa", "--protocol", "official", *out, str(tmp_path / "3"))
    assert next(iter(gqa["numbers"])) == "Acc@GQA"
    found = repro("compare", str(tmp_path / "1"), str(tmp_path / "2"), code=3)
    assert "subset" in found.output


def test_knowledge_gain_needs_both_tracks(tmp_path: Path) -> None:
    words = ["--benchmark", "videommmu", "--model", "oracle", "--out"]
    both = record(*words, str(tmp_path / "1"), "--subset", "adaptation,question_only")
    assert both["numbers"]["knowledge gain"] == 0  # nothing left to learn
    assert "knowledge gain" not in record(*words, str(tmp_path / "2"))["numbers"]


def test_unknown_protocols_and_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    said = repro("eval", "--benchmark", "mmvu", "--model", "oracle", "--protocol", "x", code=2)
    assert "unknown protocol 'x'; known: ffr" in said.output
    monkeypatch.delenv("REELPROOF_DATA")
    said = repro("eval", "--benchmark", "mmvu", "--model", "oracle", code=2)
    assert "name its folder with --root" in said.output


def test_data_verify(data: Path) -> None:
    said = repro("data", "verify", "mlvu", code=2).output
    assert "28 questions, where the card has 2175" in said and "has problems" in said
    found = json.loads(repro("data", "verify", "mlvu", "--json", code=2).stdout)
    assert found["ok"] is False and found["root"] == str(data / "mlvu")
    assert {f["check"] for f in found["findings"]} == {"count"}
    assert repro("data", "verify", "activitynet_captions").output.endswith("this copy is whole\n")


def test_data_list() -> None:
    assert "TencentARC/Video-Holmes" in repro("data", "list").output
    assert json.loads(repro("data", "list", "--json").stdout)["mmvu"]["splits"] == {
        "validation": 1000
    }


def test_data_fetch_refuses_a_branch() -> None:
    said = repro("data", "fetch", "mmvu", "--revision", "main", code=2).output
    assert said.startswith("error: --revision main is no commit")
