"""metrics.jsonl, and alarms that name a collapse while it happens.

| alarm      | raised when (bounds chosen)                                                     |
|------------|---------------------------------------------------------------------------------|
| short      | mean completion length under 4 tokens                                           |
| format     | under half of the rollouts keep the format                                      |
| flat       | over 95 % of the groups have equal rewards, so nothing is learned               |
| drift      | KL to the reference above 2 nats per token                                      |
| truncated  | over half of the rollouts hit the token limit                                   |
| mismatch   | sampler and scorer disagree on one token by more than 0.01 nats (bf16: 1)        |

A method may bring alarms of its own (Method.alarms).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.errors import Failure

MISMATCH = {"exact": 0.01, "bf16": 1.0}


class Diverged(Failure):
    """The loss or its gradient is no longer a number."""


def alarms(metrics: Mapping[str, float], *, exact: bool = True) -> list[str]:
    """Names of the alarms that a step's metrics raise; exact: computed in fp32."""
    rules = {
        "short": metrics["length"] < 4,
        "format": metrics.get("format", 1.0) < 0.5,
        "flat": metrics["zero_std"] > 0.95,
        "drift": metrics["kl"] > 2.0,
        "truncated": metrics["truncated"] > 0.5,
        "mismatch": metrics["mismatch"] > MISMATCH["exact" if exact else "bf16"],
    }
    return [name for name, raised in rules.items() if raised]


def refuse_nan(value: float, step: int, what: str = "loss") -> None:
    """Raises Diverged when the loss (or `what`) of a step is NaN or infinite."""
    if not math.isfinite(value):
        raise Diverged(
            f"the {what} of step {step} is {value}: lower learning_rate or raise beta, "
            "then run again"
        )


class MetricsLog:
    """One JSON object per optimizer step. A resumed run drops what lies beyond its checkpoint."""

    def __init__(self, path: Path, upto: int = 0):
        self.path = path
        kept = []
        if path.exists():
            kept = [x for x in path.read_text().splitlines() if _step(x) <= upto]
        scratch = path.with_suffix(".tmp")
        scratch.write_text("".join(x + "\n" for x in kept))
        scratch.replace(path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one step, flushed at once."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except json.JSONDecodeError:
        return math.inf  # the half-written last line of a killed process
