"""Geometry of the plots: nothing leaves its axis, nothing is averaged away."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import charts
from results.stats import Interval

number = st.floats(-1, 1).map(lambda x: round(x, 5))


def test_numbers_in_words() -> None:
    assert charts.signed(0.0163) == "+1.6" and charts.signed(-0.005) == "\N{MINUS SIGN}0.5"
    assert charts.signed(math.inf) == "+\N{INFINITY}"
    assert charts.ends(Interval(0, -math.inf, 0.1, 0.95)) == "[\N{MINUS SIGN}\N{INFINITY}, +10.0]"
    assert charts.ends(Interval(0.5, 0.4, 0.6, 0.95), sign=False) == "[40.0, 60.0]"


@given(number, number)
def test_ticks_are_round_and_on_the_axis(a: float, b: float) -> None:
    scale = charts.scale_over([a, b])
    ticks = scale.ticks(5)
    assert 2 <= len(ticks) <= 12
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.lists(number, max_size=6), st.lists(st.tuples(number, number), max_size=3))
def test_a_forest_shows_zero_and_every_point(
    points: list[float], pairs: list[tuple[float, float]]
) -> None:
    intervals = [Interval((a + b) / 2, min(a, b), max(a, b), 0.95) for a, b in pairs]
    scale = charts.forest_scale(points, intervals)
    assert all(scale.holds(value) for value in (0.0, *points))


def test_an_endless_interval_ends_in_arrows() -> None:
    endless = Interval(0.01, -math.inf, math.inf, 0.95)
    scale = charts.forest_scale([0.01], [endless])
    assert charts.bar(endless, scale, 1, 5).count("0L") == 2
    assert charts.bar(Interval(0.01, 0.005, 0.0105, 0.95), scale, 1, 5).count("0L") == 0


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6).filter(sum))
def test_a_stack_fills_its_width(sizes: list[int]) -> None:
    svg = charts.stacked([(f"o{i}", size) for i, size in enumerate(sizes)], sum(sizes))
    widths = [float(w) for w in re.findall(r'width="([\d.]+)%" height="20">', svg)]
    assert sum(widths) == pytest.approx(100, abs=0.01)
    assert svg.count("<rect") == sum(size > 0 for size in sizes)


def test_a_gap_breaks_the_line() -> None:
    x, y = charts.Scale(0, 2), charts.Scale(0, 1)
    assert charts.line_path([0, 1, 2], [0.0, None, 1.0], x, y) == "M0 400M1000 0"
    assert charts.line_path([0, 1, 2], [0.0, 0.5, 1.0], x, y) == "M0 400L500 200L1000 0"


def test_smoothing_keeps_gaps_and_shortens_at_the_ends() -> None:
    assert charts.smoothed([1, 2, 3, 4], 1) == [1, 2, 3, 4]
    assert charts.smoothed([1, 2, 6, None, 4], 3) == [1.5, 3, 4, None, 4]
