"""The GPU check itself runs, on a CPU and with the tiny student."""

from __future__ import annotations

from tests.gpu.check import case
from tests.gpu.scenes import scene


def test_every_contestant_is_timed_and_compared() -> None:
    row = case(scene("tiny", "cpu", 4, 56, 56, 2, 6), "tiny", 4, rounds=1)
    assert [arm["outcome"] for arm in row["arms"].values()] == ["ok"] * 3
    assert row["arms"]["ktr"]["tokens_per_second"] > 0
    assert row["arms"]["grpo"]["prompt"] > 0 and row["arms"]["grpo"]["mfu"] is None
    assert row["equality"]["relative"] < 1e-5
