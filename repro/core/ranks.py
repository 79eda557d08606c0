"""What the processes of a distributed run tell each other; alone, every answer is one's own."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


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


def total(value: float, device: torch.device) -> float:
    """The sum over ranks."""
    if world() == 1:
        return value
    held = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(held)
    return float(held)


def any_of(flag: bool, device: torch.device) -> bool:
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
