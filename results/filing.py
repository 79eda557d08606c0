"""Filing runs made elsewhere: validate, recompute, and put them where their identity says.

A run that ended in an error of its environment is filed too, as its reason.

    micro    <paper>/<benchmark>/<arm>-s<seed>[-greedy][-<probe>]
    others   <paper>/<benchmark>/<model>@<revision, 8>-<protocol, 8>-s<seed>-<n>[-<metric>]

Records come from other hosts and from strangers: nothing in one is believed that its rows can say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from results import ledger
from results.cells import REHEARSAL
from results.ledger import RECORD, Run
from results.schema import LedgerError, Record, decode, parse

#: Computed again from the rows when a run is filed.
COMPUTED = ("schema", "rows", "curves", "tokens")


@dataclass(frozen=True)
class Filed:
    """What became of one run: where it lies, and whether it lay there already; `sound` is a run
    that was only checked."""

    path: Path
    word: Literal["filed", "already there", "sound"]


def place(run: Run) -> Path:
    """Path of a run below the ledger's root."""
    record = run.record
    cell = Path(record.paper, record.benchmark)
    if record.profile == "micro":
        how = ("-greedy" if run.greedy else "") + (f"-{run.probe}" if run.probe else "")
        return cell / f"{record.arm}-s{record.seed}{how}"
    name = plain(record.model["id"] or "")
    revision = (record.model["revision"] or record.model["sha256"] or "unknown")[:8]
    metric = "" if record.metric == "accuracy" else f"-{plain(record.metric)}"
    return cell / f"{name}@{revision}-{record.protocol_hash}-s{record.seed}-{record.n}{metric}"


def add(
    source: Path | str, root: Path | str, *, dry_run: bool = False, rehearsal: bool = False
) -> list[Filed]:
    """File every run under `source` into the ledger at `root`; nothing is filed if one is bad.

    Hashes are checked against the files, then computed again for the files as written here, so a
    run filed twice is the same bytes. Writers take turns: of two different runs for one place the
    second is refused. dry_run: everything but the writing. rehearsal: whether these are runs of
    `repro rehearse`, for a ledger of their own. Raises LedgerError: no record, rows that contradict
    their record, a partial run, a rehearsal where none is meant (or the other way), or another run
    already filed in the same place.
    """
    home = Path(root)
    ended = failures(source) if Path(source).is_dir() else []
    runs = [(run, home / place(run)) for run in _sound(Path(source), bool(ended))]
    for run, _ in runs:
        if (run.record.profile == REHEARSAL) != rehearsal:
            what = "no rehearsal" if rehearsal else "a rehearsal: random weights on made data"
            raise LedgerError(f"{run.directory} is {what}; it is not filed")
    if dry_run:
        _free(runs, source)
        return [_file(run, target, True) for run, target in runs] + [
            _file_failure(failure, home, True) for failure in ended
        ]
    home.mkdir(parents=True, exist_ok=True)
    with ledger.turn(home):  # between the look and the writing nobody else files
        _free(runs, source)
        filed = [_file(run, target, False) for run, target in runs]
        return filed + [_file_failure(failure, home, False) for failure in ended]


def _free(runs: Sequence[tuple[Run, Path]], source: Path | str) -> None:
    """Raises LedgerError unless every place is free or holds the same run."""
    targets = [target for _, target in runs]
    for run, target in runs:
        if targets.count(target) > 1:
            raise LedgerError(f"two runs under {source} both belong to {target}")
        if (target / RECORD).is_file() and not _same(run, ledger.read(target)):
            raise LedgerError(
                f"{run.directory} belongs to {target}, where another run is filed; "
                "which one counts is not ours to choose"
            )


def _file_failure(failure: Failure, root: Path, dry_run: bool) -> Filed:
    """Where a run ended in an error; the latest reason stands."""
    frames = "" if failure.frames is None else f"-{failure.frames}f"
    name = f"{failure.arm}-s{failure.seed}{frames}-failed"
    target = root / plain(failure.paper) / plain(failure.benchmark) / plain(name)
    if dry_run:
        return Filed(target, "sound")
    if target.is_dir() and failure in failures(target):
        return Filed(target, "already there")
    note_failure(failure, target)
    return Filed(target, "filed")


def plain(text: str) -> str:
    """A part of a path: records come from other hosts."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "--", text).strip("-.") or "unknown"


def _sound(source: Path, failed: bool) -> Iterator[Run]:
    runs = ledger.load(source) if source.is_dir() else []
    if not runs and not failed:
        raise LedgerError(f"{source} holds no {RECORD}")
    for run in runs:
        if run.record.partial:
            raise LedgerError(f"{run.directory} is partial: it fills no cell and is not filed")
        if differences := ledger.verify(run):
            raise LedgerError(f"{run.directory}: {'; '.join(differences)}")
        yield run


def _file(run: Run, target: Path, dry_run: bool) -> Filed:
    if (target / RECORD).is_file():
        return Filed(target, "already there")
    if dry_run:
        return Filed(target, "sound")
    assert run.directory is not None
    data = {f.name: getattr(run.record, f.name) for f in fields(Record)}
    stored = {
        "curves": run.directory / run.record.curves["path"] if run.record.curves else None,
        "tokens": run.directory / run.record.tokens["path"] if run.record.tokens else None,
    }
    kept = {name: value for name, value in data.items() if name not in COMPUTED}
    rows = [asdict(row) for row in run.rows]
    ledger.write(kept, rows, target, **stored, strips=run.strips)
    return Filed(target, "filed")


def _same(one: Run, other: Run) -> bool:
    """The same run, whatever version of the schema or compressor wrote it."""
    return _told(one.record) == _told(other.record) and one.rows == other.rows


def _told(record: Record) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in COMPUTED}


# --- runs that ended in an error -----------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A run that ended in an environment error: its cell says `failed` and why.

    model: id of the weights, or None for an arm trained here. frames: of its protocol.
    """

    paper: str
    benchmark: str
    arm: str
    model: str | None
    frames: int | None
    seed: int
    reason: str


FAILURE = "failure.json"


def note_failure(failure: Failure, directory: Path | str) -> None:
    """Leave `failure.json` where the record would have been; a record beside it outdates it."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(failure), indent=1) + "\n"
    ledger.write_atomically(folder / FAILURE, text.encode("ascii"))


def failures(directory: Path | str) -> list[Failure]:
    """Every failure under `directory` that no record has outdated, sorted by path."""
    found = []
    for path in sorted(Path(directory).rglob(FAILURE)):
        if (path.parent / RECORD).is_file():
            continue
        data = parse(decode(path.read_bytes(), str(path)), str(path))
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(Failure)}:
            raise LedgerError(f"{path} must have exactly {[f.name for f in fields(Failure)]}")
        found.append(Failure(**data))
    return found
