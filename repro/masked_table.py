"""What MVP's micro runs score by kind of question: mean over seeds, with their s.d., in %.

order, cause, count   families of microworld's questions; questions: all of them
exact, sel, ord       masked-prediction items (repro.mvp.rewards); K = 2, 3: exact by tier
reversed              the same model, shown frames and pictures around the gap backwards; the gold
                      stays; `backwards`: replies that give the missing pictures in reverse order

    python -m repro.masked_table      the block of README.md, from the committed runs
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.arm_table import cell, in_order, marked, table, whole
from repro.conclude import committed
from repro.mvp.marks import of_row
from repro.mvp.rewards import numbers as numbers_of
from results.arms import label
from results.ledger import Run

ORDER = ("cold", "qa", "mvp", "mvp_qa", "mvp_exact", "mvp_slot")
FAMILIES = ("order", "cause", "count")
PLAIN = (*FAMILIES, "questions", "exact", "K = 2", "K = 3", "sel", "ord")
REVERSED = ("order", "exact", "backwards")
PROBE = "reversed"


def numbers(run: Run) -> dict[str, float]:
    """Fractions, by PLAIN and `backwards`; of a run under a probe too."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in run.rows:
        if row.kind != "ordering":
            found["questions"].append(row.score)
            if (family := row.tags.get("family", "")) in FAMILIES:
                found[family].append(row.score)
            continue
        k, _, marks = of_row(row)
        for name in ("exact", "sel", "ord"):
            found[name].append(getattr(marks, name))
        found[f"K = {k}"].append(marks.exact)
        said = row.prediction and numbers_of(row.prediction)
        found["backwards"].append(float(said == numbers_of(row.gold)[::-1]))
    return {name: statistics.fmean(values) for name, values in found.items()}


def markdown(runs: Sequence[Run]) -> str:
    """Both tables, arms in ORDER, then the others."""
    plain, probed = _by_arm(runs, ""), _by_arm(runs, PROBE)
    tables = [_table(plain, PLAIN)]
    if probed:
        tables += ["Asked backwards:", _table(probed, REVERSED)]
    return "\n\n".join(tables)


def _by_arm(runs: Sequence[Run], probe: str) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in runs:
        if run.probe == probe:
            found[run.record.arm].append(numbers(run))
    return found


def _table(by_arm: Mapping[str, list[dict[str, float]]], columns: Sequence[str]) -> str:
    lines = []
    for arm in in_order(by_arm, ORDER):
        found = by_arm[arm]
        cells = (cell([each[name] for each in found if name in each]) for name in columns)
        lines.append((label(arm), str(len(found)), *cells))
    return table(columns, lines)


def block(folder: Path) -> str:
    """What stands between the marks of README.md."""
    return marked(markdown(whole(folder)), "masked_table")


if __name__ == "__main__":
    at = Path(sys.argv[1]) if sys.argv[1:] else committed() / "mvp" / "microworld"
    print(block(at))
