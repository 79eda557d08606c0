"""evals.replies: everything that made a reply is in its key, and what is put is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals.benchmarks import Benchmark
from evals.errors import EnvironmentFault
from evals.models import Checkpoint
from evals.replies import ReplyCache, keys, pixels
from evals.run import Work, evaluate
from evals.types import Decoding, Modality, Reply, Sample, VideoClip
from evals.vlm import VLM
from repro.tiny.model import PROTOCOL

IDENTITY = {"weights": "w", "processor": "p", "engine": "transformers 5 torch 2"}
DRAWN = Decoding(temperature=1.0, samples=2, max_new_tokens=8)
CLIP = VideoClip(np.zeros((2, 4, 4, 3), np.uint8), (0, 1), 4.0, 8)


def key(**changes: object) -> list[str]:
    given = {
        "identity": IDENTITY, "prompt": "Q?", "clip": pixels(CLIP), "protocol": PROTOCOL,
        "decoding": DRAWN, "seed": 1, **changes,
    }  # fmt: skip
    return keys(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": {**IDENTITY, "weights": "x"}}, {"identity": {**IDENTITY, "processor": "x"}},
        {"identity": {**IDENTITY, "engine": "transformers 6 torch 2"}},
        {"prompt": "Q!"}, {"clip": ""}, {"seed": 2},
        {"clip": pixels(replace(CLIP, frames=CLIP.frames + 1))},
        {"clip": pixels(replace(CLIP, indices=(0, 2)))}, {"clip": pixels(replace(CLIP, fps=5.0))},
        {"protocol": replace(PROTOCOL, max_pixels=1)},
        {"protocol": replace(PROTOCOL, time="constant")},
        {"protocol": replace(PROTOCOL, positions="v5")},
        {"decoding": replace(DRAWN, temperature=0.5)}, {"decoding": replace(DRAWN, samples=3)},
        {"decoding": replace(DRAWN, max_new_tokens=9)}, {"decoding": replace(DRAWN, top_p=0.5)},
    ],
)  # fmt: skip
def test_every_part_of_the_key_counts(changes: dict[str, object]) -> None:
    plain, other = key(), key(**changes)
    assert len(set(plain)) == 2 and not set(plain) & set(other)


def test_what_only_judges_a_reply_is_no_part_of_it() -> None:
    graded = replace(PROTOCOL, id="other", grader="strict", iou=0.3, aggregation="macro")
    assert key(protocol=graded) == key()
    greedy = Decoding(max_new_tokens=8)
    assert key(decoding=greedy, seed=1) == key(decoding=greedy, seed=2)
    assert key(decoding=replace(DRAWN, seed=7)) == key()  # the question's own seed counts


def test_put_and_get(tmp_path: Path) -> None:
    odd = Reply("\x00 \ud83c é ‮ \n", 3, finished=False)  # what models write
    with ReplyCache(tmp_path / "a" / "replies.sqlite") as one:
        assert one.get(["k0"]) is None
        one.put(["k0", "k1"], [odd, Reply("", 0)])
        one.put(["k0", "k1"], [Reply("later", 1), Reply("later", 1)])  # the first stays
        assert one.get(["k1", "k0"]) == [Reply("", 0), odd]
        assert one.get(["k0", "k2"]) is None
        with ReplyCache(one.path) as other:  # a second process may read and write meanwhile
            assert other.get(["k0"]) == [odd]
            other.put(["k2"], [Reply("x", 1)])
        assert one.get(["k2"]) == [Reply("x", 1)]


def test_a_broken_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "replies.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(EnvironmentFault, match="delete it, or add --no-cache"):
        ReplyCache(tmp_path / "replies.sqlite")


def benchmark(film: Path, n: int) -> Benchmark:
    modality: Modality = "video"
    samples = tuple(
        Sample(str(i), f"Which came first {i}?", "multiple choice", "A", modality, film,
               ("A. red circle", "B. blue square"), "film")
        for i in range(n)
    )  # fmt: skip
    return Benchmark("test", "test", samples, "r", "0" * 64)


def test_a_second_run_asks_the_model_nothing(student: VLM, mp4, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    film = mp4(np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8))
    model = Checkpoint(student, "student", IDENTITY)
    protocol = replace(PROTOCOL, decoding=DRAWN)
    with ReplyCache(tmp_path / "replies.sqlite") as cache:

        def run(n: int, **changes: object) -> tuple[list[object], Work, int]:
            before, work = student.tokens, Work()
            rows = evaluate(
                model, benchmark(film, n), replace(protocol, **changes),  # type: ignore[arg-type]
                save_replies=True, replies=cache, work=work,
            )  # fmt: skip
            return list(rows), work, student.tokens - before

        first, cost, tokens = run(3)
        assert (cost.asked, cost.cached) == (3, 0) and tokens > 0
        again, cost, tokens = run(3)
        assert again == first and (cost.asked, cost.cached, tokens) == (0, 3, 0)
        _, cost, tokens = run(3, grader="strict")
        assert (cost.asked, tokens) == (0, 0)
        more, cost, _ = run(5)
        assert more[:6] == first and (cost.asked, cost.cached) == (2, 3)
        _, cost, _ = run(3, decoding=replace(DRAWN, temperature=0.5))
        assert (cost.asked, cost.cached) == (3, 0)
        silent = Checkpoint(student, "student")  # no identity: nothing may be looked up
        work = Work()
        evaluate(silent, benchmark(film, 2), protocol, replies=cache, work=work)
        assert (work.asked, work.cached) == (2, 0)
