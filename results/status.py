"""Every cell of a paper with its word: what `repro list` shows and what a machine may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from results.cells import Cell, cells, judge
from results.claims import Claim, NotComparable, rounded
from results.ledger import Run
from results.policy import Policy
from results.printed import Paper
from results.verdict import Verdict, ledger_spread


@dataclass(frozen=True)
class Status:
    """A cell and its answer; `reason` is one sentence."""

    cell: Cell
    word: str
    reason: str
    answer: Verdict | Claim | None = None

    @property
    def printed(self) -> str:
        """The number or the gain, as printed."""
        gain = self.cell.printed_gain
        return self.cell.reported.printed if gain is None else f"{100 * gain:+.1f}"

    @property
    def ours(self) -> float | None:
        """Our score, or our gain for a claim; a fraction."""
        if isinstance(self.answer, Claim):
            return self.answer.delta
        return self.answer.score if self.answer else None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        number, margin = self.cell.reported, self.cell.margin
        return {
            "id": self.cell.id,
            "kind": self.cell.kind,
            "registered": self.cell.registered,
            "benchmark": number.benchmark,
            "metric": number.metric,
            "printed": self.printed,
            "unit": number.unit,
            "source": number.source,
            "verified": number.verified,
            "margin": rounded(margin.value if margin else None),
            "word": self.word,
            "reason": self.reason,
            "verdict": self.answer.as_dict() if self.answer else None,
        }


def statuses(paper: Paper, runs: Sequence[Run], policy: Policy) -> list[Status]:
    """Every cell of `paper`, exploratory ones too, in the order of its file."""
    spread = ledger_spread([run for run in runs if run.record.profile != "micro"])
    found = []
    for cell in cells(paper, policy=policy):
        try:
            answer = judge(cell, runs, policy, spread=spread)
        except NotComparable as error:
            found.append(Status(cell, "not comparable", str(error)))
            continue
        reason = cell.reason if answer.word == "not run" else answer.reason
        found.append(Status(cell, answer.text, reason, answer))
    return found
