"""The training envelope: healthy runs pass, collapsing ones are named, no seeds, no band."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from results import envelope, stats
from results.policy import load_policy
from results.schema import LedgerError

POLICY = load_policy()
STEPS = 100


def lines(
    seed: int, *, steps: int = STEPS, shift: float = 0.0, **more: Any
) -> list[dict[str, Any]]:
    """A run that learns, with luck of its own and noise in every step."""
    rng = np.random.default_rng(seed)
    luck = rng.normal(0, 0.02)
    out = []
    for step in range(1, steps + 1):
        x = step / STEPS
        reward = 1 + 0.5 * x + luck + shift * x + rng.normal(0, 0.05)
        out.append(
            {
                "step": step,
                "reward": reward,
                "accuracy": 0.4 + 0.3 * x + luck + shift * x + rng.normal(0, 0.03),
                "length": 30 - 4 * x + 20 * luck + rng.normal(0, 0.5),
                "kl": 0.1 * x * (1 + luck) + abs(rng.normal(0, 0.002)),
                "format": 0.98,
                "zero_std": 0.3,
                "alarms": [],
            }
        )
    return out


REFERENCES = [lines(seed) for seed in range(5)]


def test_a_value_is_the_mean_of_the_last_tenth() -> None:
    ramp = [{"step": s, "kl": float(s)} for s in range(1, 101)]
    spread = [[{"step": s, "kl": float(s + k)} for s in range(1, 101)] for k in range(3)]
    found = envelope.check(ramp, spread, STEPS, POLICY)
    assert [(c.step, c.value) for c in found.checks] == [(10, 5.5), (25, 20.5), (50, 45.5)]
    band = envelope.band(spread, "kl", 25, STEPS, POLICY)
    assert band.estimate == 21.5
    assert band.half_width == pytest.approx(stats.t_quantile(0.975, 2) * 1.0 * math.sqrt(4 / 3))


def test_a_healthy_run_stays_inside() -> None:
    found = envelope.check(lines(77), REFERENCES, STEPS, POLICY)
    assert (found.word, found.seeds, found.outside) == ("inside", 5, ())
    assert {check.metric for check in found.checks} == set(envelope.METRICS)
    assert len(found.checks) == 12 and "step 50" in found.reason


def test_a_run_under_way_is_checked_as_far_as_it_got() -> None:
    early = envelope.check(lines(77)[:30], REFERENCES, STEPS, POLICY)
    assert {check.step for check in early.checks} == {10, 25}
    assert envelope.check(lines(77)[:5], REFERENCES, STEPS, POLICY).reason == (
        "no checked step reached yet"
    )


def test_a_run_that_does_not_learn_is_outside() -> None:
    found = envelope.check(lines(77, shift=-1.0), REFERENCES, STEPS, POLICY)
    assert found.word == "outside" and found.outside
    assert "the references predict" in found.reason
    assert found.outside[0].metric in ("reward", "accuracy")


def test_the_rate_of_false_alarms_is_that_of_one_test() -> None:
    """Twelve checks of 300 healthy runs: uncorrected about a third would be stopped."""
    outside = alone = 0
    for repetition in range(300):
        rng = np.random.default_rng(repetition)
        runs = [
            [
                {"step": s, **{m: v[i] for i, m in enumerate(envelope.METRICS)}}
                for s, v in ((s, rng.normal(0, 1, 4)) for s in (10, 25, 50, 100))
            ]
            for _ in range(6)
        ]
        found = envelope.check(runs[0], runs[1:], STEPS, POLICY)
        outside += found.word == "outside"
        alone += any(not c.band.low <= c.value <= c.band.high for c in found.checks)
    assert outside / 300 <= 0.08 and alone / 300 > 0.3


def test_equal_references_forgive_rounding_and_nothing_else() -> None:
    flat = [[{"step": s, "kl": 0.5} for s in range(1, 101)]] * 3
    near = [{"step": s, "kl": 0.5 + 1e-12} for s in range(1, 101)]
    far = [{"step": s, "kl": 0.51} for s in range(1, 101)]
    assert envelope.check(near, flat, STEPS, POLICY).word == "inside"
    assert envelope.check(far, flat, STEPS, POLICY).word == "outside"


def test_missing_references_are_a_state() -> None:
    found = envelope.check(lines(7), REFERENCES[:2], STEPS, POLICY)
    assert found.word == "no reference" and "2 reference seeds" in found.reason
    found = envelope.check(lines(7), [*REFERENCES[:3], lines(9, steps=9)], STEPS, POLICY)
    assert found.word == "no reference" and "end before step 10" in found.reason
    found = envelope.check(lines(7), [*REFERENCES[:3], lines(9, steps=30)], STEPS, POLICY)
    assert {c.step for c in found.checks} == {10, 25} and "step 50 not compared" in found.reason


def test_another_schedule_is_no_reference() -> None:
    """A run of 60 steps against references of 100, both on a cosine from one rate."""

    def rated(run: list[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
        turn = math.pi / steps
        return [{**x, "learning_rate": 1 + math.cos(turn * x["step"])} for x in run[:steps]]

    references = [rated(each, 100) for each in REFERENCES]
    found = envelope.check(rated(lines(77), 60), references, 60, POLICY)
    assert {check.step for check in found.checks} == {6, 15}
    assert found.word == "inside" and "step 30 not compared" in found.reason
    fast = [{**x, "learning_rate": 9.0} for x in lines(77)]
    found = envelope.check(fast, references, STEPS, POLICY)
    assert (found.word, found.reason) == (
        "no reference", "the references trained with another learning rate",
    )  # fmt: skip


def test_what_a_run_or_its_references_do_not_measure() -> None:
    bare = [[{"step": s, "loss": 0.1} for s in range(1, 101)]] * 3
    found = envelope.check(bare[0], bare, STEPS, POLICY)
    assert found.word == "no reference" and "measure none of reward" in found.reason
    gap = [{**line, "kl": None} if 15 < line["step"] < 26 else line for line in lines(7)]
    with pytest.raises(LedgerError, match="no kl between steps 16 and 25"):
        envelope.check(gap, REFERENCES, STEPS, POLICY)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("short", {"length": 2.0}),
        ("format", {"format": 0.3}),
        ("flat", {"zero_std": 0.97}),
        ("drift", {"kl": 2.5}),
        ("truncated", {"truncated": 0.7}),
        ("mismatch", {"mismatch": 0.02}),
    ],
)
def test_collapse_is_named_with_its_steps(name: str, values: dict[str, float]) -> None:
    run = lines(1)
    run[40:43] = [{**line, **values} for line in run[40:43]]
    assert envelope.alarms(run, POLICY) == {name: (41, 42, 43)}


def test_what_the_trainer_raised_is_kept() -> None:
    run = [{"step": 1, "alarms": ["odd"]}, {"step": 2, "length": 1.0, "alarms": ["short"]}]
    assert envelope.alarms(run, POLICY) == {"odd": (1,), "short": (2,)}
    assert envelope.alarms(lines(3), POLICY) == {}
