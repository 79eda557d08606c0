"""The nouns of evaluation: what is asked, under which protocol, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Modality = Literal["video", "image", "text"]

IMAGE = "<image>"  # where a question says so, one of its further pictures stands

#: Video-R1 family's `problem_type` values, then what the family lacks: two grounded kinds, and the
#: numbers of shown pictures in the order asked for.
Kind = Literal[
    "multiple choice",
    "numerical",
    "regression",
    "OCR",
    "free-form",
    "temporal grounding",
    "grounded qa",
    "ordering",
]


class Outcome(StrEnum):
    """What became of one reply. Every sample has exactly one; none is dropped."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"  # the reply ended, but no answer could be read from it
    TRUNCATED = "truncated"  # no answer, and the reply hit the token limit
    UNDECODABLE = "undecodable"  # the video or image could not be read
    TIMEOUT = "timeout"  # decoding or generating took longer than its limit


#: Such a question was never asked: one row stands for all its replies.
LOST = (Outcome.UNDECODABLE, Outcome.TIMEOUT)


@dataclass(frozen=True)
class Evidence:
    """Where the answer can be seen: seconds `[start, end]` and a box `[x0, y0, x1, y1]` in 0..1."""

    interval: tuple[float, float]
    region: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One question about one clip.

    `options` are the printed lines ("A. red"); `gold` is the text inside the solution's answer
    tags: a letter, a number, numbers in order, `[start, end]` in seconds, or
    `letter [start, end]`; where several intervals are right, ` or ` joins them.
    `cluster` groups the questions of one video, the unit of
    clustered errors. `tags` go into the rows and are what scores are broken down by; `facts` are
    what a prompt may need besides (see evals.prompts). `form` picks the benchmark's own wording
    where it has several. `span`: the seconds of the media that belong to the question; `stop`: the
    first frame number that must never be shown. `rate`: frames per second where the media is a
    folder of pictures, one a frame. `media` may lead through an archive
    (videos.zip/a.mp4): evals.archive.local gives a file. `images`: further pictures, one for every
    `<image>` in the question, in order; with them `media` may be None where `modality` is image.
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
    facts: Mapping[str, str] = field(default_factory=dict)
    form: str = ""
    span: tuple[float, float] | None = None
    stop: int | None = None
    rate: float | None = None
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class VideoClip:
    """Decoded frames with the time base that the model must be told, and the pictures beside them.

    frames: (F, H, W, 3) uint8, RGB. indices: F source frame numbers, ascending.
    fps: frames per second of the source; total: frames in the source.
    An image is a clip of one frame with `modality == "image"`. images: (H, W, 3) uint8 each, which
    stand where the words say `<image>`; beside them F may be 0.
    """

    frames: npt.NDArray[np.uint8]
    indices: tuple[int, ...]
    fps: float
    total: int
    modality: Modality = "video"
    images: tuple[npt.NDArray[np.uint8], ...] = ()

    @property
    def nbytes(self) -> int:
        """Of all pixels."""
        return self.frames.nbytes + sum(image.nbytes for image in self.images)

    @property
    def duration(self) -> float:
        """Seconds of the source."""
        return self.total / self.fps

    @property
    def seconds(self) -> tuple[float, ...]:
        """When each frame is seen, from the start of the clip."""
        return tuple(i / self.fps for i in self.indices)

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


def _later(default: Any) -> Any:
    """A field that came after the first committed records: left out of data and hash when it has
    its default, so that what was hashed without it keeps its hash.
    """
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class Protocol:
    """Everything that may move a score, as data. Two scores compare only if these agree.

    | field                       | meaning                                                       |
    |-----------------------------|---------------------------------------------------------------|
    | prompt, wording             | prompt id; first 8 hex digits of the sha256 of its templates  |
    | system, before, prefix      | system turn (None: the chat template's own), text before the  |
    |                             | clip, text that begins the answer                             |
    | grader, iou, overlap        | how answers are read; an interval counts from this IoU or IoP |
    | sampling, fps, *_frames     | frame law (evals.frames) and its numbers                      |
    | clipped                     | whether only the question's own span of the video is shown    |
    | min_pixels, max_pixels      | per frame after resizing                                      |
    | total_pixels                | over all frames, 0 for no limit (evals.frames.frame_pixels)   |
    | positions                   | rule of the multimodal rotary positions                       |
    | time                        | "true" sampled rate, "constant" one second per grid row       |
    | subtitles                   | none, sampled (lines at the shown frames), all                |
    | subset                      | part of the benchmark, "" for all                             |
    | aggregation, denominator    | headline (evals.aggregate); which rows it counts              |
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
    wording: str = _later("")
    system: str | None = _later(None)
    before: str = _later("")
    prefix: str = _later("")
    overlap: Literal["iou", "iop"] = _later("iou")
    sampling: str = _later("video-r1")
    clipped: bool = _later(True)
    total_pixels: int = _later(0)
    subtitles: Literal["none", "sampled", "all"] = _later("none")
    subset: str = _later("")
    aggregation: str = _later("micro")
    denominator: Literal["all", "replied", "answered"] = _later("all")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in field order; later fields only where they differ from their default."""
        data = asdict(self)
        for f in fields(self):
            if "later" in f.metadata and data[f.name] == f.default:
                del data[f.name]
        return data

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
    """One scored reply, as saved. `score` is in [0, 1]; `k` numbers the replies of one question.
    `prediction` is what was read: of an unparsed reply to a grounded question its letter, if any.
    """

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
