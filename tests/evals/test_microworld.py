"""evals.microworld: made the same twice, exact gold, twins, and no answer to be had from text."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals import microworld as world
from evals.benchmarks import Benchmark, load
from evals.benchmarks.jsonl import read
from evals.metrics import mean
from evals.models import Scripted
from evals.run import evaluate, summary
from evals.types import Protocol, Sample
from evals.video import Clips, decode, probe

#: How the tiny student sees: 8 of 16 frames.
SEEN = Protocol("test", fps=2.0, min_frames=4, max_frames=8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def test_split(cache: Path) -> Benchmark:
    """The whole test split."""
    return load("microworld", split="test", root=cache)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def by_film(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    films = defaultdict(list)
    for sample in samples:
        assert sample.media is not None
        films[sample.media.stem].append(sample)
    return films


# --- making ------------------------------------------------------------------------------------

MAKE = "import sys; from pathlib import Path; from evals import microworld as m; "


def test_same_seed_same_bytes_in_two_processes(tmp_path: Path) -> None:
    found = []
    for name, salt in (("a", "1"), ("b", "2")):
        code = MAKE + "m.make('validation', n=20, seed=3, cache=Path(sys.argv[1]))"
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)],
            check=True, env={**os.environ, "PYTHONHASHSEED": salt},
        )  # fmt: skip
        found.append(hashes(tmp_path / name))
    assert found[0] == found[1]
    assert len(found[0]) == 21  # 20 films and the records
    other = world.make("validation", n=20, seed=4, cache=tmp_path)
    assert not set(hashes(other).values()) & set(found[0].values())


def test_made_once(tmp_path: Path) -> None:
    folder = world.make("train", n=4, cache=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert world.make("train", n=4, cache=tmp_path) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert world.make("train", n=5, cache=tmp_path) != folder


def test_where_films_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "here"))
    assert world.default_cache() == tmp_path / "here"
    assert world.make("train", n=1).is_relative_to(tmp_path / "here")
    monkeypatch.delenv("REELPROOF_CACHE")
    assert world.default_cache() == Path.home() / ".cache" / "reelproof"
    with pytest.raises(ValueError, match="no split 'dev'"):
        world.make("dev", cache=tmp_path)


def test_an_interrupted_making_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = world.write_film, []

    def stop(frames: np.ndarray, path: Path) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(frames, path)

    monkeypatch.setattr(world, "write_film", stop)
    with pytest.raises(KeyboardInterrupt):
        world.make("train", n=8, cache=tmp_path)
    assert list((tmp_path / "microworld").iterdir()) == []
    monkeypatch.undo()
    assert len(hashes(world.make("train", n=8, cache=tmp_path))) == 9


def test_a_killed_making_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    code = MAKE + "m.make('train', cache=Path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.mp4")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("microworld/v*"))
    assert not list(tmp_path.rglob("records.json"))


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        jobs = [pool.apply_async(world.make, ("train",), {"n": 20, "cache": tmp_path})
                for _ in range(2)]  # fmt: skip
        folders = {job.get(60) for job in jobs}
    (folder,) = folders
    assert list((tmp_path / "microworld").iterdir()) == [folder]
    assert hashes(folder) == hashes(world.make("train", n=20, cache=tmp_path / "alone"))


def test_the_slower_of_two_leaves_the_faster_ones_films_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose, inodes = world._records, {}

    def overtaken(*given: Any) -> list[dict[str, Any]]:
        monkeypatch.undo()
        faster = world.make("train", n=4, cache=tmp_path)
        inodes.update({path: path.stat().st_ino for path in faster.rglob("*")})
        return compose(*given)

    monkeypatch.setattr(world, "_records", overtaken)
    folder = world.make("train", n=4, cache=tmp_path)
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == inodes
    assert len(inodes) == 6 and list(folder.parent.iterdir()) == [folder]


# --- what is in it -----------------------------------------------------------------------------


def test_size_families_and_kinds(test_split: Benchmark) -> None:
    samples = test_split.samples
    assert len(samples) >= 1200 and len(by_film(samples)) >= 300
    families = Counter(s.tags["family"] for s in samples)
    assert set(families) == set(world.FAMILIES) and min(families.values()) >= 50
    assert Counter(s.kind for s in samples).keys() == {
        "multiple choice", "numerical", "temporal grounding", "grounded qa",
    }  # fmt: skip
    images = [s for s in samples if s.modality == "image"]
    assert len(images) >= 100 and all(s.media and s.media.suffix == ".png" for s in images)
    assert all(s.media and s.media.is_file() for s in samples)
    per_film = Counter(s.media for s in samples)
    assert set(per_film.values()) == {4}


def test_options_are_shuffled_and_hold_the_gold(test_split: Benchmark) -> None:
    choices = [s for s in test_split.samples if s.options]
    for sample in choices:
        labels, texts = zip(*(o.split(". ", 1) for o in sample.options), strict=True)
        assert list(labels) == list("ABCD"[: len(labels)])
        assert len(set(texts)) == len(texts) >= 2
        assert sample.gold[0] in labels
    for n in (2, 3, 4):
        golds = Counter(s.gold[0] for s in choices if len(s.options) == n)
        assert len(golds) == n
        assert golds.most_common()[-1][1] / golds.total() > 0.6 / n


def test_films_are_short_h264(test_split: Benchmark) -> None:
    films = [s.media for s in test_split.samples if s.modality == "video" and s.media]
    for path in sorted(set(films))[:5]:
        info = probe(path)
        assert (info.codec, info.frames, info.fps) == ("h264", 16, 4.0)
        assert (info.width, info.height) == (112, 112)


def test_the_loader_of_the_video_r1_family_reads_it(films: Callable[..., Path]) -> None:
    folder = films("test", 40)
    records: list[dict[str, Any]] = json.loads((folder / "records.json").read_text())
    fields = {"problem_id", "problem", "data_type", "problem_type", "options", "process",
              "solution", "path", "data_source"}  # fmt: skip
    for record, sample in zip(records, read(folder / "records.json", folder), strict=True):
        assert fields <= record.keys()
        assert re.fullmatch(r"<answer>.+</answer>", record["solution"])
        assert re.fullmatch(r"<think>.+</think>", record["process"])
        assert sample.gold in record["solution"] and sample.question == record["problem"]


def test_the_reasoning_names_the_answer(films: Callable[..., Path]) -> None:
    """What a cold start is taught: "... so red" before the letter of red."""
    records = json.loads((films("test", 40) / "records.json").read_text())
    for record in records:
        if record["options"]:
            gold = re.findall("<answer>(.)", record["solution"])[0]
            text = next(o[3:] for o in record["options"] if o.startswith(gold))
            assert record["process"].endswith(f"so {text}</think>")


# --- gold, seen in the pixels ------------------------------------------------------------------


@functools.cache
def painted(film: Path) -> np.ndarray:
    """(16, 56, 56) every second pixel of every frame: which colour it is nearest to, 4 = none."""
    frames = decode(film, tuple(range(16)))[:, ::2, ::2].astype(np.int32)
    table = np.array([*world.COLOURS.values(), world.BACKGROUND])
    return np.stack([((frames - c) ** 2).sum(-1) for c in table]).argmin(0)


def colour_mask(film: Path, colour: str) -> np.ndarray:
    """(16, 56, 56) where the colour is seen; a whole shape covers more than 50 of these pixels."""
    return painted(film) == list(world.COLOURS).index(colour)


def asked(sample: Sample) -> str:
    """The colour of the shape that the answer is about, by the sample's own texts."""
    words = re.compile("|".join(world.COLOURS))
    if sample.options:
        texts = {o[0]: o[3:] for o in sample.options}
        said = words.findall(texts[sample.gold[0]]) or words.findall(sample.question)
    else:
        said = words.findall(sample.question)
    return said[0] if len(said) == 1 else ""


def test_evidence_shows_the_asked_shape_and_only_there(films: Callable[..., Path]) -> None:
    """Inside the interval the shape is there and inside the region; for located questions it is
    nowhere to be seen outside the interval."""
    folder = films("test", 40)
    checked: Counter[str] = Counter()
    for sample in read(folder / "records.json", folder):
        evidence = sample.evidence
        assert evidence is not None
        (start, end), (x0, y0, x1, y1) = evidence.interval, evidence.region
        assert 0 <= start < end <= 4.0
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        colour, family = asked(sample), sample.tags["family"]
        if sample.modality == "image" or not colour:
            continue
        assert sample.media is not None
        seen = colour_mask(sample.media, colour)
        first, last = round(start * world.FPS), round(end * world.FPS)
        assert seen[first:last].sum() > 50
        left, right, top, bottom = (round(v * world.SIDE / 2) for v in (x0, x1, y0, y1))
        inside = seen[first:last, max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
        assert inside.sum() >= 0.99 * seen[first:last].sum()
        if family in ("locate", "located"):
            assert (seen[first:last].sum((1, 2)) > 50).all()
            assert seen[:first].sum() + seen[last:].sum() == 0
            assert f"[{start:.1f}, {end:.1f}]" in sample.gold
        checked[family] += 1
    assert checked.keys() >= {"attribute", "order", "locate", "located", "cause"}


def test_count_and_order_from_pixels(films: Callable[..., Path]) -> None:
    folder = films("test", 40)
    for sample in read(folder / "records.json", folder):
        if sample.modality == "image" or sample.tags["film"] != "parade":
            continue
        assert sample.media is not None
        film = sample.media
        when = {c: np.flatnonzero(colour_mask(film, c).sum((1, 2)) > 50) for c in world.COLOURS}
        order = sorted((int(t[0]), c) for c, t in when.items() if len(t))
        if sample.tags["family"] == "count":
            assert sample.gold == str(len(order))
        elif sample.tags["family"] in ("order", "located"):
            place = -1 if "last" in sample.question else 0
            assert asked(sample) == order[place][1]


def test_what_pushes_a_shape_is_the_only_one_that_comes_nearer() -> None:
    """In the tick of the push one other shape has moved, or, for "nothing", none."""
    pushed = 0
    for _, film, _ in world.films("test", 100, 0):
        if film.kind != "collide":
            continue
        event, start = film.events[-1], {s.name: s for s in film.ticks[0]}
        spot = start.pop(event.who)
        now = {s.name: s for s in film.ticks[event.start]}
        moved = [name for name, s in start.items() if (now[name].x, now[name].y) != (s.x, s.y)]
        assert moved == ([event.by] if event.by else [])
        for name in moved:
            before, after = (
                abs(s.x - spot.x) + abs(s.y - spot.y) for s in (start[name], now[name])
            )
            assert after < before
            pushed += 1
        after_push = {s.name: s for s in film.ticks[event.end]}[event.who]
        assert (after_push.x, after_push.y) != (spot.x, spot.y)
    assert pushed >= 10


# --- twins -------------------------------------------------------------------------------------


def test_twins_show_the_same_frames_in_another_order(test_split: Benchmark) -> None:
    """Every order question has a twin with equal words, permuted frames and another gold."""
    films, clips = by_film(test_split.samples), Clips(SEEN)
    orders = {name: [s for s in own if s.tags["family"] == "order"] for name, own in films.items()}
    asked = {name: own[0] for name, own in orders.items() if own}
    assert len(asked) >= 150 and all(len(own) <= 1 for own in orders.values())
    for name, sample in asked.items():
        twin = asked[sample.tags["twin"]]
        assert twin.tags["twin"] == name
        assert (twin.question, twin.options) == (sample.question, sample.options)
        assert twin.gold != sample.gold
        assert twin.cluster == sample.cluster
    for name, sample in list(asked.items())[:20]:
        ours, theirs = clips.load(sample), clips.load(asked[sample.tags["twin"]])
        assert ours is not None and theirs is not None and len(ours.frames) == 8
        assert Counter(f.tobytes() for f in ours.frames) == Counter(
            f.tobytes() for f in theirs.frames
        ), name
        assert not (ours.frames == theirs.frames).all()
        # The student's eyes are pairs of frames: those are a permutation too.
        assert Counter(p.tobytes() for p in ours.frames[::2]) == Counter(
            p.tobytes() for p in theirs.frames[1::2]
        )


# --- splits ------------------------------------------------------------------------------------


def content(film: world.Film) -> str:
    """What can be seen, whichever way it is played and in whatever order it was drawn."""
    ticks = [sorted((s.name, s.x, s.y) for s in states) for states in film.ticks]
    return json.dumps(min(ticks, ticks[::-1]))


def test_no_film_is_in_two_splits() -> None:
    sizes = {s: n for s, n in world.SIZES.items() if not s.startswith((world.TIMED, world.MASKED))}
    seen = {s: Counter(content(f) for _, f, _ in world.films(s, n, 0)) for s, n in sizes.items()}
    assert not seen["test"].keys() & seen["train"].keys()
    assert not seen["test"].keys() & seen["validation"].keys()
    assert not seen["train"].keys() & seen["validation"].keys()
    # Known: BUCKETS hashes the order in which shapes are drawn, which cannot be seen. So the cold
    # start has met 5 of the test's 320 films (three stills, two collisions), drawn in another
    # order. A version 2 of the world would sort them.
    both = seen["test"].keys() & seen["cold"].keys()
    assert sum(seen["test"][key] for key in both) <= 5
    assert not seen["validation"].keys() & seen["cold"].keys()


def test_the_timelines_of_splits_are_disjoint_by_bucket() -> None:
    buckets = [b for own in world.BUCKETS.values() for b in own]
    assert sorted(buckets) == list(range(20))
    for split in world.SIZES:
        for _, film, _ in world.films(split, 40, 5):
            assert film.bucket() in world.buckets(split)
            if film.kind in world.IN_TURN:  # the only kinds that have twins
                assert film.bucket() == film.backwards().bucket()


def test_a_relay_shows_one_shape_after_the_other_for_a_second_or_longer() -> None:
    lengths, starts = set(), set()
    for seed in range(200):
        film = world.relay(np.random.default_rng(seed))
        assert all(len(states) <= 1 for states in film.ticks) and len(film.ticks) == world.TICKS
        spans = [film.span(name) for name in film.names]
        assert spans == sorted(spans) and 2 <= len(spans) <= 3
        for start, end in spans:
            assert end - start >= 2 and all(film.ticks[t] for t in range(start, end))
            lengths.add(end - start)
            starts.add(start)
        kinds = [q.kind for q in world.ask(film, np.random.default_rng(seed))]
        assert kinds.count("temporal grounding") == 2 and kinds.count("grounded qa") == 1
        assert len(kinds) in (4, 5)
    assert lengths >= {2, 3, 4} and starts >= set(range(7))


def test_timed_splits_share_no_film() -> None:
    seen = {s: {content(f) for _, f, _ in world.films(s, 120, 0)} for s in world.SIZES
            if s.startswith(world.TIMED)}  # fmt: skip
    assert sum(map(len, seen.values())) == len(set().union(*seen.values()))


# --- audits ------------------------------------------------------------------------------------


def share(model: str, benchmark: Benchmark) -> dict[str, Any]:
    return summary(evaluate(Scripted(model), benchmark, SEEN))


def test_oracle_is_always_right(test_split: Benchmark) -> None:
    found = share("oracle", test_split)
    assert found["score"] == 1.0
    assert found["outcomes"] == {"correct": len(test_split.samples)}


def within_chance(right: Sequence[bool], chance: Sequence[float]) -> bool:
    """|share right - chance| <= 3 standard errors of guessing, plus one point."""
    p = np.array(chance)
    error = np.sqrt((p * (1 - p)).sum()) / len(p)
    return abs(mean([float(r) for r in right]) - p.mean()) <= 3 * error + 0.01


def test_always_a_and_random_are_at_chance(test_split: Benchmark) -> None:
    """Per family, within three standard errors of guessing (about 7 points for 192 questions)."""
    for model in ("parrot", "random"):
        rows = evaluate(Scripted(model), test_split, SEEN)
        chance = {s.id: 1 / len(s.options) for s in test_split.samples if s.options}
        for family in ("attribute", "order", "cause"):
            own = [r for r in rows if r.tags["family"] == family]
            assert within_chance([r.score == 1 for r in own], [chance[r.id] for r in own])


def gold_text(sample: Sample) -> str:
    if not sample.options:
        return sample.gold
    texts = {o[0]: o[3:] for o in sample.options}
    return texts[sample.gold[0]] + sample.gold[1:]


def wording(sample: Sample) -> tuple[str, tuple[str, ...]]:
    return sample.question, tuple(sorted(o[3:] for o in sample.options))


def template(sample: Sample) -> str:
    names = "|".join([*world.COLOURS, *world.SHAPES])
    return re.sub(names, "_", sample.question)


@pytest.fixture(scope="module")
def text_only(cache: Path, test_split: Benchmark) -> dict[str, list[tuple[Sample, bool]]]:
    """Family -> test questions and whether the likeliest answer to the same words in the training
    split is right; words never met fall back to the question's template."""
    exact: dict[Any, Counter[str]] = defaultdict(Counter)
    general: dict[str, Counter[str]] = defaultdict(Counter)
    for index, (_, film, twin) in enumerate(world.films("train", world.SIZES["train"], 0)):
        del twin
        for q in world.ask(film, np.random.default_rng([index, 9])):
            sample = Sample("", q.text, q.kind, q.answer, "video", None, q.options)  # type: ignore[arg-type]
            exact[wording(sample)][gold_text(sample)] += 1
            general[template(sample)][gold_text(sample)] += 1
    found = defaultdict(list)
    for sample in test_split.samples:
        allowed = set(wording(sample)[1])
        backed = general[template(sample)]
        known = exact.get(wording(sample)) or Counter(
            {t: n for t, n in backed.items() if not allowed or t.split(" [")[0] in allowed}
        )
        guess = known.most_common(1)[0][0] if known else ""
        found[sample.tags["family"]].append((sample, guess == gold_text(sample)))
    return found


def test_text_alone_is_at_chance(text_only: dict[str, list[tuple[Sample, bool]]]) -> None:
    for family in ("attribute", "order", "cause"):
        own = text_only[family]
        assert within_chance([right for _, right in own], [1 / len(s.options) for s, _ in own])


def test_text_alone_gives_no_more_than_the_prior(
    text_only: dict[str, list[tuple[Sample, bool]]],
) -> None:
    """Without options the best blind answer is the commonest number or second: 36 % of counts,
    about a third of the intervals; overall a blind guesser stays below 35 %."""
    right = {f: mean([float(r) for _, r in own]) for f, own in text_only.items()}
    assert right["count"] <= 0.45
    assert right["locate"] <= 0.40
    assert right["located"] <= 0.40  # letter and interval
    assert mean([float(r) for own in text_only.values() for _, r in own]) <= 0.35


def test_text_alone_cannot_tell_twins_apart(
    text_only: dict[str, list[tuple[Sample, bool]]],
) -> None:
    """Whatever reads only the words answers twins alike, so it has at most one of the two."""
    own = {s.media.stem: (s, right) for s, right in text_only["order"] if s.media}
    for sample, right in own.values():
        assert not (right and own[sample.tags["twin"]][1])
