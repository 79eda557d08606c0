"""Who answers: a checkpoint, a server, or one of three that need none.

| name                 | who                                                                       |
|----------------------|---------------------------------------------------------------------------|
| FOLDER               | a checkpoint on transformers                                              |
| `vllm:FOLDER`        | a checkpoint on vLLM (evals.vllm_model)                                   |
| `openai:MODEL@URL`   | any server that speaks OpenAI's chat completions (evals.served)           |
| oracle               | the gold: an evaluation must give 100 %                                   |
| parrot               | always the first option                                                   |
| random               | an answer drawn under a seed                                              |

The last three prove an installation and audit a benchmark.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evals.errors import BadInput, BlindForward, EnvironmentFault, for_want_of_memory
from evals.extract import phrase
from evals.metrics import golds
from evals.prompts import Turn, render
from evals.seeds import derive
from evals.types import Decoding, Reply, Sample, VideoClip
from evals.types import Protocol as EvalProtocol

if TYPE_CHECKING:
    from evals.vlm import VLM, Encoded


AT_ONCE = 64  # replies drawn at once (chosen: fastest on a CPU)


@dataclass(frozen=True)
class Question:
    """A sample as it is asked. clip: what is shown; None without media, or where a probe hides it
    (`blind`). seed: the run's; every question draws under its own, derived from its id."""

    sample: Sample
    clip: VideoClip | None
    seed: int
    blind: bool = False

    def __post_init__(self) -> None:
        if self.clip is None and self.sample.modality != "text" and not self.blind:
            raise BlindForward(f"question {self.sample.id} would be asked without its clip")

    def turn(self, protocol: EvalProtocol) -> Turn:
        """The words around the clip."""
        return render(self.sample, protocol, self.clip.seconds if self.clip else ())

    @property
    def own_seed(self) -> int:
        """Seed of this question's draws, whatever is asked beside it."""
        return derive(self.seed, self.sample.id)


class Model(Protocol):
    """Answers questions: for each, `decoding.samples` replies.

    sees: whether clips have to be read for it. identity: what the cache of replies must know about
    it (weights, processor, engine), None if nothing is to be cached. at_once: replies it likes to
    be asked for together; part of what makes a draw repeatable.
    """

    @property
    def name(self) -> str: ...

    @property
    def sees(self) -> bool: ...

    @property
    def at_once(self) -> int: ...

    @property
    def identity(self) -> Mapping[str, str] | None: ...

    def under(self, protocol: EvalProtocol) -> EvalProtocol:
        """The protocol as this model can follow it."""

    def prompt(self, question: Question, protocol: EvalProtocol) -> str:
        """The rendered prompt, for the key of the cache."""

    def answer(
        self, questions: Sequence[Question], protocol: EvalProtocol, decoding: Decoding
    ) -> list[list[Reply]]:
        """Raises EnvironmentFault where the run cannot go on: memory, a server, an engine."""


class Scripted:
    """oracle, parrot and random, in words that the protocol's grader reads."""

    sees, at_once = False, AT_ONCE
    identity: Mapping[str, str] | None = None

    def __init__(self, name: str):
        self.name = name

    def under(self, protocol: EvalProtocol) -> EvalProtocol:
        return protocol

    def prompt(self, question: Question, protocol: EvalProtocol) -> str:
        return question.turn(protocol).words

    def answer(
        self, questions: Sequence[Question], protocol: EvalProtocol, decoding: Decoding
    ) -> list[list[Reply]]:
        """Replies in the form that the grader asks for (evals.extract.phrase), which is the trained
        one for our own; random is seeded by the seed and the sample's id.
        """
        return [
            [self._reply(q.sample, q.seed * 1000 + k, protocol) for k in range(decoding.samples)]
            for q in questions
        ]

    def _reply(self, sample: Sample, seed: int, protocol: EvalProtocol) -> Reply:
        if self.name == "oracle":
            said = golds(sample.gold, sample.kind)[0]
        elif self.name == "parrot":
            said = "A" if sample.options else "0"
        else:
            draw = random.Random(derive(seed, sample.id))
            said = draw.choice(sample.options)[:1] if sample.options else str(draw.randint(0, 4))
        text = phrase(said, sample.kind, protocol.grader, sample.options, self.name)
        return Reply(text, len(text.split()))


class Checkpoint:
    """A Qwen-VL checkpoint on transformers; questions about one clip share its encoding.

    Above temperature 0 the draws of a question depend on the seed and the question's id alone.
    """

    sees = True
    at_once = AT_ONCE

    def __init__(
        self,
        vlm: VLM,
        name: str,
        identity: Mapping[str, str] | None = None,
        *,
        shared: bool = True,
    ):
        self.vlm, self.name, self.identity, self.shared = vlm, name, identity, shared

    def under(self, protocol: EvalProtocol) -> EvalProtocol:
        return protocol

    def prompt(self, question: Question, protocol: EvalProtocol) -> str:
        from evals.vlm import messages

        turn = question.turn(protocol)
        rendered: str = self.vlm.processor.apply_chat_template(
            messages(turn, question.clip), add_generation_prompt=True, tokenize=False
        )
        rendered += turn.prefix
        return rendered

    def answer(
        self, questions: Sequence[Question], protocol: EvalProtocol, decoding: Decoding
    ) -> list[list[Reply]]:
        if not questions:
            return []
        with naming_memory(len(questions)):
            encoded = self._encoded(questions, protocol)
            seeds = [q.own_seed for q in questions]
            drawn = self.vlm.sample(encoded, decoding, seeds, shared=self.shared)
        return [
            [Reply(self.vlm.text(r.ids), len(r.ids), r.finished) for r in replies]
            for replies in drawn
        ]

    def _encoded(self, questions: Sequence[Question], protocol: EvalProtocol) -> list[Encoded]:
        if not self.shared:
            return [self._encode(q, protocol) for q in questions]
        from evals import sharing

        asked = [sharing.Asked(q.clip, self.prompt(q, protocol)) for q in questions]
        return sharing.encode(
            self.vlm, asked, protocol, lambda place: self._encode(questions[place], protocol)
        )

    def _encode(self, question: Question, protocol: EvalProtocol) -> Encoded:
        return self.vlm.encode(question.clip, question.turn(protocol), protocol)


@contextmanager
def naming_memory(questions: int) -> Iterator[None]:
    """Memory that runs out becomes an EnvironmentFault that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not for_want_of_memory(error):
            raise
        raise EnvironmentFault(
            f"out of memory with {questions} questions at once; lower --batch, or max_pixels or "
            "max_frames of the protocol"
        ) from error


def load(name: str | Path, identity: Mapping[str, str] | None = None) -> Model:
    """A model by name, see the table above. identity: of its files, for the cache of replies.

    Raises BadInput for none of them.
    """
    if name in ("oracle", "parrot", "random"):
        return Scripted(str(name))
    kind, _, rest = str(name).partition(":")
    if kind == "openai":
        from evals.served import Served

        return Served.named(rest)
    if kind == "vllm":
        from evals.vllm_model import Engine

        return Engine(Path(rest), identity)
    if not Path(name).is_dir() and not Path(name).exists():
        raise BadInput(f"{name} holds no checkpoint: there is no such folder")
    from evals.vlm import load as load_vlm

    return Checkpoint(load_vlm(name), Path(name).name, identity)
