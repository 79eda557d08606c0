"""Who answers: a checkpoint, or one of three that need none.

oracle answers the gold (an evaluation must give 100 %), parrot always the first option, random
draws an answer under a seed. They prove an installation and audit a benchmark.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evals.errors import Undecodable
from evals.metrics import golds
from evals.prompts import question_text
from evals.seeds import derive
from evals.types import Decoding, Reply, Sample
from evals.types import Protocol as EvalProtocol

if TYPE_CHECKING:
    from evals.video import Clips
    from evals.vlm import VLM

Answers = list[Reply] | Undecodable


class Model(Protocol):
    """Answers samples: for each, `decoding.samples` replies, or why its clip cannot be read."""

    name: str

    def answer(
        self, samples: Sequence[Sample], protocol: EvalProtocol, decoding: Decoding
    ) -> list[Answers]: ...


class Scripted:
    """oracle, parrot and random."""

    def __init__(self, name: str):
        self.name = name

    def answer(
        self, samples: Sequence[Sample], protocol: EvalProtocol, decoding: Decoding
    ) -> list[Answers]:
        """Replies in the trained format; random is seeded by decoding.seed and the sample's id."""
        return [
            [self._reply(s, decoding.seed * 1000 + k) for k in range(decoding.samples)]
            for s in samples
        ]

    def _reply(self, sample: Sample, seed: int) -> Reply:
        if self.name == "oracle":
            said = golds(sample.gold, sample.kind)[0]
        elif self.name == "parrot":
            said = "A" if sample.options else "0"
        else:
            draw = random.Random(derive(seed, sample.id))
            said = draw.choice(sample.options)[:1] if sample.options else str(draw.randint(0, 4))
        text = f"<think>{self.name}</think><answer>{said}</answer>"
        return Reply(text, len(text.split()))


class Checkpoint:
    """A Qwen2.5-VL checkpoint on transformers: clips decoded once, prompts prefilled once.

    Above temperature 0 the draws of a question depend on the seed and the question's id alone.
    """

    def __init__(self, vlm: VLM, name: str):
        self.vlm, self.name = vlm, name
        self._clips: Clips | None = None

    def answer(
        self, samples: Sequence[Sample], protocol: EvalProtocol, decoding: Decoding
    ) -> list[Answers]:
        """Undecodable clips are returned in their places; the others are answered."""

        from evals.video import Clips

        if self._clips is None or self._clips.protocol != protocol:
            self._clips = Clips(protocol)
        encoded, answers = {}, dict[int, Answers]()
        for place, sample in enumerate(samples):
            try:
                clip = self._clips.load(sample)
            except Undecodable as error:
                answers[place] = error
                continue
            text = question_text(sample, protocol.prompt)
            encoded[place] = self.vlm.encode(clip, text, protocol)
        if encoded:
            seeds = [derive(decoding.seed, samples[place].id) for place in encoded]
            drawn = self.vlm.sample(list(encoded.values()), decoding, seeds)
            for place, replies in zip(encoded, drawn, strict=True):
                answers[place] = [
                    Reply(self.vlm.text(r.ids), len(r.ids), r.finished) for r in replies
                ]
        return [answers[place] for place in range(len(samples))]


def load(name: str | Path) -> Model:
    """`oracle`, `parrot`, `random`, or a checkpoint folder. Raises BadInput for neither."""
    if name in ("oracle", "parrot", "random"):
        return Scripted(str(name))
    from evals.vlm import load as load_vlm

    return Checkpoint(load_vlm(name), Path(name).name)
