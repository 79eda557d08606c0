"""evals.frames: the laws against tables worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import BadInput
from evals.frames import LAWS, Ask, NoFrames, choose, frame_pixels, shown
from evals.types import Protocol

TABLE = [
    # law, frames in all, fps, (rate, least, most), frame numbers
    ("video-r1", 100, 25.0, (2.0, 4, 16), [0, 14, 28, 42, 57, 71, 85, 99]),  # 8 = 4 s x 2
    ("video-r1", 100, 25.0, (2.0, 4, 6), [0, 20, 40, 59, 79, 99]),
    ("video-r1", 30, 30.0, (2.0, 4, 16), [0, 10, 19, 29]),  # never fewer than 4
    ("video-r1", 7, 4.0, (2.0, 4, 16), [0, 2, 4, 6]),
    ("video-r1", 3, 1.0, (2.0, 4, 16), [0, 2]),  # no more than there are, and even
    ("video-r1", 1, 25.0, (2.0, 4, 16), [0]),
    ("fixed", 100, 25.0, (2.0, 4, 4), [0, 33, 66, 99]),
    ("fixed", 100, 25.0, (2.0, 4, 5), [0, 33, 66, 99]),
    ("fixed", 5, 25.0, (2.0, 4, 16), [0, 1, 3, 4]),  # 1.33, 2.67
    ("linspace-floor", 10, 25.0, (2.0, 4, 4), [0, 3, 6, 9]),
    ("linspace-floor", 10, 25.0, (2.0, 4, 5), [0, 2, 4, 6, 9]),  # 2.25, 4.5, 6.75
    ("linspace-floor", 2, 25.0, (2.0, 4, 4), [0, 0, 0, 1]),
    ("midpoint", 17, 25.0, (2.0, 4, 4), [2, 6, 10, 14]),
    ("midpoint", 11, 25.0, (2.0, 4, 3), [1, 4, 8]),  # 1.67 + 0, 3, 7
    ("interior", 10, 25.0, (2.0, 4, 4), [2, 4, 6, 8]),
    ("interior", 100, 25.0, (2.0, 4, 8), [11, 22, 33, 44, 55, 66, 77, 88]),
    ("rate", 100, 25.0, (1.0, 4, 4), [0, 25, 50, 75]),
    ("rate", 100, 25.0, (0.5, 4, 4), [0, 50]),
    ("rate", 90, 29.97, (1.0, 4, 4), [0, 29, 59]),  # 3.003 s
    ("rate", 10, 25.0, (1.0, 4, 4), [0]),  # shorter than a second
    ("rate-tail", 100, 25.0, (1.0, 4, 4), [0, 25, 50, 75, 99]),
    ("rate-capped", 100, 25.0, (1.0, 4, 4), [0, 25, 50, 75]),
    ("rate-capped", 100, 25.0, (1.0, 4, 3), [0, 49, 99]),
]


@pytest.mark.parametrize(("law", "total", "fps", "ask", "numbers"), TABLE)
def test_table(
    law: str, total: int, fps: float, ask: tuple[float, int, int], numbers: list[int]
) -> None:
    found = choose(law, total, fps, Ask(*ask))
    assert list(found.indices) == numbers
    assert found.seconds == tuple(n / fps for n in numbers)


def test_every_law_has_a_table() -> None:
    assert {row[0] for row in TABLE} == set(LAWS)


@given(
    law=st.sampled_from(sorted(LAWS)),
    total=st.integers(1, 100_000),
    fps=st.floats(0.5, 120),
    rate=st.floats(0.1, 4),
    least=st.integers(1, 8),
    most=st.integers(1, 64),
)
def test_numbers_ascend_and_exist(
    law: str, total: int, fps: float, rate: float, least: int, most: int
) -> None:
    indices = choose(law, total, fps, Ask(rate, least, max(least, most))).indices
    assert indices and list(indices) == sorted(indices)
    assert 0 <= indices[0] and indices[-1] < total


def test_span_and_stop() -> None:
    """Frames 25 to 50 are a video of 26 frames (1.04 s): at least 4, 25/3 apart."""
    ask = Ask(2.0, 4, 16)
    assert choose("video-r1", 100, 25.0, ask, span=(1.0, 2.0)).indices == (25, 33, 42, 50)
    part = choose("video-r1", 100, 25.0, ask, span=(1.0, 2.0))
    assert (part.own, part.first, part.total) == ((0, 8, 17, 25), 25, 26)
    assert choose("linspace-floor", 100, 25.0, Ask(most=2), stop=50).indices == (0, 49)
    assert choose("linspace-floor", 100, 25.0, Ask(most=2), span=(3.0, 99.0)).indices == (75, 99)
    whole = Protocol("test", sampling="linspace-floor", max_frames=2, clipped=False)
    assert shown(whole, 100, 25.0, span=(1.0, 2.0)).indices == (0, 99)
    assert shown(replace(whole, clipped=True), 100, 25.0, span=(1.0, 2.0)).indices == (25, 50)
    with pytest.raises(NoFrames, match="no frame of 100 lies"):
        choose("fixed", 100, 25.0, ask, span=(9.0, 10.0))
    with pytest.raises(BadInput, match="unknown frame law 'every'; known: video-r1"):
        choose("every", 100, 25.0, ask)


@pytest.mark.parametrize(
    ("frames", "side"),
    [(60, 231), (234, 117), (768, 65)],  # temporal_r1.md 3.1: squares of about 2,048 tokens in all
)
def test_a_total_budget_shrinks_frames(frames: int, side: int) -> None:
    law = Protocol("t", min_pixels=3136, max_pixels=602112, total_pixels=1605632)
    assert abs(frame_pixels(law, frames) ** 0.5 - side) < 1
    assert frame_pixels(law, 2) == 602112
    assert frame_pixels(law, 100_000) == 3292  # 1.05 x 3136
    assert frame_pixels(replace(law, total_pixels=0), frames) == 602112
