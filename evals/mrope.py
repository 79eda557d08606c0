"""Multimodal rotary positions of the Qwen2-VL / Qwen2.5-VL family, by the rule of record.

With `start` the first position of a vision block, row i of its time axis and merged coordinates
(h, w), the three ids of a vision token are

    t = start + floor(i * second_per_grid * tokens_per_second),   start + h,   start + w

and the text after the block resumes at (largest id of all three axes) + 1: the rule Qwen2.5-VL's
checkpoints were released with (transformers 4.49.0), whose products are rounded to float32: 7/6 s
per row at 2 tokens per second puts row 3 at 7, where wider arithmetic on the same float32 says 6.
Later releases of transformers differ: `v4.57` casts second_per_grid to an integer; `v5` does so
too, and resumes the text at start + max(H, W), inside the time of the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RULES = ("original", "v4.57", "v5")


@dataclass(frozen=True)
class Text:
    """`length` tokens of text."""

    length: int


@dataclass(frozen=True)
class Vision:
    """A vision block: its merged grid (t, h, w), and seconds per grid row (0 for an image)."""

    grid: tuple[int, int, int]
    second_per_grid: float


def positions(
    segments: Sequence[Text | Vision], *, tokens_per_second: float, rule: str = "original"
) -> npt.NDArray[np.int64]:
    """(3, L) integer position ids: time, height, width.

    Raises ValueError for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"unknown position rule {rule!r}; known: {', '.join(RULES)}")
    parts: list[npt.NDArray[np.int64]] = []
    at = 0
    for segment in segments:
        if isinstance(segment, Text):
            parts.append(np.tile(np.arange(at, at + segment.length), (3, 1)))
            at += segment.length
            continue
        t, h, w = segment.grid
        seconds = segment.second_per_grid if rule == "original" else int(segment.second_per_grid)
        time = np.arange(t, dtype=np.float32) * np.float32(seconds) * np.float32(tokens_per_second)
        rows = np.floor(time).astype(np.int64)
        block = np.stack(np.meshgrid(rows, np.arange(h), np.arange(w), indexing="ij"))
        parts.append(block.reshape(3, -1) + at)
        at = at + max(h, w) if rule == "v5" else int(parts[-1].max()) + 1
    return np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), np.int64)
