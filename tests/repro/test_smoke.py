"""The smoke run: it passes on a working tree, and it would notice a broken one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evals import benchmarks, microworld, models
from evals.models import Scripted
from repro import smoke
from repro.arm import start_checkpoint
from repro.recipe import Recipe


class Quiet:
    def say(self, text: str) -> None: ...

    def update(self, name: str, done: int, total: int) -> None: ...

    def drop(self, name: str) -> None: ...


@pytest.fixture(autouse=True)
def small_world(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
    for split in ("train", "validation"):
        monkeypatch.setitem(microworld.SIZES, split, 24)
    yield


def test_smoke_passes(tmp_path: Path) -> None:
    start_checkpoint(Recipe.load("ktr"))  # shipped with the tree
    checks = smoke.smoke(tmp_path, Quiet())
    assert [check.name for check in checks] == ["oracle", "parrot", "random", "train"]
    assert all(check.ok for check in checks), checks


@pytest.mark.parametrize(("name", "instead"), [("oracle", "parrot"), ("random", "oracle")])
def test_smoke_notices(monkeypatch: pytest.MonkeyPatch, name: str, instead: str) -> None:
    """An evaluator that fails the oracle, or a benchmark that gives its answers away."""
    monkeypatch.setattr(models, "load", lambda asked: Scripted(instead))
    benchmark = benchmarks.load("microworld", split="validation")
    assert not smoke._scripted(name, Recipe.load("ktr"), benchmark, Quiet()).ok
