"""Two looks at a film made here: do the decoders read it, and does a model see it?

| look   | right when                                                                         |
|--------|------------------------------------------------------------------------------------|
| decode | a decoder gives every frame asked for, each near the frame that was written        |
| see    | the shipped student's next-token scores differ between the film and its negative;  |
|        | a model whose pixels get lost (a blind forward) scores both alike                  |
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evals.errors import EnvironmentFault
from evals.microworld import parade, render, write_film
from evals.types import VideoClip

if TYPE_CHECKING:
    from repro.recipe import Recipe

NEAR = 4.0  # mean error of a frame after H.264, of 255 (chosen; another scene is 8 or more off)
SEEN = 1e-3  # difference of scores (chosen; a blind forward gives 0)
ASKED = (2, 5, 8, 15)  # one of each scene


def _frames() -> npt.NDArray[np.uint8]:
    return render(parade(np.random.default_rng(0)))


def decode(folder: Path, decoder: str) -> float:
    """Write a film into `folder` and read it with "pyav" or "decord"; mean error per value.

    Raises EnvironmentFault where that decoder does not give the frames asked for, ImportError where
    it is not installed.
    """
    from evals import video

    frames, path = _frames(), folder / "film.mp4"
    write_film(frames, path)
    known = video.contents(path)
    if decoder == "decord":
        found = video.decode_with_decord(path, ASKED, known)
    else:
        found = video.decode(path, ASKED, known)
    if found is None:
        raise EnvironmentFault(f"{decoder} does not read a film of {len(frames)} frames")
    error = np.abs(found.astype(float) - frames[list(ASKED)]).mean(axis=(1, 2, 3)).max()
    if error > NEAR:
        raise EnvironmentFault(f"{decoder} gives other frames than were asked for")
    return float(error)


def see(recipe: Recipe, model: Path, device: str) -> float:
    """How far the next-token scores of a film and its negative lie apart; 0 for a blind model."""
    import torch

    from evals.vlm import load

    vlm = load(model, device=device)
    last = []
    with torch.no_grad():
        for frames in (_frames(), 255 - _frames()):
            clip = VideoClip(frames, tuple(range(len(frames))), 4.0, len(frames))
            shown = vlm.encode(clip, "?", recipe.training_protocol)
            hidden = vlm.run(
                shown.ids[None].to(vlm.device), vlm.features([shown])[0],
                shown.positions[:, None].to(vlm.device), None,
            )  # fmt: skip
            last.append(vlm.net.lm_head(hidden[0, -1]))
    return float((last[0] - last[1]).abs().max())
