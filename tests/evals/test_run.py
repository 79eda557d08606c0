"""evals.run, evals.models: every outcome by name, a bad file costs one sample, exact resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals import models
from evals import run as run_module
from evals.benchmarks import Benchmark
from evals.errors import BadInput, BlindForward, EnvironmentFault
from evals.models import Checkpoint, Model, Question, Scripted
from evals.probes import NAMES
from evals.run import Work, batches, evaluate, score, summary
from evals.types import Decoding, Modality, Protocol, Reply, Row, Sample
from evals.video import Clips
from evals.vlm import VLM
from repro.tiny.model import PROTOCOL

Writer = Callable[..., Path]
OPTIONS = ("A. red", "B. blue")


def answered(text: str, finished: bool = True) -> Reply:
    return Reply(f"<think>hm</think><answer>{text}</answer>", 7, finished)


class Told:
    """Says what it was told to; counts its questions. Its clips are really read."""

    name, sees, at_once = "told", True, 64
    identity: Mapping[str, str] | None = None

    def __init__(self, script: Mapping[str, Sequence[Reply]]):
        self.script, self.asked = script, list[str]()
        self.seeds = set[int]()

    def under(self, protocol: Protocol) -> Protocol:
        return protocol

    def prompt(self, question: Question, protocol: Protocol) -> str:
        return question.sample.question

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        self.seeds.add(decoding.seed)
        self.asked += [q.sample.id for q in questions]
        return [list(self.script[q.sample.id]) for q in questions]


def bench(*samples: Sample) -> Benchmark:
    return Benchmark("test", "test", samples, "r0", "0" * 64)


@pytest.fixture
def film(mp4: Writer) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    return mp4(frames, name="good.mp4")


def choice(id: str, media: Path | None, gold: str = "A", modality: Modality = "video") -> Sample:
    return Sample(
        id, "Which?", "multiple choice", gold, modality, media, OPTIONS, str(media),
        {"family": "order", "film": "parade"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "finished", "outcome"),
    [
        ("I first see a red circle", True, "correct"),
        ("I first see a red circle", False, "truncated"),  # it may be thinking aloud
        ("The answer is A because it", False, "correct"),
    ],
)
def test_a_reply_that_was_cut_off_must_have_said_its_answer(
    text: str, finished: bool, outcome: str
) -> None:
    options = ("A. red circle", "B. blue square")
    sample = Sample("q", "?", "multiple choice", "A", "text", None, options)
    row = score(sample, Reply(text, 9, finished), 0, Protocol("t"))
    assert row.outcome == outcome
    assert outcome == "correct" or "cut off; only by option text: A" in str(row.detail)


def test_every_outcome(film: Path) -> None:
    broken = film.with_name("broken.mp4")
    broken.write_bytes(film.read_bytes()[:2000])
    said = {
        "right": answered("A"),
        "wrong": answered("B"),
        "mumbled": Reply("I would rather not say", 5),
        "long": Reply("<think>first", 40, finished=False),
        "just": answered("A", finished=False),  # an answer counts, however the reply ended
        "wordless": answered("A"),
    }
    files = dict.fromkeys(said, film) | {"lost": broken, "gone": film.with_name("gone.mp4")}
    samples = [choice(name, path) for name, path in files.items()]
    samples[5] = replace(samples[5], modality="text", media=None)
    rows = evaluate(Told({k: [v] for k, v in said.items()}), bench(*samples), PROTOCOL_ONE)
    assert [(r.id, r.outcome, r.score, r.prediction) for r in rows] == [
        ("right", "correct", 1.0, "A"),
        ("wrong", "wrong", 0.0, "B"),
        ("mumbled", "unparsed", 0.0, None),
        ("long", "truncated", 0.0, None),
        ("just", "correct", 1.0, "A"),
        ("wordless", "correct", 1.0, "A"),
        ("lost", "undecodable", 0.0, None),
        ("gone", "undecodable", 0.0, None),
    ]
    details = {r.id: r.detail for r in rows}
    assert details["right"] is None and "<answer>" in str(details["mumbled"])
    assert str(broken) in str(details["lost"]) and "no such file" in str(details["gone"])
    assert [r.tokens for r in rows] == [7, 7, 5, 40, 7, 7, 0, 0]
    first = rows[0]
    assert (first.k, first.cluster, first.kind, first.gold) == (0, str(film), samples[0].kind, "A")
    assert first.tags == {"family": "order"}
    assert summary(rows) == {
        "n": 8,
        "score": 3 / 8,  # what could not be read counts as not known
        "coverage": 4 / 8,
        "outcomes": {"correct": 3, "truncated": 1, "undecodable": 2, "unparsed": 1, "wrong": 1},
        "by_tag": {"family": {"order": {"n": 8, "score": 3 / 8}}},
    }


PROTOCOL_ONE = replace(PROTOCOL, decoding=Decoding(temperature=0.0, max_new_tokens=8))
PROTOCOL_TWO = replace(PROTOCOL, decoding=Decoding(temperature=1.0, max_new_tokens=8, samples=2))


def test_partial_scores_are_kept() -> None:
    sample = Sample("q", "How far?", "regression", "100", "text", None)
    row = score(sample, answered("88"), 0, PROTOCOL_ONE)
    # 0.12 off is within 1 - t for the eight t = 0.50, 0.55, ..., 0.85
    assert (row.outcome, row.score, row.prediction) == ("wrong", 0.8, "88")
    assert score(sample, answered("100"), 0, PROTOCOL_ONE).outcome == "correct"


def test_intervals_count_by_the_protocols_iou() -> None:
    sample = Sample("q", "When?", "temporal grounding", "[0.0, 2.0]", "text", None)
    half = answered("[1.0, 2.0]")  # overlap 1 of 2 seconds
    assert score(sample, half, 0, PROTOCOL_ONE).outcome == "correct"
    assert score(sample, half, 0, replace(PROTOCOL_ONE, iou=0.51)).outcome == "wrong"


def test_replies_are_saved_when_asked_for(film: Path) -> None:
    model, one = Told({"a": [answered("A")]}), bench(choice("a", film))
    (plain,), (saved,) = (
        evaluate(model, one, PROTOCOL_ONE, save_replies=keep) for keep in (False, True)
    )
    assert plain.reply is None and saved.reply == answered("A").text
    assert replace(saved, reply=None) == plain


def test_summary_by_hand() -> None:
    def row(id: str, k: int, value: float, family: str, outcome: str = "wrong") -> Row:
        return Row(id, k, id, "numerical", "1", "1", outcome, value, 3, {"family": family})

    rows = [
        row("a", 0, 1.0, "count", "correct"), row("a", 1, 0.0, "count"),
        row("b", 0, 0.5, "count"), row("b", 1, 0.0, "count"),
        row("c", 0, 0.0, "order", "undecodable"),  # one row stands for both replies
    ]  # fmt: skip
    found = summary(rows)
    assert found["n"] == 3
    assert found["score"] == pytest.approx((0.5 + 0.25 + 0.0) / 3)
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["outcomes"] == {"correct": 1, "undecodable": 1, "wrong": 3}
    assert found["by_tag"]["family"] == {
        "count": {"n": 2, "score": 0.375}, "order": {"n": 1, "score": 0.0},
    }  # fmt: skip


# --- limit, order, progress, resume ------------------------------------------------------------


def test_limit_and_progress(film: Path) -> None:
    samples = [choice(str(i), film) for i in range(5)]
    told = Told({s.id: [answered("A")] for s in samples})
    seen: list[tuple[int, int]] = []
    rows = evaluate(
        told, bench(*samples), PROTOCOL_ONE, limit=3, batch=2, seed=11,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert [r.id for r in rows] == told.asked == ["0", "1", "2"]
    assert seen == [(2, 3), (3, 3)]
    assert told.seeds == {11}
    assert len(evaluate(told, bench(*samples), PROTOCOL_ONE, limit=99)) == 5


@pytest.fixture(scope="module")
def checkpoint(student: VLM) -> Checkpoint:
    return Checkpoint(student, "student")


@pytest.fixture
def mixed(film: Path, tmp_path: Path) -> Benchmark:
    """Seven questions: films, an image, a text, a broken file."""
    from PIL import Image

    Image.new("RGB", (112, 112), "red").save(tmp_path / "a.png")
    (tmp_path / "bad.mp4").write_text("no film")
    return bench(
        choice("v0", film), choice("bad", tmp_path / "bad.mp4"), choice("v1", film, "B"),
        choice("i0", tmp_path / "a.png", modality="image"), choice("v2", film),
        choice("t0", None, modality="text"), choice("v3", film),
    )  # fmt: skip


def run(model: Model, benchmark: Benchmark, resume: Sequence[Row] = (), seed: int = 5) -> list[Row]:
    return evaluate(
        model, benchmark, PROTOCOL_TWO, batch=3, seed=seed, save_replies=True, resume_rows=resume
    )


def test_a_checkpoint_answers_all_but_the_broken_file(
    checkpoint: Checkpoint, mixed: Benchmark
) -> None:
    rows = run(checkpoint, mixed)
    ids = [i for s in mixed.samples for i in ([s.id] if s.id == "bad" else [s.id, s.id])]
    assert [r.id for r in rows] == ids
    assert [r.k for r in rows if r.id != "bad"] == [0, 1] * 6
    (bad,) = [r for r in rows if r.id == "bad"]
    assert bad.outcome == "undecodable" and "bad.mp4" in str(bad.detail)
    assert all(r.outcome != "undecodable" and r.tokens > 0 for r in rows if r.id != "bad")
    assert run(checkpoint, mixed) == rows  # the same seed
    assert run(checkpoint, mixed, seed=6) != rows
    assert summary(rows)["n"] == 7


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_file_does_not_change_the_others_replies(
    checkpoint: Checkpoint, mixed: Benchmark, temperature: float
) -> None:
    without = bench(*(s for s in mixed.samples if s.id != "bad"))
    decoding = replace(PROTOCOL_ONE.decoding, temperature=temperature)
    protocol = replace(PROTOCOL_ONE, decoding=decoding)
    both = [evaluate(checkpoint, b, protocol, save_replies=True) for b in (mixed, without)]
    assert [r for r in both[0] if r.id != "bad"] == both[1]


def test_a_film_is_decoded_once_for_all_its_questions(student: VLM, mixed: Benchmark) -> None:
    clips = Clips(PROTOCOL_TWO)
    evaluate(Checkpoint(student, "student"), mixed, PROTOCOL_TWO, batch=3, clips=clips)
    assert clips.decodes == 3  # the film, the image, the broken file


@pytest.mark.parametrize("kept", [0, 1, 2, 4, 5, 8, 12, 13])
def test_resume_gives_identical_rows(checkpoint: Checkpoint, mixed: Benchmark, kept: int) -> None:
    """From any number of rows: in mid-question, mid-batch, at a batch's end, all."""
    whole = run(checkpoint, mixed)
    assert len(whole) == 13
    assert run(checkpoint, mixed, whole[:kept]) == whole


def test_resume_asks_only_what_is_missing(film: Path) -> None:
    samples = [choice(str(i), film) for i in range(6)]
    script = {s.id: [answered("A"), answered("B")] for s in samples}
    whole = run(Told(script), bench(*samples))
    again = Told(script)
    assert run(again, bench(*samples), whole[:8]) == whole  # 4 of 6 questions
    assert again.asked == ["3", "4", "5"]  # their batch, so that its draws are the same
    again = Told(script)
    assert run(again, bench(*samples), whole) == whole and again.asked == []


@pytest.mark.parametrize("probe", NAMES)
def test_a_real_model_under_every_probe(
    checkpoint: Checkpoint, film: Path, mp4: Writer, probe: str
) -> None:
    """One of the films has a single frame."""
    single = mp4(np.full((1, 112, 112, 3), 90, np.uint8), name="single.mp4")
    samples = [choice("a", film), choice("b", film), choice("one", single)]
    rows = evaluate(checkpoint, bench(*samples), PROTOCOL_ONE, probe=probe, save_replies=True)
    assert [r.id for r in rows] == ["a", "b", "one"] and all(r.tokens for r in rows)
    assert {r.gold for r in rows} == ({"B"} if probe == "rotate-options" else {"A"})


# --- films together, clips ahead, work counted ---------------------------------------------------


def test_batches_keep_the_questions_of_a_film_together(film: Path) -> None:
    films = [film.with_name(name) for name in "abc"]
    samples = [choice(f"{path.name}{i}", path) for i in range(3) for path in films]
    samples.append(choice("t", None, modality="text"))
    found = [[s.id for s in part] for part in batches(samples, 4)]
    assert found == [["a0", "a1", "a2"], ["b0", "b1", "b2"], ["c0", "c1", "c2", "t"]]
    assert [len(part) for part in batches(samples, 2)] == [2, 1, 2, 1, 2, 2]
    ordered = sorted(samples, key=lambda s: s.id)
    assert [s for part in batches(ordered, 6) for s in part] == ordered


def test_rows_come_in_benchmark_order(film: Path) -> None:
    other = film.with_name("other.mp4")
    other.write_bytes(film.read_bytes())
    samples = [choice(str(i), (film, other)[i % 2]) for i in range(6)]
    told = Told({s.id: [answered("A")] for s in samples})
    rows = evaluate(told, bench(*samples), PROTOCOL_ONE)
    assert told.asked == ["0", "2", "4", "1", "3", "5"]
    assert [r.id for r in rows] == ["0", "1", "2", "3", "4", "5"]


def test_work_is_counted(film: Path) -> None:
    samples = [choice(str(i), film) for i in range(4)]
    work = Work()
    evaluate(Told({s.id: [answered("A")] for s in samples}), bench(*samples), PROTOCOL_ONE,
             work=work)  # fmt: skip
    assert work.asked == 4 and work.cached == 0
    assert 0.5 < work.idle < 1  # it answers at once and waits for the film
    assert Work().idle == 0
    assert Work(waiting=1, answering=3).idle == 0.25


def test_the_next_clips_are_read_while_the_model_answers(film: Path) -> None:
    """Counted, not timed: when a batch is asked, the next batch's films are on their way."""
    films = []
    for i in range(4):
        films.append(film.with_name(f"{i}.mp4"))
        films[-1].write_bytes(film.read_bytes())
    samples = [choice(f"{i}{k}", path) for i, path in enumerate(films) for k in range(2)]
    begun: list[int] = []

    class Looks(Told):
        def answer(
            self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
        ) -> list[list[Reply]]:
            begun.append(clips.decodes)
            return super().answer(questions, protocol, decoding)

    with ThreadPoolExecutor(1) as threads:
        clips = Clips(PROTOCOL_ONE, ahead=threads)
        evaluate(Looks({s.id: [answered("A")] for s in samples}), bench(*samples), PROTOCOL_ONE,
                 batch=2, clips=clips)  # fmt: skip
    assert begun == [2, 3, 4, 4] and clips.decodes == 4


def test_prefetching_stays_within_the_memory_given(film: Path) -> None:
    size = 8 * 112 * 112 * 3
    with ThreadPoolExecutor(1) as threads:
        clips = Clips(PROTOCOL_ONE, keep=3 * size, ahead=threads)
        clips.load(choice("first", film))
        clips.prefetch([choice(str(i), film.with_name(f"{i}.mp4")) for i in range(9)])
        assert clips.decodes == 1 + 3


def test_clips_that_would_fill_the_memory_are_asked_in_pieces(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = film.with_name("other.mp4")
    other.write_bytes(film.read_bytes())
    samples = [choice(f"{i}{k}", path) for i, path in enumerate((film, other)) for k in range(3)]
    pieces: list[int] = []

    class Looks(Told):
        def answer(
            self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
        ) -> list[list[Reply]]:
            pieces.append(len(questions))
            return super().answer(questions, protocol, decoding)

    looks = Looks({s.id: [answered("A")] for s in samples})
    whole = evaluate(looks, bench(*samples), PROTOCOL_ONE)
    monkeypatch.setattr(run_module, "HELD", 8 * 112 * 112 * 3)
    assert evaluate(looks, bench(*samples), PROTOCOL_ONE) == whole
    assert [n for n in pieces if n] == [6, 4, 2]


def test_no_clip_becomes_a_text_question(film: Path, student: VLM) -> None:
    with pytest.raises(BlindForward, match="question a would be asked without its clip"):
        Question(choice("a", film), None, 0)
    assert Question(choice("a", film), None, 0, blind=True).clip is None  # a probe may
    assert Question(choice("a", None, modality="text"), None, 0).clip is None


def test_memory_that_runs_out_stops_the_run(checkpoint: Checkpoint, film: Path) -> None:
    """A petabyte is asked for, so the allocation fails here as it would on a full machine."""
    huge = replace(PROTOCOL_ONE, min_pixels=10**12, max_pixels=10**13)
    with pytest.raises(EnvironmentFault, match="out of memory with 1 questions at once; lower"):
        evaluate(checkpoint, bench(choice("a", film)), huge)


# --- the three that need no checkpoint ---------------------------------------------------------

FOUR = ("A. red", "B. blue", "C. green", "D. none")


def many(n: int = 400) -> Benchmark:
    """n questions of four options, golds in turn, then one of each other kind."""
    choices = [
        Sample(f"c{i}", "?", "multiple choice", "ABCD"[i % 4], "text", None, FOUR) for i in range(n)
    ]
    return bench(
        *choices,
        Sample("n", "?", "numerical", "3", "text", None),
        Sample("i", "?", "temporal grounding", "[1.0, 2.0]", "text", None),
        Sample("g", "?", "grounded qa", "B [1.0, 2.0]", "text", None, FOUR),
        Sample("r", "?", "regression", "2.5", "text", None),
        Sample("o", "?", "OCR", "stop here", "text", None),
        Sample("f", "?", "free-form", "a red circle", "text", None),
    )


def test_oracle_is_right_on_every_kind() -> None:
    rows = evaluate(Scripted("oracle"), many(8), PROTOCOL_TWO)
    assert len(rows) == 28
    assert {r.outcome for r in rows} == {"correct"}


def test_parrot_says_the_first_option() -> None:
    rows = evaluate(Scripted("parrot"), many(), PROTOCOL_ONE)
    assert {r.prediction for r in rows if r.id.startswith("c")} == {"A"}
    assert sum(r.score for r in rows if r.id.startswith("c")) == 100


def test_random_is_seeded_and_at_chance() -> None:
    def drawn(seed: int) -> list[str | None]:
        return [r.prediction for r in evaluate(Scripted("random"), many(), PROTOCOL_TWO, seed=seed)]

    first = drawn(1)
    assert drawn(1) == first and drawn(2) != first
    assert first[0:800:2] != first[1:800:2]  # the two replies of a question are two draws
    rows = evaluate(Scripted("random"), many(), PROTOCOL_TWO, seed=1)
    right = sum(r.score for r in rows if r.id.startswith("c")) / 800
    assert abs(right - 0.25) < 4 * (0.25 * 0.75 / 800) ** 0.5


def test_load_by_name(tmp_path: Path) -> None:
    for name in ("oracle", "parrot", "random"):
        assert models.load(name).name == name
    with pytest.raises(BadInput, match="holds no checkpoint"):
        models.load(tmp_path / "nothing")
