"""From filed runs to words: reports, tables, paired comparison, gate, check.

| of              | gives                                                                       |
|-----------------|-----------------------------------------------------------------------------|
| a run folder    | `conclude`: report.html and the closing table, the committed runs beside it |
| the ledger      | `whole`: results/report.html, SCOREBOARD.md, the README's block, report.json |
| two runs        | `compare`: flips by question                                                |
| two ledgers     | `hold`: the regression gate                                                 |
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from evals.errors import BadInput, NotComparable
from repro.machine import ROOT
from results import compare as pairs
from results import gate, ledger, publish, verdict
from results.cells import REHEARSAL, START, Cell
from results.printed import Reported
from results.schema import LedgerError
from results.scoreboard import Board, MicroBoard
from results.strict import ReportedError

RUNS = Path("results", "runs")


@contextmanager
def ledger_errors() -> Iterator[None]:
    """`results` knows nothing of exit codes: its errors as ours."""
    try:
        yield
    except (LedgerError, ReportedError) as error:
        raise BadInput(str(error)) from error
    except verdict.NotComparable as error:
        raise NotComparable(str(error)) from error


def home() -> Path:
    """Where records are filed: $REPRO_RUNS, else results/runs of this tree."""
    return Path(os.environ.get("REPRO_RUNS") or ROOT / RUNS)


def committed(*of: str) -> Path:
    """The ledger (or its folder `of` a paper, a benchmark) that is read: `home` where that holds
    any record, else the runs that this tree carries. An image's $REPRO_RUNS is a volume, at first
    an empty one."""
    filed = home().joinpath(*of)
    return filed if any(filed.rglob(ledger.RECORD)) else (ROOT / RUNS).joinpath(*of)


def published() -> bool:
    """Whether the ledger is the one that this checkout's scoreboard is made from."""
    own = (ROOT / RUNS).resolve() == committed().resolve()
    return own and (ROOT / "pyproject.toml").is_file()


# --- reports -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conclusion:
    """The closing table, the report's path, and the registered claims of the fresh runs; beside a
    paper's numbers the claims are cells of their own."""

    text: str
    report: Path
    claims: tuple[verdict.Claim, ...]


def conclude(folder: Path, *, out: Path, command: str) -> Conclusion:
    """Build the report of the runs in `folder`: of the micro profile beside the committed runs of
    the same paper, of the paper profile (and a rehearsal, which fills no cell) beside the paper's
    numbers.

    Raises BadInput when no whole run is there.
    """
    from results import report, terminal

    with ledger_errors():
        runs = ledger.load(folder) if folder.is_dir() else []
        if not any(not run.record.partial for run in runs):
            raise BadInput(f"{folder} holds no whole run to report; `repro reproduce` makes some")
        if any(run.record.profile in ("paper", REHEARSAL) for run in runs):
            own = {run.record.paper for run in runs}
            board = publish.load_board(ROOT, folder)[0].only(own)
            path = report.build_suite(board, out, command=command, how=how_to_run)
            return Conclusion(terminal.board_text(board), path, ())
        policy = verdict.load_policy()
        claims = verdict.registered(runs, policy)
        beside = _reference(runs[0], folder)
        decided = verdict.registered(beside, policy) if beside else ()
        path = report.build(
            runs, claims, out, reference=beside, reference_claims=decided, policy=policy,
            command=command,
        )  # fmt: skip
        text = terminal.summary_text(runs, claims, reference_claims=decided, policy=policy)
    return Conclusion(text, path, claims)


def _reference(run: ledger.Run, folder: Path) -> list[ledger.Run]:
    """Committed runs of the same cell; none if the runs shown are those themselves."""
    record = run.record
    at = committed(record.paper, record.benchmark)
    if not at.is_dir() or folder.resolve() == at.resolve():
        return []
    return [
        r
        for r in ledger.load(at)
        if (r.record.profile, r.record.split) == (record.profile, record.split)
    ]


@dataclass(frozen=True)
class Whole:
    """The report of everything, and the committed files that changed with it."""

    board: Board
    report: Path
    changed: tuple[Path, ...]


def whole(out: Path | None = None) -> Whole:
    """Write the report of the ledger to `out`; without it to results/report.html, and with it
    SCOREBOARD.md, the README's block and results/report.json where this is their checkout."""
    from results import report

    with ledger_errors():
        board, _ = publish.load_board(ROOT, committed())
        at = out or ROOT / "results" / "report.html"
        report.build_suite(board, at, provenance=_provenance(), how=how_to_run, remake=remake)
        changed = publish.publish(ROOT, board) if out is None and published() else []
    return Whole(board, at, tuple(changed))


def _provenance() -> dict[str, str]:
    """What the whole suite hangs on, beside what the records say."""
    lock = ROOT / "requirements" / "cpu.txt"
    return {"pinned packages": f"{lock.name}, sha256 {_digest(lock)}"} if lock.is_file() else {}


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:16]


#: The protocol that re-enacts a paper's own evaluation (evals/protocols).
PROTOCOLS = {"ktr": "video-r1", "ffr": "ffr", "temporal_r1": "temporal-r1"}


def how_to_run(cell: Cell) -> str:
    """The command that fills a cell, "" where no recipe or protocol of ours does. WEIGHTS stands
    for the folder that the released weights were downloaded to."""
    from repro.recipe import papers

    number = cell.reported
    if number.paper not in papers() or (cell.kind != "score" and number.arm is None):
        return ""
    recipe = f"{number.paper} --profile paper"
    if cell.kind != "score":
        sides = [number.arm, cell.against.arm if cell.against else None]
        arms = [
            arm for arm in sides if arm and not arm.startswith(START)
        ]  # nobody trains the start
        if not set(arms) <= _arms(number.paper):
            return ""
        profile = _profile(number.paper, number.model.size or "")
        return f"repro reproduce {number.paper} --profile {profile} --arms {','.join(arms)}"
    protocol = _protocol(number)
    if protocol is None:
        return ""
    return (
        f"repro eval --recipe {recipe} --benchmark {number.benchmark} --protocol {protocol} "
        f"--model WEIGHTS --arm {number.arm or 'released'}  # {number.model.weights}"
    )


@cache
def _arms(paper: str) -> frozenset[str]:
    """Arms of a paper's recipe; a printed model of another size may have none."""
    from repro.recipe import Recipe

    return frozenset(Recipe.load(paper, "paper").arms)


@cache
def _profile(paper: str, size: str) -> str:
    """The profile that trains a model of the printed size, as 7B; else `paper`."""
    from repro.recipe import Recipe

    recipe = Recipe.load(paper, "paper")
    others = (name for name in recipe.profiles if name not in ("micro", "paper"))
    sized = {name: recipe.profile(name).model.id for name in others}
    if size and f"-{size}" not in recipe.model.id:
        return next((name for name, model in sized.items() if f"-{size}" in model), "paper")
    return "paper"


def _protocol(number: Reported) -> str | None:
    """The paper's protocol in the row's own variant, as temporal-r1@no-think, or at the printed
    number of frames; None where there is no such."""
    from evals import protocols

    base = PROTOCOLS.get(number.paper)
    if base is None:
        return None
    said = (f"{number.protocol.get('frames')}f", str(number.protocol.get("prompt")))
    known = protocols.variants(base, number.benchmark)
    name = next((f"{base}@{v}" for v in known if v in said or f"{base}-{v}" in said), base)
    try:
        protocols.load(name, number.benchmark)
    except BadInput:
        return None
    return name


def remake(micro: MicroBoard) -> str:
    """The command that makes a micro profile's runs again."""
    trained = [run for run in micro.runs if run.curves]
    seeds = sorted({run.record.seed for run in trained})
    from repro.recipe import Recipe, papers

    steps = {int(run.curves[-1]["step"]) for run in trained}
    more = f" --steps {steps.pop()}" if len(steps) == 1 else ""
    arms = sorted({run.record.arm for run in trained})
    if micro.paper in papers() and set(arms) != set(Recipe.load(micro.paper).run):
        more += f" --arms {','.join(arms)}"
    return f"repro reproduce {micro.paper}{more} --seeds {','.join(map(str, seeds))}"


# --- two runs, two ledgers -----------------------------------------------------------------


def compare(first: Path, second: Path) -> pairs.Comparison:
    """Pair two runs by question. Raises NotComparable naming every field that differs."""
    with ledger_errors():
        return pairs.compare(_run(first), _run(second), verdict.load_policy())


def _run(folder: Path) -> ledger.Run:
    if not (folder / ledger.RECORD).is_file():
        raise BadInput(f"{folder} holds no {ledger.RECORD}: name the folder of one run")
    return ledger.read(folder)


def hold(baseline: str, candidate: Path, *, allow_missing: bool = False) -> gate.Gate:
    """The gate between the runs of `baseline` (a folder, or a git revision of this checkout) and
    those under `candidate`. Raises BadInput where either holds no run."""
    with ledger_errors(), tempfile.TemporaryDirectory(prefix="reelproof-gate-") as scratch:
        at = Path(baseline) if Path(baseline).is_dir() else _checkout(baseline, Path(scratch))
        before, after = (_runs(folder) for folder in (at, candidate))
        return gate.gate(before, after, verdict.load_policy(), allow_missing=allow_missing)


def _runs(folder: Path) -> list[ledger.Run]:
    found = ledger.load(folder) if folder.is_dir() else []
    if not found:
        raise BadInput(f"{folder} holds no {ledger.RECORD}")
    return found


def _checkout(revision: str, scratch: Path) -> Path:
    """results/runs as it was at `revision`, unpacked under `scratch`."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", revision, "--", str(RUNS)]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise BadInput(
            f"{revision} is neither a folder nor a git revision of this checkout that holds {RUNS}"
        ) from None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        for member in tar:  # Python 3.11.2, which Debian 12 has, knows no extractall(filter=)
            if member.isfile() and not Path(member.name).is_absolute():
                content = tar.extractfile(member)
                assert content is not None
                to = scratch / member.name
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(content.read())
    return scratch / RUNS


# --- checking ------------------------------------------------------------------------------


def verify(folder: Path | None = None) -> publish.Verified:
    """Every score of the runs in `folder` against its rows. Without it the ledger, and where this
    is its checkout also every verdict and every generated file, byte by byte."""
    at = folder or committed()
    with ledger_errors():
        if folder is None and published():
            return publish.verify_all(ROOT, at)
        runs: Sequence[ledger.Run] = _runs(at)
        problems = [f"{run.directory}: {what}" for run in runs for what in ledger.verify(run)]
    return publish.Verified(len(runs), 0, tuple(problems))
