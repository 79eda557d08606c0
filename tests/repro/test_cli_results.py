"""The commands about the ledger, on real records: list, report, gate, ledger add, export."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from repro.cli import cli
from results import filing, ledger
from results.schema import Record

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "results" / "runs"
COLD = RUNS / "ktr" / "microworld" / "cold-s0-greedy"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def said(code: int, *words: object) -> str:
    result = run(*words)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def again(source: Path, target: Path, flip: Sequence[str] = (), **more: Any) -> Path:
    """A copy of a run, whose `flip` questions are answered wrongly."""
    found = ledger.read(source)
    rows = [asdict(row) for row in found.rows]
    for row in rows:
        if row["id"] in flip:
            row |= {"outcome": "wrong", "score": 0.0, "prediction": "Z"}
    computed = ("score", "outcomes", "by_tag", *filing.COMPUTED)
    kept = {f.name: getattr(found.record, f.name) for f in fields(Record)}
    ledger.write({k: v for k, v in kept.items() if k not in computed} | more, rows, target)
    return target


def right(source: Path) -> list[str]:
    """Questions that a run answers."""
    return [row.id for row in ledger.read(source).rows if row.score == 1]


# --- list ----------------------------------------------------------------------------------


def test_list_has_papers_cells_and_status() -> None:
    found = json.loads(said(0, "list", "--json"))
    papers = {paper["paper"]: paper for paper in found["papers"]}
    assert {"ffr", "ktr", "mvp", "temporal_r1"} == set(papers)
    cells = papers["ktr"]["cells"]
    (cell,) = [c for c in cells if c["id"] == "ktr/main/video-ktr@64/video_holmes/accuracy score"]
    assert cell["printed"] == "42.7" and cell["word"] == "not run" and cell["registered"]
    assert cell["reason"] == "needs a GPU" and cell["margin"] == 0.015
    assert papers["mvp"]["cells"] == [] and "could not be had" in papers["mvp"]["status"]
    assert papers["mvp"]["not_available"] == ["main table", "all ablations"]
    assert papers["ktr"]["not_available"] == []
    (line,) = (x for x in said(0, "list", "mvp").splitlines() if x.startswith("main table"))
    assert "not available" in line and "not run" in line
    text = said(0, "list")
    assert "ktr: Video-KTR" in text and f"{len(cells)} cells: {len(cells)} not run" in text


def test_list_of_one_paper() -> None:
    text = said(0, "list", "ktr")
    assert "ktr/main/video-ktr@64/video_holmes/accuracy score" in text
    assert "needs a GPU" in text and "claim over" in text
    registered = len(json.loads(said(0, "list", "ktr", "--json"))["papers"][0]["cells"])
    everything = json.loads(said(0, "list", "ktr", "--all", "--json"))["papers"][0]["cells"]
    assert len(everything) > registered
    assert "did you mean 'ktr'" in said(2, "list", "kt")


# --- gate ----------------------------------------------------------------------------------


def test_the_gate_lets_equal_runs_pass_and_names_a_regression(tmp_path: Path) -> None:
    before, same, worse = tmp_path / "before", tmp_path / "same", tmp_path / "worse"
    shutil.copytree(COLD, before / "a")
    again(COLD, same / "a")
    again(COLD, worse / "a", right(COLD)[:60])
    assert "gate: ok" in said(0, "gate", same, "--baseline", before)
    text = said(6, "gate", worse, "--baseline", before)
    assert "gate: regression" in text and "-4.7" in text
    found = json.loads(said(6, "gate", worse, "--baseline", before, "--json"))
    assert found["checks"][0]["lost"] == 60 and found["word"] == "regression"


def test_the_gate_refuses_what_does_not_compare(tmp_path: Path) -> None:
    other = again(COLD, tmp_path / "other" / "a", model={"id": "x", "revision": None,
                                                        "sha256": "0" * 64})  # fmt: skip
    assert "weights differ" in said(3, "gate", other.parent, "--baseline", COLD)
    text = said(3, "gate", COLD, "--baseline", RUNS / "ktr")
    assert "has a baseline but was not run again" in text
    text = said(0, "gate", COLD, "--baseline", RUNS / "ktr", "--allow-missing")
    assert "not run again: ktr microworld grpo s0" in text and "gate: ok" in text
    (tmp_path / "empty").mkdir()
    assert "holds no record.json" in said(2, "gate", tmp_path / "empty", "--baseline", COLD)
    assert "neither a folder nor a git revision" in said(2, "gate", "--baseline", "no-such-ref")


def test_the_gate_reads_a_git_revision() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    text = said(0, "gate", COLD, "--baseline", "HEAD", "--allow-missing")
    assert "ktr microworld cold s0 greedy" in text and "gate: ok" in text


# --- ledger add ----------------------------------------------------------------------------


def test_records_from_elsewhere_are_filed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "ledger"))
    again(COLD, tmp_path / "mine" / "whatever")
    place = tmp_path / "ledger" / "ktr" / "microworld" / "cold-s0-greedy"
    assert f"sound: {place}" in said(0, "ledger", "add", tmp_path / "mine", "--dry-run")
    assert not (tmp_path / "ledger").exists()
    assert f"filed: {place}" in said(0, "ledger", "add", tmp_path / "mine")
    assert "already there" in said(0, "ledger", "add", tmp_path / "mine")
    assert "1 runs computed again, 0 differences" in said(0, "verify")
    again(COLD, tmp_path / "other" / "x", right(COLD)[:3])
    assert "another run is filed" in said(2, "ledger", "add", tmp_path / "other")
    assert ledger.read(place).record.score == ledger.read(COLD).record.score


def test_an_empty_ledger_leaves_the_carried_runs_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image's $REPRO_RUNS is a volume, at first an empty one."""
    from repro.conclude import committed, home, published

    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    carried = ROOT / "results" / "runs"
    assert home() == tmp_path and committed() == carried and published()
    again(COLD, tmp_path / "ktr-micro" / "cold")
    assert committed() == tmp_path and not published()
    assert committed("ktr", "microworld") == carried / "ktr" / "microworld", "beside fresh runs"


def test_a_bad_record_files_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "ledger"))
    again(COLD, tmp_path / "mine" / "good")
    bad = again(COLD, tmp_path / "mine" / "zbad", seed=1)
    record = json.loads((bad / "record.json").read_text())
    (bad / "record.json").write_text(json.dumps({**record, "score": 0.99}))
    assert "score is 0.99" in said(2, "ledger", "add", tmp_path / "mine")
    (bad / "record.json").write_text(json.dumps({**record, "colour": "red"}))
    assert "unknown keys: colour" in said(2, "ledger", "add", tmp_path / "mine")
    assert not (tmp_path / "ledger").exists()


# --- export, report ------------------------------------------------------------------------


def test_export(tmp_path: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(said(0, "export", COLD))))
    assert len(lines) == 1 and lines[0]["arm"] == "cold"
    said(0, "export", "--model", "ktr-s0", "--format", "model-index", "--out", tmp_path / "i.yaml")
    index = yaml.safe_load((tmp_path / "i.yaml").read_text())["model-index"][0]
    assert index["name"] == "ktr-s0" and len(index["results"]) == 2
    assert "a model index is about one model" in said(2, "export", "--format", "model-index")
    assert "holds no run of nobody" in said(2, "export", "--model", "nobody")


def test_report_of_a_folder_and_its_exit_code(tmp_path: Path) -> None:
    shutil.copytree(COLD.parent / "ktr-s0-greedy", tmp_path / "runs" / "a")
    shutil.copytree(COLD.parent / "grpo-s0-greedy", tmp_path / "runs" / "b")
    text = said(0, "report", tmp_path / "runs")
    assert "undecided (1 seed)" in text and "reference" in text
    assert (tmp_path / "runs" / "report.html").stat().st_size < 2_000_000
    assert said(5, "report", tmp_path / "runs", "--exit-code").startswith("ktr, micro")


def test_the_whole_report_to_a_file_publishes_nothing(tmp_path: Path) -> None:
    before = (ROOT / "SCOREBOARD.md").read_bytes()
    found = json.loads(said(0, "report", "--out", tmp_path / "all.html", "--json"))
    assert found["changed"] == [] and (tmp_path / "all.html").exists()
    assert (ROOT / "SCOREBOARD.md").read_bytes() == before
    assert {paper["paper"] for paper in found["papers"]} >= {"ktr", "ffr"}


@pytest.mark.parametrize(
    ("name", "says"), [("ktr", "video-r1@64f"), ("temporal_r1", "temporal-r1@no-think")]
)
def test_the_command_on_a_card_is_one_that_is_taken(name: str, says: str) -> None:
    """Every option exists, every protocol and arm too."""
    import shlex

    from evals import protocols
    from repro.conclude import how_to_run
    from repro.recipe import Recipe
    from results.cells import cells
    from results.reported import load_reported

    paper = load_reported(ROOT / "repro" / name / "reported.yaml")
    texts = {how_to_run(cell) for cell in cells(paper)}
    assert any(f"--protocol {says}" in text for text in texts)
    arms = Recipe.load(name, "paper").arms
    bigger = [text for text in texts if "_7b" in text and text.startswith("repro reproduce")]
    assert all("--profile paper_7b" in text for text in bigger)
    assert bool(bigger) == (name == "temporal_r1")
    for text in texts - {""}:
        program, verb, *words = shlex.split(text, comments=True)
        command = cli.commands[verb]
        with command.make_context(verb, words) as context:
            assert program == "repro"
            for arm in (context.params.get("arms") or "").split(","):
                assert arm in {"", *arms}, text
            if verb == "eval":
                protocols.load(context.params["protocol"], context.params["benchmark"])
