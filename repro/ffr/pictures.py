"""Frames as a teacher sees them: within a budget of pixels, JPEG, number and time printed below."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt

#: JPEG quality, and height of the printed line in pixels (chosen).
QUALITY, LINE = 90, 14


def jpeg(frame: npt.NDArray[np.uint8], label: str, pixels: int) -> bytes:
    """(H, W, 3) uint8 as JPEG of at most `pixels` pixels and a line with the label below it."""
    from PIL import Image, ImageDraw

    height, width = frame.shape[:2]
    scale = min(1.0, math.sqrt(pixels / (height * width)))
    size = max(1, int(width * scale)), max(1, int(height * scale))
    picture: Any = Image.fromarray(frame)
    if size != (width, height):
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    framed = Image.new("RGB", (max(size[0], 7 * len(label) + 4), size[1] + LINE))
    framed.paste(picture, (0, 0))
    ImageDraw.Draw(framed).text((2, size[1] + 1), label, fill=(255, 255, 255))
    out = io.BytesIO()
    framed.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def crop(
    frame: npt.NDArray[np.uint8], x1: float, y1: float, x2: float, y2: float
) -> npt.NDArray[np.uint8]:
    """The part of (H, W, 3) within shares of its width and height, at least one pixel."""
    height, width = frame.shape[:2]
    left, top = min(int(x1 * width), width - 1), min(int(y1 * height), height - 1)
    right, bottom = max(left + 1, math.ceil(x2 * width)), max(top + 1, math.ceil(y2 * height))
    return frame[top:bottom, left:right]
