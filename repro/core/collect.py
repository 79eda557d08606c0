"""The groups of a batch: prompts drawn and built, completions sampled, repaired and rewarded.

Every draw depends on (seed, batch, place) alone, and on nothing that ran before or beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from evals.seeds import derive
from repro.core import ranks
from repro.core.data import Prompts, Records
from repro.core.method import Method, Rewards
from repro.core.rollout import Sampler
from repro.core.types import Group, Prompt

FLAT = 1e-6  # a standard deviation of rewards below this is rounding (chosen)


@dataclass(frozen=True)
class Collected:
    """Groups, their reward parts before `adjust`, and how many groups were drawn again."""

    groups: list[Group]
    parts: list[Rewards]
    again: int = 0


class Collector:
    """Draws batches for a method. batches: how many a run has, so that what is drawn again comes
    from later in the pool. see: called with the prompts before they are sampled from."""

    def __init__(self, method: Method, pool: Records, prompts: Prompts, settings: Any, seed: int):
        self.method, self.pool, self.prompts = method, pool, prompts
        self.settings, self.seed = settings, seed
        self.batches = -(-settings.max_steps // settings.num_iterations)

    def collect(
        self,
        sampler: Sampler,
        batch: int,
        places: Sequence[int],
        see: Callable[[Sequence[Prompt]], None] = lambda prompts: None,
    ) -> Collected:
        """The groups at these places of a batch.

        With dynamic sampling, a group of equal rewards is replaced by one of another record, up to
        that many times; what is still equal then stays, and teaches nothing.
        """
        drawn = ranks.together(partial(self._round, sampler, batch, places, see, 0))
        found, again = dict(zip(places, drawn, strict=True)), 0
        for attempt in range(1, self.settings.dynamic_sampling + 1):
            flat = [place for place, (_, parts) in found.items() if is_flat(parts)]
            if not ranks.any_of(bool(flat)):
                break
            again += len(flat)
            drawn = ranks.together(partial(self._round, sampler, batch, flat, see, attempt))
            found.update(zip(flat, drawn, strict=True))
        groups, parts = zip(*found.values(), strict=True)
        return Collected(list(groups), list(parts), again)

    def _round(
        self,
        sampler: Sampler,
        batch: int,
        places: Sequence[int],
        see: Callable[[Sequence[Prompt]], None],
        attempt: int,
    ) -> list[tuple[Group, Rewards]]:
        if not places:
            return []
        records = self.method.records(batch + attempt * self.batches, self.pool)
        prompts = [self.prompts.build(records[place]) for place in places]
        see(prompts)
        again = ("again", attempt) if attempt else ()
        seeds = [derive(self.seed, batch, place, *again) for place in places]
        n = self.settings.num_generations
        groups = sampler.groups(prompts, n, seeds, self.method.sampled)
        groups = [g.with_auxiliary(self.method.auxiliary(g, sampler)) for g in groups]
        groups = self.method.repair(groups, sampler, self.prompts)
        return [(g, self.method.rewards(g)) for g in groups]


def total(parts: Rewards) -> torch.Tensor:
    """(G,) rewards: the sum of their parts."""
    return torch.stack(list(parts.values())).sum(0)


def is_flat(parts: Rewards) -> bool:
    """Whether all completions of the group earned the same."""
    return float(total(parts).std(unbiased=False)) < FLAT
