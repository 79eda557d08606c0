"""The GRPO family on (group, token weights): one group's loss from its log-probabilities.

With ratio r = exp(lp - lp_old), token weights w, selected tokens S = {w != 0}, valid tokens o_i,
surrogate s = min(r A, clip(r, 1 - eps, 1 + eps_high) A), k = exp(d) - d - 1 with
d = clamp(lp_ref - lp, -10, 10):

    policy term = -N(w s)      KL term = N(w k) on S, or N(k) on o_i      loss = policy + beta KL

| `loss_type` | N(x), x of shape (G, C)                                   | n                      |
|-------------|-----------------------------------------------------------|------------------------|
| `grpo`      | mean_i [ sum_t x_it / max(1, n_i) ]                       | |S_i| or |o_i|         |
| `dr_grpo`   | sum x / (G max_completion_length)                         | -                      |
| `bnpo`      | sum x / max(1, n)                                         | of group or batch      |
| `dapo`      | sum x / max(1, n)                                         | of group or batch      |
| `cispo`     | as dapo, with s = sg(min(r, eps_high)) A lp               | of group or batch      |

GSPO is `importance_sampling_level="sequence"`: r is the geometric mean of the selected tokens'
ratios. With weights of one everything is plain GRPO; with the mask of the highest entropies,
`kl_on="valid"` and `normaliser="valid"` it is TRL's `top_entropy_quantile`.
Sources: ktr.md 1.6 and 9; TRL 1.16 `GRPOTrainer._compute_loss` for the family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

LossType = Literal["grpo", "dr_grpo", "bnpo", "dapo", "cispo"]
Tokens = Literal["selected", "valid"]


@dataclass(frozen=True)
class LossConfig:
    """TRL's field names, our defaults; the last two are ours (ktr.md 9).

    epsilon_high: None means epsilon; for cispo it is the largest ratio itself (e.g. 5.0).
    max_completion_length: dr_grpo's constant denominator. kl_on: tokens that the KL acts on.
    normaliser: tokens that the denominator counts, each once whatever its weight; a KL on valid
    tokens always counts the valid ones.
    """

    beta: float = 0.04
    epsilon: float = 0.2
    epsilon_high: float | None = None
    loss_type: LossType = "grpo"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    max_completion_length: int = 768
    kl_on: Tokens = "selected"
    normaliser: Tokens = "valid"

    def __post_init__(self) -> None:
        known = {
            "loss_type": get_args(LossType),
            "importance_sampling_level": ("token", "sequence"),
            "kl_on": get_args(Tokens),
            "normaliser": get_args(Tokens),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(values)}")
        if self.loss_type == "cispo" and self.epsilon_high is None:
            raise ValueError("cispo needs epsilon_high, the largest ratio it lets through (e.g. 5)")
        if self.max_completion_length < 1:
            raise ValueError("max_completion_length must be at least 1")


@dataclass(frozen=True)
class LossTerms:
    """`loss` carries the gradient; everything else is detached.

    policy, kl: the two terms as they enter the loss, loss = policy + beta kl. kl_valid: mean k
    over valid tokens, then over completions: comparable between arms whatever they select. Both
    KL values are None without a reference. clip_share: share of selected tokens whose ratio is
    clipped. kept: share of valid tokens that are selected.
    """

    loss: torch.Tensor
    policy: torch.Tensor
    kl: torch.Tensor | None
    kl_valid: torch.Tensor | None
    clip_share: torch.Tensor
    kept: torch.Tensor


def k3(ref_logp: torch.Tensor, logp: torch.Tensor) -> torch.Tensor:
    """KL estimator exp(d) - d - 1 >= 0 with d = clamp(ref - lp, -10, 10), elementwise."""
    d = torch.clamp(ref_logp - logp, -10.0, 10.0)
    return torch.exp(d) - d - 1.0


def group_loss(
    logp: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    valid: torch.Tensor,
    config: LossConfig,
    *,
    old_logp: torch.Tensor | None = None,
    ref_logp: torch.Tensor | None = None,
    total_tokens: float | None = None,
) -> LossTerms:
    """Loss of one group; all inputs but `logp` are treated as constants.

    logp (G, C) with gradient; advantages (G,); weights (G, C) float, zero drops a token from
    the policy term (and from the KL where kl_on is "selected"); valid (G, C) bool, True up to and
    including the end token; what stands at other positions is never read. old_logp (G, C): None
    means one update per batch, a ratio of 1 with the gradient of lp. ref_logp (G, C): needed if
    beta is not 0. total_tokens: the batch's count of normalising tokens for bnpo, dapo and cispo;
    the batch's loss is then the sum of its groups' losses. Raises ValueError on wrong shapes.
    """
    _check(logp, advantages, weights, valid, config, old_logp, ref_logp, total_tokens)
    selected = valid & (weights != 0)
    weights = torch.where(selected, weights.detach(), 0.0).to(logp)
    counted = selected if config.normaliser == "selected" else valid
    ratio = _ratio(logp, old_logp, selected, config)
    gain, clipped = _surrogate(logp, ratio, advantages.detach().to(logp)[:, None], selected, config)
    policy = -_normalise(weights * gain, counted, config, total_tokens)
    loss, kl, kl_valid = policy, None, None
    if ref_logp is not None:
        # Masked before the estimator: padding may hold anything.
        k = k3(_only(valid, ref_logp.detach()), _only(valid, logp))
        masked = config.kl_on == "selected"
        kl = _normalise(
            k * (weights if masked else valid), counted if masked else valid, config, total_tokens
        )
        kl_valid = ((k * valid).sum(1) / valid.sum(1).clamp(min=1)).mean().detach()
        loss = policy + config.beta * kl
        kl = kl.detach()
    n = selected.sum()
    return LossTerms(
        loss=loss,
        policy=policy.detach(),
        kl=kl,
        kl_valid=kl_valid,
        clip_share=(clipped & selected).sum() / n.clamp(min=1),
        kept=n / valid.sum().clamp(min=1),
    )


def entropy_mask(
    entropy: Sequence[torch.Tensor],
    valid: Sequence[torch.Tensor],
    share: float,
    gather: Callable[[torch.Tensor], list[torch.Tensor]] = lambda pool: [pool],
) -> list[torch.Tensor]:
    """(G, C) float per group: 1 for valid tokens at or above the (1 - share) quantile of the
    batch's entropies, TRL's `top_entropy_quantile`; all valid tokens when share is 1.

    entropy, valid: (G, C) per group. gather: a rank's pool of entropies -> everybody's.
    """
    if share >= 1:
        return [v.float() for v in valid]
    own = torch.cat([e[v] for e, v in zip(entropy, valid, strict=True)])
    pool = torch.cat([p.to(own) for p in gather(own.cpu())]).float()
    threshold = torch.quantile(pool, 1 - share)
    return [(v & (e >= threshold)).float() for e, v in zip(entropy, valid, strict=True)]


def _only(mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return torch.where(mask, values, 0.0)


def _ratio(
    logp: torch.Tensor, old_logp: torch.Tensor | None, selected: torch.Tensor, config: LossConfig
) -> torch.Tensor:
    """(G, C) importance ratios; 1 where nothing is selected."""
    old = logp.detach() if old_logp is None else old_logp.detach()
    # Masked before exp: a huge ratio of a dropped token would turn 0 * inf into NaN.
    log_ratio = _only(selected, logp - old)
    if config.importance_sampling_level == "sequence":
        mean = log_ratio.sum(1) / selected.sum(1).clamp(min=1)
        log_ratio = mean[:, None].expand_as(logp)
    return torch.exp(log_ratio)


def _surrogate(
    logp: torch.Tensor,
    ratio: torch.Tensor,
    advantages: torch.Tensor,
    selected: torch.Tensor,
    config: LossConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token gain (G, C) and where the clip took the gradient or part of the ratio away."""
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    if config.loss_type == "cispo":
        capped = torch.clamp(ratio, max=high).detach()
        return capped * advantages * _only(selected, logp), (ratio > high) & (advantages > 0)
    bounded = torch.clamp(ratio, 1.0 - config.epsilon, 1.0 + high)
    gain = torch.minimum(ratio * advantages, bounded * advantages)
    clipped = ((ratio < 1.0 - config.epsilon) & (advantages < 0)) | (
        (ratio > 1.0 + high) & (advantages > 0)
    )
    return gain, clipped


def _normalise(
    values: torch.Tensor, counted: torch.Tensor, config: LossConfig, total_tokens: float | None
) -> torch.Tensor:
    """N(x) of the module docstring: (G, C) -> scalar, 0 for an empty selection."""
    if config.loss_type == "grpo":
        return (values.sum(1) / counted.sum(1).clamp(min=1)).mean()
    if config.loss_type == "dr_grpo":
        return values.sum() / (values.shape[0] * config.max_completion_length)
    if total_tokens is None:
        return values.sum() / counted.sum().clamp(min=1)
    return values.sum() / max(1.0, total_tokens)


def _check(
    logp: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    valid: torch.Tensor,
    config: LossConfig,
    old_logp: torch.Tensor | None,
    ref_logp: torch.Tensor | None,
    total_tokens: float | None,
) -> None:
    if valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool, not {valid.dtype}")
    named = {"weights": weights, "valid": valid, "old_logp": old_logp, "ref_logp": ref_logp}
    for name, value in named.items():
        if value is not None and value.shape != logp.shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, logp {tuple(logp.shape)}")
    if advantages.shape != logp.shape[:1]:
        raise ValueError(f"advantages is {tuple(advantages.shape)}, logp {tuple(logp.shape)}")
    if config.beta != 0 and ref_logp is None:
        raise ValueError("beta is not 0, so the KL term needs ref_logp")
    if total_tokens is not None and (config.kl_on, config.normaliser) == ("valid", "selected"):
        raise ValueError("kl_on 'valid' needs normaliser 'valid' when total_tokens is given")
