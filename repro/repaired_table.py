"""What FFR's micro runs show beside their score: mean over seeds, with its s.d., in %.

accuracy   of the test questions, avg@2, never with a patch
repaired   of the failed rollouts of training, those that were answered again
mended     of the repaired ones, those that became right
gap        accuracy with a patch minus without, one seed's weights: a diagnosis (repro.ffr.gap)

    python -m repro.repaired_table    the block of README.md, from the committed runs and gaps.json
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro import folder
from repro.arm_table import cell, in_order, marked, table, whole
from repro.conclude import committed
from results.arms import label
from results.ledger import Run

ORDER = ("cold", "grpo", "ffr", "ffr_retry", "ffr_random", "ffr_kappa0")
RATES = {"repaired": ("n_repaired", "n_failed"), "mended": ("n_mended", "n_repaired")}
TEACHERS = ("oracle", "random_interval")
COLUMNS = (
    "accuracy", "repaired", "mended", "without a patch", "gap, oracle's", "gap, random place",
)  # fmt: skip
GAPS = Path(__file__).parent / "ffr" / "gaps.json"

Gaps = Mapping[str, Mapping[str, Any]]


def rates(run: Run) -> dict[str, float]:
    """Fractions over all steps of a run, by RATES; none of a run that repaired nothing."""
    sums = Counter[str]()
    for line in run.curves or ():
        sums.update({name: value for name, value in line.items() if name.startswith("n_")})
    return {name: sums[part] / sums[of] for name, (part, of) in RATES.items() if sums[of]}


def markdown(runs: Sequence[Run], gaps: Gaps) -> str:
    """The table, arms in ORDER, then the others."""
    by_arm: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_arm[run.record.arm].append(run)
    return table(COLUMNS, [_line(arm, by_arm[arm], gaps) for arm in in_order(by_arm, ORDER)])


def _line(arm: str, runs: Sequence[Run], gaps: Gaps) -> tuple[str, ...]:
    found = [rates(run) for run in runs]
    cells = [[each[name] for each in found if name in each] for name in RATES]
    hashes = {run.record.model["sha256"] for run in runs}
    own = next((gap for gap in gaps.values() if gap["sha256"] in hashes), None)
    return (
        label(arm), str(len(runs)), cell([run.record.score for run in runs]),
        *map(cell, cells), *_gap(own),
    )  # fmt: skip


def _gap(own: Mapping[str, Any] | None) -> tuple[str, ...]:
    if own is None:
        return ("",) * (1 + len(TEACHERS))
    alone = own["sampled"]["none"]
    gained = (f"{100 * (own['sampled'][name] - alone):+.1f}" for name in TEACHERS)
    return (f"{100 * alone:.1f}", *gained)


def block(runs: Path, gaps: Path = GAPS) -> str:
    """What stands between the marks of README.md."""
    return marked(markdown(whole(runs), folder.read_json(gaps)), "repaired_table")


if __name__ == "__main__":
    at = Path(sys.argv[1]) if sys.argv[1:] else committed() / "ffr" / "microworld"
    print(block(at))
