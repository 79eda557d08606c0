"""MVP: GRPO on masked video prediction, mixed with question answering, easy items first.

    step -> tier K of the curriculum -> share of MVP records, rest questions -> rewards by kind

An MVP record is one of kind `ordering`: its gold holds K numbers, its fact `candidates` is M.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evals.errors import BadInput
from evals.seeds import derive
from repro.core.collect import FLAT
from repro.core.data import Records
from repro.core.method import TGRPO, Method, Rewards, accuracies
from repro.core.types import Group, Record
from repro.mvp import rewards as own
from repro.mvp.switches import Switches

KIND = "ordering"


class MVP(Method):
    """Masked video prediction; `share` 0 is its control, the same steps on questions alone."""

    switches: Switches

    def __init__(self, switches: Switches, seed: int = 0):
        super().__init__(switches, seed)
        self._pools: dict[int, Records] = {}  # by K; questions under 0

    def records(self, step: int, pool: Records) -> Sequence[Record]:
        """A step's records; they depend on the step alone.

        Raises BadInput where the pool lacks questions, or items of a tier that is asked for.
        """
        if not self._pools:
            self._pools = _by_tier(pool)
        n, rng = pool.per_step, np.random.default_rng(derive(self.seed, "mix", step))
        before, after = (math.floor(s * n * self.switches.share + 1e-9) for s in (step, step + 1))
        slots = [(self._tier(step, rng), i) for i in range(before, after)]
        slots += [(0, i) for i in range(step * n - before, (step + 1) * n - after)]
        mixed = [slots[place] for place in rng.permutation(n)]
        return [self._pool(tier).at(i) for tier, i in mixed]

    def _tier(self, step: int, rng: np.random.Generator) -> int:
        plan = self.switches.curriculum
        at = min(step // plan.steps, len(plan.tiers) - 1)
        return plan.tiers[at - 1 if at and rng.random() < plan.carry else at]

    def _pool(self, tier: int) -> Records:
        if tier not in self._pools:
            lacking = f"masked-prediction items of K = {tier}" if tier else "questions"
            raise BadInput(
                f"the training records hold no {lacking}; set share or curriculum.tiers to what "
                "there is, or give other records with --data"
            )
        return self._pools[tier]

    def rewards(self, group: Group) -> Rewards:
        """answer x (sel, ord, exact, or the rule's own part) + form; questions: answer x accuracy +
        form x format."""
        weights = self.switches.weights
        form = weights.form * torch.tensor([own.form(r.text) for r in group.rollouts])
        if group.prompt.record.kind != KIND:
            return {"accuracy": weights.answer * accuracies(group.rollouts), "form": form}
        columns: dict[str, list[float]] = defaultdict(list)
        for found in self._marks(group):
            for name, value in own.parts(found, self.switches.rule, weights).items():
                columns[name].append(value)
        return {**{n: torch.tensor(v) for n, v in columns.items()}, "form": form}

    def adjust(self, group: Group, rewards: Rewards, weights: Tensor) -> Rewards:
        """No length bonus."""
        return rewards

    def measure(self, group: Group, rewards: Rewards) -> dict[str, float]:
        """Shares before weighing, and each part's share of the reward's variance in the group:
        cov(part, reward) / var(reward); they sum to 1, and a group of equal rewards has none."""
        kept = float((rewards["form"] > 0).float().mean()) if self.switches.weights.form else 1.0
        told = {"format": kept}
        if group.prompt.record.kind == KIND:
            found = self._marks(group)
            k = len(own.numbers(group.prompt.record.gold))
            for name in ("valid", "sel", "ord", "exact"):
                mean = sum(getattr(m, name) for m in found) / len(found)
                told |= {f"mvp/{name}": mean, f"mvp/{name}@{k}": mean}
        total = torch.stack(list(rewards.values())).sum(0)
        if float(total.std(unbiased=False)) < FLAT:
            return told
        spread = total - total.mean()
        for name, part in rewards.items():
            share = ((part - part.mean()) * spread).mean() / spread.square().mean()
            told[f"variance/{name}"] = float(share)
        return told

    def _marks(self, group: Group) -> list[own.Marks]:
        record = group.prompt.record
        if "candidates" not in record.facts:
            raise BadInput(f"record {record.id} is an ordering without `candidates`")
        gold, m = own.numbers(record.gold), int(record.facts["candidates"])
        return [own.marks(own.parse(r.text), gold, m) for r in group.rollouts]


def _by_tier(pool: Records) -> dict[int, Records]:
    found: dict[int, list[Record]] = defaultdict(list)
    for record in pool.records:
        found[len(own.numbers(record.gold)) if record.kind == KIND else 0].append(record)
    seeds = {k: derive(pool.seed, "tier", k) for k in found}
    return {k: Records(records, pool.per_step, seeds[k]) for k, records in found.items()}


METHODS = {"grpo": Method, "t_grpo": TGRPO, "mvp": MVP}
