"""Runs from elsewhere: nothing is believed that the rows can say, and nothing is overwritten."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results import filing, ledger
from results.filing import Failure
from results.ledger import Run
from results.schema import LedgerError

Maker = Callable[..., Run]


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """Where the other host wrote (the folder of `maker`)."""
    return tmp_path / "made"


def test_every_run_finds_its_place(maker: Maker, away: Path, tmp_path: Path) -> None:
    maker("grpo", 0)
    maker("grpo", 0, greedy=True)
    maker(
        "released", 3, profile="paper",
        model={"id": "Video-KTR/Video-KTR-7B", "revision": "ab" * 20, "sha256": None},
    )  # fmt: skip
    root = tmp_path / "runs"
    done = filing.add(away, root)
    assert [str(each.path.relative_to(root)) for each in done] == [
        "ktr/microworld/grpo-s0",
        "ktr/microworld/grpo-s0-greedy",
        "ktr/microworld/Video-KTR--Video-KTR-7B@abababab-5a5a0008-s3-240",
    ]
    assert {each.word for each in done} == {"filed"}
    filed = ledger.load(root)
    assert len(filed) == 3 and all(ledger.verify(run) == [] for run in filed)
    assert next(r for r in filed if r.record.arm == "grpo" and not r.greedy).curves


def test_filing_again_changes_nothing(maker: Maker, away: Path, tmp_path: Path) -> None:
    maker("grpo", 0)
    root = tmp_path / "runs"
    target = filing.add(away, root)[0].path
    before = {p.name: p.read_bytes() for p in target.iterdir()}
    assert filing.add(away, root)[0].word == "already there"
    assert {p.name: p.read_bytes() for p in target.iterdir()} == before


def test_the_hash_is_of_the_file_as_filed(maker: Maker, away: Path, tmp_path: Path) -> None:
    """Another host's compressor gives other bytes; the rows are the same run."""
    run = maker("grpo", 0)
    assert run.directory is not None
    rows = run.directory / "rows.jsonl.gz"
    packed = gzip.compress(gzip.decompress(rows.read_bytes()), compresslevel=1)
    rows.write_bytes(packed)
    record = json.loads((run.directory / "record.json").read_text())
    import hashlib

    record["rows"]["sha256"] = hashlib.sha256(packed).hexdigest()
    (run.directory / "record.json").write_text(json.dumps(record))
    filed = ledger.read(filing.add(away, tmp_path / "runs")[0].path)
    assert filed.rows == run.rows and filed.record.rows["sha256"] != record["rows"]["sha256"]


def test_a_record_of_version_1_is_filed_as_version_2(
    maker: Maker, away: Path, tmp_path: Path
) -> None:
    run = maker("grpo", 0)
    assert run.directory is not None
    path = run.directory / "record.json"
    data = json.loads(path.read_text())
    for name in ("batch", "image", "gpu_hours", "finished"):
        del data[name]
    del data["machine"]["driver"]
    path.write_text(json.dumps({**data, "schema": 1}))
    old = ledger.read(run.directory)
    assert (old.record.schema, old.record.image, old.record.machine["driver"]) == (1, None, None)
    filed = ledger.read(filing.add(away, tmp_path / "runs")[0].path)
    assert filed.record.schema == 2 and filed.rows == run.rows


def test_another_run_in_the_same_place_is_refused(maker: Maker, away: Path, tmp_path: Path) -> None:
    maker("grpo", 0)
    root = tmp_path / "runs"
    filing.add(away, root)
    kept = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    maker("grpo", 0, 0.2)
    with pytest.raises(LedgerError, match="another run is filed"):
        filing.add(away, root)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == kept


def test_one_bad_run_files_none(maker: Maker, away: Path, tmp_path: Path) -> None:
    maker("grpo", 0)
    maker("ktr", 0, partial=True)
    with pytest.raises(LedgerError, match="partial"):
        filing.add(away, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def spoil(run: Run, **changes: Any) -> None:
    assert run.directory is not None
    path = run.directory / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 0.9}, "rows give"),
        ({"n": 9}, "n is 9"),
        ({"paper": "../../etc"}, "plain name"),
        ({"benchmark": "a/b"}, "plain name"),
        ({"arm": ".."}, "plain name"),
        ({"paper": ""}, "plain name"),
        ({"split": "x" * 81}, "plain name"),
        ({"rows": {"path": "../rows.jsonl.gz", "sha256": "0" * 64}}, "file name beside"),
        ({"image": "latest"}, "sha256:"),
        ({"gpu_hours": -1}, "finite and not negative"),
        ({"batch": 0}, "nothing was measured"),
        ({"schema": 3}, "schema"),
        ({"schema": 1}, "unknown keys"),
        ({"pickle": "x"}, "unknown keys"),
    ],
)
def test_what_is_not_believed(
    maker: Maker, away: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    spoil(maker("grpo", 0), **change)
    with pytest.raises(LedgerError, match=message):
        filing.add(away, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_model_named_like_a_path_stays_inside(maker: Maker, away: Path, tmp_path: Path) -> None:
    maker("x", 0, profile="paper", model={"id": "../../../tmp/x", "revision": None, "sha256": None})
    target = filing.add(away, tmp_path / "runs")[0].path
    assert target.parent == tmp_path / "runs" / "ktr" / "microworld"
    assert target.name == "tmp--x@unknown-5a5a0008-s0-240"


def test_nothing_to_file(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "absent"):
        with pytest.raises(LedgerError, match="holds no record"):
            filing.add(source, tmp_path / "runs")


def test_two_runs_for_one_place(maker: Maker, away: Path, tmp_path: Path) -> None:
    run = maker("grpo", 0)
    assert run.directory is not None
    shutil.copytree(run.directory, away / "copy")
    with pytest.raises(LedgerError, match="two runs"):
        filing.add(away, tmp_path / "runs")


# --- failures ------------------------------------------------------------------------------


def test_a_failure_stands_until_a_record_does(tmp_path: Path, maker: Maker) -> None:
    failure = Failure("ktr", "video_holmes", "ktr", None, 64, 0, "CUDA out of memory")
    filing.note_failure(failure, tmp_path / "f" / "a")
    assert filing.failures(tmp_path / "f") == [failure]
    made = maker("ktr", 0)
    assert made.directory is not None
    shutil.copy(made.directory / "record.json", tmp_path / "f" / "a" / "record.json")
    assert filing.failures(tmp_path / "f") == []
    (tmp_path / "f" / "a" / "record.json").unlink()
    (tmp_path / "f" / "a" / "failure.json").write_text('{"reason": "x"}')
    with pytest.raises(LedgerError, match="must have exactly"):
        filing.failures(tmp_path / "f")


# --- several processes ---------------------------------------------------------------------

FILER = """
import sys
from results import filing
from results.schema import LedgerError
try:
    print(*[filed.word for filed in filing.add(sys.argv[1], sys.argv[2])])
except LedgerError as error:
    print("refused" if "another run is filed" in str(error) else error)
"""


def test_processes_that_file_at_once_lose_nothing(maker: Maker, away: Path, tmp_path: Path) -> None:
    """Four with runs of their own, and two each with another run for the same place."""
    sources = []
    for number in range(4):
        maker("ktr", number)
        sources.append(tmp_path / f"own{number}")
        shutil.move(away, sources[-1])
    for number, gain in enumerate((0.1, 0.3)):
        maker("grpo", 0, gain)
        sources.append(tmp_path / f"rival{number}")
        shutil.move(away, sources[-1])
    root = tmp_path / "runs"
    filers = [
        subprocess.Popen(
            [sys.executable, "-c", FILER, str(source), str(root)], stdout=subprocess.PIPE,
            text=True, cwd=Path(ledger.__file__).parents[1],
        )
        for source in sources
    ]  # fmt: skip
    said = [filer.communicate()[0].strip() for filer in filers]
    assert said[:4] == ["filed"] * 4 and sorted(said[4:]) == ["filed", "refused"]
    found = ledger.load(root)
    assert [(r.record.arm, r.record.seed) for r in found] == [
        ("grpo", 0), *(("ktr", number) for number in range(4)),
    ]  # fmt: skip
    assert all(ledger.verify(run) == [] for run in found)
    assert [path.name for path in root.iterdir()] == ["ktr"], "no lock is left"
