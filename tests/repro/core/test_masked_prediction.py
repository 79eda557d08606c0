"""A training step on records that were synthesized from films: prompts of twenty pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evals.benchmarks.jsonl import read
from evals.types import Sample
from repro.core.types import Group
from repro.mvp.method import MVP
from repro.mvp.switches import Curriculum, Switches
from repro.mvp.synthesis.embed import BuiltIn
from repro.mvp.synthesis.films import Filming, jpeg
from repro.mvp.synthesis.items import Item, Sampling, items
from repro.mvp.synthesis.records import clip, frame, name, record, shown
from repro.mvp.synthesis.store import Store
from tests import scenes


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Items of K = 2 and 3 in the student's short wording, the context as pictures."""
    return made(tmp_path_factory.mktemp("asked"), filmed=False)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """The same, the context as a clip."""
    return made(tmp_path_factory.mktemp("filmed"), filmed=True)


def made(root: Path, *, filmed: bool) -> list[Sample]:
    store, found = Store(root, Filming()), []
    for seed in range(4):
        film_id = hashlib.sha256(bytes([seed])).hexdigest()
        with store.writing(film_id) as writer:
            for n, picture in enumerate(scenes.frames(seed, 60, 1, width=56, height=56)):
                writer.add(float(n), picture)
        store.embed(film_id, BuiltIn())
        film = store.load(film_id, "built-in")
        for item in items(film, Sampling(0.85, (2, 3), frames=10, shortest=20))[0]:
            jpegs = dict(zip(shown(item), store.pictures(film, shown(item)), strict=True))
            for data in jpegs.values():
                (root / name(data)).write_bytes(data)
            paths = {n: name(data) for n, data in jpegs.items()}
            folder = _clip(item, jpegs, root) if filmed else None
            found.append(record(item, film, f"{seed}.mp4", paths, {}, "short", folder))
    (root / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    return read(root / "records.jsonl", root)


def _clip(item: Item, jpegs: dict[int, bytes], root: Path) -> str:
    (root / item.id).mkdir()
    grey = jpeg(np.full((56, 56, 3), 128, np.uint8), 90)
    for place, n in enumerate(clip(item)):
        (root / item.id / frame(place)).write_bytes(grey if n is None else jpegs[n])
    return item.id


class Paid(MVP):
    """With its own switches; a random student earns nothing, so the tokens pay for themselves."""

    def __init__(self, switches: Any, seed: int = 0):
        curriculum = Curriculum((2, 3), steps=1, carry=0.0)
        super().__init__(Switches(share=0.5, curriculum=curriculum), seed)

    def rewards(self, group: Group) -> dict[str, Tensor]:
        lucky = torch.tensor([0.1 * (sum(r.ids) % 2) for r in group.rollouts])
        return {**super().rewards(group), "lucky": lucky}


def test_steps_on_pictures_and_on_questions(
    trainer: Callable[..., Any], asked: list[Sample], records: list[Sample]
) -> None:
    """Both kinds in one batch, tier after tier; the weights move, vision tower included."""
    t = trainer("grpo", steps=2, method=Paid, paid=False, pool=(*asked, *records))
    before = {n: p.detach().clone() for n, p in t.vlm.model.named_parameters()}
    t.train()
    rows = [json.loads(line) for line in (t.out / "metrics.jsonl").open()]
    assert "mvp/sel@2" in rows[0] and "mvp/sel@3" in rows[1]
    for row in rows:
        assert {"accuracy", "selection", "order", "exact", "form", "format"} <= set(row)
        shares = [v for n, v in row.items() if n.startswith("variance/")]
        assert not shares or sum(shares) == pytest.approx(1, abs=1e-4)
        assert row["mismatch"] < 1e-3
    moved = {n for n, p in t.vlm.model.named_parameters() if not torch.equal(p, before[n])}
    assert any("visual" in n for n in moved) and any("layers" in n for n in moved)


def test_the_gradient_reaches_the_clip_and_the_pictures(
    trainer: Callable[..., Any], filmed: list[Sample], records: list[Sample]
) -> None:
    """Of a prompt that holds both: every row of the clip, and every candidate; and it trains."""
    t = trainer("grpo", steps=1, method=Paid, paid=False, pool=(*filmed, *records))
    asked = next(s for s in filmed if s.gold.count(",") == 1)
    prompt = t.collector.prompts.build(asked)
    encoded = prompt.encoded
    assert encoded.grid.shape[0] == 1 + len(asked.images)
    assert encoded.grid[0, 0] == 4  # rows: max_frames is 8
    pixels = encoded.pixels.clone().requires_grad_()
    seen = replace(encoded, pixels=pixels)
    features = t.vlm.features([seen])[0]
    words = t.vlm.run(encoded.ids[None], features, encoded.positions[:, None], None)
    logits = t.vlm.net.lm_head(words[0, -1])
    logits.log_softmax(-1)[t.vlm.end].backward()
    parts = torch.split(pixels.grad, encoded.grid.prod(-1).tolist())
    assert all(float(part.abs().sum()) > 0 for part in parts)
    rows = parts[0].reshape(int(encoded.grid[0, 0]), -1).abs().sum(1)
    assert (rows > 0).all()
    before = {n: p.detach().clone() for n, p in t.vlm.model.named_parameters()}
    t.train()
    moved = {n for n, p in t.vlm.model.named_parameters() if not torch.equal(p, before[n])}
    assert any("visual" in n for n in moved)


def test_a_resumed_run_sees_the_same_records(
    trainer: Callable[..., Any], asked: list[Sample], records: list[Sample]
) -> None:
    pool = (*asked, *records)
    one, other = (trainer("grpo", method=Paid, paid=False, pool=pool) for _ in range(2))
    drawn = [one.method.records(step, one.collector.pool) for step in range(4)]
    assert other.method.records(3, other.collector.pool) == drawn[3]
