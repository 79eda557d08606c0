"""repro.mvp.synthesis.items: every item is well posed, whatever the video looks like."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from repro.mvp.rewards import chance
from repro.mvp.synthesis import calibrate
from repro.mvp.synthesis.items import Item, Sampling, items, walk
from repro.mvp.synthesis.store import Film

KAPPA = 0.8


def film(vectors: np.ndarray, seed: int = 0, *, flat: tuple[int, ...] = ()) -> Film:
    """One picture a second."""
    v = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    light = np.full((len(v), 2), 0.4, np.float32)
    light[list(flat), 1] = 0
    ends = np.arange(len(v) + 1, dtype=np.int64)
    return Film(f"{seed:064x}", np.arange(len(v), dtype=np.float64), v.astype(np.float32), light,
                ends)  # fmt: skip


def wandering(seed: int, seconds: int = 90, dims: int = 24, keeps: float = 0.85) -> Film:
    """A video whose pictures change by degrees and do not come back."""
    rng = np.random.default_rng([3, seed])
    state, found = rng.normal(size=dims), []
    for _ in range(seconds):
        state = keeps * state + (1 - keeps**2) ** 0.5 * rng.normal(size=dims)
        found.append(state)
    return film(np.stack(found), seed)


def well_posed(item: Item, source: Film, sampling: Sampling) -> None:
    """All rules of mvp.md 11.2, written without a look at the module."""
    t, v = source.seconds, source.vectors
    masked, context = item.masked, [*item.before, *item.after]
    distractors = [c for c in item.candidates if c not in masked]
    assert len(masked) == item.k and len(item.candidates) == sampling.pool(item.k)
    assert len(context) == sampling.frames - item.k - 2 * sampling.guard
    shown = [*context, *item.candidates]
    assert len(set(shown)) == len(shown)
    assert list(masked) == sorted(masked)
    assert max(item.before) < masked[0] and masked[-1] < min(item.after)
    assert len(item.before) >= sampling.side - sampling.guard
    assert len(item.after) >= sampling.side - sampling.guard
    assert list(item.before) == sorted(item.before) and list(item.after) == sorted(item.after)
    for d in distractors:
        assert not t[masked[0]] - item.gap <= t[d] <= t[masked[-1]] + item.gap
        reach = max(sampling.neighbourhood, t[shown].max() - t[shown].min())
        assert t[masked[0]] - 2 * reach <= t[d] <= t[masked[-1]] + 2 * reach
    if len(distractors) > 1:
        assert {d < masked[0] for d in distractors} == {True, False}
    for i, a in enumerate(item.candidates):
        for b in [*item.candidates[i + 1 :], *context]:
            assert v[a] @ v[b] <= sampling.kappa + 1e-5
    assert {item.sources[slot - 1] for slot in item.answer} == {"masked"}
    assert item.sources.count("masked") == item.k
    cut = sampling.trim * t[-1]
    assert all(cut <= t[n] <= t[-1] - cut for n in shown)


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize(("ks", "distractors"), [((2, 3, 4), None), ((4,), 2), ((1,), 3)])
def test_items_are_well_posed(ks: tuple[int, ...], distractors: int | None, guard: bool) -> None:
    sampling = Sampling(KAPPA, ks, distractors=distractors, guard=guard)
    made = 0
    for seed in range(12):
        source = wandering(seed)
        found, lost = items(source, sampling)
        made += len(found)
        assert bool(found) == (lost is None)
        for item in found:
            well_posed(item, source, sampling)
        for k in ks:
            spans = sorted((min(x.before), max(x.after)) for x in found if x.k == k)
            assert all(a[1] < b[0] for a, b in pairwise(spans))
    assert made >= 12 * len(ks) // 2


@given(data=st.data(), seed=st.integers(0, 10**6), kappa=st.floats(0.3, 0.95))
def test_whatever_the_vectors_are(data: st.DataObject, seed: int, kappa: float) -> None:
    """Also repeats, cuts back and forth, and pictures that are all alike."""
    rng = np.random.default_rng(seed)
    scenes = rng.normal(size=(data.draw(st.integers(1, 40)), 6))
    order = rng.integers(0, len(scenes), data.draw(st.integers(2, 90)))
    source = film(
        scenes[order] + rng.normal(0, data.draw(st.floats(0, 0.5)), (len(order), 6)) + 1e-3
    )
    sampling = Sampling(kappa, (2, 4), frames=12, shortest=10)
    found, _ = items(source, sampling)
    for item in found:
        well_posed(item, source, sampling)


def test_the_context_has_its_length_where_nothing_can_be_held_out() -> None:
    """Every picture of the walk but the masked ones has a twin in it: the seed that hypothesis
    found."""
    rng = np.random.default_rng(1899)
    scenes = rng.normal(size=(37, 6))
    source = film(scenes[rng.integers(0, 37, 27)] + rng.normal(0, 0, (27, 6)) + 1e-3)
    sampling = Sampling(0.75, (2, 4), frames=12, shortest=10)
    found = [item for item in items(source, sampling)[0] if item.k == 4]
    assert found and all(item.sources.count("held") < 2 for item in found)
    for item in found:
        well_posed(item, source, sampling)


def test_the_walk_keeps_what_differs_from_the_last_kept() -> None:
    at = lambda *degrees: np.stack([np.cos(d := np.deg2rad(degrees)), np.sin(d)], 1)  # noqa: E731
    vectors = at(0, 10, 20, 40, 45, 80, 80, 0).astype(np.float32)
    kappa = float(np.cos(np.deg2rad(31)))
    assert walk(vectors, 0, kappa, 9) == [0, 3, 5, 7]
    assert walk(vectors, 0, kappa, 2) == [0, 3]
    assert walk(vectors, 1, kappa, 9) == [1, 4, 5, 7]


@given(seed=st.integers(0, 999), kappa=st.floats(-0.5, 0.99), start=st.integers(0, 199))
def test_the_walk_is_the_plain_loop(seed: int, kappa: float, start: int) -> None:
    vectors = wandering(seed, 200).vectors
    kept = [start]
    for j in range(start + 1, 200):
        if vectors[j] @ vectors[kept[-1]] <= kappa and len(kept) < 20:
            kept.append(j)
    assert walk(vectors, start, kappa, 20) == kept


def test_why_a_film_gives_nothing() -> None:
    rng = np.random.default_rng(0)
    sampling = Sampling(KAPPA)
    why = lambda vectors: items(film(vectors), sampling)[1]  # noqa: E731
    assert why(rng.normal(size=(20, 8))) == "short"
    assert why(np.ones((90, 8)) + rng.normal(0, 0.01, (90, 8))) == "static"
    round_ = rng.normal(size=(9, 16))
    assert why(round_[np.arange(90) % 9]) == "looping"
    assert why(rng.normal(size=(4, 16))[rng.permutation(90) % 4]) == "repeats"


def test_fades_and_titles_are_not_used() -> None:
    source = wandering(1)
    flat = tuple(range(30, 40))
    dark = replace(source, light=film(source.vectors, flat=flat).light)
    found, _ = items(dark, Sampling(KAPPA, (2, 3)))
    assert found
    assert not any(n in flat for x in found for n in (*x.before, *x.after, *x.candidates))


def test_draws_depend_on_seed_film_and_number_alone() -> None:
    source, sampling = wandering(2), Sampling(KAPPA, (2, 3))
    found, _ = items(source, sampling)
    assert found == items(source, sampling)[0]
    assert found != items(source, replace(sampling, seed=1))[0]
    assert [x for x in found if x.k == 3] == items(source, replace(sampling, ks=(3,)))[0]


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_gold_lies_in_every_slot_equally_often(k: int) -> None:
    """Chi-square per rank over 600 and more items; the draws are seeded, so this cannot flicker."""
    sampling = Sampling(KAPPA, (k,))
    answers = np.array([x.answer for s in range(250) for x in items(wandering(s), sampling)[0]])
    assert len(answers) >= 300
    for rank in range(k):
        counts = np.bincount(answers[:, rank] - 1, minlength=2 * k)
        assert chisquare(counts).pvalue > 0.001, (rank, counts)
    first = np.tile(np.arange(1, k + 1), (len(answers), 1))
    hits = (first[:, :, None] == answers[:, None, :]).any(2).mean()
    assert abs(hits - chance(k, 2 * k).sel) < 4 * 0.5 / np.sqrt(len(answers) * k)
    assert abs((first == answers).mean() - 1 / (2 * k)) < 4 * 0.5 / np.sqrt(len(answers) * k)


def test_calibration_finds_the_step_that_is_wanted() -> None:
    """A video that turns by 6 degrees a second: a step of n seconds needs cos(6 n) < kappa."""
    turn = np.deg2rad(6 * np.arange(120))
    source = film(np.stack([np.cos(turn), np.sin(turn)], 1))
    points = calibrate.curve([source], Sampling(0.0), grid=(0.90, 0.95, 0.97, 0.99))
    assert [p.step for p in points] == [5.0, 4.0, 3.0, 2.0]
    assert [p.reach for p in points] == [1, 1, 1, 1]
    best = calibrate.proposed(points)
    assert best is not None and best.kappa == 0.97
    short = film(source.vectors[:50])
    assert calibrate.proposed(calibrate.curve([short], Sampling(0.0), grid=(0.97,))) is None
