"""evals.mrope: the rule of record, against numbers by hand and a second implementation."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evals.mrope import RULES, Text, Vision, positions

if TYPE_CHECKING:
    from evals.vlm import VLM

VIDEO = [Text(2), Vision((8, 2, 2), 1.0), Text(3)]


def test_golden_example() -> None:
    """2 text tokens, merged grid 8 x 2 x 2, one second per row, 4 tokens per second, 3 text."""
    ids = positions(VIDEO, tokens_per_second=4)
    assert ids.shape == (3, 2 + 32 + 3)
    assert ids[:, :2].tolist() == [[0, 1]] * 3
    assert ids[0, 2:34:4].tolist() == [2, 6, 10, 14, 18, 22, 26, 30]
    assert ids[1, 2:6].tolist() == [2, 2, 3, 3]
    assert ids[2, 2:6].tolist() == [2, 3, 2, 3]
    assert ids[:, 34:].tolist() == [[31, 32, 33]] * 3


def test_the_three_rules_differ_where_documented() -> None:
    by = {rule: positions(VIDEO, tokens_per_second=4, rule=rule) for rule in RULES}
    assert by["v4.57"][0].tolist() == by["original"][0].tolist()  # a whole number of seconds
    assert by["v5"][0, :34].tolist() == by["original"][0, :34].tolist()
    assert by["v5"][0, 34:].tolist() == [4, 5, 6]  # inside the time of the video
    half = [Text(2), Vision((8, 2, 2), 0.5), Text(3)]
    by = {rule: positions(half, tokens_per_second=4, rule=rule) for rule in RULES}
    assert by["original"][0, 2:34:4].tolist() == [2, 4, 6, 8, 10, 12, 14, 16]
    assert by["original"][0, 34] == 17
    assert by["v4.57"][0, 2:34:4].tolist() == [2] * 8  # all frames at one instant
    assert by["v4.57"][0, 34] == by["v5"][0, 34] == 4


def test_the_fraction_is_kept_until_the_end() -> None:
    ids = positions([Vision((5, 1, 1), 0.75)], tokens_per_second=2)
    assert ids[0].tolist() == [0, 1, 3, 4, 6]


def test_an_image_is_one_instant_and_text_follows_its_larger_side() -> None:
    ids = positions([Text(1), Vision((1, 2, 5), 0.0), Text(1)], tokens_per_second=2)
    assert ids.tolist() == [
        [0] + [1] * 10 + [6],
        [0] + [1] * 5 + [2] * 5 + [6],
        [0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6],
    ]


def test_products_are_float32_as_in_the_release() -> None:
    """8 of 112 frames at 24 fps: 7/6 s per row. 3 * 7/6 * 2 is 7, and so says float32; the float32
    nearest to 7/6 is smaller, so float64 would say 6."""
    seconds = float(np.float32(7 / 6))
    assert int(3 * seconds * 2) == 6
    ids = positions([Vision((4, 1, 1), seconds)], tokens_per_second=2)
    assert ids[0].tolist() == [0, 2, 4, 7]


def test_nothing_and_unknown_rules() -> None:
    assert positions([], tokens_per_second=2).shape == (3, 0)
    with pytest.raises(ValueError, match="unknown position rule 'v6'; known: original"):
        positions([Text(1)], tokens_per_second=2, rule="v6")


def naive(segments: list[Text | Vision], tps: int, rule: str) -> list[tuple[int, int, int]]:
    """Token by token, with torch's arithmetic for the time as transformers 4.49 has it."""
    import torch

    out: list[tuple[int, int, int]] = []
    for segment in segments:
        start = max((max(ids) for ids in out), default=-1) + 1
        if rule == "v5":
            start = naive_v5_start(segments[: segments.index(segment)])
        if isinstance(segment, Text):
            out += [(start + i,) * 3 for i in range(segment.length)]
            continue
        seconds = torch.tensor(segment.second_per_grid, dtype=torch.float32)
        if rule != "original":
            seconds = seconds.to(torch.int64)
        for i, h, w in product(*map(range, segment.grid)):
            time = torch.tensor([i]) * seconds * tps
            out.append((start + int(time.long()), start + h, start + w))
    return out


def naive_v5_start(before: list[Text | Vision]) -> int:
    return sum(s.length if isinstance(s, Text) else max(s.grid[1:]) for s in before)


# Unique by construction: equal segments would confuse `index` above.
texts = st.integers(1, 5).map(Text)
rates = st.sampled_from([0.5, 1.0, 2.0, 3.0, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0])


@st.composite
def visions(draw: st.DrawFn) -> Vision:
    """A video sampled to n frames as the processor would report it, or an image."""
    grid = tuple(draw(st.integers(1, 4)) for _ in range(2))
    if draw(st.booleans()):
        return Vision((1, *grid), 0.0)
    rows, total, fps = draw(st.integers(1, 8)), draw(st.integers(16, 4000)), draw(rates)
    return Vision((rows, *grid), float(np.float32(2 / (2 * rows / total * fps))))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(texts, visions()), max_size=4, unique=True), st.sampled_from(RULES),
       st.sampled_from([2, 4, 25]))  # fmt: skip
@example([Vision((8, 1, 1), float(np.float32(1.4)))], "original", 2)
def test_equals_a_naive_implementation(segments: list, rule: str, tps: int) -> None:
    ids = positions(segments, tokens_per_second=tps, rule=rule)
    assert ids.T.tolist() == [list(row) for row in naive(segments, tps, rule)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(texts, visions()), min_size=1, max_size=4), st.sampled_from([2, 25]))
def test_original_never_goes_back(segments: list, tps: int) -> None:
    """Time never decreases, and every segment starts behind all that came before it."""
    ids, at = positions(segments, tokens_per_second=tps), 0
    assert (np.diff(ids[0]) >= 0).all()
    for segment in segments:
        n = segment.length if isinstance(segment, Text) else int(np.prod(segment.grid))
        if at:
            assert ids[:, at : at + n].min() == ids[:, :at].max() + 1
        at += n
    assert at == ids.shape[1]


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.5, 2.0])
def test_installed_transformers_follows_v5(student: VLM, seconds: float) -> None:
    """Documents the difference: `get_rope_index` truncates the seconds and resumes early."""
    import torch

    segments = [Text(3), Vision((8, 2, 2), seconds), Text(4)]
    ids = torch.zeros(1, 39, dtype=torch.long)
    kinds = torch.tensor([[0] * 3 + [2] * 32 + [0] * 4])
    theirs, _ = student.model.model.get_rope_index(
        ids, kinds, video_grid_thw=torch.tensor([[8, 4, 4]]),
        second_per_grid_ts=torch.tensor([seconds]),
    )  # fmt: skip
    tps = student.tokens_per_second
    ours = {rule: positions(segments, tokens_per_second=tps, rule=rule) for rule in RULES}
    assert theirs[:, 0].tolist() == ours["v5"].tolist()
    assert theirs[:, 0].tolist() != ours["original"].tolist()
