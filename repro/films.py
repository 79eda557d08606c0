"""Films of a few located questions, small, for the timeline in the report (results.schema).

Pictures are taken only of films that were made here: other owners' films are not to be passed on
with a record. Without pictures the timeline still shows when.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from evals.benchmarks import Benchmark
from evals.errors import Undecodable
from evals.grade import GROUNDED, windows
from evals.seeds import derive
from evals.types import Sample

#: Chosen: films shown, pictures of each, their height in pixels and WebP quality: about 20 kB.
SHOWN, PICTURES, HEIGHT, QUALITY = 6, 8, 56, 60


def strips(benchmark: Benchmark, limit: int | None = None) -> list[dict[str, Any]]:
    """Of every kind of located question as many, each about another film; the same in every run."""
    found: list[dict[str, Any]] = []
    for sample in _chosen(benchmark.samples[:limit]):
        truths = windows(sample.gold, sample.kind, sample.options)
        seconds, pictures = _seen(sample) if benchmark.name == "microworld" else (0.0, [])
        last = max(end for _, end in truths)
        found.append(
            {
                "id": sample.id,
                "question": sample.question,
                "letter": sample.gold.strip()[:1] if sample.kind == "grounded qa" else "",
                "seconds": seconds or float(sample.facts.get("duration") or 0) or last or 1.0,
                "truths": [[float(start), float(end)] for start, end in truths],
                "pictures": pictures,
            }
        )
    return found


def _chosen(samples: Sequence[Sample]) -> list[Sample]:
    """In the benchmark's order; who is first of a kind is drawn by id."""
    chosen: dict[str, Sample] = {}
    films: set[str] = set()
    for kind in GROUNDED:
        own = [s for s in samples if s.kind == kind and s.modality == "video"]
        for sample in sorted(own, key=lambda s: derive("strip", s.id)):
            if sum(s.kind == kind for s in chosen.values()) == SHOWN // len(GROUNDED):
                break
            if sample.cluster not in films:
                films.add(sample.cluster)
                chosen[sample.id] = sample
    return [s for s in samples if s.id in chosen]


def _seen(sample: Sample) -> tuple[float, list[str]]:
    """Seconds of a film and its pictures, each from the middle of its share; none of a film that
    cannot be read, which the rows name."""
    from evals.video import decode, probe

    assert sample.media is not None
    try:
        info = probe(sample.media)
        places = [int((i + 0.5) * info.frames / PICTURES) for i in range(PICTURES)]
        frames = decode(sample.media, tuple(sorted(set(places))))
    except Undecodable:
        return 0.0, []
    return info.frames / info.fps, [_small(frame) for frame in frames]


def _small(frame: Any) -> str:
    from PIL import Image

    picture = Image.fromarray(frame)
    picture = picture.resize((max(1, round(picture.width * HEIGHT / picture.height)), HEIGHT))
    held = io.BytesIO()
    picture.save(held, "WEBP", quality=QUALITY)
    return base64.b64encode(held.getvalue()).decode()
