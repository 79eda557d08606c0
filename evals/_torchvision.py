"""Lets torchvision import beside a CPU-only torch; does nothing on CUDA or without torchvision.

The wheel that PyPI serves links CUDA libraries. Beside a CPU-only torch its native operators never
register, `import torchvision` stops at the missing schemas of `nms` and `qnms`, and transformers'
video classes fall with it. Declaring the two schemas first is enough for everything a processor
needs (resize, normalise); `nms` itself and torchvision's own image files stay unusable.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: Any = None  # must stay alive: the schemas vanish with the object


def install() -> None:
    """Declare the two schemas once. Call it before torchvision or transformers is imported."""
    global _library
    import torch

    if _library is not None or torch.version.cuda is not None or "torchvision" in sys.modules:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _native_works(Path(spec.origin).parent):
        return
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(name + _SCHEMA)


def _native_works(package: Path) -> bool:
    """Whether the wheel's own operators load, as in a CPU build: then declaring them twice would
    end the process. Loading registers them, as importing torchvision would."""
    import torch

    libraries = sorted(package.glob("_C*.so"))
    for library in libraries:
        try:
            torch.ops.load_library(str(library))
        except OSError:  # a library it links (libtorch_cuda.so) is absent
            return False
    return bool(libraries)
