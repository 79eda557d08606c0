"""Pictures to unit vectors whose product says how alike two pictures are.

| embedder    | vector                                                                         |
|-------------|--------------------------------------------------------------------------------|
| `built-in`  | 8 x 8 low cosine waves of the luma, 4 x 4 mean colours, 4 x 4 edge directions  |
| `clip:NAME` | image features of a CLIP checkpoint, as the paper's summaries say              |

The built-in one needs no weights and gives the same bytes on every run: it knows what a picture
looks like, not what it shows, so it is not the paper's method. It is the continuous relative of a
perceptual hash, whose 64 bits cannot tell a moved camera from another scene (mvp.md 7).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evals.errors import BadInput

Vectors = npt.NDArray[np.float32]
BUILT_IN = "built-in"
#: Where to begin with kappa; `repro data calibrate mvp` finds a corpus' own (both chosen).
KAPPA = {BUILT_IN: 0.85, "clip": 0.90}
_SIDE = 32
_WEIGHTS = (0.4, 0.3, 0.3)  # of waves, colours and edges (chosen)
_BATCH = 256


class Embedder(Protocol):
    """name: part of the names of stored vectors. kappa: default."""

    name: str
    kappa: float

    def __call__(self, pictures: Sequence[bytes]) -> Vectors:
        """JPEGs to (n, D) float32 of length 1."""


def embedder(name: str) -> Embedder:
    """Raises BadInput for an unknown one."""
    kind, _, model = name.partition(":")
    if name == BUILT_IN:
        return BuiltIn()
    if kind == "clip":
        return Clip(model or "openai/clip-vit-large-patch14")
    raise BadInput(f"there is no embedder {name!r}; known: {BUILT_IN}, clip, clip:FOLDER")


def small(picture: bytes, side: int) -> npt.NDArray[np.float32]:
    """(side, side, 3) in 0..1; the JPEG decoder skips what a small picture does not need."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        image.draft("RGB", (2 * side, 2 * side))
        resized = image.convert("RGB").resize((side, side), Image.Resampling.BOX)
    found: npt.NDArray[np.float32] = np.asarray(resized, np.float32) / np.float32(255)
    return found


def luma(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(..., 3) in 0..1 to (...), Rec. 601."""
    return picture @ np.array([0.299, 0.587, 0.114], np.float32)


class BuiltIn:
    """See the table of the module."""

    name, kappa = BUILT_IN, KAPPA[BUILT_IN]

    def __call__(self, pictures: Sequence[bytes]) -> Vectors:
        return np.stack([_looks(small(picture, _SIDE)) for picture in pictures])


def _looks(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    from scipy.fft import dctn

    grey = luma(picture)
    waves = dctn(grey, norm="ortho")[:8, :8].ravel()[1:]
    cell = _SIDE // 4
    colours = picture.reshape(4, cell, 4, cell, 3).mean((1, 3)).ravel() - 0.5
    parts = (waves, colours, _edges(grey))
    whole = np.concatenate([w**0.5 * _unit(part) for w, part in zip(_WEIGHTS, parts, strict=True)])
    return _unit(whole).astype(np.float32)


def _edges(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(4 * 4 * 8,) how much edge there is in each direction per cell, less the cell's mean."""
    dy, dx = np.gradient(grey)
    way = np.floor((np.arctan2(dy, dx) % np.pi) / np.pi * 8).astype(int).clip(0, 7)
    rows, columns = np.indices(grey.shape) * 4 // _SIDE
    place = (rows * 4 + columns) * 8 + way
    found = np.bincount(place.ravel(), np.hypot(dx, dy).ravel(), 4 * 4 * 8).reshape(16, 8)
    return np.asarray((found - found.mean(1, keepdims=True)).ravel(), np.float32)


def _unit(vector: npt.NDArray[Any]) -> npt.NDArray[Any]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-6 else np.zeros_like(vector)


class Clip:
    """CLIP's image tower through transformers, on the GPU if there is one (half precision there).

    model: a folder, or an id that `repro data fetch` has brought.
    """

    kappa = KAPPA["clip"]

    def __init__(self, model: str):
        import torch

        from evals._torchvision import install
        from repro.weights import located

        install()
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        folder = located(model)
        self.name = f"clip-{folder.name}"
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if self.device == "cuda" else torch.float32
        self.processor = CLIPImageProcessor.from_pretrained(folder)
        net = CLIPVisionModelWithProjection.from_pretrained(
            folder, dtype=dtype, use_safetensors=True
        )
        self.net = net.to(self.device).eval()

    def __call__(self, pictures: Sequence[bytes]) -> Vectors:
        import torch
        from PIL import Image

        found = []
        for at in range(0, len(pictures), _BATCH):
            images = [Image.open(io.BytesIO(p)).convert("RGB") for p in pictures[at : at + _BATCH]]
            pixels = self.processor(images, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                out = self.net(pixels.to(self.device, self.net.dtype)).image_embeds.float()
            found.append(torch.nn.functional.normalize(out, dim=-1).cpu().numpy())
        return np.concatenate(found)
