"""Temporal-R1's own switches: which reward terms count, on which records, and whose standard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from evals.errors import BadInput
from repro import recipe

SELECTION = Path(__file__).with_name("selection.json")


@dataclass(frozen=True)
class Terms:
    """Weight of each reward term. 0 turns a term off: `accuracy` is the semantic reward, `tiou` the
    temporal one; `form` is earned by every kind of question. Of a grounded question the released
    weights give half to each content term (repro.temporal_r1.rewards)."""

    accuracy: float
    tiou: float
    form: float


@dataclass(frozen=True, kw_only=True)
class Switches(recipe.Switches):
    """reading: how a completion is read and its form judged (repro.temporal_r1.rewards). terms:
    factors of the preset's own weights. records: all; those that `repro data select` kept
    (selected.ids); or as many of every family and kind, drawn at random under the seed. answers:
    how the supervised arm is taught to write its JSON (repro.temporal_r1.demonstrations).
    """

    reading: Literal["released", "paper"]
    terms: Terms
    records: Literal["all", "selected", "random"]
    answers: Literal["one line", "several lines"] = "one line"

    methods: ClassVar[tuple[str, ...]] = ("temporal_r1", "sft")

    def require_records(self, data: recipe.Data) -> None:
        """What was selected is of one pool (selection.json); no other profile has these records."""
        if self.records == "all":
            return
        of = json.loads(SELECTION.read_text(encoding="utf-8"))["data"]
        if (of["name"], of["split"]) != (data.records, data.split):
            raise BadInput(
                f"{SELECTION} is a selection out of {of['name']} {of['split']}, and this profile "
                f"trains on {data.records}: choose from these with repro data select --recipe "
                "temporal_r1 --profile NAME --keep 10%, and train an arm that takes all records on "
                "what it writes: repro train --data FILE --videos DIR"
            )
