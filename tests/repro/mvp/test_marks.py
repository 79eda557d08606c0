"""Marks of a run's rows by number of missing pictures, against golden vectors of the rewards."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.types import Row
from repro.cli import cli
from repro.mvp.marks import by_tier
from repro.mvp.rewards import chance
from results import filing, ledger
from results.schema import Record, rows_from
from tests.repro.test_grid import run_of

FOUR, TWO = {"family": "masked 4+4"}, {"family": "mvp 2+2"}


def row(number: int, gold: str, said: str | None, tags: dict[str, str], **more: str) -> Row:
    outcome = "unparsed" if said is None else "correct" if said == gold else "wrong"
    found = {"kind": "ordering", "outcome": outcome, **more}
    return Row(f"q{number}", 0, "film", found["kind"], gold, said, found["outcome"],
               float(said == gold), 9, tags)  # fmt: skip


ROWS = [
    row(0, "3, 7, 1, 5", "3, 1, 7, 5", FOUR),  # sel 1, ord 5/6
    row(1, "3, 7, 1, 5", "2, 3, 7, 1", FOUR),  # sel 3/4, ord 1/2
    row(2, "3, 7, 1, 5", "3, 7, 1", FOUR),  # not valid
    row(3, "4, 1", "4, 1", TWO),
    row(4, "4, 1", None, TWO),
    row(5, "4, 1", None, TWO, outcome="undecodable"),
    row(6, "B", "B", {"family": "count"}, kind="multiple choice"),
]


def test_tiers() -> None:
    two, four = by_tier(ROWS)
    assert (two.k, two.m, two.n, four.k, four.m, four.n) == (2, 4, 2, 4, 8, 3)
    assert (two.found.valid, two.found.sel, two.found.exact) == (0.5, 0.5, 0.5)
    assert four.found.sel == pytest.approx((1 + 0.75) / 3)
    assert four.found.ord == pytest.approx((5 / 6 + 1 / 2) / 3)
    assert (four.found.exact, four.found.valid) == (0, pytest.approx(2 / 3))
    assert four.chance == chance(4, 8) and by_tier(ROWS[-1:]) == []


def test_the_command(tmp_path: Path) -> None:
    from repro.grid import grid
    from repro.recipe import Recipe

    (protocol,) = {a.protocol for a in grid(Recipe.load("ktr", "paper"))
                   if a.name == "mmvu/32f-256px"}  # fmt: skip
    made = run_of("mmvu", protocol, 0, model="m", arm="mvp").record
    kept = {f.name: getattr(made, f.name) for f in fields(Record) if f.name not in filing.COMPUTED}
    rows = [{k: v for k, v in asdict(r).items() if k not in ("reply", "detail")} for r in ROWS]
    kept |= asdict(ledger.summarise(rows_from(rows)))
    ledger.write(kept, rows, tmp_path / "run")
    done = CliRunner().invoke(cli, ["data", "marks", "mvp", str(tmp_path)])
    assert done.exit_code == 0, (done.output, done.exception)
    line = next(x for x in done.output.splitlines() if "4 of 8" in x)
    assert line.split()[:2] == ["mvp", "0"] and "0.583 (0.500)" in line
    done = CliRunner().invoke(cli, ["data", "marks", "mvp", str(tmp_path), "--json"])
    assert [x["k"] for x in json.loads(done.stdout)] == [2, 4]
