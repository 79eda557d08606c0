"""Vision features of a step: the tower runs once per clip and weights version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from evals.vlm import VLM, Encoded
from repro.core import blank, ranks


class Vision:
    """Features by clip: make a new one after every update, unless the tower is frozen.

    Calling it is for losses, `look` for everything that takes no gradient. keep: clips remembered
    at most; None for all. lockstep: whether the tower runs here when it runs in another process.
    """

    def __init__(self, vlm: VLM, keep: int | None = None, *, lockstep: bool = False):
        self.vlm, self.keep, self.lockstep = vlm, keep, lockstep
        # The pixels are kept too, so that no other clip can get their id.
        self._known: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()

    def __call__(self, prompts: Sequence[Encoded]) -> list[Tensor | None]:
        """(n, H) features of each prompt's clip, None without one; with gradient where it is
        enabled and the tower trains."""
        fresh = [p for p in prompts if p.pixels is not None and id(p.pixels) not in self._known]
        if self.lockstep and ranks.any_of(bool(fresh)) and not fresh:
            blank.features(self.vlm)
        for prompt, features in zip(fresh, self.vlm.features(fresh), strict=True):
            assert prompt.pixels is not None and features is not None
            self._known[id(prompt.pixels)] = (prompt.pixels, features)
        found = [self._find(p) for p in prompts]
        while self.keep is not None and len(self._known) > self.keep:
            self._known.popitem(last=False)
        return found

    @torch.no_grad()
    def look(self, prompts: Sequence[Encoded]) -> list[Tensor | None]:
        """The same without gradient; a clip that no loss has asked for is not remembered."""
        missing = [p for p in prompts if self._find(p) is None]
        new = {id(p): f for p, f in zip(missing, self.vlm.features(missing), strict=True)}
        known = ((p, self._find(p)) for p in prompts)
        return [new[id(p)] if f is None else f.detach() for p, f in known]

    def _find(self, prompt: Encoded) -> Tensor | None:
        known = self._known.get(id(prompt.pixels))
        return known[1] if known else None
