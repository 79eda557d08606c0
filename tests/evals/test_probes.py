"""evals.probes: what each probe shows, by hand; gains pair question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals import probes
from evals.benchmarks import Benchmark
from evals.errors import BadInput, Undecodable
from evals.models import Question, Scripted
from evals.probes import NAMES, Probe
from evals.run import evaluate
from evals.types import IMAGE, Decoding, Protocol, Reply, Sample, VideoClip

PROTOCOL = Protocol("test", decoding=Decoding(max_new_tokens=8))
OPTIONS = ("A. red", "B. blue", "C. green")


def sample(id: str, film: str = "a", gold: str = "A", **more: object) -> Sample:
    given = {"modality": "video", "media": Path(f"/films/{film}.mp4"), "cluster": film, **more}
    return Sample(id, "?", "multiple choice", gold, options=OPTIONS, **given)  # type: ignore[arg-type]


def clip(first: int, n: int = 4) -> VideoClip:
    frames = np.arange(first, first + n, dtype=np.uint8)[:, None, None, None]
    return VideoClip(
        np.broadcast_to(frames, (n, 2, 2, 3)).copy(), tuple(range(0, 2 * n, 2)), 4.0, 9
    )


FILMS = {"a": clip(0), "b": clip(100), "c": clip(200)}


def load(sample: Sample) -> VideoClip | None:
    return None if sample.media is None else FILMS[sample.media.stem]


def levels(shown: VideoClip | None) -> list[int]:
    assert shown is not None
    return [int(frame[0, 0, 0]) for frame in shown.frames]


ALL = (sample("1"), sample("2"), sample("3", "b"), sample("4", "c"))


def shown(name: str, asked: Sample = ALL[0], among: Sequence[Sample] = ALL) -> VideoClip | None:
    return Probe(name, among).clip(asked, load)


def test_what_is_shown() -> None:
    assert shown("no-video") is None
    assert levels(shown("rotate-options")) == [0, 1, 2, 3]
    one = shown("one-frame")
    assert levels(one) == [2] and one is not None and one.indices == (4,) and one.total == 9
    assert levels(shown("reversed")) == [3, 2, 1, 0]
    mixed = shown("shuffled")
    assert mixed is not None and sorted(levels(mixed)) == [0, 1, 2, 3] != levels(mixed)
    assert mixed.indices == FILMS["a"].indices  # the times stay
    assert levels(shown("shuffled", ALL[1])) == levels(mixed)  # one order per film
    assert (
        levels(shown("other-video")) == levels(shown("other-video", ALL[1])) == [100, 101, 102, 103]
    )
    assert levels(shown("other-video", ALL[3])) == [0, 1, 2, 3]  # round the end
    assert levels(FILMS["a"]) == [0, 1, 2, 3]  # nothing was changed in place


def gap(before: int, after: int, pool: int) -> Sample:
    marks = [IMAGE * before, IMAGE * after, " ".join(f"{n} {IMAGE}" for n in range(1, pool + 1))]
    paths = tuple(Path(f"{n}.png") for n in range(before + after + pool))
    return Sample(
        "o", "{} gap {} pool {}?".format(*marks), "ordering", "3, 1", "image", None,
        images=paths, facts={"candidates": str(pool)},
    )  # fmt: skip


def album(sample: Sample) -> VideoClip:
    pictures = tuple(np.full((1, 1, 3), n, np.uint8) for n in range(len(sample.images)))
    return VideoClip(np.empty((0, 1, 1, 3), np.uint8), (), 1.0, 1, "image", pictures)


def test_around_a_gap_the_pictures_move_and_the_pool_stays() -> None:
    asked = gap(1, 3, 4)
    probe = Probe("reversed", [asked])
    clip, moved = probe.clip(asked, album), probe.sample(asked)
    assert clip is not None
    assert [int(i[0, 0, 0]) for i in clip.images] == [3, 2, 1, 0, 4, 5, 6, 7]
    assert moved.question == gap(3, 1, 4).question  # the gap stays between pictures 0 and 1
    assert moved.gold == asked.gold
    mixed = Probe("shuffled", [asked]).clip(asked, album)
    assert mixed is not None
    seen = [int(i[0, 0, 0]) for i in mixed.images]
    assert sorted(seen[:4]) == [0, 1, 2, 3] != seen[:4] and seen[4:] == [4, 5, 6, 7]
    assert Probe("shuffled", [asked]).sample(asked) == asked
    with pytest.raises(BadInput, match="shows pictures only"):
        Probe("one-frame", [asked]).clip(asked, album)


@pytest.mark.parametrize("name", NAMES)
def test_a_question_without_a_clip_has_none(name: str) -> None:
    text = sample("t", modality="text", media=None)
    assert Probe(name, (*ALL, text)).clip(text, load) is None


def test_options_rotate_with_their_gold() -> None:
    probe = Probe("rotate-options", ALL)
    golds = []
    for gold in "ABC":
        moved = probe.sample(sample("q", gold=gold))
        assert moved.options == ("A. green", "B. red", "C. blue")
        texts = dict(line.split(". ") for line in moved.options)
        assert texts[moved.gold] == dict(line.split(". ") for line in OPTIONS)[gold]
        golds.append(moved.gold)
    assert golds == ["B", "C", "A"]
    both = replace(sample("g", gold="C [1.0, 2.0]"), kind="grounded qa")
    assert probe.sample(both).gold == "A [1.0, 2.0]"
    number = replace(sample("n", gold="3"), kind="numerical", options=())
    assert probe.sample(number) == number
    with pytest.raises(BadInput, match="names no option"):
        probe.sample(sample("q", gold="Z"))
    assert Probe("shuffled", ALL).sample(ALL[0]) == ALL[0]


def test_unknown_names_and_lonely_videos() -> None:
    with pytest.raises(BadInput, match="unknown probe 'blind'; known: no-video"):
        Probe("blind", ALL)
    with pytest.raises(BadInput, match="no other video than"):
        Probe("other-video", ALL[:2])
    picture = sample("i", "d", modality="image")
    with pytest.raises(BadInput, match="no other image than"):
        Probe("other-video", (*ALL, picture))


def test_a_probed_run_is_another_protocol() -> None:
    hashes = {probes.under(PROTOCOL, name).hash for name in NAMES} | {PROTOCOL.hash}
    assert len(hashes) == len(NAMES) + 1


class Sees(Scripted):
    """Right if the first frame it sees is the film's own first."""

    sees = True

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        return [
            [Reply(f"<answer>{q.sample.gold if levels_or(q.clip) == 0 else 'C'}</answer>", 1)]
            for q in questions
        ]


def levels_or(shown: VideoClip | None) -> int:
    return levels(shown)[0] if shown else -1


class Shelf:
    """Clips from memory; film c cannot be read."""

    def load(self, sample: Sample) -> VideoClip | None:
        if sample.media is not None and sample.media.stem == "c":
            raise Undecodable("c is broken")
        return replace(FILMS["a"], frames=FILMS["a"].frames) if sample.media else None

    def prefetch(self, samples: Sequence[Sample]) -> None: ...


def test_runs_under_probes_pair_question_by_question() -> None:
    benchmark = Benchmark("test", "test", ALL, "r", "0" * 64)

    def outcomes(probe: str | None) -> list[str]:
        rows = evaluate(Sees("sees"), benchmark, PROTOCOL, clips=Shelf(), probe=probe)  # type: ignore[arg-type]
        return [row.outcome for row in rows]

    assert outcomes(None) == ["correct"] * 3 + ["undecodable"]
    for probe in ("no-video", "one-frame", "reversed"):
        assert outcomes(probe) == ["wrong"] * 3 + ["undecodable"], probe
    assert outcomes("rotate-options") == ["correct"] * 3 + ["undecodable"]
