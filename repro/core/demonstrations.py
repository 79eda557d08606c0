"""Records with a worked answer, and the model inputs of supervised fine-tuning made from them.

| field      | of a record, besides what evals.benchmarks.jsonl lists |
|------------|--------------------------------------------------------|
| `process`  | the reasoning, with its tags                           |
| `solution` | the answer, with its tags                              |
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from evals.benchmarks import jsonl
from evals.errors import BadInput
from evals.prompts import render
from evals.types import Protocol, Sample
from evals.video import Clips
from evals.vlm import VLM, Encoded
from repro.core.data import part_of
from repro.core.types import NO_HINT, Hint

KEEP = 2 << 30  # bytes of pixels kept for a later epoch (chosen)


@dataclass(frozen=True)
class Demonstration:
    """A question, what is added to it, and the text to answer it with."""

    sample: Sample
    completion: str
    hint: Hint = NO_HINT


def read(path: Path, videos: Path, separator: str) -> list[Demonstration]:
    """The file's demonstrations: process, separator, solution.

    Raises BadInput naming the record for a field that is missing or no text.
    """
    samples = jsonl.read(path, videos)
    found = []
    for number, (sample, row) in enumerate(zip(samples, jsonl.rows(path), strict=True), start=1):
        for key in ("process", "solution"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise BadInput(
                    f"{path}, record {number}: `{key}` is missing or no text; --stage sft learns "
                    "to write process and solution"
                )
        found.append(Demonstration(sample, row["process"] + separator + row["solution"]))
    return found


@dataclass(frozen=True)
class Example:
    """A prompt and the completion to learn, end token included."""

    prompt: Encoded
    completion: tuple[int, ...]


class Examples:
    """Demonstrations as model inputs, made when first asked for; questions on the same part of a
    film share pixels.

    blind: without their clips. Raises BadInput for one longer than max_length, naming its record.
    """

    def __init__(
        self,
        vlm: VLM,
        protocol: Protocol,
        demonstrations: Sequence[Demonstration],
        max_length: int,
        *,
        blind: bool = False,
        keep: int = KEEP,
    ):
        self.vlm, self.protocol, self.demonstrations = vlm, protocol, demonstrations
        self.max_length, self.blind, self.keep = max_length, blind, keep
        self.clips, self.held = Clips(protocol), 0
        self._films: OrderedDict[Hashable, dict[int, Example]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.demonstrations)

    def __getitem__(self, index: int) -> Example:
        shown = self.demonstrations[index]
        part = None if self.blind else (part_of(shown.sample), shown.hint.frames, shown.hint.box)
        film = self._films.setdefault(part, {})
        self._films.move_to_end(part)
        if index not in film:
            example = self._make(index)
            if film:  # questions about one film share its pixels
                shared = next(iter(film.values())).prompt.pixels
                example = replace(example, prompt=replace(example.prompt, pixels=shared))
            else:
                self.held += _size(example)
            film[index] = example
            self._forget()
        return film[index]

    def _make(self, index: int) -> Example:
        shown = self.demonstrations[index]
        clip = None if self.blind else self.clips.load(shown.sample)
        turn = render(shown.sample, self.protocol, clip.seconds if clip else ())
        if shown.hint and not self.blind:
            clip, turn = shown.hint.beside(clip), replace(turn, text=shown.hint.on(turn.text))
        prompt = self.vlm.encode(clip, turn, self.protocol)
        ids = self.vlm.processor.tokenizer(shown.completion, add_special_tokens=False)["input_ids"]
        if len(prompt.ids) + len(ids) + 1 > self.max_length:
            raise BadInput(
                f"record {shown.sample.id}: a prompt of {len(prompt.ids)} tokens and a completion "
                f"of {len(ids) + 1} do not fit into max_length {self.max_length}; raise it, or "
                "lower max_frames or max_pixels: nothing is cut"
            )
        return Example(prompt, (*ids, self.vlm.end))

    def _forget(self) -> None:
        while self.held > self.keep and len(self._films) > 1:
            _, film = self._films.popitem(last=False)
            self.held -= _size(next(iter(film.values())))


def _size(example: Example) -> int:
    return 0 if example.prompt.pixels is None else example.prompt.pixels.nbytes


class Draws(Dataset[int]):
    """Item i: which example the i-th place of the run holds, fixed by the seed alone.

    shuffle: `replacement` draws each batch anew, `epoch` is a permutation after another.
    """

    def __init__(self, n: int, batch: int, steps: int, seed: int, shuffle: str):
        if shuffle == "replacement":
            rng = np.random.default_rng(seed)
            parts = [rng.integers(0, n, batch) for _ in range(steps)]
        else:
            epochs = -(-steps * batch // n)
            parts = [np.random.default_rng([seed, e]).permutation(n) for e in range(epochs)]
        self.order = np.concatenate(parts)[: steps * batch]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> int:
        return int(self.order[index])
