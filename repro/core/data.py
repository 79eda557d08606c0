"""Records to prompts: which records a step trains on, and their model inputs made once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from evals.prompts import question_text
from evals.types import Protocol
from evals.video import Clips
from evals.vlm import VLM
from repro.core.types import Prompt, Record


class Records:
    """A pool of training records, drawn epoch by epoch in an order that `seed` fixes.

    `draw` depends on the step alone, so a resumed run sees what an unbroken one would have seen.
    """

    def __init__(self, records: Sequence[Record], per_step: int, seed: int):
        self.records, self.per_step, self.seed = tuple(records), per_step, seed

    def draw(self, step: int) -> list[Record]:
        """`per_step` records of the given step (from 0); an epoch is a fresh permutation."""
        first = step * self.per_step
        return [self._at(i) for i in range(first, first + self.per_step)]

    def _at(self, index: int) -> Record:
        epoch, place = divmod(index, len(self.records))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.records))
        return self.records[order[place]]


class Prompts:
    """Builds each prompt once: clip decoded, text rendered, processor run, positions computed."""

    def __init__(self, vlm: VLM, protocol: Protocol, keep: int = 2048):
        self.vlm, self.protocol, self.keep = vlm, protocol, keep
        self.clips = Clips(protocol)
        self._built: OrderedDict[str, Prompt] = OrderedDict()

    def build(self, record: Record) -> Prompt:
        """Raises Undecodable: a training run stops at a file it cannot read."""
        if record.id not in self._built:
            clip = self.clips.load(record)
            text = question_text(record, self.protocol.prompt)
            self._built[record.id] = Prompt(
                record, clip, self.vlm.encode(clip, text, self.protocol)
            )
            if len(self._built) > self.keep:
                self._built.popitem(last=False)
        return self._built[record.id]
