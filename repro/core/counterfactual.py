"""Which completion tokens enter the loss: the top share r of each signal, then the union.

| rule       | keeps, among n valid tokens with finite score                         | preset     |
|------------|-----------------------------------------------------------------------|------------|
| `quantile` | score >= linear-interpolated quantile 1 - r, all ties                 | `released` |
| `top`      | exactly ceil(r n) highest, ties to the lower index                    | `paper`    |

Scope `group` pools the completions of a prompt, `completion` ranks each alone. Signals are the
entropy and the log-probability differences of TokenScores, `signed` (released) or `absolute`
(paper). Sources: ktr.md 1.4, 7.2, 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import torch

from repro.core.types import TokenScores

Scope = Literal["group", "completion"]
Rule = Literal["quantile", "top"]
Sign = Literal["signed", "absolute"]

SIGNALS = ("entropy", "visual", "temporal")


def select_tokens(
    scores: torch.Tensor,
    valid: torch.Tensor,
    ratio: float,
    scope: Scope = "completion",
    rule: Rule = "top",
) -> torch.Tensor:
    """(G, C) bool mask of the selected tokens, a subset of `valid`.

    scores (G, C), read in float32; valid (G, C) bool; ratio in [0, 1], where 0 selects nothing
    and 1 every finite score. Raises ValueError for other ratios, shapes, scopes and rules.
    """
    if scores.ndim != 2 or scores.shape != valid.shape or valid.dtype != torch.bool:
        raise ValueError("scores and valid must be (G, C), valid bool")
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must lie in [0, 1], got {ratio}")
    if scope not in ("group", "completion") or rule not in ("quantile", "top"):
        raise ValueError(f"unknown scope {scope!r} or rule {rule!r}")
    scores = scores.detach().float()
    usable = valid & torch.isfinite(scores)
    choose = _quantile if rule == "quantile" else _top
    if scope == "group":
        return choose(scores.flatten(), usable.flatten(), ratio).view_as(valid)
    return torch.stack([choose(s, u, ratio) for s, u in zip(scores, usable, strict=True)])


def _quantile(scores: torch.Tensor, usable: torch.Tensor, ratio: float) -> torch.Tensor:
    pool = scores[usable]
    if ratio == 0 or pool.numel() == 0:  # chosen: 0 turns a signal off, the formula keeps the best
        return torch.zeros_like(usable)
    return usable & (scores >= torch.quantile(pool, 1 - ratio))


def _top(scores: torch.Tensor, usable: torch.Tensor, ratio: float) -> torch.Tensor:
    # Decimal: in binary 0.07 * 100 is a little more than 7, and its ceiling 8.
    keep = math.ceil(Decimal(str(ratio)) * int(usable.sum()))
    order = scores.masked_fill(~usable, -math.inf).sort(descending=True, stable=True).indices
    mask = torch.zeros_like(usable)
    mask[order[:keep]] = True
    return mask


def signal_masks(
    scores: TokenScores,
    ratios: Mapping[str, float],
    sign: Sign = "absolute",
    scope: Scope = "completion",
    rule: Rule = "top",
    at_least_one: bool = True,
) -> dict[str, torch.Tensor]:
    """Selected tokens (G, C) per active signal, in the order entropy, visual, temporal.

    ratios: share per signal name; a signal that is missing, 0, or not computed (an image has no
    temporal score) is not in the result. sign applies to the two differences. at_least_one: a
    completion that no signal selects from gets its best token of the first active signal that
    has one (ktr.md 9; which signal is chosen). Raises ValueError for an unknown signal or sign.
    """
    if set(ratios) - set(SIGNALS) or sign not in ("signed", "absolute"):
        raise ValueError(f"signals {sorted(ratios)}, sign {sign!r}; known: {', '.join(SIGNALS)}")
    active = {
        name: value if sign == "signed" or name == "entropy" else value.abs()
        for name in SIGNALS
        if ratios.get(name, 0) != 0 and (value := getattr(scores, name)) is not None
    }
    masks = {
        name: select_tokens(value, scores.valid, ratios[name], scope, rule)
        for name, value in active.items()
    }
    if at_least_one:
        for name, value in active.items():
            missed = ~union(masks, scores.valid).any(dim=1, keepdim=True)
            masks[name] = masks[name] | (missed & _best(value, scores.valid))
    return masks


def _best(scores: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(G, C): the highest finite valid score of each row, the lower index on ties."""
    usable = valid & torch.isfinite(scores)
    highest = scores.masked_fill(~usable, -math.inf).argmax(dim=1, keepdim=True)
    return torch.zeros_like(valid).scatter(1, highest, True) & usable


def union(masks: Mapping[str, torch.Tensor], valid: torch.Tensor) -> torch.Tensor:
    """(G, C): tokens that any signal selected; all False when no signal is active."""
    together = torch.zeros_like(valid)
    for mask in masks.values():
        together = together | mask
    return together
