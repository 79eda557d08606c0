"""One prompt, one pass: a stem and its completions in one packed row.

    row:        [ stem (P) | c1 without its last token | c2 ... | cG ... ]
    attention:  a token sees the stem, and its own branch up to itself
    positions:  every branch starts at the stem's next position

The completions of one prompt share its forward; log-probabilities and gradients equal those of
one padded row per completion (`plain`), which stays as the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evals.vlm import Encoded
from repro.core.types import Group, Prompt

Row = tuple[Encoded, Sequence[Sequence[int]]]  # a prompt and its completions


@dataclass(frozen=True)
class Packed:
    """B rows of N completions in all; L is the longest row, C the longest completion.

    ids: (B, L). positions: (3, B, L). attend: (B, 1, L, L) bool, True where a query may look.
    source: (N, C) flat index into (B * L) of the token that predicts each completion token.
    targets: (N, C) completion ids. valid: (N, C) bool.
    """

    ids: Tensor
    positions: Tensor
    attend: Tensor
    source: Tensor
    targets: Tensor
    valid: Tensor


def pack(rows: Sequence[Row], pad: int) -> Packed:
    """One packed row per prompt, right-padded to the longest."""
    lengths = [len(p.ids) + sum(max(len(c) - 1, 0) for c in cs) for p, cs in rows]
    completions = [c for _, cs in rows for c in cs]
    width, longest = max(lengths), max(len(c) for c in completions)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    positions = torch.zeros(3, len(rows), width, dtype=torch.long)
    branch = torch.full((len(rows), width), -1, dtype=torch.long)  # -1 padding, 0 stem
    source = torch.zeros(len(completions), longest, dtype=torch.long)
    targets = torch.full((len(completions), longest), pad, dtype=torch.long)
    valid = torch.zeros(len(completions), longest, dtype=torch.bool)
    n = 0
    for row, (prompt, cs) in enumerate(rows):
        stem = len(prompt.ids)
        ids[row, :stem], branch[row, :stem] = prompt.ids, 0
        positions[:, row, :stem] = prompt.positions
        at, first = stem, prompt.next_position
        for number, c in enumerate(cs, start=1):
            body, size = len(c) - 1, len(c)
            ids[row, at : at + body] = torch.tensor(list(c[:-1]), dtype=torch.long)
            branch[row, at : at + body] = number
            positions[:, row, at : at + body] = torch.arange(first, first + body)
            source[n, 0] = row * width + stem - 1
            source[n, 1:size] = row * width + torch.arange(at, at + body)
            targets[n, :size], valid[n, :size] = torch.tensor(list(c)), True
            at, n = at + body, n + 1
    return Packed(ids, positions, _attend(branch), source, targets, valid)


def plain(rows: Sequence[Row], pad: int) -> Packed:
    """The reference path: every completion with a copy of its prompt."""
    return pack([(prompt, [c]) for prompt, cs in rows for c in cs], pad)


def _attend(branch: Tensor) -> Tensor:
    width = branch.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    keys = branch[:, None, :]
    same = (keys == branch[:, :, None]) | ((keys == 0) & (branch[:, :, None] > 0))
    return (same & causal)[:, None]  # padding forms a branch of its own, so no row is empty


def rows_of(group: Group, change: Callable[[Prompt], Prompt] = lambda prompt: prompt) -> list[Row]:
    """Rows of a group in rollout order: neighbours with the same loss prompt share one.

    change: what to put in the loss prompt's place, for the counterfactual passes.
    """
    rows: list[tuple[Encoded, list[tuple[int, ...]]]] = []
    last: Prompt | None = None
    for rollout in group.rollouts:
        if rollout.loss_prompt is not last:
            last = rollout.loss_prompt
            rows.append((change(last).encoded, []))
        rows[-1][1].append(rollout.ids)
    return list(rows)
