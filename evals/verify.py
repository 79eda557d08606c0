"""Is this copy of a benchmark's data whole and usable? Every question and every video looked at.

| check       | a problem is                                                                       |
|-------------|------------------------------------------------------------------------------------|
| count       | another number of questions or videos than the card's                              |
| hash        | a file that differs from what the hub recorded when it was fetched                 |
| record      | a record with a field missing or unusable                                          |
| gold        | a right answer that is none of the options, or an interval that ends before it     |
|             | starts: its question is asked, and cannot be won                                   |
| options     | an empty option, two equal ones, or fewer than two                                 |
| duplicate   | the same question on the same video twice, with the same answer                    |
| contradict  | the same question on the same video with different answers                         |
| missing     | a video that is not there                                                          |
| video       | a video that does not open, or whose first frame cannot be decoded                 |
| duration    | a video longer or shorter than its record says (by 1 s and 2 %, chosen)            |
| interval    | a true interval or a span that ends more than 1 s after its video (chosen)         |

Notes do not fail a copy: times stored as float16, videos without subtitles.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from evals import archive, benchmarks, video
from evals.benchmarks import Card
from evals.benchmarks._records import BadGold, Files
from evals.errors import BadInput, Undecodable
from evals.extract import intervals
from evals.types import Protocol, Sample

#: Checks whose findings do not fail a copy.
NOTES = ("float16", "subtitles", "card")
EXAMPLES = 5
_BLOCK = 1 << 20
Progress = Callable[[str, int, int], None]


@dataclass
class Finding:
    """One check's result: how often, and the first few cases."""

    check: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def problem(self) -> bool:
        """Whether it fails the copy."""
        return self.check not in NOTES

    def add(self, example: str) -> None:
        """One more case."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found."""

    benchmark: str
    split: str
    root: Path
    questions: int
    videos: int
    revision: str
    sha256: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not any(finding.problem for finding in self.findings)


class Findings(dict[str, Finding]):
    """Findings by check."""

    def add(self, check: str, example: str) -> None:
        """One more case of a check."""
        self.setdefault(check, Finding(check)).add(example)


def verify(
    name: str,
    root: Path | None = None,
    *,
    split: str | None = None,
    subset: str = "",
    videos: bool = True,
    hashes: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Look at every question and, if asked to, every video and every file's hash.

    progress: called with what is looked at, how many are done and how many there are. Raises
    BadInput when there is nothing to look at: no such folder, no annotations, a damaged archive.
    """
    benchmarks.card(name)  # raises for a name without data of its owner
    module = benchmarks.source(name, subset)
    card: Card = module.CARD
    files = Files(name, root or benchmarks.data_root(name))
    part = split or next(iter(card.splits))
    found = Findings()
    records = list(benchmarks.records(module, files, part, subset))
    samples = list(_samples(module, files, records, found))
    _counts(card, part, subset, len(records), samples, found)
    _questions(samples, found)
    wanted = {s.media: s for s in samples if s.media is not None}
    if videos:
        _videos(samples, wanted, found, progress)
    if hashes:
        _hashes(files, found, progress)
    return Report(
        name, part, files.root, len(records), len(wanted), files.revision() or card.revision,
        files.sha256(), tuple(found.values()),
    )  # fmt: skip


def absent(name: str, root: Path | None = None, *, subset: str = "") -> list[Path]:
    """Films and pictures that the questions name and that are not there; none is opened.

    Raises BadInput as `verify` does, and naming the first record that cannot be used.
    """
    benchmarks.card(name)
    module = benchmarks.source(name, subset)
    files = Files(name, root or benchmarks.data_root(name))
    part = next(iter(module.CARD.splits))
    asked = (module.sample(r, files) for r in benchmarks.records(module, files, part, subset))
    media = {sample.media for sample in asked if sample.media is not None}
    there = (p for p in media if files.holds(p) or p.exists() or archive.listing(p))
    return sorted(media.difference(there))


def _samples(
    module: Any, files: Files, records: Sequence[Any], found: Findings
) -> Iterator[Sample]:
    for record in records:
        try:
            yield module.sample(record, files)
        except BadGold as error:
            found.add("gold", str(error))
        except BadInput as error:
            found.add("record", str(error))


def _counts(
    card: Card, split: str, subset: str, questions: int, samples: Sequence[Sample], found: Findings
) -> None:
    parts = [card.subsets[part.strip()] for part in subset.split(",")] if subset else []
    expected = card.splits[split] if not parts else sum(n or 0 for n in parts)
    if expected is None or None in parts:
        found.add("card", f"nobody has said how many questions {split} {subset} has".rstrip())
    elif expected != questions:
        found.add("count", f"{questions} questions, where the card has {expected}")
    videos = len({sample.cluster for sample in samples})
    whole = not subset and split == next(iter(card.splits))
    if whole and card.videos is not None and videos != card.videos:
        found.add("count", f"{videos} videos, where the card has {card.videos}")


def _questions(samples: Sequence[Sample], found: Findings) -> None:
    golds: dict[tuple[Any, ...], tuple[str, str]] = {}
    rounded = exact = 0
    for sample in samples:
        texts = [option[3:].strip() for option in sample.options]
        if sample.kind in ("multiple choice", "grounded qa"):
            if "" in texts:
                found.add("options", f"{sample.id}: an empty option")
            elif len(set(texts)) < len(texts):
                found.add("options", f"{sample.id}: two options are equal")
            elif len(texts) < 2:
                found.add("options", f"{sample.id}: only {len(texts)} option")
        asked = (sample.media, sample.question, sample.options, sample.span, sample.form)
        first = golds.setdefault(asked, (sample.id, sample.gold))
        if first[0] != sample.id and first[1] == sample.gold:
            found.add("duplicate", f"{sample.id} asks what {first[0]} asks")
        elif first[0] != sample.id:
            found.add("contradict", f"{sample.id} answers {first[0]} with {sample.gold[:40]}")
        if backwards := [pair for pair in _times(sample) if pair[0] > pair[1]]:
            start, end = backwards[0]
            found.add("gold", f"{sample.id}: [{start:g}, {end:g}] ends before it starts")
        for time in chain.from_iterable(_times(sample)):
            rounded += time == float(np.float16(time)) and time != round(time, 2)
            exact += time != float(np.float16(time))
        if sample.facts.get("subtitles") == "":
            found.add("subtitles", f"{sample.cluster} has none")
    if rounded and not exact:
        found.add("float16", "times are rounded as float16 rounds: up to 0.25 s beyond 512 s")


def _times(sample: Sample) -> list[tuple[float, float]]:
    grounded = sample.kind in ("temporal grounding", "grounded qa")
    return intervals(sample.gold) if grounded else []


# --- videos ------------------------------------------------------------------------------------


def _videos(
    samples: Sequence[Sample], paths: Mapping[Path, Sample], found: Findings, progress: Progress
) -> None:
    seconds: dict[Path, float] = {}
    for done, (path, asked) in enumerate(paths.items()):
        progress("videos", done, len(paths))
        try:
            with tempfile.TemporaryDirectory(prefix="reelproof-") as folder:
                seconds[path] = _opens(path, asked.rate, Path(folder))
        except Undecodable as error:
            there = path.exists() or archive.split(path) is not None
            found.add("video" if there else "missing", str(error))
    progress("videos", len(paths), len(paths))
    told: set[tuple[Path, str]] = set()
    for sample in samples:
        if sample.media is None or (length := seconds.get(sample.media)) is None:
            continue
        said = sample.facts.get("duration", "")
        if said and (sample.media, said) not in told:
            told.add((sample.media, said))
            if abs(float(said) - length) > max(1.0, 0.02 * length):
                found.add("duration", f"{sample.media}: {length:.1f} s, not {float(said):g} s")
        ends = [end for _, end in _times(sample)] + ([sample.span[1]] if sample.span else [])
        if any(end > length + 1 for end in ends):
            found.add("interval", f"{sample.id} ends at {max(ends):g} s of {length:.1f} s")


def _opens(path: Path, rate: float | None, folder: Path) -> float:
    """Seconds of a video whose first frame decodes. Raises Undecodable."""
    if rate is not None:
        whole = video.Wanted(path, "video", rate=rate)
        clip = video.read_pictures(whole, Protocol("first", sampling="fixed", max_frames=1))
        return clip.total / rate
    file = archive.local(path, folder)
    info = video.probe(file)
    video.decode(file, (0,))
    return info.frames / info.fps


# --- hashes ------------------------------------------------------------------------------------


def _hashes(files: Files, found: Findings, progress: Progress) -> None:
    """Files that huggingface_hub fetched, against the hash that it wrote beside each."""
    folder = files.root / ".cache/huggingface/download"
    notes = sorted(folder.rglob("*.metadata")) if folder.is_dir() else []
    for done, note in enumerate(notes):
        progress("hashes", done, len(notes))
        file = files.root / note.relative_to(folder).with_suffix("")
        lines = note.read_text(encoding="utf-8").split("\n")
        expected = lines[1].strip() if len(lines) > 1 else ""
        if not file.is_file():
            found.add("hash", f"{file} was fetched but is not there")
        elif expected and _hub_hash(file, expected) != expected:
            found.add("hash", f"{file} is not what was fetched; delete it and fetch it again")
    progress("hashes", len(notes), len(notes))


def _hub_hash(path: Path, like: str) -> str:
    """sha256 of a file, or (40 digits) the id that git gives its content."""
    found = hashlib.sha256()
    if len(like) == 40:
        found = hashlib.sha1(usedforsecurity=False)
        found.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
