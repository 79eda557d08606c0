"""The second pass: failed rollouts of a round asked again at once, and put in their groups.

| `context`    | tokens of the chosen rollout | its loss prompt | its reward      |
|--------------|------------------------------|-----------------|-----------------|
| `patched`    | the second answer's          | with the patch  | second answer's |
| `original`   | the second answer's          | without it      | second answer's |
| `token_swap` | the first answer's           | without it      | second answer's |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from evals.seeds import derive
from repro.core.rewards import format_rewards
from repro.core.rollout import Sampler
from repro.core.types import Group, Prompt, Rollout
from repro.ffr.switches import Switches

Tags = dict[str, float]
Score = Callable[[Sequence[Rollout]], Tensor]


@dataclass(frozen=True)
class Job:
    """One second answer: index of its group, index in it, and the prompt it is sampled under."""

    group: int
    index: int
    prompt: Prompt


def answered(
    groups: list[Group], tags: list[list[Tags]], jobs: list[Job], sample: Sampler, s: Switches,
    score: Score,
) -> list[Group]:  # fmt: skip
    """The groups with the chosen rollout of each index; one sampling pass for all jobs.

    tags: of every rollout, completed by what its second answer was. score: accuracy rewards.
    """
    second = _drawn(groups, jobs, sample, s.second_length)
    for job, rollout in zip(jobs, second, strict=True):
        tags[job.group][job.index] |= _read(rollout, s, score)
    fresh = {(j.group, j.index): r for j, r in zip(jobs, second, strict=True)}
    return [_mixed(g, place, tags[place], fresh, s) for place, g in enumerate(groups)]


def _drawn(
    groups: list[Group], jobs: list[Job], sample: Sampler, most: int | None
) -> list[Rollout]:
    if not jobs:
        return []
    seeds = [derive(groups[j.group].seed, "repair", j.index) for j in jobs]
    cap = sample.decoding.max_new_tokens
    drawn = sample([j.prompt for j in jobs], 1, seeds, longest=min(most or cap, cap), shared=True)
    return [rollout for (rollout,) in drawn]


def _read(rollout: Rollout, s: Switches, score: Score) -> Tags:
    right = float(score([rollout])[0])
    found = {"repaired": 1.0, "mended": float(right >= s.right_from)}
    if s.context == "token_swap":
        found |= {"accuracy": right, "format": float(format_rewards([], [rollout.text])[0] or 0)}
    return found


def _mixed(
    group: Group, place: int, tags: list[Tags], fresh: Mapping[tuple[int, int], Rollout],
    s: Switches,
) -> Group:  # fmt: skip
    """Rollouts of one loss prompt stand side by side, so that they share its forward."""
    rollouts = []
    for index, first in enumerate(group.rollouts):
        second = fresh.get((place, index))
        chosen = first if second is None or s.context == "token_swap" else second
        if second is chosen and s.context == "original":
            chosen = replace(chosen, loss_prompt=group.prompt)
        rollouts.append(replace(chosen, tags=tags[index]))
    order = {id(p): n for n, p in enumerate([group.prompt, *(r.loss_prompt for r in rollouts)])}
    rollouts.sort(key=lambda r: (r.loss_prompt is not group.prompt, order[id(r.loss_prompt)]))
    return replace(group, rollouts=tuple(rollouts))
