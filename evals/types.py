"""The nouns of evaluation: what is asked, under which protocol, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Modality = Literal["video", "image", "text"]

#: Video-R1 family's `problem_type` values, then the two grounded kinds the family lacks.
Kind = Literal[
    "multiple choice",
    "numerical",
    "regression",
    "OCR",
    "free-form",
    "temporal grounding",
    "grounded qa",
]


class Outcome(StrEnum):
    """What became of one reply. Every sample has exactly one; none is dropped."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"  # the reply ended, but no answer could be read from it
    TRUNCATED = "truncated"  # no answer, and the reply hit the token limit
    UNDECODABLE = "undecodable"  # the video or image could not be read
    TIMEOUT = "timeout"  # decoding or generating took longer than its limit


@dataclass(frozen=True)
class Evidence:
    """Where the answer can be seen: seconds `[start, end]` and a box `[x0, y0, x1, y1]` in 0..1."""

    interval: tuple[float, float]
    region: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One question about one clip.

    `options` are the printed lines ("A. red"); `gold` is the text inside the solution's answer
    tags: a letter, a number, `[start, end]` in seconds, or `letter [start, end]`.
    `cluster` groups the questions of one video, the unit of clustered errors.
    """

    id: str
    question: str
    kind: Kind
    gold: str
    modality: Modality
    media: Path | None
    options: tuple[str, ...] = ()
    cluster: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    evidence: Evidence | None = None


@dataclass(frozen=True)
class VideoClip:
    """Decoded frames with the time base that the model must be told.

    frames: (F, H, W, 3) uint8, RGB. indices: F source frame numbers, ascending.
    fps: frames per second of the source; total: frames in the source.
    An image is a clip of one frame with `modality == "image"`.
    """

    frames: npt.NDArray[np.uint8]
    indices: tuple[int, ...]
    fps: float
    total: int
    modality: Modality = "video"

    @property
    def duration(self) -> float:
        """Seconds of the source."""
        return self.total / self.fps

    @property
    def sampled_fps(self) -> float:
        """Frames per second after sampling, as Qwen's processor defines it: F / total * fps."""
        return len(self.indices) / self.total * self.fps


@dataclass(frozen=True)
class Decoding:
    """How replies are drawn. `temperature` 0 means greedy; `samples` replies per question."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 1024
    samples: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Protocol:
    """Everything that may move a score, as data. Two scores compare only if these agree.

    fps, min_frames, max_frames: the Video-R1 frame law (frames at `fps`, clamped, even,
    evenly spaced with rounding). min_pixels, max_pixels: per frame after resizing.
    positions: rule of the multimodal rotary positions. time: "true" uses the sampled rate,
    "constant" one second per grid row. iou: threshold above which an interval counts as correct.
    """

    id: str
    prompt: str = "video-r1"
    grader: str = "reelproof"
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 16
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 256 * 28 * 28
    positions: str = "original"
    time: Literal["true", "constant"] = "true"
    iou: float = 0.5
    decoding: Decoding = field(default_factory=Decoding)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in field order."""
        return asdict(self)

    @property
    def hash(self) -> str:
        """First 8 hex digits of the sha256 of the canonical JSON, decoding seed left out."""
        data = self.as_dict()
        data["decoding"].pop("seed")
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Reply:
    """One generated text; `finished` is False when it hit the token limit."""

    text: str
    tokens: int
    finished: bool = True


@dataclass(frozen=True)
class Row:
    """One scored reply, as saved. `score` is in [0, 1]; `k` numbers the replies of one question."""

    id: str
    k: int
    cluster: str
    kind: str
    gold: str
    prediction: str | None
    outcome: str
    score: float
    tokens: int
    tags: Mapping[str, str] = field(default_factory=dict)
    reply: str | None = None
    detail: str | None = None  # why a sample could not be scored
