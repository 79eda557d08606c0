"""What a paper may change: the hooks of a training step, each with a working default.

GRPO is the method that fills nothing. A paper subclasses `Method` and overrides what it changes:

    begin        told of the start checkpoint             (FFR: its blind test)
    records      which records a step trains on           (curriculum, mixing)
    sampled      told of each group while others grow     (FFR: asks its teacher)
    auxiliary    rollouts that only inform rewards        (T-GRPO)
    repair       replace failed rollouts                  (FFR)
    rewards      reward parts per rollout, summed
    token_weights   (G, C), zeros drop a token            (KTR)
    loss_tokens  what the KL and the divisor count        (FFR: the best rollout alone)
    adjust       the last word on rewards                 (group bonuses, length bonus)
    counted      what to count of a part's groups, and    (FFR: repairs)
    rates        what follows from the sums of the step
    alarms       what a user must hear of a step          (FFR: a dead teacher)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evals.seeds import derive
from evals.types import Protocol
from evals.vlm import VLM
from repro.core.data import Prompts, Records
from repro.core.losses import Tokens
from repro.core.rewards import accuracy_reward, format_rewards, length_bonus, t_grpo_bonus
from repro.core.rollout import Sampler
from repro.core.types import Group, Record, Rollout, TokenScores
from repro.recipe import Switches

Rewards = dict[str, Tensor]


class Method:
    """GRPO with the Video-R1 rewards: accuracy + format + length bonus.

    needs: counterfactual passes to run, out of "visual" and "temporal". sources of the defaults:
    ktr.md 1.5 as released by Video-R1.
    """

    needs: frozenset[str] = frozenset()

    def __init__(self, switches: Switches, seed: int = 0):
        self.switches, self.seed = switches, seed

    def begin(self, start: Path | None, like: VLM, view: Protocol) -> None:
        """Told once, before the first step. start: the start checkpoint's folder. like: the model
        that is trained. view: how its records are shown."""

    def records(self, step: int, pool: Records) -> Sequence[Record]:
        """The records of a step (from 0)."""
        return pool.draw(step)

    def auxiliary(self, group: Group, sample: Sampler) -> list[Rollout]:
        """Rollouts without gradient that `adjust` may look at."""
        return []

    def sampled(self, group: Group) -> None:
        """A group is whole, while others may still be sampled: must return at once."""

    def repair(self, groups: list[Group], sample: Sampler, prompts: Prompts) -> list[Group]:
        """The groups of a round, in order, with failed rollouts replaced."""
        return groups

    def rewards(self, group: Group) -> Rewards:
        """Reward parts, each (G,) fp32; the parts are logged by name and summed."""
        texts = [r.text for r in group.rollouts]
        return {
            "accuracy": accuracies(group.rollouts),
            "format": torch.tensor(format_rewards([], texts), dtype=torch.float32),
        }

    def measure(self, group: Group, rewards: Rewards) -> dict[str, float]:
        """Further numbers about a group for metrics.jsonl, averaged over the groups that have them;
        a name of `rewards` replaces that part's mean. rewards: as `rewards` gave them."""
        return {}

    def signals(self, scores: TokenScores) -> dict[str, Tensor]:
        """Which signal chose which token, (G, C) bool by name; none here."""
        return {}

    def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
        """(G, C) weights of the completion tokens; every valid token counts here."""
        return scores.valid.float()

    @property
    def loss_tokens(self) -> tuple[Tokens, Tokens]:
        """Tokens that the KL acts on, and those that the loss is divided by."""
        return self.switches.kl_on, self.switches.normaliser

    def adjust(self, group: Group, rewards: Rewards, weights: Tensor) -> Rewards:
        """Adds the length bonus; `length: selected` counts the kept tokens, as KTR's release."""
        rule = self.switches.length_bonus
        lengths = torch.tensor([len(r.ids) for r in group.rollouts], dtype=torch.float32)
        if rule.length == "selected":
            lengths = (weights > 0).sum(-1).float().cpu()
        bonus = length_bonus(rewards["accuracy"], lengths, rule.window, rule.bonus)
        return {**rewards, "length_bonus": bonus}

    def counted(self, groups: Sequence[Group]) -> dict[str, float]:
        """Counts over groups of one process, by name; summed over parts and processes and logged
        as `n_<name>`."""
        return {}

    def rates(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Metrics of a step that follow from its summed counts, by their names in `counted`."""
        return {}

    def alarms(self, metrics: Mapping[str, float]) -> list[str]:
        """Names of alarms that a step's metrics raise, besides those of repro.core.health."""
        return []


class TGRPO(Method):
    """T-GRPO (Video-R1): +0.3 accuracy where the ordered clip helps against a shuffled one.

    Half as many auxiliary rollouts see the frames in random order; needs a clip with frames.
    """

    def auxiliary(self, group: Group, sample: Sampler) -> list[Rollout]:
        from repro.core.passes import shuffled_prompt

        if group.prompt.clip is None or group.prompt.clip.modality != "video":
            return []
        seed = derive(group.seed, "auxiliary")
        prompt = shuffled_prompt(group.prompt, self.switches, seed)
        return sample([prompt], max(1, len(group.rollouts) // 2), [seed])[0]

    def adjust(self, group: Group, rewards: Rewards, weights: Tensor) -> Rewards:
        rewards = super().adjust(group, rewards, weights)
        if not group.auxiliary:
            return rewards
        bonus = t_grpo_bonus(rewards["accuracy"], accuracies(group.auxiliary))
        return {**rewards, "temporal_bonus": bonus}


def accuracies(rollouts: Sequence[Rollout]) -> Tensor:
    """(G,) accuracy rewards of rollouts of one prompt, by its problem type."""
    record = rollouts[0].prompt.record
    values = accuracy_reward(
        [], [r.text for r in rollouts], [],
        solution=[f"<answer>{record.gold}</answer>"] * len(rollouts),
        problem_type=[record.kind] * len(rollouts),
    )  # fmt: skip
    return torch.tensor(values, dtype=torch.float32)
