"""Video-KTR: the loss keeps only tokens that depend on the video, on frame order, or on chance.

    E = entropy, V = |logp - logp without vision|, T = |logp - logp with frames shuffled|
    weight = 1 where a token is among the top share of E or V or T, else 0

The signed differences, the pooled quantile and the other habits of the released code are switches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evals.seeds import derive
from repro.core.counterfactual import signal_masks, union
from repro.core.method import TGRPO, Method
from repro.core.types import Group, TokenScores
from repro.ktr.switches import Switches


class KTR(Method):
    """Video-KTR; a ratio of 0 turns a signal off, and its pass is not run."""

    def __init__(self, switches: Switches, seed: int = 0):
        super().__init__(switches, seed)
        self.needs = switches.passes("ktr")

    def signals(self, scores: TokenScores) -> dict[str, Tensor]:
        s = self.switches
        ratios = {
            "entropy": s.ratios.entropy, "visual": s.ratios.visual, "temporal": s.ratios.temporal
        }  # fmt: skip
        return signal_masks(
            scores, ratios, sign=s.sign, scope=s.scope, rule=s.rule, at_least_one=s.at_least_one
        )

    def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
        return union(self.signals(scores), scores.valid).float()


class RandomTokens(KTR):
    """The control: random tokens, for every completion as many as KTR would have kept."""

    def signals(self, scores: TokenScores) -> dict[str, Tensor]:
        return {}

    def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
        count = union(super().signals(scores), scores.valid).sum(-1, keepdim=True)
        return self._draw(group, scores.valid, count).float()

    def _draw(self, group: Group, valid: Tensor, count: Tensor) -> Tensor:
        """(G, C) bool: `count` (G, 1) valid tokens of every row, drawn under the group's seed."""
        generator = torch.Generator().manual_seed(derive(group.seed, "random"))
        draws = torch.rand(valid.shape, generator=generator).to(valid.device)
        rank = draws.masked_fill(~valid, 2.0).argsort(-1).argsort(-1)
        return (rank < count) & valid


METHODS = {"grpo": Method, "t_grpo": TGRPO, "ktr": KTR, "random": RandomTokens}
