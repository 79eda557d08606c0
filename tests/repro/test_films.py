"""repro.films: the same few films in every run, small, and only those made here as pictures."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

from PIL import Image

from evals import benchmarks, made
from repro import films
from results.schema import strips_from


def test_pictures_of_films_made_here() -> None:
    benchmark = benchmarks.load("microworld", split="validation")
    found = films.strips(benchmark)
    text = json.dumps(found)
    assert strips_from(text) == tuple(found) and len(text) < 40_000
    of = {s.id: s for s in benchmark.samples}
    kinds = [of[film["id"]].kind for film in found]
    assert kinds.count("temporal grounding") == kinds.count("grounded qa") == films.SHOWN // 2
    assert len({of[film["id"]].cluster for film in found}) == films.SHOWN
    for film in found:
        assert film["seconds"] == 4.0 and len(film["pictures"]) == films.PICTURES
        assert bool(film["letter"]) == (of[film["id"]].kind == "grounded qa")
        for picture in film["pictures"]:
            assert Image.open(io.BytesIO(base64.b64decode(picture))).height == films.HEIGHT
    mixed = replace(benchmark, samples=benchmark.samples[::-1])
    assert {f["id"] for f in films.strips(mixed)} == {f["id"] for f in found}
    assert films.strips(replace(benchmark, samples=())) == []


def test_no_pictures_of_films_of_others(tmp_path: Path) -> None:
    found = films.strips(benchmarks.load("nextgqa", root=made.make("nextgqa", tmp_path)))
    assert found and all(film["pictures"] == [] and film["seconds"] > 0 for film in found)


def test_a_film_that_cannot_be_read_has_no_pictures() -> None:
    benchmark = benchmarks.load("microworld", split="validation")
    gone = tuple(replace(s, media=Path("gone.mp4")) for s in benchmark.samples)
    assert {len(f["pictures"]) for f in films.strips(replace(benchmark, samples=gone))} == {0}
