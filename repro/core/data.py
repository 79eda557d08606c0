"""Records to prompts: which records a step trains on, and their model inputs made once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from evals import sharing
from evals.errors import BadInput
from evals.prompts import Turn, render
from evals.types import Protocol, VideoClip
from evals.video import Clips, Wanted
from evals.vlm import VLM, Encoded
from repro.core.types import Hint, Prompt, Record


class Records:
    """A pool of training records, drawn epoch by epoch in an order that `seed` fixes.

    `draw` depends on the step alone, so a resumed run sees what an unbroken one would have seen.
    """

    def __init__(self, records: Sequence[Record], per_step: int, seed: int):
        self.records, self.per_step, self.seed = tuple(records), per_step, seed

    def draw(self, step: int) -> list[Record]:
        """`per_step` records of the given step (from 0); an epoch is a fresh permutation."""
        first = step * self.per_step
        return [self.at(i) for i in range(first, first + self.per_step)]

    def at(self, index: int) -> Record:
        """The record drawn `index`-th (from 0)."""
        epoch, place = divmod(index, len(self.records))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.records))
        return self.records[order[place]]


class Prompts:
    """Builds each prompt once: clip decoded, text rendered, processor run, positions computed.

    keep: bytes of clips and pixels that are remembered (chosen: 2 GiB). max_length: tokens of a
    prompt, its clip's included; None for no limit.
    """

    def __init__(
        self, vlm: VLM, protocol: Protocol, keep: int = 2 << 30, max_length: int | None = None
    ):
        self.vlm, self.protocol, self.keep, self.max_length = vlm, protocol, keep, max_length
        self.clips = Clips(protocol)
        self._built: OrderedDict[str, Prompt] = OrderedDict()
        self._held = 0

    def build(self, record: Record) -> Prompt:
        """Questions about the same part of one film share its pixels, and so its features.

        Raises Undecodable: a training run stops at a file it cannot read; BadInput for a prompt
        that is too long, which is never cut, since that would cut into its clip.
        """
        if record.id in self._built:
            self._built.move_to_end(record.id)
            return self._built[record.id]
        clip = self.clips.load(record)
        encoded = self.vlm.encode(clip, self._turn(record, clip), self.protocol)
        self._check(record, encoded)
        part = part_of(record)
        same = (p for p in self._built.values() if part is not None and part_of(p.record) == part)
        twin = next(same, None)
        if twin is not None:
            clip, encoded = twin.clip, replace(encoded, pixels=twin.encoded.pixels)
        prompt = Prompt(record, clip, encoded)
        self._built[record.id] = prompt
        self._held += _bytes(prompt)
        while self._held > self.keep and len(self._built) > 1:
            self._held -= _bytes(self._built.popitem(last=False)[1])
        return prompt

    def _turn(self, record: Record, clip: VideoClip | None) -> Turn:
        return render(record, self.protocol, clip.seconds if clip else ())

    def hinted(self, prompt: Prompt, hint: Hint) -> Prompt:
        """The same question about the same clip, with a hint. Without pictures the clip's pixels
        are kept. Raises BadInput for one that is too long."""
        plain = self._turn(prompt.record, prompt.clip)
        turn = replace(plain, text=hint.on(plain.text))
        if hint.frames:
            clip = hint.beside(prompt.clip)
            encoded = self.vlm.encode(clip, turn, self.protocol)
            hinted = replace(prompt, clip=clip, encoded=encoded)
        else:
            hinted = replace(prompt, encoded=self._reworded(prompt, plain, turn))
        self._check(prompt.record, hinted.encoded)
        return hinted

    def _reworded(self, prompt: Prompt, plain: Turn, turn: Turn) -> Encoded:
        written = (self.vlm.written(t, prompt.clip) + t.prefix for t in (plain, turn))
        asked = [sharing.Asked(prompt.clip, words) for words in written]

        def whole(place: int) -> Encoded:
            if place == 0:
                return prompt.encoded
            fresh = self.vlm.encode(prompt.clip, turn, self.protocol)
            return replace(fresh, pixels=prompt.encoded.pixels)

        return sharing.encode(self.vlm, asked, self.protocol, whole)[1]

    def _check(self, record: Record, encoded: Encoded) -> None:
        if self.max_length is not None and len(encoded.ids) > self.max_length:
            raise BadInput(
                f"the prompt of record {record.id} has {len(encoded.ids)} tokens, more than "
                f"max_prompt_length {self.max_length}; raise it, or lower max_frames or max_pixels"
            )


def part_of(record: Record) -> Hashable:
    """What a record shows of which files; None for one without a clip."""
    if record.modality == "text":
        return None
    return (Wanted.of(record) if record.media else None, record.images)


def _bytes(prompt: Prompt) -> int:
    held = (prompt.encoded.ids, prompt.encoded.positions, prompt.encoded.pixels)
    frames = 0 if prompt.clip is None else prompt.clip.nbytes
    return frames + sum(tensor.nbytes for tensor in held if tensor is not None)
