"""What Temporal-R1's micro runs score by kind of question: mean over seeds, with their s.d., in %.

accuracy    of the questions that only ask what
mIoU, R1@m  of those that ask when, both kinds; a reply without an interval has IoU 0
signal      share of training groups with unequal rewards, the ones that teach

    python -m repro.timed_table      the block of README.md, from the committed runs
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from evals.aggregate import per_reply
from evals.benchmarks import Card
from evals.types import Row
from repro.arm_table import cell, in_order, marked, table, whole
from repro.conclude import committed
from results.arms import label
from results.ledger import Run

ORDER = ("cold", "sft", "semantic", "temporal", "both", "selected", "random_records")
COLUMNS = ("accuracy", "mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "signal")
GROUNDED = ("temporal grounding", "grounded qa")
_CARD = Card("", {}, "", metrics=("grounding",))


def numbers(run: Run) -> dict[str, float]:
    """Fractions, by COLUMNS; no `signal` of a run that had no rewards."""
    rows = [Row(**{f.name: getattr(row, f.name) for f in fields(Row)}) for row in run.rows]
    chosen = [row.score for row in rows if row.kind == "multiple choice"]
    timed = per_reply([row for row in rows if row.kind in GROUNDED], _CARD)
    found = {"accuracy": chosen, **timed}
    if flat := [line["zero_std"] for line in run.curves or () if "zero_std" in line]:
        found["signal"] = [1.0 - share for share in flat]
    return {name: statistics.fmean(values) for name, values in found.items()}


def markdown(runs: Sequence[Run]) -> str:
    """The table, arms in ORDER, then the others."""
    by_arm: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in runs:
        by_arm[run.record.arm].append(numbers(run))
    return table(COLUMNS, [_line(arm, by_arm[arm]) for arm in in_order(by_arm, ORDER)])


def _line(arm: str, found: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    cells = [[each[name] for each in found if name in each] for name in COLUMNS]
    return (label(arm), str(len(found)), *map(cell, cells))


def block(folder: Path) -> str:
    """What stands between the marks of README.md."""
    return marked(markdown(whole(folder)), "timed_table")


if __name__ == "__main__":
    at = Path(sys.argv[1]) if sys.argv[1:] else committed() / "temporal_r1" / "microworld"
    print(block(at))
