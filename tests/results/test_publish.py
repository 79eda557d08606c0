"""What is committed follows from the runs, byte for byte, and says every word with its number."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml

from results import export, ledger, publish
from results.publish import BEGIN, END, load_board, scoreboard_markdown, verify_all
from results.schema import LedgerError
from results.scoreboard import Board

ROOT = Path(publish.__file__).parents[1]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, paper_suite: Path) -> Path:
    """A copy of what publish reads: reported numbers, some of the runs, a README."""
    tmp_path = tmp_path_factory.mktemp("repository")
    for path in ROOT.glob("repro/*/reported.yaml"):
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    runs = tmp_path / "results" / "runs" / "ktr"
    for place in (
        "videommmu",
        *(f"microworld/{arm}-s{s}" for arm in ("ktr", "grpo") for s in (0, 1)),
    ):
        shutil.copytree(paper_suite / "ktr" / place, runs / place)
    (tmp_path / "README.md").write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n")
    publish.publish(tmp_path)
    return tmp_path


@pytest.fixture
def repository(tmp_path: Path, published: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return tmp_path


# --- the board -----------------------------------------------------------------------------


def test_every_word_is_there(board: Board) -> None:
    found = {
        (entry.row, entry.benchmark): entry.shown.verdict.text
        for entry in board.entries
        if entry.shown.verdict.word != "not run"
    }
    assert found == {
        ("Video-KTR, 64 frames", "Video-MMMU"): "reproduced",
        ("Video-KTR, 64 frames", "MMVU"): "within noise",
        ("Video-KTR, 16 frames", "Video-MMMU"): "below",
        ("Video-KTR, 16 frames", "MMVU"): "above",
        ("Video-KTR, 64 frames", "TempCompass"): "failed",
        ("Video-KTR, 32 frames", "MMVU"): "not comparable (prompt)",
        ("Video-KTR, 32 frames", "Video-MMMU"): "within noise",
        ("Vanilla GRPO, 32 frames", "Video-MMMU"): "within noise",
    }
    ktr = next(part for part in board.papers if part.paper.id == "ktr")
    assert (ktr.score.word, ktr.trained.word) == ("below", "open")
    assert (ktr.score.reproduced, ktr.score.counted) == (1, 4)


def test_a_number_printed_twice_is_one_entry_with_the_claims_of_both(board: Board) -> None:
    entries = [e for e in board.entries if (e.row, e.benchmark) == ("Video-KTR, 32 frames", "MMVU")]
    assert len(entries) == 1
    rivals = {claim.cell.against.model.name for claim in entries[0].claims if claim.cell.against}
    assert {"Qwen2.5-VL-SFT", "Vanilla GRPO", "T-GRPO"} <= rivals


def test_claims_of_trained_arms_stand_beside_the_printed_gain(board: Board) -> None:
    entry = next(
        e for e in board.entries if (e.row, e.benchmark) == ("Video-KTR, 32 frames", "Video-MMMU")
    )
    measured = [c for c in entry.claims if c.claim.delta is not None]
    assert [(c.claim.method, c.claim.baseline) for c in measured] == [("ktr", "grpo")]
    assert measured[0].printed == pytest.approx(0.526 - 0.498)
    assert measured[0].claim.seeds == 3 and "another protocol" in measured[0].claim.excluded[0]


def test_markdown_is_a_table_and_nothing_breaks_it(board: Board) -> None:
    text = publish.scoreboard_file(board)
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") - line.count("\\|") >= 3
    assert "not comparable (prompt)" in text and "CUDA out of memory" in text
    assert publish._plain("a | b\n<c>") == "a \\| b &lt;c>"
    brief = scoreboard_markdown(board, brief=True)
    assert board.headline in brief and len(brief) < len(text)
    assert "### Micro profile" in brief and "## Micro profile" in text


def test_micro_and_paper_numbers_never_share_a_table(board: Board) -> None:
    paper, micro = scoreboard_markdown(board).split("Micro profile")
    assert "microworld" not in paper and "Video-KTR" not in micro
    micro, paper = scoreboard_markdown(board, brief=True).split("Printed numbers")
    assert "microworld" not in paper and "Video-KTR" not in micro
    assert not any(
        e.shown.runs and e.shown.runs[0].record.profile == "micro" for e in board.entries
    )


def test_an_empty_ledger_says_so(tmp_path: Path) -> None:
    board, runs = load_board(ROOT, tmp_path / "nothing")
    assert runs == [] and board.headline.startswith("No printed number counts yet")
    assert set(board.words) >= {"reproduced", "not run"} and board.words["reproduced"] == 0


# --- verify --------------------------------------------------------------------------------


def test_what_was_published_verifies(repository: Path) -> None:
    found = verify_all(repository)
    assert found.problems == () and found.runs == 28 and found.files == 3
    assert publish.publish(repository) == []
    readme = (repository / "README.md").read_text()
    assert readme.startswith("# Title\n") and readme.endswith("\n\nThe rest.\n")
    assert "old" not in readme.split(BEGIN)[1]


def test_a_changed_byte_is_found(repository: Path) -> None:
    for name in ("SCOREBOARD.md", "README.md", "results/report.json"):
        path = repository / name
        text = path.read_text()
        path.write_text(text.replace("reproduced", "Reproduced", 1))
        assert [p.split(" differs")[0] for p in verify_all(repository).problems] == [name]
        path.write_text(text)
    (repository / "SCOREBOARD.md").unlink()
    assert verify_all(repository).problems == (
        "SCOREBOARD.md is missing; `repro report` writes it",
    )


def test_a_changed_score_is_found_twice(repository: Path) -> None:
    """In the record, against its rows; and nothing else, for words come from rows alone."""
    path = next((repository / "results" / "runs").rglob("released-*/record.json"))
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "score": data["score"] + 0.05}))
    problems = verify_all(repository).problems
    assert len(problems) == 1 and "score is" in problems[0]
    assert problems[0].startswith("results/runs/ktr/videommmu/released-s")


def test_a_missing_run_changes_the_board(repository: Path) -> None:
    shutil.rmtree(next((repository / "results" / "runs" / "ktr").glob("videommmu/released-s2-*")))
    names = {p.split(" ")[0] for p in verify_all(repository).problems}
    assert "SCOREBOARD.md" in names and "results/report.json" in names


def test_damaged_rows_stop_it(repository: Path) -> None:
    next((repository / "results" / "runs").rglob("rows.jsonl.gz")).write_bytes(b"x")
    with pytest.raises(LedgerError, match="has changed"):
        verify_all(repository)


@pytest.mark.parametrize("text", ["no block", f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_needs_its_block(board: Board, text: str) -> None:
    with pytest.raises(LedgerError, match=r"README\.md needs one"):
        publish.readme_with(text, board)


# --- export --------------------------------------------------------------------------------


def test_csv_has_a_line_per_run(paper_suite: Path) -> None:
    runs = ledger.load(paper_suite)
    lines = list(csv.DictReader(io.StringIO(export.to_csv(runs))))
    assert len(lines) == len(runs) and set(lines[0]) == set(export.COLUMNS)
    first = runs[0].record
    assert float(lines[0]["score"]) == first.score and lines[0]["image"] == (first.image or "")
    assert int(lines[0]["correct"]) == first.outcomes["correct"]


def test_a_spreadsheet_runs_nothing(paper_suite: Path) -> None:
    import dataclasses

    run = ledger.load(paper_suite)[0]
    evil = dataclasses.replace(run.record, who="=HYPERLINK(1)", seed=-3)
    line = next(csv.DictReader(io.StringIO(export.to_csv([ledger.Run(evil, run.rows)]))))
    assert line["who"] == "'=HYPERLINK(1)" and line["seed"] == "-3"


def test_model_index(paper_suite: Path) -> None:
    runs = [r for r in ledger.load(paper_suite) if r.record.arm == "released"]
    data = yaml.safe_load(export.to_model_index(runs))
    entry = data["model-index"][0]
    assert entry["name"] == "Video-KTR/Video-KTR-7B" and len(entry["results"]) == len(runs)
    first = entry["results"][0]
    assert set(first) == {"task", "dataset", "metrics"}
    assert first["metrics"][0]["value"] == round(100 * runs[0].record.score, 2)
    with pytest.raises(LedgerError, match="one model, found ktr-s0, ktr-s1"):
        export.to_model_index([r for r in ledger.load(paper_suite / "ktr" / "videommmu")
                               if r.record.arm == "ktr" and r.record.seed < 2])  # fmt: skip
    with pytest.raises(LedgerError, match="no whole run"):
        export.to_model_index([])
