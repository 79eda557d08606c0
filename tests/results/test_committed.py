"""`repro verify` as a test: what is committed follows from the committed rows, byte for byte."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from evals.types import Protocol
from results import ledger, publish
from results.protocol import LEFT_OUT

ROOT = Path(publish.__file__).parents[1]


@pytest.fixture(scope="module")
def runs() -> list[ledger.Run]:
    return ledger.load(ROOT / "results" / "runs")


def test_the_committed_results_verify() -> None:
    found = publish.verify_all(ROOT)
    assert found.problems == (), "`repro report` writes them again; look at what changed"
    assert found.runs >= 32 and found.files == 3


def test_every_committed_protocol_can_be_asked_again(runs: list[ledger.Run]) -> None:
    """No recorded field is gone, and what a record leaves out means the same on both sides."""
    known = {field.name: field for field in fields(Protocol)}
    for run in runs:
        assert set(run.record.protocol) <= set(known), "a field of committed runs is gone"
        lacking = set(known) - set(run.record.protocol)
        assert lacking <= set(LEFT_OUT), "say in results.protocol.LEFT_OUT what they stand for"
    for name in set(LEFT_OUT) & set(known):
        assert known[name].default == LEFT_OUT[name], name
