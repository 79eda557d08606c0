"""One file here is one benchmark; its name is the benchmark's id.

A file declares a `CARD`, a `GOLDEN` example with its exact prompt, `rows` (the records of a split
as its owner wrote them) and `sample` (one record as a Sample). `microworld` and `jsonl` load
themselves. Data are read where they lie: folders, zips and tars below one root.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import BadInput
from evals.types import Sample

if TYPE_CHECKING:
    from evals.benchmarks._records import Files, Record

_OWN = ("jsonl", "microworld")
#: Read from the data of their owners: every other file here.
OWNED = tuple(
    path.stem for path in sorted(Path(__file__).parent.glob("[a-z]*.py")) if path.stem not in _OWN
)
NAMES = (*_OWN, *OWNED)


@dataclass(frozen=True)
class Card:
    """What is fixed about a benchmark's data.

    dataset: where its owner keeps it. revision: 40 hex digits of the commit to fetch, or
    "unresolved" until somebody has checked one; seen: the newest commit seen, not checked.
    splits: name -> questions (None: not known), the default first; subsets: parts of the default
    split. videos: of the default split. macro: tag whose values a macro mean averages.
    metrics: further numbers (evals.aggregate). files: patterns that `repro data fetch` asks for.
    note: what a reader of its scores must know.
    """

    dataset: str
    splits: Mapping[str, int | None]
    licence: str
    revision: str = "unresolved"
    seen: str = ""
    subsets: Mapping[str, int | None] = field(default_factory=dict)
    videos: int | None = None
    macro: str = ""
    metrics: tuple[str, ...] = ()
    files: tuple[str, ...] = ("*",)
    host: str = "huggingface"
    note: str = ""


@dataclass(frozen=True)
class Golden:
    """A made record, the letter or text that answers it, and its exact text under a protocol."""

    row: Mapping[str, Any]
    protocol: str
    text: str
    gold: str


@dataclass(frozen=True)
class Benchmark:
    """Samples of one split. `revision` names the data's version, `sha256` hashes its records."""

    name: str
    split: str
    samples: tuple[Sample, ...]
    revision: str
    sha256: str
    card: Card | None = None


def load(
    name: str,
    *,
    split: str | None = None,
    root: Path | None = None,
    data: Path | None = None,
    subset: str = "",
) -> Benchmark:
    """Load a benchmark by id.

    split: its own default if None. root: folder of data and media, by default
    `$REELPROOF_DATA/<id>`; data: annotation file (jsonl only); subset: names of the card, with
    commas. Raises BadInput for an unknown benchmark, split or subset and for unreadable records.
    """
    if name not in NAMES:
        raise BadInput(f"unknown benchmark {name!r}; known: {', '.join(NAMES)}")
    module = source(name, subset)
    if name not in OWNED:
        if subset:
            raise BadInput(f"{name} has no subsets")
        benchmark: Benchmark = module.load(split=split or "test", root=root, data=data)
        return benchmark
    from evals.benchmarks._records import Files

    card: Card = module.CARD
    part = split or next(iter(card.splits))
    files = Files(name, root or data_root(name))
    samples = tuple(unique(module.sample(r, files) for r in records(module, files, part, subset)))
    if not samples:
        raise BadInput(f"{files.root} holds no question of {name}, split {part}")
    revision = files.revision() or card.revision
    return Benchmark(name, part, samples, revision, files.sha256(), card)


def source(name: str, subset: str = "") -> Any:
    """What reads a benchmark: its module, or the reader of Video-R1's own file of its questions."""
    module = importlib.import_module(f"evals.benchmarks.{name}")
    from evals.benchmarks import _video_r1

    chosen = subset == _video_r1.SUBSET and name in _video_r1.COUNTS
    return _video_r1.Eval(name, module.CARD) if chosen else module


def records(module: Any, files: Files, split: str, subset: str) -> Iterable[Record]:
    """The raw records of a split and subset. Raises BadInput for names the card does not have."""
    card: Card = module.CARD
    if split not in card.splits:
        raise BadInput(f"{files.name} has no split {split!r}; it has {', '.join(card.splits)}")
    wanted = tuple(part.strip() for part in subset.split(",")) if subset else ()
    for part in wanted:
        if part not in card.subsets:
            known = ", ".join(card.subsets) or "none"
            raise BadInput(f"{files.name} has no subset {part!r}; known: {known}")
    found: Iterable[Record] = module.rows(files, split, wanted)
    return found


def unique(samples: Iterable[Sample]) -> Iterable[Sample]:
    """Samples whose ids differ: the second of an id becomes `id#2`."""
    seen: Counter[str] = Counter()
    for sample in samples:
        seen[sample.id] += 1
        n = seen[sample.id]
        yield sample if n == 1 else replace(sample, id=f"{sample.id}#{n}")


def card(name: str) -> Card:
    """The card of a benchmark read from its owner's data. Raises BadInput for any other name."""
    if name not in OWNED:
        raise BadInput(f"unknown benchmark {name!r}; with data of its owner: {', '.join(OWNED)}")
    found: Card = importlib.import_module(f"evals.benchmarks.{name}").CARD
    return found


def data_root(name: str) -> Path:
    """`$REELPROOF_DATA/<name>`. Raises BadInput when the variable is not set."""
    folder = os.environ.get("REELPROOF_DATA")
    if not folder:
        raise BadInput(
            f"where is the data of {name}? name its folder with --root, or set REELPROOF_DATA and "
            f"run repro data fetch {name}"
        )
    return Path(folder) / name


def file_hash(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
