"""repro.core.counterfactual: the selection vectors of ktr.md 7.2, signals, and the union."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.core.counterfactual import select_tokens, signal_masks, union
from repro.core.types import TokenScores

ALL = torch.ones(2, 5, dtype=torch.bool)
RISING = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5], [0.6, 0.7, 0.8, 0.9, 1.0]])


def kept(mask: torch.Tensor) -> list[tuple[int, int]]:
    return [(i, t) for i, t in mask.nonzero().tolist()]


# --- vectors of ktr.md 7.2 ---------------------------------------------------------------------


def test_pooled_quantile_can_leave_a_completion_empty() -> None:
    mask = select_tokens(RISING, ALL, 0.2, "group", "quantile")
    assert kept(mask) == [(1, 3), (1, 4)]  # theta 0.82


def test_per_completion_top_keeps_one_of_five_each() -> None:
    assert kept(select_tokens(RISING, ALL, 0.2)) == [(0, 4), (1, 4)]


def test_ties_are_all_kept_by_the_quantile_and_cut_by_index_at_the_top() -> None:
    scores = torch.tensor([[1.0] * 5, [0.5] * 5])
    pooled = select_tokens(scores, ALL, 0.2, "group", "quantile")
    assert kept(pooled) == [(0, t) for t in range(5)]
    assert kept(select_tokens(scores, ALL, 0.2, "group", "top")) == [(0, 0), (0, 1)]


def test_signed_and_absolute() -> None:
    deltas = torch.tensor([[-3.0, -0.1, 0.05, 0.2, 1.0]])
    valid = torch.ones(1, 5, dtype=torch.bool)
    scores = TokenScores(valid, deltas, deltas, visual=deltas)
    signed = signal_masks(scores, {"visual": 0.2}, "signed", "group", "quantile", False)
    absolute = signal_masks(scores, {"visual": 0.2}, "absolute", "group", "quantile", False)
    assert kept(signed["visual"]) == [(0, 4)]  # theta 0.36
    assert kept(absolute["visual"]) == [(0, 0)]  # theta 1.4


# --- selection ---------------------------------------------------------------------------------


def test_only_valid_finite_tokens_count() -> None:
    valid = torch.tensor([[True, True, True, False], [True, True, True, True]])
    scores = torch.tensor([[0.1, 0.2, 0.3, 9.0], [math.nan, math.inf, 0.5, 0.4]])
    for rule in ("top", "quantile"):
        assert kept(select_tokens(scores, valid, 0.34, "completion", rule))[-1] == (1, 2)
        assert not select_tokens(scores, valid, 1.0, "group", rule)[0, 3]
        assert select_tokens(scores, valid, 1.0, "group", rule).sum() == 5


def test_quantile_scope_completion() -> None:
    mask = select_tokens(RISING, ALL, 0.4, "completion", "quantile")
    assert kept(mask) == [(0, 3), (0, 4), (1, 3), (1, 4)]


def test_top_rounds_the_share_up_in_decimal() -> None:
    scores, valid = torch.arange(100.0)[None], torch.ones(1, 100, dtype=torch.bool)
    assert int(select_tokens(scores, valid, 0.07).sum()) == 7  # 0.07 * 100 > 7 in binary
    assert int(select_tokens(scores, valid, 0.071).sum()) == 8
    assert int(select_tokens(scores, valid, 1e-6).sum()) == 1


@pytest.mark.parametrize("scope", ["group", "completion"])
@pytest.mark.parametrize("rule", ["top", "quantile"])
def test_ratio_one_is_everything_zero_is_nothing(scope: str, rule: str) -> None:
    valid = torch.tensor([[True] * 5, [True, False, False, False, False], [False] * 5])
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(select_tokens(scores, valid, 1.0, scope, rule), valid)
    assert not bool(select_tokens(scores, valid, 0.0, scope, rule).any())
    assert not bool(select_tokens(scores, torch.zeros_like(valid), 0.5, scope, rule).any())


def test_misuse_is_named() -> None:
    for args in (
        (RISING, ALL.float(), 0.2), (RISING, ALL[:1], 0.2), (RISING[0], ALL[0], 0.2),
        (RISING, ALL, -0.1), (RISING, ALL, 1.1), (RISING, ALL, math.nan),
        (RISING, ALL, 0.2, "batch"), (RISING, ALL, 0.2, "group", "random"),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            select_tokens(*args)


SCORE = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([0.0, 1.0, math.nan, math.inf]))


@settings(deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(SCORE, st.booleans()), min_size=6, max_size=6), min_size=1, max_size=4
    ),
    percent=st.integers(0, 100),
    scope=st.sampled_from(["group", "completion"]),
    rule=st.sampled_from(["top", "quantile"]),
)
def test_selection_is_a_top_set_of_the_promised_size(
    rows: list[list[tuple[float, bool]]], percent: int, scope: str, rule: str
) -> None:
    scores = torch.tensor([[s for s, _ in row] for row in rows])
    valid = torch.tensor([[v for _, v in row] for row in rows])
    mask = select_tokens(scores, valid, percent / 100, scope, rule)
    usable = valid & torch.isfinite(scores)
    assert not bool((mask & ~usable).any())
    pools = (
        [(scores, usable, mask)]
        if scope == "group"
        else list(zip(scores, usable, mask, strict=True))
    )
    for s, u, m in pools:
        inside, outside = s[m], s[u & ~m]
        if len(inside) and len(outside):
            assert inside.min() >= outside.max()
        n = int(u.sum())
        least = -(-percent * n // 100)
        if rule == "top":
            assert int(m.sum()) == least
        elif percent and n:
            assert int(m.sum()) >= max(1, percent * (n - 1) // 100)
            assert not len(outside) or inside.min() > outside.max()  # all ties are kept


# --- signals -----------------------------------------------------------------------------------


def token_scores(temporal: bool = True) -> TokenScores:
    valid = torch.tensor([[True, True, True, True], [True, True, False, False]])
    return TokenScores(
        valid=valid,
        logp=torch.zeros(2, 4),
        entropy=torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.2, 0.1, 5.0, 5.0]]),
        visual=torch.tensor([[0.1, -2.0, 0.2, 0.3], [0.1, -0.4, 9.0, 9.0]]),
        temporal=torch.tensor([[0.0, 0.1, -3.0, 0.2], [0.5, 0.1, 9.0, 9.0]]) if temporal else None,
    )


RATIOS = {"entropy": 0.2, "visual": 0.2, "temporal": 0.2}


def test_paper_masks_and_their_union() -> None:
    masks = signal_masks(token_scores(), RATIOS)
    assert list(masks) == ["entropy", "visual", "temporal"]
    assert {name: kept(mask) for name, mask in masks.items()} == {
        "entropy": [(0, 0), (1, 0)],
        "visual": [(0, 1), (1, 1)],
        "temporal": [(0, 2), (1, 0)],
    }
    whole = union(masks, token_scores().valid)
    assert kept(whole) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_entropy_is_never_made_absolute() -> None:
    scores = TokenScores(ALL, RISING, entropy=-RISING)
    assert kept(signal_masks(scores, {"entropy": 0.2})["entropy"]) == [(0, 0), (1, 0)]


def test_signals_can_be_switched_off_one_by_one() -> None:
    assert list(signal_masks(token_scores(), {"visual": 0.2})) == ["visual"]
    assert list(signal_masks(token_scores(), {**RATIOS, "entropy": 0})) == ["visual", "temporal"]
    assert list(signal_masks(token_scores(temporal=False), RATIOS)) == ["entropy", "visual"]
    assert signal_masks(token_scores(), {}) == {}
    assert not bool(union({}, token_scores().valid).any())


def test_each_signal_has_its_own_ratio() -> None:
    masks = signal_masks(token_scores(), {"entropy": 1.0, "visual": 0.5})
    assert torch.equal(masks["entropy"], token_scores().valid)
    assert kept(masks["visual"]) == [(0, 1), (0, 3), (1, 1)]


def test_at_least_one_token_per_completion() -> None:
    scores = TokenScores(ALL, RISING, entropy=RISING, visual=RISING)
    ratios = {"entropy": 0.2, "visual": 0.2}
    bare = signal_masks(scores, ratios, "signed", "group", "quantile", at_least_one=False)
    assert not bool(union(bare, ALL)[0].any())  # defect B2
    masks = signal_masks(scores, ratios, "signed", "group", "quantile", at_least_one=True)
    assert kept(masks["entropy"]) == [(0, 4), (1, 3), (1, 4)]
    assert torch.equal(masks["visual"], bare["visual"])  # the second signal is left alone


def test_at_least_one_skips_signals_without_a_finite_score() -> None:
    entropy = RISING.clone()
    entropy[0] = math.nan
    valid = ALL.clone()
    visual = torch.tensor([[0.0, 0.1, 0.1, 0.0, 0.0], [5.0] * 5])
    scores = TokenScores(valid, RISING, entropy=entropy, visual=visual)
    masks = signal_masks(scores, {"entropy": 0.2, "visual": 0.2}, scope="group")
    assert kept(masks["visual"])[0] == (0, 1)
    assert not bool(masks["entropy"][0].any())


def test_an_empty_completion_stays_empty() -> None:
    valid = ALL.clone()
    valid[1] = False
    masks = signal_masks(TokenScores(valid, RISING, entropy=RISING), {"entropy": 0.2})
    assert kept(union(masks, valid)) == [(0, 4)]


def test_unknown_signals_and_signs_are_named() -> None:
    with pytest.raises(ValueError, match="audio"):
        signal_masks(token_scores(), {"audio": 0.2})
    with pytest.raises(ValueError, match="both"):
        signal_masks(token_scores(), RATIOS, sign="both")  # type: ignore[arg-type]


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), percent=st.integers(1, 100), absolute=st.booleans())
def test_union_holds_every_signal_and_one_token_per_completion(
    seed: int, percent: int, absolute: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 7, (4, 1), generator=draw)
    valid = torch.arange(6)[None] < lengths
    e, v, t = torch.randn(3, 4, 6, generator=draw)
    scores = TokenScores(valid, e, entropy=e.abs(), visual=v, temporal=t)
    ratios = dict.fromkeys(RATIOS, percent / 100)
    masks = signal_masks(scores, ratios, "absolute" if absolute else "signed", "group", "top")
    whole = union(masks, valid)
    assert torch.equal(whole, masks["entropy"] | masks["visual"] | masks["temporal"])
    assert not bool((whole & ~valid).any())
    assert torch.equal(whole.any(1), valid.any(1))
