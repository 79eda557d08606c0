"""`repro data synthesize mvp`: pass 1 over a folder, then records, shard by shard.

    OUT/settings.json | shards/00000/{records.jsonl, films.jsonl, media/, shard.json}
    OUT/records.jsonl | films.jsonl | report.json | index.html       of all shards

A shard appears by renaming and is remade only if its settings or its videos changed. No byte of
the output depends on the number of workers, on interruptions or on the time.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.errors import BadInput
from repro import folder
from repro.mvp.synthesis import audits, sheet
from repro.mvp.synthesis.films import Filming, jpeg
from repro.mvp.synthesis.items import Item, Sampling, items
from repro.mvp.synthesis.records import Context, Wording, clip, frame, name, record, shown
from repro.mvp.synthesis.seeing import Seen, see
from repro.mvp.synthesis.store import Film, Store
from repro.mvp.synthesis.twins import without_twins

VERSION = 2  # of the records' layout and of the drawing
SHARD = 64  # videos (chosen)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """Everything that may move a record; `embedder` as it was named."""

    filming: Filming
    sampling: Sampling
    embedder: str
    wording: Wording = "full"
    context: Context = "pictures"
    version: int = VERSION

    @property
    def key(self) -> str:
        """First 12 hex digits of the sha256 of its values."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Made:
    """Videos by outcome, items by K, the audits, and the processor seconds of pass 1 by purpose;
    hours: of video that was decoded for these records, now or earlier."""

    videos: dict[str, int]
    items: dict[int, int]
    audits: list[dict[str, Any]]
    hours: float
    cost: dict[str, float]


def synthesize(
    videos: Path,
    out: Path,
    settings: Settings,
    cache: Path,
    *,
    workers: int = 1,
    excluding: Path | None = None,
    progress: Progress = lambda name, done, total: None,
) -> Made:
    """Records of all videos below a folder, but for what the videos below `excluding` show too.

    Raises BadInput for a folder without videos, and for an `out` that holds something else or was
    begun with other settings; EnvironmentFault.
    """
    with folder.writing(out, resume=True):
        _begin(out, settings)
        seen, barred = (
            see(at, cache, settings.filming, settings.embedder, workers=workers, progress=progress)
            if at
            else []
            for at in (videos, excluding)
        )
        store = Store(cache, settings.filming)
        films = without_twins(seen, barred, store, embedder_name(settings.embedder))
        parts = [films[at : at + SHARD] for at in range(0, len(films), SHARD)]
        _sweep(out, len(parts))
        for number, part in enumerate(parts):
            _shard(out / "shards" / f"{number:05}", part, settings, store)
            progress("shards", number + 1, len(parts))
        return _finish(out, seen, settings)


def _begin(out: Path, settings: Settings) -> None:
    path, mine = out / "settings.json", json.loads(json.dumps(asdict(settings)))
    if path.exists():
        if folder.read_json(path) != mine:
            raise BadInput(
                f"{out} was made with other settings; choose another --out (what was decoded is "
                "kept in the cache and not decoded again)"
            )
    elif any(entry.name != folder.LOCK for entry in out.iterdir()):
        raise BadInput(f"{out} is not empty and holds no records of ours; choose another --out")
    folder.write_json(path, mine)


def _sweep(out: Path, shards: int) -> None:
    """Remove what a killed run left half-made, and shards of videos that are gone."""
    for path in (out / "shards").glob("*") if (out / "shards").exists() else ():
        if path.name.startswith(".") or int(path.name) >= shards:
            shutil.rmtree(path)


def _shard(path: Path, films: Sequence[Seen], settings: Settings, store: Store) -> None:
    told = [[f.video, f.sha256, f.lost] for f in films]
    key = hashlib.sha256(json.dumps([settings.key, told]).encode()).hexdigest()
    marker = path / "shard.json"
    if marker.exists() and folder.read_json(marker)["key"] == key:
        return
    draft = path.with_name(f".{path.name}")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "media").mkdir(parents=True)
    outcomes = []
    with (draft / "records.jsonl").open("w", encoding="utf-8") as sink:
        for film in films:
            made, outcome = _film(film, settings, store, path, draft)
            sink.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in made)
            outcomes.append(outcome)
    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in outcomes)
    (draft / "films.jsonl").write_text("".join(lines), encoding="utf-8")
    (draft / "shard.json").write_text(json.dumps({"key": key}) + "\n")
    if path.exists():
        shutil.rmtree(path)
    draft.rename(path)


def _film(
    seen: Seen, settings: Settings, store: Store, shard: Path, draft: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A video's records, and its line of films.jsonl; pictures go to the draft's media."""
    outcome: dict[str, Any] = {"film": seen.video, "outcome": seen.lost, "why": seen.why}
    if seen.sha256 is None:
        return [], outcome
    film = store.load(seen.sha256, embedder_name(settings.embedder))
    drawn, lost = items(film, settings.sampling)
    outcome = {
        "film": seen.video, "outcome": lost or "used", "why": "", "sha256": seen.sha256,
        "seconds": round(float(film.seconds[-1]), 3),
        "items": {str(k): sum(item.k == k for item in drawn) for k in settings.sampling.ks},
    }  # fmt: skip
    context = settings.context
    numbers = sorted({n for item in drawn for n in shown(item, context)})
    paths = _write_pictures(film, numbers, store, draft)
    media = f"shards/{shard.name}/media"
    below = {n: f"{media}/{path}" for n, path in paths.items()}
    keys = {
        "settings": settings.key, "embedder": settings.embedder, "kappa": settings.sampling.kappa
    }  # fmt: skip
    made = []
    for item in drawn:
        at = f"{media}/{_write_clip(item, film, store, draft)}" if context == "clip" else None
        made.append(record(item, film, seen.video, below, keys, settings.wording, at))
    return made, outcome


def _write_clip(item: Item, film: Film, store: Store, draft: Path) -> str:
    """The context of an item as a folder of pictures; its path below the draft's media."""
    from PIL import Image

    places = clip(item)
    known = [n for n in places if n is not None]
    data = dict(zip(known, store.pictures(film, known), strict=True))
    with Image.open(io.BytesIO(data[known[0]])) as picture:
        nothing = np.full((picture.height, picture.width, 3), 128, np.uint8)
    grey = jpeg(nothing, store.filming.quality)
    at = f"{film.id[:12]}/{item.id}"
    (draft / "media" / at).mkdir(parents=True)
    for place, n in enumerate(places):
        (draft / "media" / at / frame(place)).write_bytes(grey if n is None else data[n])
    return at


def _write_pictures(film: Film, numbers: list[int], store: Store, draft: Path) -> dict[int, str]:
    paths = {}
    for n, picture in zip(numbers, store.pictures(film, numbers), strict=True):
        paths[n] = f"{film.id[:12]}/{name(picture)}"
        place = draft / "media" / paths[n]
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(picture)
    return paths


def embedder_name(said: str) -> str:
    """The name under which vectors are stored: a CLIP folder's own."""
    kind, _, model = said.partition(":")
    return f"clip-{Path(model or 'clip-vit-large-patch14').name}" if kind == "clip" else said


def _finish(out: Path, seen: Sequence[Seen], settings: Settings) -> Made:
    """The files of the whole, from those of the shards."""
    for file in ("records.jsonl", "films.jsonl"):
        parts = (part / file for part in sorted((out / "shards").iterdir()))
        draft = out / f".{file}"
        with draft.open("wb") as sink:
            for part in parts:
                sink.write(part.read_bytes())
        draft.replace(out / file)
    films, records = (
        [json.loads(x) for x in (out / file).open(encoding="utf-8")]
        for file in ("films.jsonl", "records.jsonl")
    )
    outcomes = dict(sorted(Counter(film["outcome"] for film in films).items()))
    counted = {k: sum(r["mvp"]["k"] == k for r in records) for k in settings.sampling.ks}
    audited = audits.audit(records, out)
    folder.write_json(
        out / "report.json",
        {"settings": settings.key, "videos": outcomes, "items": counted, "audits": audited},
    )
    sheet.write(out / "index.html", records, films, audited, out)
    cost: Counter[str] = Counter()
    for one in seen:
        cost.update(one.cost)
    hours = sum(s.seconds for s in seen) / 3600
    return Made(outcomes, counted, audited, hours, dict(cost))
