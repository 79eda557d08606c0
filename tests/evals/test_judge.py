"""evals.judge against a real HTTP server: only what is unparsed, no gold, once per question."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evals import judge as judges
from evals.errors import BadInput, EnvironmentFault
from evals.extract import Answer, Unparsed
from evals.judge import Judge, prompt
from evals.types import Reply, Sample

CHOICE = Sample(
    id="q", question="Which colour?", kind="multiple choice", gold="SECRET", modality="text",
    media=None, options=("A. red", "B. blue"),
)  # fmt: skip


@dataclass
class Server:
    """Answers every request with `says`; `fails` codes come first."""

    url: str = ""
    says: str = "B"
    fails: list[int] = field(default_factory=list)
    raw: bytes | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.bodies.append({"path": self.path, **json.loads(body)})
            state.keys.append(self.headers.get("Authorization"))
            code = state.fails.pop(0) if state.fails else 200
            said = {"choices": [{"message": {"role": "assistant", "content": state.says}}]}
            data = state.raw if state.raw is not None else json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1/"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def ask(judge: Judge, *replies: str) -> list[Answer | Unparsed]:
    return judge.read([(CHOICE, Reply(reply, 1)) for reply in replies])


def test_a_verdict(server: Server, tmp_path: Path) -> None:
    judge = Judge(server.url, "small", tmp_path / "cache" / "judge.jsonl")
    (answer,) = ask(judge, "it was the colour of the sea")
    assert answer == Answer("B")
    assert isinstance(answer, Answer) and answer.rule == "judge small@1"
    assert answer.confidence == "low"
    (body,) = server.bodies
    assert body["path"] == "/v1/chat/completions"
    assert (body["model"], body["temperature"]) == ("small", 0)
    text = body["messages"][0]["content"]
    assert "Which colour?" in text and "A. red\nB. blue" in text and "colour of the sea" in text
    assert "SECRET" not in json.dumps(body)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("NONE", "found no answer"), ("none.", "found no answer"), ("", "found no answer"),
        ("A or B", "said 'A or B': "), ("D", "no option D"), ("I think it is blue", "said"),
    ],
)  # fmt: skip
def test_a_verdict_that_names_no_option(
    server: Server, tmp_path: Path, says: str, reason: str
) -> None:
    server.says = says
    (answer,) = ask(Judge(server.url, "small", tmp_path / "j.jsonl"), "the sea")
    assert isinstance(answer, Unparsed) and reason in answer.reason


def test_verdicts_are_kept(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "j.jsonl"
    first = Judge(server.url, "small", cache)
    assert ask(first, "one", "two", "three") == [Answer("B")] * 3
    assert (first.asked, first.cached, len(server.bodies)) == (3, 0, 3)
    again = Judge(server.url, "small", cache)
    assert ask(again, "three", "one", "four") == [Answer("B")] * 3
    assert (again.asked, again.cached, len(server.bodies)) == (1, 2, 4)
    ask(Judge(server.url, "large", cache), "one")  # another model is asked anew
    assert len(server.bodies) == 5


def test_a_new_version_does_not_reuse_old_verdicts(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(Judge(server.url, "small", tmp_path / "j.jsonl"), "one")
    monkeypatch.setattr(judges, "VERSION", 2)
    judge = Judge(server.url, "small", tmp_path / "j.jsonl")
    ask(judge, "one")
    assert (judge.id, len(server.bodies)) == ("small@2", 2)


def test_a_cache_cut_short_by_a_kill(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "j.jsonl"
    ask(Judge(server.url, "small", cache), "one", "two")
    whole = cache.read_text()
    cache.write_text(whole[:-9])
    judge = Judge(server.url, "small", cache)
    assert ask(judge, "one", "two") == [Answer("B")] * 2
    assert judge.asked == 1 and len(cache.read_text().splitlines()) == 2
    cache.write_text("rubbish\n" + whole)
    with pytest.raises(BadInput, match="line 1: no verdict"):
        Judge(server.url, "small", cache)


def test_it_tries_again_and_then_says_what_to_do(server: Server, tmp_path: Path) -> None:
    judge = Judge(server.url, "small", tmp_path / "j.jsonl")
    server.fails = [503, 429]
    assert ask(judge, "one") == [Answer("B")]
    server.fails = [500] * 3
    with pytest.raises(EnvironmentFault, match=r"does not answer \(500 .*leave out --judge"):
        ask(judge, "two")
    server.fails, before = [401], len(server.bodies)
    with pytest.raises(EnvironmentFault, match="401"):
        ask(judge, "three")
    assert len(server.bodies) == before + 1  # no second try: it would be refused again
    server.raw = b"<html>"
    with pytest.raises(EnvironmentFault, match="does not speak"):
        ask(judge, "four")
    gone = Judge("http://127.0.0.1:9/v1", "small", tmp_path / "k.jsonl", timeout=1)
    with pytest.raises(EnvironmentFault, match="does not answer"):
        ask(gone, "one")
    with pytest.raises(BadInput, match="http"):
        Judge("file:///etc", "small", tmp_path / "k.jsonl")


def test_the_key_comes_from_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRO_JUDGE_KEY", "abc")
    ask(Judge(server.url, "small", tmp_path / "j.jsonl"), "one")
    assert server.keys == ["Bearer abc"]


def test_free_text_is_not_judged(server: Server, tmp_path: Path) -> None:
    sample = Sample("q", "?", "free-form", "x", "text", None)
    (found,) = Judge(server.url, "m", tmp_path / "j").read([(sample, Reply("y", 1))])
    assert found == Unparsed("free-form is not judged") and not server.bodies


def test_a_reply_cannot_rewrite_the_prompt() -> None:
    reply = "{question} {options} \0options\0 <think>hidden</think> {asked}"
    text = prompt(CHOICE, Reply(reply, 1).text)
    assert "{question} {options}  options" in text and "hidden" not in text
    assert text.count("Which colour?") == 1
    assert len(prompt(CHOICE, "x" * 10**6)) < 5000
