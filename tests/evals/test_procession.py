"""evals.procession: what is missing can be told, by one answer, and by nothing but the pictures."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

from evals import microworld as world
from evals import procession
from evals.benchmarks import Benchmark, load
from evals.models import Scripted
from evals.procession import GAP, PICTURES, SIDE, TIERS, Item, Procession
from evals.run import evaluate, summary
from evals.types import Protocol, Sample
from evals.video import read_image


def made(seed: int) -> Procession:
    return procession.compose(np.random.default_rng(seed))


def masks(n: int = 300) -> list[Item]:
    return [procession.mask(np.random.default_rng(i), k) for k in TIERS for i in range(n)]


@pytest.fixture(scope="module")
def benchmark_(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return load("microworld", split="masked-validation", root=tmp_path_factory.mktemp("masked"))


def test_every_picture_has_one_successor_and_no_like() -> None:
    for seed in range(50):
        shown = [made(seed).states(t) for t in range(PICTURES)]
        assert len(set(shown)) == PICTURES
        for now, after in pairwise(shown):
            new, old = after
            assert old.name == now[0].name != new.name
            assert (new.x, old.x, new.y) == (0.0, 1.0, old.y)
            assert sum(s[1].name == now[0].name for s in shown) == 1


def test_items_are_well_posed() -> None:
    for item in masks():
        k, missing = len(item.answer), item.missing
        assert missing == tuple(range(missing[0], missing[0] + k))
        assert missing[0] == GAP and item.before == tuple(range(missing[0] - SIDE, missing[0]))
        assert item.after == tuple(range(missing[-1] + 1, missing[-1] + 1 + SIDE))
        others = set(item.pool) - set(missing)
        assert len(item.pool) == 2 * k == len(set(item.pool)) and len(others) == k
        assert not others & {*item.before, *item.after}
        assert all(p < missing[0] - 1 or p > missing[-1] + 1 for p in others)  # a step away
        assert len({p < missing[0] for p in others}) == min(2, k)  # from both sides


def test_where_the_answer_lies_says_nothing() -> None:
    for k in TIERS:
        items = [procession.mask(np.random.default_rng([7, i]), k) for i in range(2000)]
        for rank in range(k):
            found = Counter(item.answer[rank] for item in items)
            assert chisquare([found[s] for s in range(1, 2 * k + 1)]).pvalue > 1e-4


def test_a_split_holds_questions_and_items(benchmark_: Benchmark) -> None:
    items = [s for s in benchmark_.samples if s.kind == "ordering"]
    n = world.SIZES["masked-validation"]
    assert Counter(s.tags["family"] for s in items) == {f"mvp {k}+{k}": n for k in TIERS}
    assert len({s.cluster for s in items}) == n
    questions = [s for s in benchmark_.samples if s.kind != "ordering"]
    assert len(questions) == 4 * n and len({s.id for s in benchmark_.samples}) == 6 * n
    assert {s.tags["family"] for s in questions} == set(world.FAMILIES)
    found = summary(evaluate(Scripted("oracle"), benchmark_, Protocol("test")))
    assert found["score"] == 1.0


def test_the_pictures_are_those_of_the_procession(benchmark_: Benchmark) -> None:
    """Read back from their files: the answer's pictures go on from the last before the gap."""
    for sample in [s for s in benchmark_.samples if s.kind == "ordering"][:30]:
        pictures = [read_image(path)[0] for path in sample.images]
        assert pictures[0].shape == (world.SIDE, world.SIDE, 3)
        chain = [pictures[SIDE - 1]]
        chain += [pictures[2 * SIDE + int(slot) - 1] for slot in sample.gold.split(", ")]
        chain += [pictures[SIDE]]
        half = world.SIDE // 2
        for now, after in pairwise(chain):
            assert np.array_equal(now[:, :half], after[:, half:])


def test_names_and_sizes_of_pictures_say_nothing(benchmark_: Benchmark) -> None:
    """Whoever orders the pool by file name, or by its size, is right as often as by chance."""
    items = [s for s in benchmark_.samples if s.tags["family"] == "mvp 2+2"]

    def guessed(sample: Sample, by: str) -> bool:
        pool = sample.images[2 * SIDE :]
        key = {"name": lambda p: p.name, "size": lambda p: (p.stat().st_size, p.name)}[by]
        order = sorted(range(len(pool)), key=lambda i: key(pool[i]))
        return ", ".join(str(i + 1) for i in order[:2]) == sample.gold

    for by in ("name", "size"):
        right = sum(guessed(s, by) for s in items)
        assert right <= 5 + 3 * (len(items) / 12 * 11 / 12) ** 0.5  # 1 in 12, and 3 s.e.


def test_no_procession_is_in_two_splits_and_the_same_is_made_twice(tmp_path: Path) -> None:
    seen = {
        split: {p for _, p in procession.processions(split, 60, 0)}
        for split in world.SIZES
        if split.startswith(world.MASKED)
    }
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 240
    for split, own in seen.items():
        assert all(p.bucket() in world.buckets(split) for p in own)
    folders = [world.make("masked-train", n=3, cache=tmp_path / name) for name in "ab"]
    one, other = (
        {p.relative_to(f): p.read_bytes() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in folders
    )
    assert one == other and len(one) > 3
