"""Statistics: worked examples, agreement with scipy, properties, and a Monte-Carlo of the size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from results import stats
from results.stats import intervals

finite = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 6))


# --- seeds as units ------------------------------------------------------------------------


def test_seed_interval_by_hand() -> None:
    # mean 0.02, s = 0.01, t(.975, 2) = 4.30265
    interval = stats.seed_interval([0.01, 0.02, 0.03])
    assert interval.estimate == pytest.approx(0.02)
    assert interval.half_width == pytest.approx(4.30265 * 0.01 / math.sqrt(3), rel=1e-5)


def test_one_seed_gives_an_infinite_interval() -> None:
    interval = stats.seed_interval([0.5])
    assert (interval.estimate, interval.low, interval.high) == (0.5, -math.inf, math.inf)
    assert not interval.above and not interval.below


@given(st.lists(finite, min_size=2, max_size=12), st.sampled_from([0.9, 0.95, 0.99]))
def test_seed_interval_is_scipys(values: list[float], level: float) -> None:
    ours = stats.seed_interval(values, level)
    if np.ptp(values) > 1e-4:
        theirs = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(level)
        assert ours.low == pytest.approx(theirs.low, abs=1e-9)
        assert ours.high == pytest.approx(theirs.high, abs=1e-9)
    assert ours.low <= ours.estimate <= ours.high


@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf]])
def test_seed_interval_refuses(bad: list[float]) -> None:
    with pytest.raises(ValueError):
        stats.seed_interval(bad)


def test_seeds_needed_is_the_smallest_that_suffices() -> None:
    differences = [0.01, 0.03]  # mean 0.02, s = 0.0141
    needed = stats.seeds_needed(differences)
    assert needed is not None

    def suffices(count: int) -> bool:
        factor = scipy.stats.t.ppf(0.975, count - 1) + scipy.stats.t.ppf(0.8, count - 1)
        return bool(factor * np.std(differences, ddof=1) / math.sqrt(count) <= 0.02)

    assert suffices(needed) and not suffices(needed - 1)


def test_seeds_needed_knows_its_limits() -> None:
    assert stats.seeds_needed([0.4]) is None  # one seed shows no spread
    assert stats.seeds_needed([-0.1, 0.1]) is None  # no effect, no number of seeds
    assert stats.seeds_needed([0.02, 0.02, 0.02]) == 3  # never below the minimum
    assert stats.seeds_needed([0.02, 0.02], minimum=5) == 5


@given(st.lists(finite, min_size=2, max_size=6), st.floats(0.5, 3))
@settings(max_examples=30)
def test_seeds_needed_grows_with_power_and_ignores_scale(values: list[float], k: float) -> None:
    low, high = stats.seeds_needed(values, power=0.5), stats.seeds_needed(values, power=0.9)
    assert high is None or (low is not None and low <= high)
    assert stats.seeds_needed([-v for v in values]) == stats.seeds_needed(values)


# --- items, clustered by video -------------------------------------------------------------


def test_clustered_interval_widens_when_videos_repeat_the_same_answer() -> None:
    values = np.repeat([0.0, 1.0] * 20, 5)  # 40 videos of five identical questions
    videos = np.repeat(np.arange(40).astype(str), 5)
    clustered = stats.clustered_interval(values, videos)
    single = stats.clustered_interval(values, [str(i) for i in range(200)])
    assert clustered.half_width / single.half_width == pytest.approx(math.sqrt(5), rel=0.08)


def test_clustered_interval_weights_videos_by_their_questions() -> None:
    interval = stats.clustered_interval([1, 0, 0, 0], ["a", "b", "b", "b"])
    assert interval.estimate == 0.25  # the mean over questions, not over videos


def test_one_video_gives_an_infinite_interval() -> None:
    interval = stats.clustered_interval([0.1, 0.2], ["a", "a"])
    assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_clustered_interval_is_seeded_and_blind_to_the_order_of_items() -> None:
    rng = np.random.default_rng(3)
    values, videos = rng.random(120), rng.integers(0, 30, 120).astype(str)
    first = stats.clustered_interval(values, videos, seed=7)
    shuffle = rng.permutation(120)
    again = stats.clustered_interval(values[shuffle], videos[shuffle], seed=7)
    assert again.low == pytest.approx(first.low, abs=1e-12)
    assert stats.clustered_interval(values, videos, seed=8).low != first.low


def test_blocks_of_draws_give_intervals_too(monkeypatch: pytest.MonkeyPatch) -> None:
    values, videos = np.linspace(0, 1, 90), np.repeat(np.arange(30), 3).astype(str)
    whole = stats.clustered_interval(values, videos, draws=4000)
    monkeypatch.setattr(intervals, "CELLS", 30 * 700)
    blocks = stats.clustered_interval(values, videos, draws=4000)
    assert blocks.half_width == pytest.approx(whole.half_width, rel=0.05)


def test_clustered_interval_agrees_with_scipys_bootstrap_of_single_items() -> None:
    values = np.random.default_rng(1).random(150)
    ours = stats.clustered_interval(values, [f"{i:03}" for i in range(150)])
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=3e-3)
    assert ours.high == pytest.approx(theirs.high, abs=3e-3)


@given(st.lists(st.tuples(finite, st.sampled_from("abcdef")), min_size=1, max_size=40))
@settings(max_examples=50)
def test_clustered_interval_contains_its_mean_and_mirrors(items: list[tuple[float, str]]) -> None:
    values, videos = [v for v, _ in items], [c for _, c in items]
    interval = stats.clustered_interval(values, videos, draws=400)
    mirror = stats.clustered_interval([-v for v in values], videos, draws=400)
    assert interval.estimate == pytest.approx(np.mean(values), abs=1e-9)
    assert mirror.low == pytest.approx(-interval.high, abs=1e-9)
    if len(set(videos)) > 1:
        assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_size_of_the_clustered_interval_is_near_five_percent() -> None:
    """No true effect, answers of a video correlated: 0 must fall outside in about 5 %."""
    rng = np.random.default_rng(20)
    videos = np.repeat(np.arange(80), 4)
    labels = videos.astype(str)
    clustered = plain = 0
    repetitions = 600
    for _ in range(repetitions):
        shared = rng.normal(0, 0.5, 80)[videos]
        values = shared + rng.normal(0, 0.5, 320)
        interval = stats.clustered_interval(values, labels, draws=600)
        clustered += not interval.low <= 0 <= interval.high
        half = 1.96 * values.std(ddof=1) / math.sqrt(320)
        plain += abs(values.mean()) > half
    assert 0.03 <= clustered / repetitions <= 0.085
    assert plain / repetitions > 0.15  # what ignoring the videos would have done


# --- permutation, McNemar, Wilson ----------------------------------------------------------


def test_sign_flip_against_every_labelling() -> None:
    values, videos = [0.3, 0.1, -0.05, 0.2, 0.4, 0.1], ["a", "a", "b", "c", "d", "e"]
    sums = np.array([0.4, -0.05, 0.2, 0.4, 0.1])
    signs = np.array([[1 if i >> b & 1 else -1 for b in range(5)] for i in range(32)])
    exact = (np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12).mean()
    assert stats.sign_flip_p(values, videos, draws=40_000) == pytest.approx(exact, abs=0.008)


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_sign_flip_is_scipys_permutation_test(side: stats.Side) -> None:
    values = np.random.default_rng(4).normal(0.15, 1, 12)
    theirs = scipy.stats.permutation_test(
        (values, np.zeros(12)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        alternative=side,
        vectorized=True,
        n_resamples=math.inf,
    ).pvalue
    ours = stats.sign_flip_p(values, [str(i) for i in range(12)], draws=40_000, side=side)
    assert ours == pytest.approx(theirs, abs=0.01)


def test_sign_flip_of_no_difference_is_one_and_never_zero() -> None:
    assert stats.sign_flip_p([0.0, 0.0], ["a", "b"], draws=50) == 1.0
    assert stats.sign_flip_p([1.0] * 40, [str(i) for i in range(40)], draws=99) == 0.01


def test_mcnemar_worked_example() -> None:
    # 122 gained and 74 lost: p = 0.0007
    assert stats.mcnemar_exact(122, 74) == pytest.approx(0.0007, abs=5e-5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_scipys_binomial_test(gained: int, lost: int) -> None:
    if gained + lost:
        theirs = scipy.stats.binomtest(gained, gained + lost, 0.5)
        assert stats.mcnemar_exact(gained, lost) == pytest.approx(theirs.pvalue, rel=1e-9)
        less = scipy.stats.binomtest(gained, gained + lost, 0.5, alternative="less").pvalue
        assert stats.mcnemar_exact(gained, lost, "less") == pytest.approx(less, rel=1e-9)
    assert stats.mcnemar_exact(gained, lost) == stats.mcnemar_exact(lost, gained)
    assert stats.mcnemar_exact(gained, lost, "greater") == stats.mcnemar_exact(lost, gained, "less")


def test_mcnemar_without_discordant_items_is_one() -> None:
    assert stats.mcnemar_exact(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative"):
        stats.mcnemar_exact(-1, 3)


@given(st.integers(1, 3000), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    ours = stats.wilson(k, n)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_half_width_of_video_holmes() -> None:
    assert stats.wilson(784, 1837).half_width == pytest.approx(0.023, abs=5e-4)  # ±2.3 pp
    with pytest.raises(ValueError):
        stats.wilson(3, 2)
