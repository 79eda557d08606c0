"""Several tests at once, several seeds at once: Holm, Benjamini-Hochberg, IQM, pooled spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from results import stats

p_values = st.lists(st.floats(0, 1).map(lambda x: round(x, 6)), min_size=1, max_size=12)


# --- multiple comparisons ------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.02]) == [0.02]


@given(p_values)
def test_holm_is_monotone_and_between_none_and_bonferroni(p: list[float]) -> None:
    adjusted = stats.holm(p)
    for raw, own in zip(p, adjusted, strict=True):
        assert raw <= own + 1e-12 and own <= min(1.0, len(p) * raw) + 1e-12
    order = sorted(range(len(p)), key=p.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


@given(p_values)
def test_benjamini_hochberg_is_scipys(p: list[float]) -> None:
    assert stats.benjamini_hochberg(p) == pytest.approx(
        list(scipy.stats.false_discovery_control(p)), abs=1e-12
    )


@given(p_values)
def test_intersection_union_is_the_weakest_claim(p: list[float]) -> None:
    assert stats.intersection_union(p) == max(p)


@pytest.mark.parametrize("bad", [[], [1.2], [-0.1], [math.nan]])
def test_what_is_no_p_value(bad: list[float]) -> None:
    for rule in (stats.holm, stats.benjamini_hochberg, stats.intersection_union):
        with pytest.raises(ValueError):
            rule(bad)


def test_holm_keeps_the_family_and_bh_the_share() -> None:
    """Ten cells, no true difference: some p under 5 % in 40 % of papers, after Holm in 5 %."""
    rng = np.random.default_rng(3)
    raw = adjusted = 0
    for p in rng.random((2000, 10)):
        raw += p.min() < 0.05
        adjusted += min(stats.holm(list(p))) < 0.05
    assert raw / 2000 > 0.35 and 0.035 < adjusted / 2000 < 0.065


# --- training seeds ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "multiple"), [(2, 15.6), (3, 5.0), (4, 3.6), (5, 3.0)]
)  # statistics.md 3
def test_multiples_of_s(seeds: int, multiple: float) -> None:
    values = np.linspace(-1, 1, seeds)
    interval = stats.prediction_interval(values)
    assert interval.half_width / values.std(ddof=1) == pytest.approx(multiple, abs=0.051)


def test_the_prediction_interval_misses_five_percent_of_further_runs() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        missed = 0
        for draw in rng.normal(0.4, 0.01, (2000, seeds + 1)):
            wide = stats.prediction_interval(draw[:-1])
            missed += not wide.low <= draw[-1] <= wide.high
        assert 0.038 <= missed / 2000 <= 0.062


def test_pooling_by_hand_and_what_it_buys() -> None:
    cells = [[0.40, 0.42], [0.50, 0.53, 0.47], [0.6]]
    pooled = stats.pooled_spread(cells)
    assert pooled is not None and pooled.df == 3
    assert pooled.s == pytest.approx(math.sqrt((0.0002 + 0.0018) / 3))
    assert stats.pooled_spread([[0.4], [0.5]]) is None
    eight = stats.Spread(0.01, 8)
    narrow = stats.prediction_interval([0.4, 0.41, 0.42], spread=eight)
    assert narrow.half_width == pytest.approx(2.306 * 0.01 * math.sqrt(4 / 3), rel=1e-3)


def test_one_seed_alone_predicts_nothing() -> None:
    alone = stats.prediction_interval([0.4])
    assert (alone.low, alone.high) == (-math.inf, math.inf)
    prior = stats.training_delta([0.4], 0.43, stats.Spread(0.01, math.inf))
    assert prior.error == pytest.approx(0.01 * math.sqrt(2)) and prior.interval(0.95).below


@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 4)), min_size=2, max_size=9))
def test_seed_p_is_scipys(values: list[float]) -> None:
    if np.ptp(values) > 1e-3:
        theirs = scipy.stats.ttest_1samp(values, 0.0).pvalue
        assert stats.seed_p(values) == pytest.approx(theirs, abs=1e-9)
    assert stats.seed_p(values[:1]) == 1.0


# --- interquartile mean --------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_iqm_is_scipys_trimmed_mean(seeds: int, benchmarks: int, state: int) -> None:
    scores = np.random.default_rng(state).random((seeds, benchmarks))
    assert stats.iqm(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None))
    interval = stats.iqm_interval(scores, draws=200)
    assert interval.low <= interval.high
    room = 1e-12  # of a mean of equal numbers
    assert scores.min() - room <= interval.low and interval.high <= scores.max() + room


def test_iqm_ignores_outliers_and_is_seeded() -> None:
    scores = np.full((3, 4), 0.5)
    scores[0, 0] = 1.0
    assert stats.iqm(scores) == 0.5
    rng = np.random.default_rng(9)
    scores = rng.random((4, 5))
    assert stats.iqm_interval(scores, seed=1) == stats.iqm_interval(scores, seed=1)
    assert stats.iqm_interval(scores, seed=1).low != stats.iqm_interval(scores, seed=2).low


def test_iqm_draws_seeds_within_a_benchmark() -> None:
    """Benchmarks far apart, seeds equal: resampling seeds moves nothing, pooling would."""
    scores = np.tile([0.1, 0.4, 0.6, 0.9], (5, 1))
    interval = stats.iqm_interval(scores)
    assert interval.low == interval.high == pytest.approx(0.5)


def test_iqm_covers_the_truth_in_about_95_percent() -> None:
    rng = np.random.default_rng(2)
    means = np.linspace(0.3, 0.7, 6)
    covered = 0
    for _ in range(300):
        interval = stats.iqm_interval(means + rng.normal(0, 0.02, (10, 6)), draws=400)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.86 <= covered / 300 <= 0.98


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.array([[math.nan]])])
def test_iqm_refuses(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite scores"):
        stats.iqm_interval(bad)
