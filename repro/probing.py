"""What a probe costs: the plain run's score minus the probed one's, question by question.

The interval is over videos (clusters), since the questions of one video fall together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evals.errors import NotComparable
from evals.probes import GAINS
from results.ledger import Run
from results.policy import Policy
from results.stats import Interval, clustered_interval


@dataclass(frozen=True)
class Gain:
    """Fractions. difference: plain minus probed, with its interval. name: "video gain", "order
    gain", or "" where the field has no word for it."""

    probe: str
    name: str
    plain: float
    probed: float
    difference: Interval
    questions: int
    clusters: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "name": self.name,
            "score": self.probed,
            "difference": self.difference.estimate,
            "interval": [self.difference.low, self.difference.high],
            "questions": self.questions,
            "videos": self.clusters,
        }

    def line(self) -> tuple[str, ...]:
        """Cells of a table, in points."""
        d = self.difference
        return (
            self.probe, f"{100 * self.probed:.1f} %", f"{100 * d.estimate:+.1f}",
            f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]", self.name,
        )  # fmt: skip


def gain(probe: str, plain: Run, probed: Run, policy: Policy) -> Gain:
    """Raises NotComparable unless both runs asked the same questions of the same model."""
    a, b = plain.items, probed.items
    if a.ids != b.ids or plain.record.model != probed.record.model:
        raise NotComparable(f"the run under {probe} asked other questions or another model")
    difference = clustered_interval(
        a.scores - b.scores, a.clusters, policy.level, policy.draws, policy.draw_seed
    )
    return Gain(
        probe, GAINS.get(probe, ""), plain.record.score, probed.record.score, difference,
        len(a.ids), len(set(a.clusters.tolist())),
    )  # fmt: skip
