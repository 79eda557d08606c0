"""While an arm trains: its curves against the band of the committed reference seeds.

At 10, 25 and 50 % of its steps one sentence says whether the run learns as the references did
(results.envelope). It never stops a run: that is the user's to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repro.conclude import committed, ledger_errors
from results import envelope, ledger
from results.ledger import Run
from results.policy import load_policy
from results.schema import curves_from


def watch(
    paper: str, profile: str, arm: str, seed: int, steps: int, out: Path, say: Callable[[str], None]
) -> Callable[[int], None]:
    """A function to call after every step, when its line is in out/metrics.jsonl; silent where no
    reference is committed. steps: that the run is planned for.

    The seed's own reference run is left out: a run is not held against itself.
    """
    references = _references(paper, profile, arm, seed)
    policy, at = load_policy(), set(envelope.points(steps))

    def seen(step: int) -> None:
        if not references or step not in at:
            return
        path = out / ledger.CURVES
        with ledger_errors():
            lines = curves_from(path.read_text(encoding="utf-8"), str(path))
            found = envelope.check(lines, references, steps, policy)
        say(f"{arm}-s{seed} step {step}: {found.word}; {found.reason}")

    return seen


def _references(
    paper: str, profile: str, arm: str, seed: int
) -> list[tuple[Mapping[str, Any], ...]]:
    at = committed(paper)
    if not at.is_dir():
        return []
    with ledger_errors():
        runs = ledger.load(
            at, only=lambda r: (r.profile, r.arm) == (profile, arm) and r.seed != seed
        )
    found: dict[int, Run] = {run.record.seed: run for run in runs if run.curves}
    return [run.curves for _, run in sorted(found.items())]
