"""repro.ffr.teacher: where the teachers without a model point, on real films of microworld."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals.benchmarks.jsonl import read
from evals.errors import BadInput
from evals.types import Protocol, Sample, VideoClip
from evals.video import Wanted, read_clip
from repro.ffr.patch import Patch, Region, as_dict, from_dict
from repro.ffr.teacher import (
    ASKS_WHEN,
    OFFLINE,
    Failure,
    counting,
    displaced,
    elsewhere,
    named,
    spend,
    wider,
)

PROTOCOL = Protocol("test", prompt="micro", fps=4, max_frames=16)
Films = Callable[..., Path]


def failures(films: Films) -> list[Failure]:
    folder = films("validation", 10)
    samples = read(folder / "records.json", folder)
    clips = {s.media: read_clip(Wanted.of(s), PROTOCOL) for s in samples}
    return [Failure(s, clips[s.media], "hm", None, 0.0, i) for i, s in enumerate(samples)]


def ask(name: str, failure: Failure) -> Patch | None:
    return asyncio.run(named(name).patch(failure))


def window(patch: Patch, clip: VideoClip) -> tuple[float, float]:
    """Seconds of the key frames, each lasting until the next."""
    step = clip.duration / len(clip.indices)
    seen = [clip.seconds[k] for k in patch.key_frames]
    return min(seen), max(seen) + step


def test_the_oracle_points_at_the_evidence_and_never_at_the_answer(films: Films) -> None:
    kinds = set()
    for failure in failures(films):
        clip, evidence = failure.clip, failure.record.evidence
        assert clip is not None and evidence is not None
        patch = ask("oracle", failure)
        kinds.add(failure.record.kind)
        assert patch is not None and from_dict(as_dict(patch), len(clip.frames)) == patch
        assert patch == ask("oracle", replace(failure, record=replace(failure.record, gold="?")))
        if clip.modality == "image":
            assert patch.key_frames == (0,) and not patch.temporal_markers
            continue
        low, high = window(patch, clip)
        if failure.record.kind in ASKS_WHEN:
            # Wider than the answer at both rollouts alike, and it does not say where in it.
            assert low <= evidence.interval[0] + 0.3 and evidence.interval[1] - 0.3 <= high
            assert high - low >= 1.8 * (evidence.interval[1] - evidence.interval[0])
            assert patch == ask("oracle", replace(failure, seed=failure.seed + 1))
        else:
            assert (low, high) == pytest.approx(evidence.interval, abs=0.3)
        for region in patch.regions:
            assert (region.x1, region.y1, region.x2, region.y2) == evidence.region
    assert kinds >= {"multiple choice", "numerical", *ASKS_WHEN}


def test_the_random_interval_has_the_same_form_at_a_wrong_place(films: Films) -> None:
    moved = 0
    for failure in failures(films):
        clip, evidence = failure.clip, failure.record.evidence
        assert clip is not None and evidence is not None
        right, wrong = ask("oracle", failure), ask("random_interval", failure)
        assert right is not None and wrong is not None
        assert wrong.guidance == right.guidance and len(wrong.regions) == len(right.regions)
        assert abs(len(wrong.key_frames) - len(right.key_frames)) <= 1
        length = evidence.interval[1] - evidence.interval[0]
        if failure.record.kind not in ASKS_WHEN and length <= clip.duration / 3:
            low, high = window(wrong, clip)
            overlap = min(high, evidence.interval[1]) - max(low, evidence.interval[0])
            assert overlap <= 0.3
            moved += 1
        if wrong.regions and right.regions:
            assert wrong.regions[0] != right.regions[0]
    assert moved >= 3


def test_the_simple_ones(films: Films) -> None:
    failure = failures(films)[0]
    assert ask("retry", failure) is None and named("retry").second_try
    assert ask("null", failure) is None and not named("null").second_try
    leak = ask("leaky", failure)
    assert leak is not None and failure.record.gold in leak.guidance
    text = Failure(Sample("t", "?", "numerical", "1", "text", None), None, "", None, 0.0, 0)
    assert ask("oracle", text) is None and ask("random_interval", text) is None


def test_windows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = float(rng.uniform(0, 9))
        span = (start, start + float(rng.uniform(0.1, 10 - start)))
        found = wider(span, 10.0, rng)
        if found is None:
            assert 2 * (span[1] - span[0]) >= 9
            continue
        assert 0 <= found[0] <= span[0] + 1e-9 and span[1] - 1e-9 <= found[1] <= 10 + 1e-9
        assert found[1] - found[0] == pytest.approx(max(5.0, 2 * (span[1] - span[0])))
        low, high = elsewhere(span, 10.0, rng)
        assert 0 <= low and high <= 10 + 1e-9 and high - low == pytest.approx(span[1] - span[0])
    assert displaced((0, 0, 1, 1), rng) == (0, 0, 1, 1)
    assert displaced((0, 0, 0.5, 0.5), rng) != (0, 0, 0.5, 0.5)
    assert Region(0, *displaced((0, 0.5, 1, 1), rng)) == Region(0, 0, 0, 1, 0.5)


def test_usage_is_counted_by_failure() -> None:
    async def one(n: int) -> int:
        counter = counting()
        await asyncio.sleep(0)
        spend(calls=n)
        await asyncio.sleep(0)
        return counter["calls"]

    async def both() -> list[int]:
        return await asyncio.gather(one(1), one(2))

    assert asyncio.run(both()) == [1, 2]
    spend(calls=1)  # nobody counts


@pytest.mark.parametrize("name", ["", "oracle:x", "gpt", "Retry"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(BadInput, match="unknown teacher"):
        named(name)
    assert all(named(known).id for known in OFFLINE)
