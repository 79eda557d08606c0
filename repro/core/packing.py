"""One prompt, one pass: a stem, the tails that continue it, and completions, in one packed row.

    row:        [ stem | tail of prompt 1 | tail 2 ... | c1 without its last token | c2 ... ]
    attention:  a token sees the stem, its own prompt's tail, and its own completion up to itself
    positions:  a tail continues the stem; every completion starts at its prompt's next position

Completions of one prompt share its forward, and prompts that begin alike (repaired rollouts) share
the clip and everything before they part. Log-probabilities and gradients equal those of one padded
row per completion (`plain`), which stays as the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evals import attention
from evals.vlm import Encoded
from repro.core.types import Group, Prompt


@dataclass(frozen=True)
class Tree:
    """Completions of prompts that share a stem, in which their clip lies.

    prompts: one per completion, the same object where it is the same prompt.
    """

    prompts: tuple[Encoded, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def distinct(self) -> list[Encoded]:
        """Its prompts, each once, in the order of their first completion."""
        return list({id(p): p for p in self.prompts}.values())


def tree(prompt: Encoded, completions: Sequence[Sequence[int]]) -> Tree:
    """Completions of one prompt."""
    return Tree((prompt,) * len(completions), tuple(tuple(c) for c in completions))


@dataclass(frozen=True)
class Packed:
    """B rows of N completions in all; L is the longest row, C the longest completion.

    ids: (B, L). positions: (3, B, L). tail, branch: (B, L), as `evals.attention` reads them.
    source: (N, C) flat index into (B * L) of the token that predicts each completion token.
    targets: (N, C) completion ids. valid: (N, C) bool. prompts: one per row, for its clip.
    """

    ids: Tensor
    positions: Tensor
    tail: Tensor
    branch: Tensor
    source: Tensor
    targets: Tensor
    valid: Tensor
    prompts: tuple[Encoded, ...]

    @property
    def attend(self) -> Tensor:
        """(B, 1, L, L) bool, True where a query may look."""
        return attention.dense(self.tail, self.branch)


def pack(trees: Sequence[Tree], pad: int, multiple: int = 1) -> Packed:
    """One packed row per tree, right-padded to the longest, rounded up to a multiple."""
    laid = [_Row(each) for each in trees]
    width = -(-max(len(row.ids) for row in laid) // multiple) * multiple
    longest = max(len(c) for t in trees for c in t.completions)
    shape = (len(laid), width)
    ids = torch.full(shape, pad, dtype=torch.long)
    tail, branch = torch.full(shape, -1), torch.full(shape, -1)
    positions = torch.zeros(3, *shape, dtype=torch.long)
    count = sum(len(row.sources) for row in laid)
    source = torch.zeros(count, longest, dtype=torch.long)
    targets = torch.full((count, longest), pad, dtype=torch.long)
    valid = torch.zeros(count, longest, dtype=torch.bool)
    n = 0
    for at, (row, each) in enumerate(zip(laid, trees, strict=True)):
        size = len(row.ids)
        ids[at, :size], positions[:, at, :size] = row.ids, row.positions
        tail[at, :size], branch[at, :size] = row.tail, row.branch
        for completion, places in zip(each.completions, row.sources, strict=True):
            length = len(completion)
            source[n, :length] = places + at * width
            targets[n, :length], valid[n, :length] = torch.tensor(completion), True
            n += 1
    prompts = tuple(each.prompts[0] for each in trees)
    return Packed(ids, positions, tail, branch, source, targets, valid, prompts)


def plain(trees: Sequence[Tree], pad: int, multiple: int = 1) -> Packed:
    """The reference path: every completion with a copy of its prompt."""
    alone = [Tree((p,), (c,)) for t in trees for p, c in zip(t.prompts, t.completions, strict=True)]
    return pack(alone, pad, multiple)


class _Row:
    """A tree laid out: ids, tail and branch (L,), positions (3, L); sources: per completion, the
    places of the tokens that predict it."""

    def __init__(self, tree: Tree):
        prompts = tree.distinct
        stem = common_prefix(prompts)
        self._parts: list[tuple[Tensor, Tensor, int, int]] = []
        self._length = 0
        self._add(prompts[0].ids[:stem], prompts[0].positions[:, :stem], 0, 0)
        last = {}
        for number, prompt in enumerate(prompts, start=1):
            self._add(prompt.ids[stem:], prompt.positions[:, stem:], number, 0)
            last[id(prompt)] = (number, (self._length if len(prompt.ids) > stem else stem) - 1)
        self.sources = []
        for number, (prompt, ids) in enumerate(
            zip(tree.prompts, tree.completions, strict=True), start=1
        ):
            of, before = last[id(prompt)]
            body, first = len(ids) - 1, prompt.next_position
            at = torch.arange(self._length, self._length + body)
            self.sources.append(torch.cat([torch.tensor([before]), at]))
            places = torch.arange(first, first + body).expand(3, -1)
            self._add(torch.tensor(ids[:-1], dtype=torch.long), places, of, number)
        self.ids = torch.cat([part[0] for part in self._parts])
        self.positions = torch.cat([part[1] for part in self._parts], 1)
        sizes = torch.tensor([len(part[0]) for part in self._parts])
        self.tail, self.branch = (
            torch.tensor([part[i] for part in self._parts]).repeat_interleave(sizes) for i in (2, 3)
        )

    def _add(self, ids: Tensor, positions: Tensor, tail: int, branch: int) -> None:
        self._parts.append((ids, positions, tail, branch))
        self._length += len(ids)


def common_prefix(prompts: Sequence[Encoded]) -> int:
    """How many first tokens, ids and positions, all prompts share."""
    first, *others = prompts
    shared = len(first.ids)
    for other in others:
        n = min(shared, len(other.ids))
        same = (first.ids[:n] == other.ids[:n]) & (
            first.positions[:, :n] == other.positions[:, :n]
        ).all(0)
        shared = int(same.long().cumprod(0).sum())
    return shared


def trees_of(
    group: Group,
    is_pad: Callable[[Tensor], Tensor],
    change: Callable[[Prompt], Encoded] = lambda prompt: prompt.encoded,
) -> list[Tree]:
    """Trees of a group in rollout order: neighbours whose loss prompts share their clip share one.

    is_pad: of token ids, as `VLM.is_pad`. change: what to ask in the loss prompt's place, for the
    counterfactual passes.
    """
    asked = {id(r.loss_prompt): change(r.loss_prompt) for r in group.rollouts}
    runs: list[tuple[list[Encoded], list[tuple[int, ...]]]] = []
    for rollout in group.rollouts:
        prompt = asked[id(rollout.loss_prompt)]
        if not runs or not _joins(runs[-1][0][0], prompt, is_pad):
            runs.append(([], []))
        runs[-1][0].append(prompt)
        runs[-1][1].append(rollout.ids)
    return [Tree(tuple(prompts), tuple(completions)) for prompts, completions in runs]


def _joins(first: Encoded, prompt: Encoded, is_pad: Callable[[Tensor], Tensor]) -> bool:
    """The same clip, and all of it in what the two prompts share."""
    if first is prompt:
        return True
    stem = common_prefix([first, prompt])
    after = (is_pad(p.ids[stem:]).any() for p in (first, prompt))
    return first.pixels is prompt.pixels and stem > 0 and not any(map(bool, after))
