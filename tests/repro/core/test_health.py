"""Alarms name a collapse, and metrics.jsonl holds every step once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro.core.health import Diverged, MetricsLog, alarms, refuse_nan

WELL = {
    "length": 20.0, "format": 0.97, "zero_std": 0.4, "kl": 0.05, "truncated": 0.02,
    "mismatch": 1e-6,
}  # fmt: skip


def test_a_healthy_step_raises_nothing() -> None:
    assert alarms(WELL) == []


@pytest.mark.parametrize(
    ("name", "key", "quiet", "loud"),
    [
        ("short", "length", 4.0, 3.9),
        ("format", "format", 0.5, 0.49),
        ("flat", "zero_std", 0.95, 1.0),
        ("drift", "kl", 2.0, 2.1),
        ("truncated", "truncated", 0.5, 0.51),
        ("mismatch", "mismatch", 0.01, 0.011),
    ],
)
def test_each_alarm_has_its_bound(name: str, key: str, quiet: float, loud: float) -> None:
    assert alarms({**WELL, key: quiet}) == []
    assert alarms({**WELL, key: loud}) == [name]


def test_alarms_add_up_and_a_method_may_have_no_format_reward() -> None:
    assert alarms({**WELL, "length": 1.0, "zero_std": 1.0, "kl": 9.0}) == ["short", "flat", "drift"]
    assert alarms({k: v for k, v in WELL.items() if k != "format"}) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_says_what_to_do(value: float) -> None:
    with pytest.raises(Diverged, match=r"the loss of step 7 is .*: lower learning_rate"):
        refuse_nan(value, 7)
    refuse_nan(0.0, 7)


def _steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_resumed_log_drops_later_and_half_written_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (1, 2, 3, 4):
        log.write({"step": step, "loss": 0.5})
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    again = MetricsLog(path, upto=3)
    assert _steps(path) == [1, 2, 3]
    again.write({"step": 4, "loss": 0.25})
    assert _steps(path) == [1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_fresh_log_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    MetricsLog(path)
    assert path.read_text() == ""


def test_a_row_is_on_disk_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1})
    assert _steps(tmp_path / "metrics.jsonl") == [1]
