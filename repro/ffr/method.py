"""FFR: a failed rollout is answered again by the same student, under a teacher's evidence patch.

    z_i   = [accuracy(tau_i) >= right_from]
    tau*_i ~ pi_old( . | x, c_i)  for z_i = 0, all of a round in one pass
    R~_i  = z_i (R + R_fmt)(tau_i) + (1 - z_i) ((R + R_fmt)(tau*_i) - kappa)       (RIR)

The chosen rollout of an index is tau_i if z_i = 1, else tau*_i; its loss, its reference and its old
log-probabilities are taken under the prompt that it was sampled under. Where the teacher gave
nothing, tau_i stays, with its own reward. Sources: ffr.md 1.7-1.13, 10.1.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from evals.errors import BadInput
from evals.extract import first_block
from evals.seeds import derive
from evals.types import Protocol
from evals.vlm import VLM
from repro.core.data import Prompts
from repro.core.losses import Tokens
from repro.core.method import TGRPO, Method, Rewards, accuracies
from repro.core.rollout import Sampler
from repro.core.types import Group, Hint, Prompt, TokenScores
from repro.ffr.asking import Answers, Pending, opened
from repro.ffr.blind import student
from repro.ffr.second import Job, Tags, answered
from repro.ffr.service import Service
from repro.ffr.switches import Switches
from repro.ffr.teacher import Failure, Repair, Status
from repro.ffr.words import hint

STATUSES = frozenset(get_args(Status))
DOWN = ("timeout", "backend_error", "circuit_open")  # a teacher that cannot be used


def rir(
    first_correct: Tensor, acc: Tensor, fmt: Tensor, repaired_acc: Tensor, repaired_fmt: Tensor,
    kappa: float | Tensor,
) -> Tensor:  # fmt: skip
    """(G,) Robust Improvement Reward (ffr.md 1.8). first_correct: (G,) z. acc, fmt: of the first
    answers; repaired_*: of the second ones, read where z is 0. Raises ValueError for kappa < 0."""
    tax = torch.as_tensor(kappa, dtype=acc.dtype)
    if bool((tax < 0).any()):
        raise ValueError(f"kappa must be at least 0, not {kappa}")
    return torch.where(first_correct.bool(), acc + fmt, repaired_acc + repaired_fmt - tax)


class FFR(Method):
    """What a rollout's tags say, each 1 where it is so: failed, repaired, mended (repaired and now
    right), taxed, and the teacher's status; accuracy and format where they are not its text's."""

    switches: Switches

    def __init__(self, switches: Switches, seed: int = 0, service: Answers | None = None):
        super().__init__(switches, seed)
        self.service: Answers = service or opened(switches)
        self._told: Counter[str] = Counter()  # of the service's counts, what has been logged
        self._asked: dict[int, tuple[list[int], Pending]] = {}  # by the group's seed

    def begin(self, start: Path | None, like: VLM, view: Protocol) -> None:
        """Loads the blind test's student, the frozen start checkpoint, and gives it to the gate.

        Raises ValueError without a start checkpoint.
        """
        if not self.switches.blind_passes("ffr") or not isinstance(self.service, Service):
            return
        if start is None:
            raise ValueError("blind_gain asks the start checkpoint: give `start`")
        self.service.close()
        self.service = opened(self.switches, student(start, like, view.prompt))

    # --- asking and answering again ------------------------------------------------------------

    def sampled(self, group: Group) -> None:
        """Start the teacher's calls for the group's failures."""
        right = accuracies(group.rollouts)
        failed = [i for i, r in enumerate(right.tolist()) if r < self.switches.right_from]
        failures = [self._failure(group, i, float(right[i])) for i in failed]
        self._asked[group.seed] = (failed, self.service.start(failures))

    def _failure(self, group: Group, index: int, score: float) -> Failure:
        text, prompt = group.rollouts[index].text, group.prompt
        seed = derive(group.seed, "teacher", index)
        return Failure(prompt.record, prompt.clip, text, first_block(text), score, seed)

    def repair(self, groups: list[Group], sample: Sampler, prompts: Prompts) -> list[Group]:
        """Second answers to all failures of a round, in one sampling pass."""
        until = time.monotonic() + self.switches.deadline
        tags: list[list[Tags]] = [[{} for _ in g.rollouts] for g in groups]
        jobs: list[Job] = []
        for place, group in enumerate(groups):
            failed, pending = self._asked.pop(group.seed)
            known: dict[Hint, Prompt | None] = {}
            repairs = pending.result(max(0.0, until - time.monotonic()))
            for index, repair in zip(failed, repairs, strict=True):
                prompt = self._prompt(group, repair, prompts, known)
                tags[place][index] = self._tags(repair, prompt)
                if prompt is not None:
                    jobs.append(Job(place, index, prompt))
        return answered(groups, tags, jobs, sample, self.switches, accuracies)

    def _prompt(
        self, group: Group, repair: Repair, prompts: Prompts, known: dict[Hint, Prompt | None]
    ) -> Prompt | None:
        """What the student is asked again, None for nothing; equal hints share a prompt."""
        if not repair.again:
            return None
        asked = group.prompt
        told = hint(repair.patch, asked.clip, self.switches)
        if told not in known:
            try:
                known[told] = prompts.hinted(asked, told) if told else asked
            except BadInput:  # longer than max_prompt_length: nothing is cut
                known[told] = None
        return known[told]

    def _tags(self, repair: Repair, prompt: Prompt | None) -> Tags:
        tags = {"failed": 1.0, f"teacher_{repair.status}": 1.0}
        if repair.again and prompt is None:
            tags["too_long"] = 1.0
        tags["taxed"] = float(prompt is not None or self.switches.tax_on_failure)
        return tags

    # --- rewards -------------------------------------------------------------------------------

    def rewards(self, group: Group) -> Rewards:
        """accuracy, format and tax (0 or -kappa), which sum to `rir`."""
        parts = super().rewards(group)
        for name in ("accuracy", "format"):
            told = [r.tags.get(name) for r in group.rollouts]
            parts[name] = torch.tensor(
                [own if t is None else t for own, t in zip(parts[name].tolist(), told, strict=True)]
            )
        return {**parts, "tax": -self._kappa(group) * _tagged(group, "taxed")}

    def _kappa(self, group: Group) -> float:
        if self.switches.kappa_scale == "fixed":
            return self.switches.kappa
        return self.switches.kappa * float(1 - _tagged(group, "failed").mean())

    def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
        """All valid tokens, of the best rollout alone with `best_of_group`."""
        weights = super().token_weights(group, scores)
        if self.switches.chosen == "per_index":
            return weights
        reward = torch.stack(list(self.rewards(group).values())).sum(0)
        alone = 1 - _tagged(group, "repaired")  # among equals the unassisted one, then the first
        best = max(range(len(reward)), key=lambda i: (float(reward[i]), float(alone[i]), -i))
        keep = torch.zeros(len(reward), 1)
        keep[best] = 1.0
        return weights * keep.to(weights)

    @property
    def loss_tokens(self) -> tuple[Tokens, Tokens]:
        """With `best_of_group` nothing but the best rollout: it is trained as if it were alone, so
        the others neither feel the KL nor dilute it (App. E.2)."""
        if self.switches.chosen == "best_of_group":
            return "selected", "selected"
        return super().loss_tokens

    # --- metrics -------------------------------------------------------------------------------

    def counted(self, groups: Sequence[Group]) -> dict[str, float]:
        """How many rollouts there are, how many have each tag, and what the service did since the
        last time: calls, leaks by stage, tokens."""
        found = Counter({"rollouts": float(sum(len(g.rollouts) for g in groups))})
        for tags in (r.tags for g in groups for r in g.rollouts):
            found.update({n: v for n, v in tags.items() if n not in ("accuracy", "format")})
        now = Counter(self.service.counts)
        found.update({n: float(v) for n, v in (now - self._told).items() if n not in STATUSES})
        self._told = now
        return dict(found)

    def rates(self, sums: Mapping[str, float]) -> dict[str, float]:
        """failed: share of rollouts; repair_rate: of the failed; mended_rate: of the repaired that
        became right; teacher_down: of the calls that failed for want of a teacher."""
        n = partial(Counter(sums).__getitem__)
        down = sum(n(f"teacher_{status}") for status in DOWN)
        return {
            "failed": n("failed") / max(1.0, n("rollouts")),
            "repair_rate": n("repaired") / max(1.0, n("failed")),
            "mended_rate": n("mended") / max(1.0, n("repaired")),
            "teacher_down": down / max(1.0, n("failed")),
        }

    def alarms(self, metrics: Mapping[str, float]) -> list[str]:
        return alarms(metrics)


def alarms(metrics: Mapping[str, float]) -> list[str]:
    """`teacher` where over half of the calls failed for want of one: timeouts, errors, an open
    circuit (bound chosen)."""
    return ["teacher"] if metrics.get("teacher_down", 0.0) > 0.5 else []


def _tagged(group: Group, name: str) -> Tensor:
    """(G,) a tag of each rollout, 0 where it has none."""
    return torch.tensor([r.tags.get(name, 0.0) for r in group.rollouts])


METHODS = {"grpo": Method, "t_grpo": TGRPO, "ffr": FFR}
