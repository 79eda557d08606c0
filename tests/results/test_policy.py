"""The rules: each has a source, and nothing unknown or missing passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro.core.health import alarms
from repro.ffr.method import alarms as ffr_alarms
from results import policy

POLICY = policy.load_policy()


def test_every_rule_has_a_source() -> None:
    assert POLICY.minimum_runs >= 2 and POLICY.equivalence_level == pytest.approx(0.90)
    assert all(bound.source for bound in POLICY.alarms)
    assert POLICY.minimum_seeds >= 3 and POLICY.level == pytest.approx(0.95)
    assert all(POLICY.sources.values()) and all(entry.source for entry in POLICY.claims)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("power:", "powre:", "exactly"),
        ("below: 4, ", "", "alarms.short must have exactly"),
        ("value: 0.05", "value: 5 %", "alpha.value must be float"),
        ("value: 3", "value: 3.0", "minimum_seeds.value must be int"),
        ("    baseline: grpo\n", "", "claims must have exactly"),
    ],
)
def test_policy_is_strict(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = Path(policy.__file__).with_name("policy.yaml").read_text()
    assert old in text
    (tmp_path / "policy.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        policy.load_policy(tmp_path / "policy.yaml")


@pytest.mark.parametrize(
    ("gain", "margin"), [(0.031, 0.0155), (0.0, 0.01), (0.012, 0.01), (0.09, 0.03), (-0.05, 0.025)]
)
def test_margin_is_half_the_gain_within_limits(gain: float, margin: float) -> None:
    assert POLICY.margin(gain) == pytest.approx(margin)


def test_alarms_are_those_the_trainer_raises() -> None:
    healthy = {"length": 20.0, "format": 1.0, "zero_std": 0.3, "kl": 0.1}
    healthy |= {"truncated": 0.0, "mismatch": 0.0}
    assert alarms(healthy) == []
    for bound in POLICY.alarms:
        limit = bound.below if bound.below is not None else bound.above
        assert limit is not None
        sign = -1 if bound.below is not None else 1
        for step, raised in ((1e-6 * sign, [bound.name]), (-1e-6 * sign, [])):
            row = {**healthy, bound.metric: limit + step}
            assert [*alarms(row), *ffr_alarms(row)] == raised
            assert bound.broken(limit + step) == bool(raised)
