"""A patch as the student sees it: words, and key frames as pictures among them.

| `patch_words` | says                                                        | stands          |
|---------------|-------------------------------------------------------------|-----------------|
| `paper`       | the released trainer's sentences around labelled lines      | after question  |
| `short`       | frame numbers and a quadrant: "See 2 3, top left"           | before question |
| `frames`      | nothing but the pictures                                    | before question |

The last two are for the embedded student, whose answers hang on what stands just before them.
"""

from __future__ import annotations

from evals.types import IMAGE, VideoClip
from repro.core.types import NO_HINT, Hint
from repro.ffr.patch import Patch, Region, render
from repro.ffr.switches import Switches

BOX = NO_HINT.box
WIDE = 0.6  # share of a side from which a box names no half of it (chosen)


def hint(patch: Patch | None, clip: VideoClip | None, s: Switches) -> Hint:
    """A patch as a recipe's switches show it; an empty hint without one, and for one that says
    nothing in these words."""
    if patch is None:
        return NO_HINT
    frames, box = spread(patch, clip, s.patch_images), BOX
    if s.patch_zoom and s.patch_images and clip is not None and patch.regions:
        r = patch.regions[0]
        frames, box = frames or (r.frame,), (r.x1, r.y1, r.x2, r.y2)
    marks = " ".join([IMAGE] * len(frames))
    if s.patch_words == "paper":
        seconds = () if clip is None or clip.modality != "video" else clip.seconds
        return Hint(f"{render(patch, s.patch_fields, seconds)} {marks}".rstrip(), frames, box)
    every = 1 if clip is None else len(clip.frames)
    said = short(patch, every) if s.patch_words == "short" else ""
    told = f"{said} {marks}".strip()
    return Hint(f"{told}\n", frames, box, first=True) if told else NO_HINT


def spread(patch: Patch, clip: VideoClip | None, most: int) -> tuple[int, ...]:
    """At most so many of the patch's key frames, evenly over them; none where they are all."""
    keys = patch.key_frames
    if clip is None or clip.modality != "video" or len(keys) >= len(clip.frames):
        return ()
    if len(keys) <= most:
        return keys
    return tuple(keys[(2 * i + 1) * len(keys) // (2 * most)] for i in range(most))


def short(patch: Patch, frames: int) -> str:
    """Key frames, unless they are all `frames`, and the quadrant or half of the first region."""
    numbers = patch.key_frames if len(patch.key_frames) < frames else ()
    place = quadrant(patch.regions[0]) if patch.regions else ""
    told = [" ".join(map(str, numbers)), place]
    return "See " + ", ".join(part for part in told if part) if any(told) else ""


def quadrant(r: Region) -> str:
    """ "top left", "right", ... by the box's middle; "" for one that is wide and high."""
    row = "" if r.y2 - r.y1 > WIDE else ("top" if r.y1 + r.y2 < 1 else "bottom")
    column = "" if r.x2 - r.x1 > WIDE else ("left" if r.x1 + r.x2 < 1 else "right")
    return " ".join(part for part in (row, column) if part)
