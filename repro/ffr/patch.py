"""The evidence patch: what a teacher may hand a student, read strictly and said in fixed words.

    reply = [<think>...</think>] <answer>{"error_class": ..., "key_frames": [...], ...}</answer>

Only the last answer block after the reasoning counts, and only if it is a JSON object of exactly
the fields of `SCHEMA`; no other text of a teacher ever reaches a student (ffr.md 1.6, D19).
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from evals.errors import Failure

ErrorClass = Literal["temporal", "spatial", "misconception"]
Fields = Literal["all", "content", "no_visual"]
CLASSES: tuple[str, ...] = get_args(ErrorClass)

#: Most of each that a patch may hold, and characters of its words (chosen).
MOST_FRAMES, MOST_MARKERS, MOST_REGIONS = 64, 8, 8
LONGEST_GUIDANCE, LONGEST_MARKER = 600, 80
#: Characters of a reply that is read at all (chosen).
LONGEST_REPLY = 64_000

#: Wording of the released trainer (ffr.md 1.7): protocol data.
BEFORE = (
    "\n\nAdditional Information: Based on careful analysis, here is some relevant information "
    "that may help you answer the question:\n"
)
AFTER = "\n\nPlease reconsider the question with this additional context and provide your answer."

_TAGS = re.compile(r"<(/?(?:think|answer))>", re.IGNORECASE | re.ASCII)
_BOX = re.compile(r"<\|(?:begin|end)_of_box\|>")
_TAG = re.compile(r"<\s*[/|]?\s*\w|\|>")


class BadPatch(Failure):
    """A teacher's reply is not a patch; `reason` says why and repeats none of its words."""

    exit_code = 2

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Region:
    """A box of a frame in shares of its width and height: 0 <= x1 < x2 <= 1, likewise y."""

    frame: int
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Patch:
    """Where to look, never what is there. Frames are numbered from 0 among those that the student
    is shown."""

    error_class: ErrorClass
    key_frames: tuple[int, ...]
    temporal_markers: tuple[str, ...]
    regions: tuple[Region, ...]
    guidance: str

    @property
    def words(self) -> str:
        """All free text, one piece a line."""
        return "\n".join((*self.temporal_markers, self.guidance))


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_FRAME = {"type": "integer", "minimum": 0}
#: JSON schema of a patch, for guided decoding.
SCHEMA: dict[str, Any] = _object(
    {
        "error_class": {"type": "string", "enum": list(CLASSES)},
        "key_frames": {"type": "array", "items": _FRAME, "maxItems": MOST_FRAMES},
        "temporal_markers": {
            "type": "array",
            "items": {"type": "string", "maxLength": LONGEST_MARKER},
            "maxItems": MOST_MARKERS,
        },
        "regions": {
            "type": "array",
            "items": _object({"frame": _FRAME, **dict.fromkeys(("x1", "y1", "x2", "y2"), _SHARE)}),
            "maxItems": MOST_REGIONS,
        },
        "guidance": {"type": "string", "minLength": 1, "maxLength": LONGEST_GUIDANCE},
    }
)


# --- reading -------------------------------------------------------------------------------------


def parse(reply: str, frames: int | None = None) -> Patch:
    """The patch in a teacher's reply. frames: how many the student sees, to check numbers against.

    A reply without any tags, as guided decoding gives it, may be the JSON object itself.
    Raises BadPatch, whatever the reply is.
    """
    if len(reply) > LONGEST_REPLY:
        raise BadPatch(f"the reply has more than {LONGEST_REPLY} characters")
    text = _unfenced(_BOX.sub("", _spoken(reply)).strip())
    if not text:
        raise BadPatch("the reply is empty")
    try:
        data = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadPatch("the answer is not valid JSON") from error
    return from_dict(data, frames)


def _spoken(reply: str) -> str:
    """The last answer block after the reasoning, or all that follows the reasoning; a block quoted
    in it is none. One pass, however many tags there are."""
    tags = [(m[1].lower(), m.start(), m.end()) for m in _TAGS.finditer(reply)]
    thought = max((i for i, tag in enumerate(tags) if tag[0] == "/think"), default=-1)
    after = tags[thought + 1 :]
    if any(name == "think" for name, _, _ in after):
        raise BadPatch("the reasoning is not closed")
    if not after:
        return reply[tags[thought][2] :] if thought >= 0 else reply
    if after[-1][0] != "/answer" or len(after) < 2 or after[-2][0] != "answer":
        raise BadPatch("the answer block is not closed, or not opened")
    return reply[after[-2][2] : after[-1][1]]


def _unfenced(text: str) -> str:
    """Without the code fence around all of it."""
    head, _, rest = text.partition("\n")
    if head.strip() in ("```", "```json") and rest.endswith("```"):
        return rest.removesuffix("```").strip()
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def from_dict(data: Any, frames: int | None = None) -> Patch:
    """A patch from plain data. Raises BadPatch unless it has exactly the fields of `SCHEMA`."""
    given = _fields(data, tuple(SCHEMA["properties"]), "the answer")
    if given["error_class"] not in CLASSES:
        raise BadPatch(f"error_class is none of {', '.join(CLASSES)}")
    regions = tuple(_region(r, frames) for r in _list(given, "regions", MOST_REGIONS))
    markers = tuple(
        _text(m, "a temporal marker", LONGEST_MARKER)
        for m in _list(given, "temporal_markers", MOST_MARKERS)
    )
    keys = tuple(_frame(k, frames) for k in _list(given, "key_frames", MOST_FRAMES))
    guidance = _text(given["guidance"], "guidance", LONGEST_GUIDANCE)
    return Patch(given["error_class"], tuple(dict.fromkeys(keys)), markers, regions, guidance)


def _fields(data: Any, names: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise BadPatch(f"{what} is not a JSON object")
    if missing := [name for name in names if name not in data]:
        raise BadPatch(f"{what} lacks {', '.join(missing)}")
    if len(data) > len(names):
        raise BadPatch(f"{what} has {len(data) - len(names)} fields that are not in the schema")
    return data


def _list(given: dict[str, Any], name: str, most: int) -> list[Any]:
    found = given[name]
    if not isinstance(found, list) or len(found) > most:
        raise BadPatch(f"{name} is not a list of at most {most}")
    return found


def _text(found: Any, what: str, longest: int) -> str:
    if not isinstance(found, str):
        raise BadPatch(f"{what} is not a string")
    text = " ".join(found.split())
    if not text or len(text) > longest:
        raise BadPatch(f"{what} has {len(text)} characters; allowed are 1 to {longest}")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") for c in text):
        raise BadPatch(f"{what} holds control or undefined characters")
    if _TAG.search(text):  # a chat template would obey it
        raise BadPatch(f"{what} holds tags")
    return text


def _frame(found: Any, frames: int | None) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise BadPatch("a frame is not a whole number from 0")
    if frames is not None and found >= frames:
        raise BadPatch(f"a frame is beyond the last one, {frames - 1}")
    return found


def _region(found: Any, frames: int | None) -> Region:
    given = _fields(found, ("frame", "x1", "y1", "x2", "y2"), "a region")
    for name in ("x1", "y1", "x2", "y2"):
        value = given[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise BadPatch(f"{name} of a region is not a number from 0 to 1")
    x1, y1, x2, y2 = (float(given[name]) for name in ("x1", "y1", "x2", "y2"))
    if not (x1 < x2 and y1 < y2 and math.isfinite(x1 + y1 + x2 + y2)):
        raise BadPatch("a region is empty")
    return Region(_frame(given["frame"], frames), x1, y1, x2, y2)


# --- saying --------------------------------------------------------------------------------------


def as_dict(patch: Patch) -> dict[str, Any]:
    """Plain data in the order of the schema; `from_dict` gives the patch back."""
    return json.loads(json.dumps(asdict(patch)))  # type: ignore[no-any-return]


def as_json(patch: Patch) -> str:
    """One line of JSON, the same for equal patches; `parse` gives the patch back."""
    return json.dumps(asdict(patch), ensure_ascii=False, separators=(", ", ": "))


def render(patch: Patch, fields: Fields = "all", seconds: Sequence[float] = ()) -> str:
    """The words that are appended to the student's prompt (ffr.md 1.7): `told` between the released
    trainer's sentences."""
    return f"{BEFORE}{told(patch, fields, seconds)}{AFTER}"


def told(patch: Patch, fields: Fields = "all", seconds: Sequence[float] = ()) -> str:
    """What they say of the patch.

    fields: `all` gives the labelled lines of the paper's Fig. 2, `content` the guidance alone, as
    released, `no_visual` what remains without key frames and regions. seconds: when each of the
    student's frames is seen, printed beside its number.
    """
    if fields == "content":
        return patch.guidance
    lines: list[tuple[str, str]] = [("Error type", patch.error_class)]
    if fields == "no_visual":
        patch = replace(patch, key_frames=(), regions=())
    lines += [("Key frames", ", ".join(_named(k, seconds) for k in patch.key_frames))]
    lines += [("Temporal markers", "; ".join(patch.temporal_markers))]
    lines += [("Regions", "; ".join(_placed(r, seconds) for r in patch.regions))]
    lines += [("Guidance", patch.guidance)]
    return "\n".join(f"{label}: {text}" for label, text in lines if text)


def _named(frame: int, seconds: Sequence[float]) -> str:
    return f"{frame} ({seconds[frame]:.2f} s)" if frame < len(seconds) else str(frame)


def _placed(r: Region, seconds: Sequence[float]) -> str:
    return f"frame {_named(r.frame, seconds)} [{r.x1:.2f}, {r.y1:.2f}, {r.x2:.2f}, {r.y2:.2f}]"
