"""What a step costs, counted and not timed: patches, tokens, decoded films, logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from evals import video


@dataclass
class Work:
    """patches, tokens: through the vision towers and language models, one entry per call.
    decodes: films read. logits: bytes of the largest tensor over the vocabulary."""

    patches: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    decodes: int = 0
    logits: int = 0


class _Logits(TorchDispatchMode):
    """Notes results as wide as the vocabulary; the head's own weight and gradient are not."""

    def __init__(self, work: Work, vocab: int, hidden: int):
        super().__init__()
        self.work, self.vocab, self.hidden = work, vocab, hidden

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.ndim > 1 and out.is_floating_point():
            *rows, width = out.shape
            if width == self.vocab and rows != [self.hidden]:
                self.work.logits = max(self.work.logits, out.numel() * out.element_size())
        return out


@contextmanager
def counted(*models: Any) -> Iterator[Work]:
    """Count what the models (policy, reference) do inside the block."""
    work, text = Work(), models[0].config.text_config
    real = video.decode

    def decode(*args: Any) -> Any:
        work.decodes += 1
        return real(*args)

    def patches(module: Any, args: Any, kwargs: Any) -> None:
        pixels = args[0] if args else kwargs["hidden_states"]
        work.patches.append(len(pixels))

    def tokens(module: Any, args: Any, kwargs: Any) -> None:
        rows, width, _ = kwargs["inputs_embeds"].shape
        work.tokens.append(rows * width)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(video, "decode", decode))
        for model in models:
            for part, note in (("visual", patches), ("language_model", tokens)):
                module = getattr(model.model, part)
                hook = module.register_forward_pre_hook(note, with_kwargs=True)
                stack.callback(hook.remove)
        stack.enter_context(_Logits(work, text.vocab_size, text.hidden_size))
        yield work


def work_of(step: Callable[[], None], *models: Any) -> Work:
    """The work of one call."""
    with counted(*models) as work:
        step()
    return work
