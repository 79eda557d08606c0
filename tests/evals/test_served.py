"""evals.served against a real server: transformers' own `serve` with the tiny student.

It resizes, tells time and counts positions by rules of its own, so replies are not compared with
the native path's; asserted is what was asked, and what becomes of trouble.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from evals.benchmarks import Benchmark
from evals.errors import BadInput, EnvironmentFault
from evals.models import load
from evals.run import evaluate
from evals.served import Served, as_mp4
from evals.types import Decoding, Protocol, Sample, VideoClip
from repro import tiny

#: Pictures through Pillow: beside a CPU-only torch, torchvision decodes none.
PROGRAM = """
import sys
from evals._torchvision import install
install()
from transformers.models.auto import image_processing_auto
image_processing_auto._resolve_backend = lambda *given: "pil"
from transformers.cli.transformers import main
sys.argv = ["transformers", "serve", sys.argv[1], "--port", sys.argv[2], "--device", "cpu"]
main()
"""
PROTOCOL = Protocol("test", prompt="micro", max_frames=4, decoding=Decoding(max_new_tokens=40))
Writer = Callable[..., Path]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`MODEL@URL` of a running server with the shipped student.

    Without do_sample in the checkpoint's own file this server stays greedy at any temperature.
    """
    where = tmp_path_factory.mktemp("served") / "log"
    folder = where.with_name("student")
    shutil.copytree(Path(tiny.__file__).parent / "ktr", folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, "do_sample": True}))
    port = free_port()
    log = where.open("wb")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(port)], stdout=log, stderr=log,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    url = f"http://localhost:{port}"
    for _ in range(600):
        try:
            httpx.get(f"{url}/health", timeout=5)
            break
        except httpx.TransportError:
            assert process.poll() is None, where.read_text()
            time.sleep(0.1)
    yield f"{folder}@{url}/v1"
    process.kill()
    process.wait()
    log.close()


def bench(*samples: Sample) -> Benchmark:
    return Benchmark("test", "test", samples, "r", "0" * 64)


def ask(server: str, *samples: Sample, protocol: Protocol = PROTOCOL) -> list[dict[str, object]]:
    rows = evaluate(load(f"openai:{server}"), bench(*samples), protocol, save_replies=True)
    return [{"id": r.id, "reply": r.reply, "tokens": r.tokens, "outcome": r.outcome} for r in rows]


def film(mp4: Writer, seed: int = 0) -> Path:
    frames = np.random.default_rng(seed).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    return mp4(frames, name=f"{seed}.mp4")


def video(id: str, path: Path) -> Sample:
    return Sample(id, "Which came first?", "multiple choice", "A", "video", path,
                  ("A. red circle", "B. blue square"), path.name)  # fmt: skip


def test_a_real_server_answers(server: str, mp4: Writer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no film")
    text = Sample("t", "How many?", "numerical", "1", "text", None)
    found = ask(server, video("a", film(mp4)), video("lost", broken), text)
    assert [row["outcome"] == "undecodable" for row in found] == [False, True, False]
    for row in (found[0], found[2]):
        assert "<think>" in str(row["reply"]) and 0 < int(str(row["tokens"])) <= 40
    assert found[0]["outcome"] in ("correct", "wrong")  # it answers in the trained format
    again = ask(server, video("a", film(mp4)), video("lost", broken), text)
    assert again == found  # greedy
    drawn = replace(PROTOCOL, decoding=Decoding(temperature=1.0, samples=4, max_new_tokens=40))
    rows = ask(server, video("a", film(mp4)), protocol=drawn)
    assert len(rows) == 4 and len({str(row["reply"]) for row in rows}) > 1


def test_the_server_sees_the_pictures(server: str, mp4: Writer) -> None:
    """Counted by the server itself: every frame adds tokens to the prompt."""
    tokens = []
    for frames in (2, 4):
        protocol = replace(PROTOCOL, min_frames=frames, max_frames=frames)
        asked: list[dict[str, object]] = []
        model = load(f"openai:{server}")
        assert isinstance(model, Served)

        class Spy(Served):
            def _post(self, body, asked=asked):  # type: ignore[no-untyped-def]
                asked.append(super()._post(body))
                return asked[-1]

        spy = Spy(model.name, model.url)
        evaluate(spy, bench(video("a", film(mp4))), protocol)
        usage = asked[0]["usage"]
        assert isinstance(usage, dict)
        tokens.append(usage["prompt_tokens"])
    assert tokens[1] - tokens[0] >= 2 * 4


# --- trouble -------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    text = Sample("t", "How many?", "numerical", "1", "text", None)
    with pytest.raises(EnvironmentFault, match=r"cannot be reached .* \(tried 3 times\)"):
        ask(f"m@http://localhost:{free_port()}/v1", text)


def test_a_request_the_server_refuses_is_bad_input(server: str) -> None:
    url = server.rpartition("@")[2]
    text = Sample("t", "How many?", "numerical", "1", "text", None)
    with pytest.raises(BadInput, match="answered 4"):
        ask(f"other-model@{url}/nowhere", text)


@pytest.mark.parametrize(
    "name", ["m", "m@", "@http://x", "m@ftp://x", "m@http://x?show=gif", "m@http://x?parallel=0",
             "m@http://x?colour=red"],
)  # fmt: skip
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(BadInput, match="openai:"):
        Served.named(name)


def test_names() -> None:
    model = Served.named("org/a@b@http://localhost:1/v1/?show=video&parallel=3&patience=5")
    assert (model.name, model.url, model.show) == ("org/a@b", "http://localhost:1/v1", "video")
    assert (model.parallel, model.patience) == (3, 5)
    assert model.under(PROTOCOL).id == "test+served-video"
    assert model.under(PROTOCOL).hash != PROTOCOL.hash
    assert model.identity is None  # nothing is cached of what may change behind its address


def test_a_video_is_sent_losslessly() -> None:
    import av

    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 48, 3), dtype=np.uint8)
    data = as_mp4(VideoClip(frames, (0, 4, 8, 12, 16), 8.0, 20))
    with av.open(io.BytesIO(data)) as container:
        assert float(container.streams.video[0].average_rate) == 2.0
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert (np.stack(found) == frames).all()
