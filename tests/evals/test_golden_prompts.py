"""Every prompt of every protocol, letter by letter, against strings written out in full."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from evals import protocols
from evals.benchmarks import OWNED
from evals.benchmarks._records import Files, Record
from evals.prompts import Turn, render

CASES: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("golden_prompts.yaml").read_text(encoding="utf-8")
)


def name(case: dict[str, Any]) -> str:
    return f"{case['benchmark']}-{case['protocol']}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_exact(case: dict[str, Any], tmp_path: Path) -> None:
    module = importlib.import_module(f"evals.benchmarks.{case['benchmark']}")
    row = {**module.GOLDEN.row, **case.get("row", {})}
    files = Files(case["benchmark"], tmp_path)
    sample = module.sample(Record(row, "golden, record 1"), files)
    turn = render(sample, protocols.load(case["protocol"], case["benchmark"]), (0.0, 1.0))
    expected = Turn(
        case.get("system"), case.get("before", ""), case["text"], case.get("prefix", "")
    )
    assert turn == expected


def test_every_template_has_a_golden_string() -> None:
    """Of each protocol; those with subtitles are in test_owned."""
    seen = {protocols.load(c["protocol"], c["benchmark"]).prompt for c in CASES}
    for own in OWNED:
        golden = importlib.import_module(f"evals.benchmarks.{own}").GOLDEN
        seen.add(protocols.load(golden.protocol, own).prompt)
    written = {
        f"{base}/{key}"
        for base in protocols.names()
        for key in protocols.document(base).get("prompts") or {}
    }
    assert written - seen == set()
