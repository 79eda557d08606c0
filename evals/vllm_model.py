"""A checkpoint on vLLM, asked film by film so that its prefix and encoder caches hit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evals.errors import EnvironmentFault
from evals.models import Question
from evals.types import Decoding, Protocol, Reply


class Engine:
    """Not here yet."""

    sees = True

    def __init__(self, folder: Path, identity: Mapping[str, str] | None = None):
        raise EnvironmentFault("the vllm backend is not wired yet; leave `vllm:` out")

    name = ""
    identity: Mapping[str, str] | None = None

    def under(self, protocol: Protocol) -> Protocol:
        return protocol

    def prompt(self, question: Question, protocol: Protocol) -> str:
        return ""

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        return []
