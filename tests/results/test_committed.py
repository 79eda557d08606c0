"""`repro verify` as a test: what is committed follows from the committed rows, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from results import ledger, publish
from results.protocol import hashed, key

ROOT = Path(publish.__file__).parents[1]


@pytest.fixture(scope="module")
def runs() -> list[ledger.Run]:
    return ledger.load(ROOT / "results" / "runs")


def test_the_committed_results_verify() -> None:
    found = publish.verify_all(ROOT)
    assert found.problems == (), "`repro report` writes them again; look at what changed"
    assert found.runs >= 32 and found.files == 3


def test_hashes_of_protocols_are_those_of_their_fields(runs: list[ledger.Run]) -> None:
    """So that an early record can be given what later ones say, see results.protocol.key."""
    for run in runs:
        assert run.record.protocol_hash == hashed(run.record.protocol)
        assert len(key(run.record)) == 8


def test_every_committed_protocol_can_be_asked_again(runs: list[ledger.Run]) -> None:
    """A field that evals.types.Protocol gained needs its early value in results.protocol.ADDED."""
    from evals.types import Protocol
    from results.protocol import ADDED

    today = Protocol("x").as_dict()
    for run in runs:
        lacking = set(today) - set(run.record.protocol) - set(ADDED)
        assert not lacking, f"say in results.protocol.ADDED what runs did before {lacking}"
        assert set(run.record.protocol) <= set(today), "a field of committed runs is gone"
