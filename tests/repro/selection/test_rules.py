"""repro.selection.rules: which samples fit, what a source gives, controls, and what it buys."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.errors import BadInput
from repro.selection import rules
from repro.selection.rules import Decision, Rules, Tried
from repro.selection.simulation import simulate

LAW = Rules()


def tried(signals: dict[str, list[float]], name: str = "a", source: str = "s") -> Tried:
    return Tried(name, source, "any", {key: tuple(v) for key, v in signals.items()})


@pytest.mark.parametrize(
    ("signals", "fits", "reason"),
    [
        ({"accuracy": [0] * 8}, False, "all wrong"),
        ({"accuracy": [1] * 8}, False, "all right"),
        ({"accuracy": [1] + [0] * 7}, True, "mixture"),
        ({"accuracy": [0] + [1] * 7}, True, "mixture"),
        ({"accuracy": [0.5] * 8}, False, "all equal"),  # a partial credit, always the same
        ({"accuracy": [0] * 4}, False, "screened out after 4 tries: all wrong"),
        ({"tiou": [0.05] * 8}, False, "poor"),
        ({"tiou": [0.95] * 8}, False, "good already"),
        ({"tiou": [0.5] * 8}, False, "low spread"),
        ({"tiou": [0.3, 0.7] * 4}, True, "high spread"),
        ({"tiou": [0.0] * 7 + [0.8]}, True, "high spread"),  # mean 0.1, on the edge
        ({"tiou": [0.0] * 7 + [0.79]}, False, "poor"),
        ({"tiou": [0.0] * 4}, False, "screened out after 4 tries: poor"),
        ({"accuracy": [0] * 8, "tiou": [0.3, 0.7] * 4}, True, "all wrong; high spread"),
        ({"accuracy": [0, 1] * 4, "tiou": [0.0] * 8}, True, "mixture; poor"),
        ({"accuracy": [1] * 8, "tiou": [0.95] * 8}, False, "all right; good already"),
    ],
)
def test_decide(signals: dict[str, list[float]], fits: bool, reason: str) -> None:
    decision = rules.decide(tried(signals), LAW)
    assert (decision.fits, decision.reason, decision.kept) == (fits, reason, False)
    assert (decision.score > 0) == fits


def test_the_score_is_the_widest_spread_of_the_rules_that_hold() -> None:
    both = rules.decide(tried({"accuracy": [0, 1] * 4, "tiou": [0.4, 0.6] * 4}), LAW)
    assert both.score == pytest.approx(0.5)
    # The letter is always right: only the interval counts.
    one = rules.decide(tried({"accuracy": [1] * 8, "tiou": [0.4, 0.6] * 4}), LAW)
    assert one.score == pytest.approx(0.1)


def test_tau_is_a_standard_deviation() -> None:
    spread = tried({"tiou": [0.4, 0.6] * 4})
    assert rules.decide(spread, Rules(tau=0.1)).fits
    assert not rules.decide(spread, Rules(tau=0.11)).fits


def test_a_lost_sample_says_why() -> None:
    gone = Tried("a", "s", "any", lost="undecodable: a.mp4")
    assert rules.decide(gone, LAW).reason == "lost: undecodable: a.mp4"
    assert not rules.tries_on(gone, LAW)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_variance_is_the_populations(values: list[float]) -> None:
    assert rules.variance(values) == pytest.approx(statistics.pvariance(values), abs=1e-9)
    assert 0 <= rules.variance(values) <= 0.25 + 1e-12


@given(st.integers(0, 8), st.integers(1, 8))
def test_flat_chance_counts_the_ways(right: int, group: int) -> None:
    values = [1.0] * right + [0.0] * (8 - right)
    ways = math.comb(right, group) + math.comb(8 - right, group)
    assert rules.flat_chance(values, group) == pytest.approx(ways / math.comb(8, group))
    with pytest.raises(ValueError):
        rules.flat_chance(values, 9)


@pytest.mark.parametrize(
    "bad", [{"first": 1}, {"first": 9}, {"low": 0.9, "high": 0.1}, {"tau": 0.6}, {"audit": 2}]
)
def test_refuses_rules_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Rules(**bad)  # type: ignore[arg-type]


# --- quotas, ties, controls --------------------------------------------------------------------

EARNED = st.lists(st.sampled_from([0.0, 1.0]), min_size=8, max_size=8)
POOLS = st.lists(st.tuples(st.sampled_from(["x", "y", "z"]), EARNED), min_size=1, max_size=40)


def decided(pool: list[tuple[str, list[float]]]) -> list[Decision]:
    return [
        rules.decide(tried({"accuracy": values}, str(i), source), LAW)
        for i, (source, values) in enumerate(pool)
    ]


@given(POOLS, st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_the_budget_is_met_and_shared(
    pool: list[tuple[str, list[float]]], budget: int, seed: int
) -> None:
    first = decided(pool)
    quotas = rules.quotas(first, budget, {})
    found = rules.choose(first, quotas, seed)
    fitting = sum(d.fits for d in found)
    assert sum(d.kept for d in found) == min(budget, fitting)
    for source, own in rules.by_source(found).items():
        kept = [d for d in own if d.kept]
        share = min(budget, fitting) * sum(d.fits for d in own) / max(1, fitting)
        assert abs(len(kept) - share) < 1 and len(kept) == quotas[source]
        left = [d for d in own if d.fits and not d.kept]
        if kept and left:
            assert min(d.score for d in kept) >= max(d.score for d in left)
        assert all(d.reason.startswith("over quota") for d in left)
    assert all(d.fits for d in found if d.kept)


@given(POOLS, st.integers(1, 40), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_pool_does_not_matter(
    pool: list[tuple[str, list[float]]], budget: int, rng: object
) -> None:
    def kept(decisions: list[Decision]) -> set[str]:
        quotas = rules.quotas(decisions, budget, {})
        return {d.tried.id for d in rules.choose(decisions, quotas, 5) if d.kept}

    first = decided(pool)
    mixed = list(first)
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    assert kept(first) == kept(mixed)


@given(POOLS, st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_controls_have_the_same_size_in_every_source(
    pool: list[tuple[str, list[float]]], budget: int
) -> None:
    first = decided(pool)
    found = rules.choose(first, rules.quotas(first, budget, {}), 1)
    of = {d.tried.id: d for d in found}
    wanted = sorted(d.tried.source for d in found if d.kept)
    others = rules.controls(found, 1)
    assert set(others) == {"random", "easiest", "hardest"}
    for ids in others.values():
        assert sorted(of[i].tried.source for i in ids) == wanted and len(set(ids)) == len(ids)
    level = {k: sum(rules.level(of[i].tried) for i in ids) for k, ids in others.items()}
    assert level["hardest"] <= level["random"] + 1e-9 <= level["easiest"] + 2e-9
    assert rules.controls(found, 1) == others
    assert rules.controls(found, 2)["easiest"] != [] or not wanted


def test_grounding_is_not_crowded_out_by_right_and_wrong() -> None:
    """One source of two kinds: p (1 - p) reaches 0.25, the variance of a tIoU hardly half of it."""
    pool = [Tried(f"c{i}", "s", "choice", {"accuracy": (0.0, 1.0) * 4}) for i in range(20)]
    pool += [
        Tried(f"g{i}", "s", "grounding", {"tiou": (0.3, 0.5 + i / 100) * 4}) for i in range(10)
    ]
    first = [rules.decide(t, LAW) for t in pool]
    found = rules.choose(first, rules.quotas(first, 6, {}), 0)
    kept = [d.tried.id for d in found if d.kept]
    assert [i[0] for i in kept] == ["c"] * 4 + ["g"] * 2
    assert kept[4:] == ["g8", "g9"]  # of its kind the widest spread first
    for ids in rules.controls(found, 0).values():
        assert sorted(i[0] for i in ids) == ["c"] * 4 + ["g"] * 2


def test_given_quotas_come_first() -> None:
    first = decided([("x", [0, 1] * 4)] * 6 + [("y", [0, 1] * 4)] * 6)
    assert rules.quotas(first, 8, {"x": 2}) == {"x": 2, "y": 6}
    assert rules.quotas(first, 6, {"x": 9}) == {"x": 9, "y": 0}  # x has only 6
    assert rules.quotas(first, None, {"x": 2}) == {"x": 2}
    with pytest.raises(BadInput, match="no source is called w; there are x, y"):
        rules.quotas(first, 8, {"w": 1})
    with pytest.raises(BadInput, match="more than the 3"):
        rules.quotas(first, 3, {"x": 4})


def test_audited_ones_are_drawn_by_seed() -> None:
    ids = [str(i) for i in range(100)]
    law = Rules(audit=0.1, seed=3)
    found = rules.audited(ids, law)
    assert len(found) == 10 and found == rules.audited(ids[::-1], law)
    assert found != rules.audited(ids, Rules(audit=0.1, seed=4))
    assert rules.audited(ids, LAW) == frozenset()


# --- what it buys ------------------------------------------------------------------------------


def test_selection_lowers_the_true_share_of_groups_without_advantage() -> None:
    """Against true chances, not the tries that chose: a third of the pool, 4 % of the selected."""
    for seed in range(3):
        found = simulate(2000, Rules(seed=seed), budget=200)
        assert found.kept == 200
        assert found.flat["selected"] < 0.1 < 0.25 < found.flat["random"] < 0.45
        assert abs(found.flat["random"] - found.flat["all"]) < 0.1
        assert found.flat["selected"] < found.flat["easiest"] < found.flat["hardest"]
        assert 0.15 < found.saved < 0.3


def test_no_screen_saves_nothing_and_a_shorter_one_more() -> None:
    saved = [simulate(1000, Rules(first=first), 100).saved for first in (8, 4, 2)]
    assert saved[0] == 0.0 < saved[1] < saved[2]
