"""Temporal-R1: GRPO on three kinds of question, rewarded for what was said and for when.

    R = a accuracy + b tIoU + c format          terms by kind: repro.temporal_r1.rewards

Accuracy is 0 or 1, tIoU continuous. A group's own standard deviation makes a nearly constant group
of tIoUs as loud as a split group of choices; `scale_rewards: kind` divides by that of the batch's
rewards of the same kind (repro.core.advantages).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evals.errors import BadInput
from repro.core.collect import is_flat
from repro.core.data import Records
from repro.core.method import Method, Rewards
from repro.core.types import Group, Record
from repro.selection.files import read_ids
from repro.temporal_r1.rewards import Reward, grounding_reward, of_record
from repro.temporal_r1.switches import Switches

__all__ = ["METHODS", "TemporalR1", "chosen_records", "grounding_reward"]

#: Ids that `repro data select --recipe temporal_r1 --keep 10% --by family` kept for the micro
#: profile; selection.json beside it says how.
SELECTED = Path(__file__).with_name("selected.ids")
#: Share of a step's groups with unequal rewards, by kind of question, as metrics.jsonl calls it.
SIGNAL = {
    "multiple choice": "signal_what", "temporal grounding": "signal_when",
    "grounded qa": "signal_both",
}  # fmt: skip


class TemporalR1(Method):
    """Rewards by kind of question; a term whose factor is 0 is neither earned nor logged."""

    switches: Switches
    _pool: Records | None = None

    def records(self, step: int, pool: Records) -> Sequence[Record]:
        if self._pool is None:
            kept = chosen_records(pool.records, self.switches.records, self.seed)
            self._pool = Records(kept, pool.per_step, pool.seed)
        return self._pool.draw(step)

    def rewards(self, group: Group) -> Rewards:
        t = self.switches.terms
        factors = {"accuracy": t.accuracy, "tiou": t.tiou, "format": t.form}
        scored = [reward.parts for reward in self._scored(group)]
        return {
            name: torch.tensor([factors[name] * parts[name] for parts in scored])
            for name in scored[0]
            if factors[name]
        }

    def measure(self, group: Group, rewards: Rewards) -> dict[str, float]:
        """The terms as they are, also where they earn nothing, and whether the group teaches."""
        scored = self._scored(group)
        terms = {
            name: [getattr(r, name) for r in scored] for name in ("accuracy", "tiou", "format")
        }
        means = {n: sum(v) / len(v) for n, v in terms.items() if v[0] is not None}
        return {**means, SIGNAL[group.prompt.record.kind]: float(not is_flat(rewards))}

    def _scored(self, group: Group) -> list[Reward]:
        record, clip = group.prompt.record, group.prompt.clip
        if clip is None:
            raise BadInput(f"record {record.id} has no clip, and Temporal-R1 asks about films")
        return [
            of_record(
                r.text, record.kind, record.gold, clip.duration, self.switches.reading,
                record.options,
            )
            for r in group.rollouts
        ]  # fmt: skip

    def adjust(self, group: Group, rewards: Rewards, weights: Tensor) -> Rewards:
        """Nothing is added; the release has no bonus."""
        return rewards


def chosen_records(records: Sequence[Record], which: str, seed: int) -> list[Record]:
    """All of them; those that selected.ids names; or (`random`) as many of every family and kind of
    question, drawn under `seed`: what differs is then which ones, not what is asked.

    Raises BadInput where selected.ids names a record that is not there.
    """
    if which == "all":
        return list(records)
    known = {record.id: record for record in records}
    ids = read_ids(SELECTED)
    missing = [i for i in ids if i not in known]
    if missing:
        raise BadInput(
            f"{SELECTED} names {len(missing)} records that the training data lack, first "
            f"{missing[0]}: it was made for the micro profile; repro data select makes another"
        )
    selected = [known[i] for i in ids]
    return selected if which == "selected" else _as_many(records, selected, seed)


def _as_many(records: Sequence[Record], chosen: Sequence[Record], seed: int) -> list[Record]:
    """As many records as `chosen` has, of every family and kind, in their own order."""
    wanted = Counter(map(_sort, chosen))
    drawn: set[str] = set()
    for place in np.random.default_rng([seed, 10]).permutation(len(records)):
        record = records[place]
        if wanted[_sort(record)] > 0:
            wanted[_sort(record)] -= 1
            drawn.add(record.id)
    return [record for record in records if record.id in drawn]


def _sort(record: Record) -> tuple[str | None, str]:
    return record.tags.get("family"), record.kind


METHODS = {"temporal_r1": TemporalR1}  # and `sft`, which has no rewards (repro.arm)
