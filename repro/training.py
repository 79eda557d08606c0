"""A paper's training records: their manifests (<paper>/data.yaml and, for further profiles,
<paper>/data_*.yaml), a verifier, and a builder.

| check     | a problem is                                                                        |
|-----------|-------------------------------------------------------------------------------------|
| count     | another number of records, images, videos, or of films of a part, than the manifest |
| hash      | a file whose sha256 begins or ends otherwise                                        |
| record    | a record with a field missing or unusable                                           |
| part      | ids outside a part's range or out of order                                          |
| missing   | films and images that are not there, by part                                        |
| media     | one that does not open, or whose first frame cannot be decoded                      |

Notes: `clash`, an id that two parts use, which `build` makes two; `options`, a question that
already ends in "Options:", so that the prompt says it twice, as the released one does.

`build` writes what training reads: the same records in the same order, ids made `part/id`. The part
that nobody can draw again comes from a published copy; without one it is left out, in words. Items
of `repro data synthesize`, where a manifest has the part `masked`, follow the others.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evals import video
from evals.benchmarks import jsonl
from evals.benchmarks._records import Record, lettered
from evals.errors import BadInput, Undecodable
from evals.types import Sample
from evals.verify import Finding, Findings
from repro.folder import write_json
from repro.recipe import Recipe, papers
from repro.strict import Reader, nearest, read_yaml

MANIFEST, FURTHER, RECORDS = "data.yaml", "data_*.yaml", "records.json"
MASKED = "masked"  # the part that repro data synthesize makes
NOTES = ("clash", "options")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Published:
    """The file as its authors published it. sha256: its first and last digits, as far as known;
    characters: None where nobody has counted them."""

    name: str
    records: int
    images: int
    videos: int
    characters: int | None
    sha256: tuple[str, str]


@dataclass(frozen=True)
class Part:
    """One source of the records. ids: first and last, ascending; None: any, each once. films: None
    where unknown. records: None where whoever makes the file decides: a record then says by its
    data_source which part it is of. pool: records that were chosen from, None where unknown."""

    name: str
    records: int | None
    ids: tuple[int, int] | None
    data_source: str | None
    films: int | None
    repository: str
    annotations: str
    pool: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What is known of a paper's training records, and in words what is not.

    name: as `data.records` of the profiles that train on them. in_domain: benchmarks whose training
    split is among them. published: the authors published a file, in fields of their own where the
    paper has a module `data`; otherwise it is put together, in the fields that training reads.
    """

    paper: str
    name: str
    file: Published
    parts: tuple[Part, ...]
    in_domain: tuple[str, ...]
    unknown: tuple[str, ...]
    published: bool = True

    @classmethod
    def load(cls, paper: str, records: str = "") -> Manifest:
        """A paper's first manifest, or that of the named records.

        Raises BadInput for a paper or records without a manifest, or naming the key that is wrong.
        """
        known = {p: f.with_name(MANIFEST) for p, f in papers().items()}
        known = {p: f for p, f in known.items() if f.is_file()}
        if paper not in known:
            raise BadInput(f"no manifest of training records for {paper!r}{nearest(paper, known)}")
        found = {m.name: m for m in _manifests(paper)}
        if records and records not in found:
            raise BadInput(
                f"{paper} has no manifest of the records {records!r}; it has {', '.join(found)}"
            )
        return found[records] if records else next(iter(found.values()))

    @property
    def folder(self) -> str:
        """Where the records lie, below $REELPROOF_DATA."""
        return f"{self.paper}-train" if self.published else self.name

    def part_of(self, index: int, row: Any = None) -> Part:
        """The part of the record `row` at `index`, from 0, in the order of the published file."""
        for part in self.parts:
            if part.records is None:
                if isinstance(row, dict) and row.get("data_source") == part.data_source:
                    return part
            elif index < part.records:
                return part
            else:
                index -= part.records
        return self.parts[-1]


def _manifests(paper: str) -> list[Manifest]:
    """Every manifest of a paper, data.yaml first; none where it has none."""
    first = papers()[paper].with_name(MANIFEST)
    files = [first] if first.is_file() else []
    return [_manifest(paper, f) for f in (*files, *sorted(first.parent.glob(FURTHER)))]


def manifest_of(recipe: Recipe) -> Manifest | None:
    """That of the records which a profile names; None where nobody has described them."""
    if recipe.paper not in papers():
        return None
    return next((m for m in _manifests(recipe.paper) if m.name == recipe.data.records), None)


def _manifest(paper: str, file: Path) -> Manifest:
    raw = read_yaml(file)
    cited = raw.get("sources")
    reader = Reader(file, cited if isinstance(cited, dict) else {})
    keys = ("name", "sources", "file", "parts", "in_domain", "unknown")
    for key in keys:
        if key not in reader.keys(raw, keys, "manifest"):
            raise reader.fail(key, "this key is missing")
    parts = []
    for number, body in enumerate(raw["parts"]):
        where = f"parts.{number}"
        given = reader.keys(body, ("name", *Part.__dataclass_fields__), where)
        name = {"value": given.get("name"), "source": "chosen"}
        parts.append(reader.read(Part, {**given, "name": name}, where))
    return Manifest(
        paper=paper,
        name=reader.text(raw["name"], "name"),
        file=reader.read(Published, raw["file"], "file"),
        parts=tuple(parts),
        in_domain=reader.leaf(tuple[str, ...], raw["in_domain"], "in_domain"),
        unknown=tuple(reader.text(text, "unknown") for text in raw["unknown"]),
        published=file.name == MANIFEST,
    )


def schema(paper: str) -> Any:
    """A paper's module `data`, which reads records in its authors' own fields; None for a paper
    whose records have those of the Video-R1 family."""
    name = f"repro.{paper}.data"
    known = paper in papers() and importlib.util.find_spec(name) is not None
    return importlib.import_module(name) if known else None


def published_rows(manifest: Manifest, file: Path, found: Findings) -> list[Any]:
    """A published file's records in the fields that training reads. One in the authors' own fields
    that cannot be used is a finding, `record`, and an empty row in its place.

    Raises BadInput for a file that is none, or without a record that can be used.
    """
    rows = list(jsonl.rows(file))
    own = schema(manifest.paper) if manifest.published else None
    if own is None:
        return rows
    read: list[Any] = []
    for number, row in enumerate(rows, start=1):
        try:
            read.append(own.record(row, number))
        except BadInput as error:
            found.add("record", f"{file}, {error}")
            read.append(None)
    if rows and not any(read):
        raise BadInput(f"no record can be used: {found['record'].examples[0]}")
    return read


# --- verify --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found."""

    name: str
    file: Path
    records: int
    media: int
    sha256: str
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not any(finding.check not in NOTES for finding in self.findings)


def verify(
    manifest: Manifest, file: Path, root: Path, *, media: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Report:  # fmt: skip
    """Look at every record of a copy of the published file and, if asked to, open all its media.

    Raises BadInput when the file cannot be read at all.
    """
    found = Findings()
    rows = published_rows(manifest, file, found)
    digest = _file(manifest, file, found)
    samples = list(_samples(rows, file, root, found))
    _counts(manifest, rows, samples, found)
    _parts(manifest, rows, found)
    wanted = {s.media: manifest.part_of(i, rows[i]).name for i, s in samples if s.media}
    if media:
        _media({s.media: s for _, s in samples}, wanted, found, progress)
    return Report(
        manifest.name, file, len(rows), len(wanted), digest, tuple(found.values()),
        manifest.unknown,
    )  # fmt: skip


def _file(manifest: Manifest, file: Path, found: Findings) -> str:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    first, last = manifest.file.sha256
    if not (digest.startswith(first) and digest.endswith(last)):
        found.add("hash", f"sha256 {digest[:8]}...{digest[-4:]}, published {first}...{last}")
    return digest


def _samples(
    rows: Sequence[Any], file: Path, root: Path, found: Findings
) -> Iterator[tuple[int, Sample]]:
    for i, row in enumerate(rows):
        if row is None:  # is a finding already
            continue
        try:
            yield i, jsonl.sample(row, i + 1, file, root)
        except BadInput as error:
            found.add("record", str(error))


def _counts(
    manifest: Manifest, rows: Sequence[Any], samples: Sequence[tuple[int, Sample]], found: Findings
) -> None:
    of = manifest.file
    kinds = [s.modality for _, s in samples]
    for what, expected, n in (
        ("records", of.records, len(rows)),
        ("images", of.images, kinds.count("image")),
        ("videos", of.videos, kinds.count("video")),
    ):
        if n != expected:
            found.add("count", f"{n} {what}, where the manifest has {expected}")
    films: dict[str, set[Path | None]] = {}
    for i, s in samples:
        films.setdefault(manifest.part_of(i, rows[i]).name, set()).add(s.media)
        if s.kind == "multiple choice" and s.question.rstrip().endswith("Options:"):
            found.add("options", f"record {i + 1} already ends in Options:")
    for part in manifest.parts:
        n = len(films.get(part.name, ()))
        if part.films is not None and n != part.films:
            found.add("count", f"{n} films of {part.name}, where the manifest has {part.films}")


def _parts(manifest: Manifest, rows: Sequence[Any], found: Findings) -> None:
    owner: dict[Any, str] = {}
    last: dict[str, int] = {}
    for i, row in enumerate(rows):
        if row is None:
            continue
        part = manifest.part_of(i, row)
        number = row.get("problem_id") if isinstance(row, dict) else None
        source = row.get("data_source") if isinstance(row, dict) else part.data_source
        if part.data_source and source != part.data_source:
            found.add("part", f"record {i + 1}: data_source {source!r}")
        if part.ids is None:
            continue
        first, end = part.ids
        if not isinstance(number, int) or not first <= number <= end:
            found.add("part", f"record {i + 1}: id {number!r} is none of {part.name}")
            continue
        if number <= last.get(part.name, -1):
            found.add("part", f"record {i + 1}: id {number} of {part.name} is not in order")
        last[part.name] = number
        if owner.setdefault(number, part.name) != part.name:
            found.add("clash", f"id {number} is one of {owner[number]} and one of {part.name}")


def _media(
    samples: Mapping[Path | None, Sample], wanted: Mapping[Path, str], found: Findings,
    progress: Progress,
) -> None:  # fmt: skip
    for done, (path, part) in enumerate(wanted.items()):
        progress("media", done, len(wanted))
        try:
            if samples[path].modality == "image":
                image = video.read_image(path)
                video.shapely(path, *image.shape[1:3])
            else:
                info = video.probe(path)
                video.shapely(path, info.height, info.width)
                video.decode(path, (0,))
        except Undecodable as error:
            found.add("media" if path.exists() else "missing", f"{part}: {error}")
    progress("media", len(wanted), len(wanted))


# --- build ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """The file that training reads, its number of records, and in words what it lacks: also those
    that could not be used, counted."""

    file: Path
    records: int
    lacks: tuple[str, ...]


def build(
    manifest: Manifest, out: Path, *, published: Path | None = None, holmes: Path | None = None,
    masked: Path | None = None, videos: Path | None = None,
) -> Built:  # fmt: skip
    """Write `out` (.json) from a published copy, from the owner's train_Video-Holmes.json, or both;
    and from the folder that `repro data synthesize` filled.

    With both, the copy's own Video-Holmes records must be those of the owner. videos: where the
    paths in the copy start from; what lies there is linked to beside `out`, whose folder is where
    training looks. Raises BadInput naming the first that differs, or when nothing is given.
    """
    if published is None and holmes is None and masked is None:
        raise BadInput(
            "name a published copy, the owner's Video-Holmes annotations, a folder of synthesized "
            "items (--masked), or several of them"
        )
    items = [] if masked is None else _masked(manifest, masked, out.parent)
    own = holmes_records(manifest, holmes) if holmes else []
    found = Findings()
    rows = published_rows(manifest, published, found) if published else own
    if published and own:
        theirs = rows[-len(own) :]
        for number, (one, other) in enumerate(zip(theirs, own, strict=True), start=1):
            if differing := [k for k in other if _told(one.get(k)) != _told(other[k])]:
                raise BadInput(
                    f"{published}: Video-Holmes record {number} differs from its owner's in "
                    f"{', '.join(differing)}"
                )
    name = partial(_part_name, manifest, alone=published is None)
    built = [
        {**row, "problem_id": f"{name(i, row)}/{row['problem_id']}"}
        for i, row in enumerate(rows)
        if row is not None
    ]
    built += items
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, built)
    jsonl.read(out, out.parent)  # what training will do: raises BadInput naming the record
    if videos is not None:
        _link(built, videos.absolute(), out.parent)
    first = manifest.parts[0]
    lacks = [f"{f.count} of {len(rows)} records that cannot be used, first {f.examples[0]}"
             for f in found.values()]  # fmt: skip
    if not published:
        many = "" if first.records is None else f"{first.records:,} "
        lacks.append(f"the {many}records of {first.name}; {manifest.unknown[0]}")
    return Built(out, len(built), tuple(lacks))


def _masked(manifest: Manifest, folder: Path, root: Path) -> list[dict[str, Any]]:
    """Synthesized items, their pictures named from the folder of all records."""
    if MASKED not in {part.name for part in manifest.parts}:
        raise BadInput(f"{manifest.name} has no part {MASKED}: leave --masked out")
    try:
        below = folder.resolve().relative_to(root.resolve())
    except ValueError:
        raise BadInput(
            f"{folder} must lie below {root}, the folder of all records and media: synthesize into "
            f"{root / MASKED}"
        ) from None
    items = []
    for row in jsonl.rows(folder / "records.jsonl"):
        moved: dict[str, Any] = {"problem_id": f"{MASKED}/{row['problem_id']}"}
        moved |= {"images": [(below / name).as_posix() for name in row["images"]]}
        moved |= {"path": (below / row["path"]).as_posix()} if row.get("path") else {}
        items.append({**row, **moved})
    return items


def _link(rows: Sequence[Any], videos: Path, home: Path) -> None:
    """Links to the folders that records' paths begin with, where there is nothing yet."""
    for name in sorted({Path(row["path"]).parts[0] for row in rows if row.get("path")}):
        if not (home / name).exists():
            (home / name).symlink_to(videos / name)


def _part_name(manifest: Manifest, index: int, row: Any, *, alone: bool) -> str:
    return (manifest.parts[-1] if alone else manifest.part_of(index, row)).name


def _told(value: Any) -> Any:
    """Text without the blanks around it: copies differ in them."""
    return value.strip() if isinstance(value, str) else value


def holmes_records(manifest: Manifest, annotations: Path) -> list[dict[str, Any]]:
    """The owner's training questions in the fields of the Video-R1 family, numbered as in KTR's
    file (ktr.md 3.2). Raises BadInput naming the record that cannot be used."""
    part = manifest.parts[-1]
    first = part.ids[0] if part.ids else 1
    found = []
    for number, row in enumerate(jsonl.rows(annotations)):
        record = Record(row, f"{annotations}, record {number + 1}")
        options = lettered(record.texts("Options"))
        found.append(
            {
                "problem_id": first + number,
                "problem": record.text("Question"),
                "data_type": "video",
                "problem_type": "multiple choice",
                "options": list(options),
                "solution": f"<answer>{record.letter(options, 'Answer')}</answer>",
                "path": f"./videos_train/{record.text('video ID')}.mp4",
                "data_source": part.data_source,
            }
        )
    return found


def told(manifest: Manifest) -> str:
    """The manifest in a paragraph, as `repro data` and the plan print it."""
    parts = ", ".join(
        f"{'some' if p.records is None else f'{p.records:,}'} of {p.name} ({p.repository})"
        for p in manifest.parts
    )
    of = manifest.file
    return (
        f"{manifest.name}: {of.records:,} records, {of.images:,} images and {of.videos:,} videos; "
        f"{parts}"
    )


def located(recipe: Recipe) -> tuple[Path, Path]:
    """The file of records that a profile names by `data.records`, and the folder of its media:
    below `$REELPROOF_DATA/<paper>-train` what the authors published, else below
    `$REELPROOF_DATA/<records>`. Raises BadInput saying which command makes it."""
    manifest, name = manifest_of(recipe), recipe.data.records
    how = "repro data select chooses such records from your pools; put them there"
    if manifest is not None:
        name = manifest.folder
        profile = "" if manifest.published else f" --profile {recipe.profile_name}"
        how = f"repro data build {recipe.paper}{profile} --published FILE writes it there"
    return place(name, how)


def place(name: str, how: str = "put it there") -> tuple[Path, Path]:
    """`$REELPROOF_DATA/<name>/records.json` and its folder. Raises BadInput where it is not."""
    root = os.environ.get("REELPROOF_DATA")
    folder = Path(root or "$REELPROOF_DATA") / name
    if root is None or not (folder / RECORDS).is_file():
        raise BadInput(
            f"{name} is not on this machine ({folder / RECORDS}): {how}, or name your own records "
            "with --data and the folder of their media with --videos"
        )
    return folder / RECORDS, folder
