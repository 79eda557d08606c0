"""evals.framestore: what is read back is what was put, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evals.framestore import FrameStore, key

SIZE = 128 + 8 * 8 * 3  # of a file's .npy part: head and pixels


def frames(level: int) -> np.ndarray:
    return np.full((1, 8, 8, 3), level, np.uint8)


@settings(max_examples=25, deadline=None)
@given(array=arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 3, st.just(3))))
def test_lossless(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    store = FrameStore(tmp_path_factory.mktemp("store"))
    store.put("ab" * 32, array)
    found = store.get("ab" * 32)
    assert found is not None and found.dtype == np.uint8 and (found == array).all()


def test_every_part_of_the_key_counts() -> None:
    whole = ("0" * 64, (0, 1), 8, 8, "pyav 18")
    others = [
        ("1" * 64, (0, 1), 8, 8, "pyav 18"), ("0" * 64, (0, 2), 8, 8, "pyav 18"),
        ("0" * 64, (0, 1), 9, 8, "pyav 18"), ("0" * 64, (0, 1), 8, 9, "pyav 18"),
        ("0" * 64, (0, 1), 8, 8, "pyav 19"), whole,
    ]  # fmt: skip
    assert len({key(*parts) for parts in others}) == len(others)


def test_damage_counts_as_absent(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    for damage in (lambda d: d[:-1], lambda d: d[:-1] + b"x", lambda d: b"", lambda d: d[:20]):
        store.put("ab" * 32, frames(1))
        (file,) = tmp_path.glob("??/*")
        file.write_bytes(damage(file.read_bytes()))
        assert store.get("ab" * 32) is None
        assert not list(tmp_path.glob("??/*"))


def test_the_budget_is_kept_and_the_oldest_go(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, budget=3 * (SIZE + 32))
    keys = [f"{i:02x}" * 32 for i in range(5)]
    for i, name in enumerate(keys[:3]):
        store.put(name, frames(i))
        os.utime(tmp_path / name[:2] / name, (i, i))
    assert store.get(keys[0]) is not None  # now used last
    store.put(keys[3], frames(3))
    assert [store.get(k) is not None for k in keys[:4]] == [True, False, True, True]
    other = FrameStore(tmp_path, budget=3 * (SIZE + 32))  # another process
    other.put(keys[4], frames(4))
    assert len(list(tmp_path.glob("??/*"))) == 3
    FrameStore(tmp_path / "small", budget=10).put(keys[0], frames(0))
    assert not (tmp_path / "small").exists()


def test_a_folder_one_may_not_write_only_stops_storing(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    store = FrameStore(tmp_path)
    store.put("ab" * 32, frames(0))
    tmp_path.chmod(0o700)
    assert store.full and store.get("ab" * 32) is None
