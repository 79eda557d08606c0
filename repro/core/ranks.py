"""What the processes of a distributed run tell each other; alone, every answer is one's own.

Processes are started by torchrun. What fails in one is told to all, so that none waits for a
process that has gone, and each ends with the same exit code.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from evals.errors import Failure
from repro.exits import INTERNAL, explain

T = TypeVar("T")
CPU = torch.device("cpu")


class Elsewhere(Failure):
    """Another process of this run failed; carries its sentence and its exit code."""

    agreed = True  # `repro.exits.speaks`

    def __init__(self, sentence: str, code: int = INTERNAL):
        super().__init__(sentence)
        self.exit_code = code  # type: ignore[misc]


def begin() -> None:
    """Join the processes that torchrun started, if it did: gloo between CPUs, NCCL between GPUs."""
    if not launched() or dist.is_initialized():
        return
    # What DDP and DeepSpeed call is named otherwise in a later torch.
    warnings.filterwarnings("ignore", r".*(broadcast_buffers|into_tensor|_tensor). is depr")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")


@contextmanager
def joined() -> Iterator[None]:
    """`begin`, and leave the others when all is done; after a failure one just ends. A group that
    vLLM has made for itself is its own."""
    begin()
    yield
    if launched() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def launched() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather(value: T) -> list[T]:
    """Everybody's value, in the order of the ranks."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found


def first(value: T) -> T:
    """What the first process says."""
    return gather(value)[0]


def total(value: float, device: torch.device = CPU) -> float:
    """The sum over ranks."""
    if world() == 1:
        return value
    held = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(held)
    return float(held)


def any_of(flag: bool, device: torch.device = CPU) -> bool:
    """Whether it is so on any rank."""
    return total(float(flag), device) > 0


def stack(values: Tensor) -> Tensor:
    """Everybody's tensor of one shape, one after the other."""
    if world() == 1:
        return values
    found = [torch.empty_like(values) for _ in range(world())]
    dist.all_gather(found, values.contiguous())
    return torch.cat(found)


def wait() -> None:
    """Go on when all have come here."""
    if world() > 1:
        dist.barrier()


def together(work: Callable[[], T]) -> T:
    """What `work` gives here, if it succeeded everywhere; it must not wait for other processes.

    Raises the failure of this process, or else Elsewhere with that of the first that failed.
    """
    if world() == 1:
        return work()
    try:
        found = work()
    except Exception as error:
        gather(_told(error))  # the others stop, instead of waiting for this process
        error.agreed = True  # type: ignore[attr-defined]
        raise
    told = [t for t in gather(None) if t is not None]
    if told:
        raise Elsewhere(*told[0])
    return found


@contextmanager
def alike() -> Iterator[None]:
    """Around what fails on all processes or on none: one of them says it."""
    try:
        yield
    except Failure as error:
        error.agreed = True  # type: ignore[attr-defined]
        raise


def _told(error: Exception) -> tuple[str, int]:
    code, sentence = explain(error) or (INTERNAL, f"{type(error).__name__}: {error}")
    return f"{sentence} (process {rank()})", code


@contextmanager
def heard() -> Iterator[None]:
    """Raises Elsewhere in place of what a collective says when another process has gone."""
    try:
        yield
    except RuntimeError as error:
        lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo")
        if world() == 1 or not any(word in str(error) for word in lost):
            raise
        raise Elsewhere("another process of this run has ended; what it said tells why") from error
