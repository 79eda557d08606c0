"""Question E: the error of a re-score, the half-width table as printed, size and power."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from results import stats

HALF = 0.0005  # half a unit of the last digit of a percentage with one decimal
Z90 = 1.6448536


def single(n: int) -> list[str]:
    """One question per video."""
    return [f"v{i:05}" for i in range(n)]


# --- the formula ---------------------------------------------------------------------------


def test_by_hand() -> None:
    """Two runs, one question per video, 8 of 100 flip: Q = 8, K = 2, h = 0.05 pp."""
    runs = np.zeros((2, 100))
    runs[1, :8] = 1.0
    assert stats.discordance(runs) == 0.08 and stats.flips(runs, single(100)) == 8
    variance = stats.rerun_variance(runs, single(100), HALF)
    assert variance == pytest.approx(8 / (2 * 100**2) * 1.5 + HALF**2 / 3)


def test_flips_count_by_video_and_have_a_floor() -> None:
    runs = np.zeros((2, 20))
    assert stats.rerun_variance(runs, ["v"] * 20) == pytest.approx(3 / 800 * 1.5)  # Q at least 3
    runs[1, :4] = 1.0
    together = stats.rerun_variance(runs, ["a"] * 4 + single(16))
    apart = stats.rerun_variance(runs, single(20))
    assert together == pytest.approx(16 / 800 * 1.5) and apart == pytest.approx(4 / 800 * 1.5)
    with pytest.raises(ValueError, match="two runs"):
        stats.rerun_variance(np.zeros((1, 5)), ["a"] * 5)


def test_opposite_flips_inside_a_video_cancel() -> None:
    runs = np.zeros((2, 12))
    runs[0, :3] = runs[1, 3:6] = 1.0
    assert stats.flips(runs, ["a"] * 6 + single(6)) == 3.0  # the sum is 0: only the floor is left
    assert stats.flips(runs, single(12)) == 6.0


@given(st.integers(2, 4), st.integers(4, 30), st.data())
def test_plain_form_is_the_share_of_flips(count: int, n: int, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=count * n, max_size=count * n))
    runs = np.array(bits, dtype=float).reshape(count, n)
    q = max(3.0, n * stats.discordance(runs))
    assert stats.flips(runs, single(n)) == pytest.approx(q)
    assert stats.rerun_variance(runs, single(n)) >= stats.variance_of_flips(q, n, 10**9)


@pytest.mark.parametrize(
    ("n", "independent", "d3", "d10", "d20"),
    [
        (1837, 2.66, 0.54, 0.99, 1.40),
        (900, 3.80, 0.78, 1.42, 2.00),
        (625, 4.56, 0.93, 1.70, 2.40),
        (2700, 2.19, 0.45, 0.82, 1.16),
        (4000, 1.80, 0.37, 0.67, 0.95),
        (5130, 1.59, 0.33, 0.59, 0.84),
    ],
)
def test_half_width_table(n: int, independent: float, d3: float, d10: float, d20: float) -> None:
    """90 % half-widths in points: K = 3, one printed decimal; "independent" has p(1 - p) = 0.24."""
    for d, printed in ((0.03, d3), (0.10, d10), (0.20, d20)):
        delta = stats.Delta(0.0, math.sqrt(stats.variance_of_flips(d * n, n, 3, HALF)))
        assert 100 * delta.interval(0.90).half_width == pytest.approx(printed, abs=0.0051)
    p = 0.6  # p(1 - p) = 0.24
    delta = stats.Delta(0.0, math.sqrt(stats.independent_variance(p, p, n, n, HALF)))
    assert 100 * delta.interval(0.90).half_width == pytest.approx(independent, abs=0.0051)


@pytest.mark.parametrize(("n", "half"), [(1837, 2.3), (900, 3.3), (625, 3.7), (2700, 1.8)])
def test_wilson_half_widths(n: int, half: float) -> None:
    p = {1837: 0.42, 900: 0.5, 625: 0.65, 2700: 0.6}[n]
    assert 100 * stats.wilson(round(p * n), n).half_width == pytest.approx(half, abs=0.06)


@pytest.mark.parametrize(("margin", "needed"), [(0.02, 10277), (0.03, 4568), (0.05, 1645)])
def test_independent_samples_need_thousands_for_equivalence(margin: float, needed: int) -> None:
    """80 % power of TOST at Δ = 0 and p = 0.6: SE = δ / (z(.95) + z(.90))."""
    z = scipy.stats.norm.ppf(0.95) + scipy.stats.norm.ppf(0.90)
    assert math.ceil(2 * 0.24 * (z / margin) ** 2) == pytest.approx(needed, abs=3)


def test_newcombe_is_scipys_and_has_a_width_at_zero() -> None:
    """The hybrid score interval without continuity correction, from two Wilson intervals."""
    ours = stats.independent_delta(0.6, 0.5, 50, 40)
    low, high = (
        scipy.stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in ((30, 50), (20, 40))
    )
    found = ours.interval(0.95)
    assert found.low == pytest.approx(0.1 - math.hypot(0.6 - low.low, high.high - 0.5))
    assert found.high == pytest.approx(0.1 + math.hypot(low.high - 0.6, 0.5 - high.low))
    assert stats.independent_delta(0.0, 0.0, 100, 100).interval(0.95).half_width > 0.03
    rounded = stats.independent_delta(0.6, 0.5, 50, 40, half_unit=0.05).interval(0.95)
    assert rounded.low < found.low and rounded.high > found.high


# --- Δ with its error ----------------------------------------------------------------------


def test_normal_and_t_intervals() -> None:
    assert stats.Delta(0.0, 1.0).interval(0.95).half_width == pytest.approx(1.959964)
    assert stats.Delta(0.0, 1.0, 2).interval(0.95).half_width == pytest.approx(4.302653)
    endless = stats.Delta(0.1, 0.0, 0).interval(0.95)
    assert (endless.low, endless.high) == (-math.inf, math.inf)
    assert stats.Delta(0.1, 0.01, 0).p == 1.0


finite = st.floats(-0.2, 0.2).map(lambda x: round(x, 4))


@given(finite, st.floats(0.001, 0.1), st.sampled_from([3, 9, math.inf]), st.floats(0.005, 0.2))
def test_tost_is_the_90_interval_inside_the_margin(
    estimate: float, error: float, df: float, margin: float
) -> None:
    delta = stats.Delta(estimate, error, df)
    assert (delta.tost_p(margin) < 0.05) == delta.interval(0.90).inside(margin)
    wide = delta.interval(0.95)
    assert (delta.p < 0.05) == (wide.above or wide.below)


def test_tost_is_statsmodels_rule() -> None:
    """Two one-sided z tests by hand: Δ = -0.4, SE = 0.6, δ = 1.55 points."""
    delta = stats.Delta(-0.004, 0.006)
    upper = scipy.stats.norm.cdf((-0.004 - 0.0155) / 0.006)
    lower = scipy.stats.norm.sf((-0.004 + 0.0155) / 0.006)
    assert delta.tost_p(0.0155) == pytest.approx(max(upper, lower))
    assert stats.Delta(0.0, 0.0).tost_p(0.01) == 0.0 and stats.Delta(0.02, 0.0).tost_p(0.01) == 1.0


# --- simulation ----------------------------------------------------------------------------


def simulate(
    repetitions: int, n: int, count: int, *, drop: float = 0.0, per_video: int = 1, seed: int = 0
) -> tuple[float, float, float]:
    """Shares of "differs at 5 %": by video, plainly, and as if samples were independent.

    Items answer with their own probability (beta, mean 0.45); within a video 30 % of the answers
    of a run are one shared draw. The printed score is one more run, rounded to one decimal.
    """
    rng = np.random.default_rng(seed)
    videos = np.repeat(np.arange(n // per_video), per_video).astype(str)
    found = np.zeros(3)
    for _ in range(repetitions):
        p = np.clip(rng.beta(0.9, 1.1, n), 0, 1)
        runs = _draw(rng, p, count, per_video)
        printed = _draw(rng, np.clip(p + drop, 0, 1), 1, per_video)[0].mean()
        delta = runs.mean() - round(printed, 3)
        errors = (
            stats.rerun_variance(runs, videos, HALF),
            stats.rerun_variance(runs, single(n), HALF),
            stats.independent_variance(runs.mean(), printed, n, n, HALF),
        )
        found += [stats.Delta(delta, math.sqrt(error)).p < 0.05 for error in errors]
    shares = found / repetitions
    return float(shares[0]), float(shares[1]), float(shares[2])


def _draw(
    rng: np.random.Generator, p: npt.NDArray[np.float64], count: int, per_video: int
) -> npt.NDArray[np.float64]:
    own = rng.random((count, len(p)))
    if per_video > 1:
        shared = np.repeat(rng.random((count, len(p) // per_video)), per_video, axis=1)
        own = np.where(rng.random((count, len(p))) < 0.3**0.5, shared, own)
    return (own < p).astype(float)


def test_size_is_near_five_percent_where_the_usual_test_is_blind() -> None:
    by_video, _, independent = simulate(900, 400, 3, seed=7)
    assert 0.035 <= by_video <= 0.07
    assert independent <= 0.02


def test_correlated_flips_need_the_clustered_form() -> None:
    by_video, plain, _ = simulate(400, 420, 3, per_video=7)
    assert by_video <= 0.085 < plain


@pytest.mark.slow
def test_size_with_thousands_of_repetitions() -> None:
    for n, count in ((625, 2), (1837, 3)):
        by_video, _, independent = simulate(4000, n, count, seed=n)
        assert 0.042 <= by_video <= 0.060 and independent < 0.02
    by_video, plain, _ = simulate(3000, 1834, 3, per_video=7, seed=1)
    assert 0.035 <= by_video <= 0.060 and plain > 0.08


@pytest.mark.slow
def test_power_against_a_true_drop_of_four_points() -> None:
    """n = 1,837: re-run variance finds it, independent samples mostly do not."""
    by_video, _, independent = simulate(1000, 1837, 3, drop=0.04)
    assert by_video > 0.9 and independent < by_video - 0.15


def test_power_grows_with_the_drop() -> None:
    none, some, much = (simulate(120, 900, 3, drop=d, seed=5)[0] for d in (0.0, 0.03, 0.06))
    assert none < 0.12 and some > none + 0.15 and much > some and much > 0.9
