"""The micro profile's drawn items and the real synthesis agree: the same films, the same rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evals import microworld, procession
from evals.procession import PICTURES, SIDE
from repro.mvp.synthesis.embed import BuiltIn
from repro.mvp.synthesis.films import Filming, pictures
from repro.mvp.synthesis.items import Item, Sampling, items
from repro.mvp.synthesis.records import question
from repro.mvp.synthesis.store import Film, Store

KAPPA = 0.96  # above which two pictures of processions are one to the built-in embedder


def filmed(tmp_path: Path, seed: int) -> tuple[procession.Procession, Film]:
    """A procession as an mp4 of two frames a second, after pass 1."""
    made = procession.compose(np.random.default_rng(seed))
    frames = [microworld.paint(made.states(t)) for t in range(PICTURES) for _ in range(2)]
    microworld.write_film(np.stack(frames), tmp_path / f"{seed}.mp4", fps=2)
    store, name = Store(tmp_path, Filming()), f"{seed:064}"
    with store.writing(name) as writer:
        for seconds, picture in pictures(tmp_path / f"{seed}.mp4", Filming()):
            writer.add(seconds, picture)
    store.embed(name, BuiltIn())
    return made, store.load(name, "built-in")


@pytest.mark.parametrize("k", procession.TIERS)
def test_synthesis_finds_in_a_film_what_was_drawn(tmp_path: Path, k: int) -> None:
    sampling = Sampling(
        KAPPA, (k,), frames=2 * SIDE + k, distractors=2, per_film=1, shortest=10, trim=0.0,
        side=SIDE,
    )  # fmt: skip
    found = 0
    for seed in range(4):
        made, film = filmed(tmp_path, seed)
        assert len(film.seconds) == PICTURES
        for item in items(film, sampling)[0]:
            found += 1
            assert item.masked == tuple(range(item.masked[0], item.masked[0] + k))
            came = [made.names[t] for t in (item.before[-1] + 1, *(m + 1 for m in item.masked))]
            assert [made.names[m] for m in item.masked] == came[:-1]
    assert found >= 2


@pytest.mark.parametrize("k", procession.TIERS)
def test_both_ask_in_the_same_words(k: int) -> None:
    drawn = procession.mask(np.random.default_rng(k), k)
    twin = Item(
        "f" * 64, k, 0, drawn.before, drawn.after, drawn.pool, drawn.answer,
        ("masked",) * len(drawn.pool), (0.0, 0.0, 0.0), 1.0,
    )  # fmt: skip
    assert question(twin, "short") == procession.question(drawn)
    assert twin.masked == drawn.missing
