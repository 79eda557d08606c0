"""What of a patch the student sees, and where; the cold start that shows it patches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.types import IMAGE, VideoClip
from repro.core.demonstrations import Demonstration, Examples
from repro.core.types import NO_HINT, Hint
from repro.ffr import demonstrations
from repro.ffr.patch import Patch, Region
from repro.ffr.words import hint, quadrant, short, spread
from repro.recipe import Recipe

CLIP = VideoClip(np.zeros((8, 4, 4, 3), np.uint8), tuple(range(0, 16, 2)), 4.0, 16)
TOP_LEFT = Region(2, 0.0, 0.0, 0.5, 0.5)
PATCH = Patch("temporal", (2, 3), ("1.00 s to 2.00 s",), (TOP_LEFT,), "Look again.")


@pytest.mark.parametrize(
    ("box", "place"),
    [((0, 0, 0.5, 0.5), "top left"), ((0.5, 0, 1, 0.5), "top right"),
     ((0, 0.5, 0.5, 1), "bottom left"), ((0, 0, 1, 0.5), "top"), ((0.5, 0, 1, 1), "right"),
     ((0, 0, 1, 1), "")],
)  # fmt: skip
def test_places_in_words(box: tuple[float, ...], place: str) -> None:
    assert quadrant(Region(0, *box)) == place


def test_short_words_say_frames_and_place() -> None:
    assert short(PATCH, 8) == "See 2 3, top left"
    assert short(replace(PATCH, regions=()), 8) == "See 2 3"
    assert short(replace(PATCH, key_frames=tuple(range(8))), 8) == "See top left"
    assert short(Patch("temporal", tuple(range(8)), (), (), "x"), 8) == ""


def test_pictures_are_spread_over_the_key_frames() -> None:
    assert spread(PATCH, CLIP, 2) == (2, 3) and spread(PATCH, CLIP, 1) == (3,)
    wide = replace(PATCH, key_frames=(1, 2, 3, 4))
    assert spread(wide, CLIP, 2) == (2, 4)
    assert spread(replace(PATCH, key_frames=tuple(range(8))), CLIP, 2) == ()  # all of them
    assert spread(PATCH, None, 2) == spread(PATCH, CLIP, 0) == ()


def test_where_each_form_stands(recipe: Recipe) -> None:
    base = recipe.arm("ffr").switches
    off = {"patch_fields": "all", "patch_images": 0, "patch_zoom": False}

    def shown(patch: Patch | None, words: str, **own: Any) -> Hint:
        return hint(patch, CLIP, replace(base, **{**off, "patch_words": words, **own}))

    paper = shown(PATCH, "paper", patch_images=1)
    assert paper.on("Q") == f"Q{paper.words}" and paper.words.endswith(f"answer. {IMAGE}")
    assert "Key frames: 2 (1.00 s), 3 (1.50 s)" in paper.words and "Look again." in paper.words
    content = shown(PATCH, "paper", patch_fields="content")
    assert "Look again." in content.words and "Key frames" not in content.words
    assert shown(PATCH, "short").on("Q") == "See 2 3, top left\nQ"
    frames = shown(PATCH, "frames", patch_images=2)
    assert frames.on("Q") == f"{IMAGE} {IMAGE}\nQ" and frames.frames == (2, 3)
    beside = frames.beside(CLIP)
    assert beside is not None and len(beside.images) == 2 and len(CLIP.images) == 0
    assert beside.images[0].shape == (4, 4, 3)
    zoomed = shown(PATCH, "frames", patch_images=1, patch_zoom=True).beside(CLIP)
    assert zoomed is not None and zoomed.images[0].shape == (2, 2, 3)
    assert not shown(None, "paper") and not shown(PATCH, "frames")
    whole = replace(PATCH, key_frames=tuple(range(8)))
    assert not shown(whole, "frames", patch_images=2)
    assert shown(whole, "frames", patch_images=2, patch_zoom=True).frames == (TOP_LEFT.frame,)
    assert NO_HINT.on("Q") == "Q" and NO_HINT.beside(CLIP) is CLIP


def test_a_third_of_the_demonstrations_carry_the_oracle_s_patch(
    recipe: Recipe, records: list[Any]
) -> None:
    read = [Demonstration(sample, "x") for sample in records] * 8
    told = demonstrations.shown(read, recipe, 0)
    assert [(t.sample, t.completion) for t in told] == [(r.sample, r.completion) for r in read]
    hinted = [t for t in told if t.hint]
    assert 0.15 < len(hinted) / len(read) < 0.5  # other patches name every frame
    assert all(t.hint.frames and t.hint.first for t in hinted)
    assert demonstrations.shown(read, recipe, 0) == told != demonstrations.shown(read, recipe, 1)


def test_examples_with_pictures_have_pixels_of_their_own(
    prompts: Any, recipe: Recipe, records: list[Any], tmp_path: Path
) -> None:
    sample = next(r for r in records if r.modality == "video")
    plain, twin = Demonstration(sample, "x"), Demonstration(sample, "y")
    hinted = replace(plain, hint=Hint(f"{IMAGE}\n", (3,), first=True))
    made = Examples(prompts.vlm, recipe.training_protocol, [plain, hinted, twin], 1024)
    one, two, three = made[0], made[1], made[2]
    assert one.prompt.pixels is three.prompt.pixels is not two.prompt.pixels
    assert len(two.prompt.grid) == 2 and len(one.prompt.grid) == 1
    blind = Examples(prompts.vlm, recipe.training_protocol, [plain, hinted], 1024, blind=True)
    assert blind[0].prompt.ids.tolist() == blind[1].prompt.ids.tolist()
