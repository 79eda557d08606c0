"""`repro score`: any graders over saved replies, their spread, and a judge for the rest."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from evals import protocols
from evals.run import score as scored
from evals.types import Reply, Sample
from repro.cli import cli

OPTIONS = ["A. red", "B. blue", "C. green", "D. man", "E. tree"]


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["score", *map(str, words)])


def data(*words: object) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def choice(reply: str, gold: str, n: int = 0) -> dict[str, Any]:
    return {"id": n, "reply": reply, "answer": gold, "type": "multiple choice", "options": OPTIONS}


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    said = [("<answer>B</answer>", "B"), ("B. blue", "B"), ("The answer is C", "C"), ("hm", "D")]
    return write(tmp_path / "a.jsonl", *(choice(*each, n) for n, each in enumerate(said)))


def test_intervals_are_compared_by_miou(tmp_path: Path) -> None:
    """One line of JSON is nothing to Temporal-R1's no-think parser, and an interval to ours."""
    said = ['{"start_time": "2.7", "end_time": "15.0"}', "2.0 - 8.5", "no idea"]
    rows = (
        {"id": n, "reply": each, "answer": "[2, 15]", "type": "temporal grounding"}
        for n, each in enumerate(said)
    )
    file = write(tmp_path / "a.jsonl", *rows)
    found = data(file, "--graders", "all")
    means = {name: s["mIoU"] for name, s in found["graders"].items()}
    assert means["temporal-r1-no-think"] == pytest.approx(0.5 / 3)
    assert means["reelproof"] == pytest.approx((12.3 / 13 + 0.5) / 3)
    low, high = found["spread"]["low"], found["spread"]["high"]
    assert low["mIoU"] == 0.0 and high["mIoU"] == pytest.approx(means["reelproof"])
    assert found["spread"]["spread"] == pytest.approx(means["reelproof"])
    text = run(file, "--graders", "temporal-r1-no-think,reelproof").output
    assert "mIoU" in text and "points of mIoU (temporal-r1-no-think to reelproof)" in text


def test_both_parsers_of_rows_that_say_all_without_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows as a stage of the paper profile leaves them: one line of JSON, which the released
    no-think parser does not read, a film that could not be, and a reply that was cut off."""
    monkeypatch.delenv("REELPROOF_DATA", raising=False)
    law = protocols.load("temporal-r1@no-think", "charades_sta")
    sample = Sample("q", "When?", "temporal grounding", "[2, 15]", "video", None, cluster="v.mp4")
    said = [Reply('{"start_time": "2.7", "end_time": "15.0"}', 9), Reply("between 2 and", 9, False)]
    rows = [scored(replace(sample, id=f"q{n}"), r, 0, law, save=True) for n, r in enumerate(said)]
    lost = replace(rows[0], id="q9", outcome="undecodable", reply=None, detail="no such file")
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(
        gzip.compress("\n".join(json.dumps(asdict(r)) for r in (*rows, lost)).encode())
    )
    words = ("--benchmark", "charades_sta", "--protocol", "temporal-r1@no-think")
    found = data(file, *words)
    assert {name: (s["n"], s["mIoU"]) for name, s in found["graders"].items()} == {
        "temporal-r1-no-think": (3, 0.0), "reelproof": (3, pytest.approx(12.3 / 13 / 3)),
    }  # fmt: skip
    outcomes = found["graders"]["reelproof"]["outcomes"]
    assert outcomes == {"correct": 1, "truncated": 1, "unparsed": 1}
    own = {"reply": said[0].text, "answer": "[2, 15]", "type": "temporal grounding"}
    assert "mIoU" in run(write(tmp_path / "own.jsonl", own), *words).output
    # What a row does not say is looked up, and what was not kept is said.
    bare = run(write(tmp_path / "bare.jsonl", {"id": "q0", "reply": "2 - 5"}), *words)
    assert bare.exit_code == 2 and "where is the data of charades_sta" in bare.output
    gone = asdict(replace(rows[0], reply=None))
    done = run(write(tmp_path / "gone.jsonl", gone), *words)
    assert done.exit_code == 2 and "--save-replies keeps them" in done.output


def test_the_spread_between_graders(replies: Path) -> None:
    found = data(replies, "--graders", "strict,reelproof,video-r1")
    scores = {name: s["micro"] for name, s in found["graders"].items()}
    assert scores == {"strict": 0.25, "reelproof": 0.75, "video-r1": 0.25}
    assert found["spread"] == {
        "low": {"grader": "strict", "micro": 0.25}, "high": {"grader": "reelproof", "micro": 0.75},
        "spread": 0.5, "disagreement": 0.5,
    }  # fmt: skip
    assert found["graders"]["strict"]["outcomes"] == {"correct": 1, "unparsed": 3}
    assert found["graders"]["strict"]["unparsed"] == {"no complete <answer> block": 3}
    assert found["graders"]["reelproof"]["rules"] == {
        "answer block (high)": 1, "leading label (high)": 2,
    }  # fmt: skip
    text = run(replies, "--graders", "strict,reelproof,video-r1").output
    assert "spread 50.0 points (strict to reelproof); graders disagree on 50.0 % of 4" in text
    assert "75.0 %" in text


def test_the_graders_of_a_benchmark(tmp_path: Path) -> None:
    doc = {"video ID": "v", "Question ID": "q1", "Question Type": "SR", "Question": "Who?",
           "Options": {o[0]: o[3:] for o in OPTIONS}, "Answer": "C", "Explanation": ""}  # fmt: skip
    rows = [
        {"doc_id": n, "doc": {**doc, "Question ID": f"q{n}"}, "target": "C", "filtered_resps": said}
        for n, said in enumerate(["C. The DNA test", "C", "hm"])
    ]
    path = write(tmp_path / "x_samples_video_holmes.jsonl", *rows)
    found = data(path, "--benchmark", "video_holmes", "--graders", "official,lmms-eval,vlmevalkit")
    assert found["tool"] == "lmms-eval"
    scores = {name: round(s["micro"], 4) for name, s in found["graders"].items()}
    assert scores == {
        # Both read A out of "DNA test".
        "official:video_holmes": 0.3333, "lmms-eval:video_holmes": 0.3333,
        "vlmevalkit:video_holmes": 0.0,
    }  # fmt: skip
    # lmms-eval would draw one of five options for "hm".
    assert found["graders"]["lmms-eval:video_holmes"]["luck"] == pytest.approx(1 / 5 / 3)
    assert "+6.7" in run(path, "--benchmark", "video_holmes", "--graders", "lmms-eval").output


def test_a_protocol_names_the_grader(tmp_path: Path) -> None:
    doc = {"video_id": "v", "question": "?", "candidates": ["red", "blue"], "answer": "blue"}
    path = write(
        tmp_path / "s.jsonl", {"doc_id": 0, "doc": doc, "target": "blue", "filtered_resps": "B"}
    )
    found = data(path, "--benchmark", "mvbench", "--protocol", "video-r1")
    assert list(found["graders"]) == ["video-r1", "reelproof"]  # ours stands beside it
    assert found["graders"]["video-r1"]["micro"] == 1.0
    assert "--protocol needs --benchmark" in run(path, "--protocol", "video-r1").output


def test_a_spreadsheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["index", "question", "A", "B", "answer", "prediction"])
    for n, said in enumerate(["(A) red", "", "Failed to obtain answer via API."]):
        book.active.append([n, "Which?", "red", "blue", "A", said])
    path = tmp_path / "model_MVBench.xlsx"
    book.save(path)
    found = data(path, "--benchmark", "mvbench", "--graders", "vlmevalkit,reelproof")
    assert found["tool"] == "VLMEvalKit"
    # An empty reply is right under the tool's matcher; a failure of the API never is.
    assert found["graders"]["vlmevalkit:mvbench"]["micro"] == pytest.approx(2 / 3)
    assert found["graders"]["reelproof"]["micro"] == pytest.approx(1 / 3)


def test_graders_that_read_nothing_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"reply": "3", "answer": "3", "type": "regression"})
    found = data(path, "--graders", "all")
    assert "videossr" in found["skipped"] and found["graders"]["video-r1"]["micro"] == 1.0
    both = write(tmp_path / "b.jsonl", choice("B", "B"),
                 {"id": "n", "reply": "3", "answer": "3", "type": "regression"})  # fmt: skip
    found = data(both, "--graders", "all")
    assert "videossr" in found["skipped"] and "lmms-eval" in found["graders"]
    assert data(both, "--graders", "videossr")["graders"]["videossr"]["micro"] == 0.5
    result = run(path, "--graders", "videossr")
    assert result.exit_code == 2 and "reads no regression question" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--graders", "nobody"], "unknown grader"),
        (["--graders", "official"], "needs a benchmark"),
        (["--type", "riddle"], "unknown --type"),
        (["--judge", "http://127.0.0.1:9/v1"], "belong together"),
        (["--judge", "nowhere", "--judge-model", "m"], "http"),
    ],
)
def test_usage_errors(replies: Path, words: list[str], message: str) -> None:
    result = run(replies, *words)
    assert result.exit_code == 2 and message in result.output


def test_many_replies_take_seconds(tmp_path: Path) -> None:
    """Video-MMMU's 900 questions, every grader, one core: 2 s here, most of it starting up."""
    reply = "<think>" + "I look at the video and see a man. " * 40 + "</think><answer>B</answer>"
    path = write(tmp_path / "a.jsonl", *(choice(reply, "B", n) for n in range(900)))
    began = time.perf_counter()
    found = data(path, "--graders", "all")
    assert time.perf_counter() - began < 20
    assert found["graders"]["reelproof"]["micro"] == 1.0


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body["messages"][0]["content"])
            data = json.dumps({"choices": [{"message": {"content": "D"}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    http.server_close()


def test_the_judge_sees_only_what_no_rule_could_read(
    replies: Path, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    url, asked = server
    words = (replies, "--judge", url, "--judge-model", "m", "--judge-cache", tmp_path / "j.jsonl")
    found = data(*words)
    assert found["graders"]["reelproof"]["micro"] == 1.0
    assert found["judge"] == {"id": "m@1", "asked": 1, "cached": 0}
    assert len(asked) == 1 and "Reply:\nhm" in asked[0]
    assert "1 known" in run(*words).output and len(asked) == 1
    assert data(replies)["judge"] is None
