"""Demonstrations in Temporal-R1's form: the answer block holds JSON, every value quoted.

| kind of question   | answer (temporal_r1.md 1.1)                                  |
|--------------------|--------------------------------------------------------------|
| multiple choice    | {"option": "B"}                                              |
| temporal grounding | {"start_time": "1.5", "end_time": "3.0"}                     |
| grounded qa        | {"option": "B", "start_time": "1.5", "end_time": "3.0"}      |

The paper's supervised arm writes each pair in a line of its own: it is asked without thinking, and
of one line the released parser for that reads no interval (4.2).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from evals.extract import intervals
from evals.types import Sample
from repro.core.demonstrations import Demonstration
from repro.recipe import Recipe
from repro.temporal_r1.switches import Switches

#: What the student of ktr, from which this one goes on, would spell letter by letter (chosen).
TOKENS = (
    "<think>I see", "</think>", '<answer>{"option": "', '<answer>{"start_time": "',
    '", "start_time": "', '", "end_time": "', '"}</answer>',
)  # fmt: skip


def shown(read: Sequence[Demonstration], recipe: Recipe, seed: int) -> list[Demonstration]:
    """The same demonstrations, their answer written as `answer` does."""
    return [replace(d, completion=_written(d)) for d in read]


def answer(sample: Sample, switches: Switches | None = None) -> str:
    """The answer block of a sample's gold; of several true intervals the first. switches: whether
    in several lines."""
    said: dict[str, str] = {}
    if sample.kind != "temporal grounding":
        said["option"] = sample.gold.strip()[:1]
    if sample.kind != "multiple choice":
        start, end = intervals(sample.gold)[0]
        said |= {"start_time": f"{start:.1f}", "end_time": f"{end:.1f}"}
    lines = switches is not None and switches.answers == "several lines"
    return f"<answer>{json.dumps(said, indent=0 if lines else None)}</answer>"


def _written(shown: Demonstration) -> str:
    process, _, _ = shown.completion.rpartition("<answer>")
    return process + answer(shown.sample)
