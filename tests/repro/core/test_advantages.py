"""repro.core.advantages: the papers' vectors and the scale modes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.core.advantages import advantages, group_advantages


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([2, 2, 1, 1, 0, 0, 0, 0], [1.4100] * 2 + [0.2820] * 2 + [-0.8460] * 4),  # ktr.md 7.2
        ([2.2, 2.2, 2.0, 1, 1, 1, 1, 1], [1.3138] * 2 + [0.9748] + [-0.7205] * 5),
        ([2, 2, 2, 2, 2, 1.7, 0.7, 1.0], [0.6180] * 5 + [0.0475, -1.8541, -1.2836]),  # ffr.md 1.14
        ([1.7] * 2 + [0.7] * 6, [1.6198] * 2 + [-0.5399] * 6),
        ([2] * 6 + [1.7] * 2, [0.5397] * 6 + [-1.6190] * 2),
        ([2, 1], [0.7070, -0.7070]),
    ],
)
def test_vectors(rewards: list[float], expected: list[float]) -> None:
    result = group_advantages(torch.tensor(rewards, dtype=torch.float32))
    assert result.tolist() == pytest.approx(expected, abs=5e-5)
    assert result.dtype == torch.float32


@pytest.mark.parametrize("rewards", [[1.7] * 8, [2.2] * 7, [0.1], [0.0, 0.0]])
def test_equal_rewards_give_zero(rewards: list[float]) -> None:
    assert group_advantages(torch.tensor(rewards)).tolist() == [0.0] * len(rewards)


def test_eps_is_added_to_the_deviation() -> None:
    assert group_advantages(torch.tensor([1.0, 0.0]), eps=1.0)[0] == pytest.approx(
        0.5 / (0.5**0.5 + 1)
    )


FIRST, SECOND, THIRD = (torch.tensor(r) for r in ([1.0, 0.0, 0.0], [0.3, 0.1], [1.0, 1.0]))


def test_batch_scale_shares_one_deviation() -> None:
    std = torch.cat([FIRST, SECOND, THIRD]).std() + 1e-4
    result = advantages([FIRST, SECOND, THIRD], scale="batch")
    for group, adv in zip([FIRST, SECOND, THIRD], result, strict=True):
        torch.testing.assert_close(adv, (group - group.mean()) / std)


def test_types_share_a_deviation_each() -> None:
    result = advantages([FIRST, SECOND, THIRD], scale="batch", types=["qa", "iou", "qa"])
    qa, iou = torch.cat([FIRST, THIRD]).std() + 1e-4, SECOND.std() + 1e-4
    for group, std, adv in zip([FIRST, SECOND, THIRD], [qa, iou, qa], result, strict=True):
        torch.testing.assert_close(adv, (group - group.mean()) / std)


def test_none_only_centres() -> None:
    result = advantages([FIRST, SECOND], scale="none")
    torch.testing.assert_close(result[0], FIRST - 1 / 3)
    torch.testing.assert_close(result[1], torch.tensor([0.1, -0.1]))


def test_group_scale_is_the_default_and_ignores_other_groups() -> None:
    result = advantages([FIRST, SECOND])
    torch.testing.assert_close(result[1], group_advantages(SECOND))


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")], [[1.0]]])
def test_rewards_must_be_a_finite_group(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite rewards"):
        group_advantages(torch.tensor(bad))


def test_modes_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown scale"):
        advantages([FIRST], scale="sequence")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="types needs"):
        advantages([FIRST], types=["qa"])
    with pytest.raises(ValueError, match="types needs"):
        advantages([FIRST], scale="batch", types=["qa", "qa"])


REWARDS = st.lists(st.floats(0, 2.5, width=32), min_size=2, max_size=12)


@settings(deadline=None)
@given(rewards=REWARDS, shift=st.sampled_from([-1.0, 0.5, 2.0]))
def test_zero_mean_bounded_and_shift_free(rewards: list[float], shift: float) -> None:
    group = torch.tensor(rewards, dtype=torch.float64)
    result = group_advantages(group)
    assert abs(float(result.sum())) < 1e-6
    assert float(result.abs().max()) <= len(rewards) ** 0.5
    torch.testing.assert_close(group_advantages(group + shift), result, atol=1e-6, rtol=1e-6)
