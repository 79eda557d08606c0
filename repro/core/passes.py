"""Counterfactual passes: what the policy would have said without vision, or with frames shuffled.

    visual_t   = logp_t(full) - logp_t(no vision)
    temporal_t = logp_t(full) - logp_t(frames in random order)

No gradient; teacher-forced on the same completions. Sources: ktr.md 1.3, 6.3, 9.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from evals.seeds import derive
from evals.vlm import VLM, Encoded
from repro.core import blank, ranks
from repro.core.packing import Tree, pack, trees_of
from repro.core.scoring import Packing, Seeing, score_trees
from repro.core.types import Group, Prompt, TokenScores
from repro.core.vision import Vision
from repro.recipe import Switches


def vision_free(prompt: Encoded, pads: Tensor, positions: str) -> Encoded:
    """The prompt without its vision pads; markers and timestamps stay.

    Equal to masking the pads out of attention (ktr.md 6.3), at the price of the text alone.
    pads: (P,) bool. positions: `kept` leaves every token where it was; `collapsed` numbers the
    remaining tokens 0, 1, 2, ... as the release does.
    """
    keep = ~pads
    ids = prompt.ids[keep]
    kept = prompt.positions[:, keep]
    if positions == "collapsed":
        kept = torch.arange(len(ids)).expand(3, -1)
    return Encoded(ids, kept, None, None, 0.0)


def shuffled_prompt(prompt: Prompt, switches: Switches, seed: int) -> Prompt:
    """The prompt over a clip whose frames are in random order; ids and positions stay.

    shuffle: `frame` permutes single frames before patching (the paper's); `group` permutes the
    2-frame patches. identity: `excluded` draws again until the order changes.
    """
    rows, beside = _by_time(prompt)
    order = _order(len(rows), switches, seed)
    mixed = rows[order].flatten(0, 1) if switches.shuffle == "group" else _by_frame(rows, order)
    return replace(prompt, encoded=replace(prompt.encoded, pixels=torch.cat([mixed, beside])))


def _by_time(prompt: Prompt) -> tuple[Tensor, Tensor]:
    """(t, patches, values) pixels of the clip, one row per 2-frame patch, and those of the pictures
    beside it, (patches, values)."""
    pixels, grid = prompt.encoded.pixels, prompt.encoded.grid
    if prompt.clip is None or pixels is None or grid is None:
        raise ValueError(f"record {prompt.record.id} has no frames to shuffle")
    clip, beside = pixels.tensor_split([int(grid[0].prod())])
    return clip.view(int(grid[0, 0]), -1, pixels.shape[-1]), beside


def _order(rows: int, switches: Switches, seed: int) -> Tensor:
    units = rows if switches.shuffle == "group" else 2 * rows
    return permutation(units, switches.identity, seeded(seed))


def seeded(seed: int) -> Generator:
    """A generator on the CPU, so that a shuffle is the same on every device."""
    return torch.Generator().manual_seed(seed)


def permutation(n: int, identity: str, generator: Generator) -> Tensor:
    """(n,) random order; with `excluded` never 0, 1, 2, ... unless n is 1."""
    while True:
        order = torch.randperm(n, generator=generator)
        if identity == "allowed" or n == 1 or not torch.equal(order, torch.arange(n)):
            return order


def _by_frame(rows: Tensor, order: Tensor) -> Tensor:
    """Permute frames inside patch rows (t, patches, channels * 2 * side * side): the same pixels
    as patching the permuted frames, without running the processor again."""
    t, patches, size = rows.shape
    frames = rows.view(t, patches, 3, 2, size // 6).permute(0, 3, 1, 2, 4).flatten(0, 1)
    mixed = frames[order].view(t, 2, patches, 3, size // 6).permute(0, 2, 3, 1, 4)
    return mixed.reshape(t * patches, size)


@torch.no_grad()
def token_scores(
    vlm: VLM,
    groups: Sequence[Group],
    logp: Tensor,
    entropy: Tensor,
    needs: Collection[str],
    switches: Switches,
    packing: Packing = pack,
    *,
    vision: Vision | None = None,
    skip: Sequence[bool] | None = None,
    model: Any = None,
) -> list[TokenScores]:
    """Scores of every group: entropy always, the counterfactual differences that are needed.

    logp, entropy: (N, C) of all rollouts in order. visual: every prompt with vision; temporal:
    videos only, None for the others. vision: the policy's features; a shuffle of 2-frame groups
    permutes them, a shuffle of frames encodes the clip again. skip: groups that get none.
    model: the policy split over several processes (ZeRO-3), which all make the same passes: one
    that has nothing to score makes a blank one.
    """
    vision, skip = vision or Vision(vlm), skip or [False] * len(groups)
    valid = torch.zeros_like(logp, dtype=torch.bool)
    for row, rollout in enumerate(r for g in groups for r in g.rollouts):
        valid[row, : len(rollout.ids)] = True
    free, mixed = {}, {}
    if "visual" in needs:
        seen = [g.prompt.encoded.pixels is not None and not s
                for g, s in zip(groups, skip, strict=True)]  # fmt: skip
        free = _pass(vlm, groups, seen, logp, packing, switches.precision, None, lambda g, p: (
            vision_free(p.encoded, vlm.is_pad(p.encoded.ids), switches.masked_positions)
        ), model)  # fmt: skip
    if "temporal" in needs:
        moving = [g.prompt.clip is not None and g.prompt.clip.modality == "video" and not s
                  for g, s in zip(groups, skip, strict=True)]  # fmt: skip
        shuffled = Shuffled(vision, switches, lockstep=model is not None)
        mixed = _pass(
            vlm,
            groups,
            moving,
            logp,
            packing,
            switches.precision,
            shuffled.features,
            shuffled.prompt,
            model,
        )
    scores, at = [], 0
    for index, group in enumerate(groups):
        part = slice(at, at + len(group.rollouts))
        at = part.stop
        scores.append(
            TokenScores(valid[part], logp[part], entropy[part], free.get(index), mixed.get(index))
        )
    return scores


class Shuffled:
    """Prompts over shuffled clips, and their features; one order per group, whatever its prompts.

    A shuffle of 2-frame groups permutes the features that are there: the tower sees every such
    group alone, so the result is the same (ktr.md 6.3). A shuffle of frames runs the tower once.
    """

    def __init__(self, vision: Vision, switches: Switches, *, lockstep: bool = False):
        self.vision, self.switches, self.lockstep = vision, switches, lockstep
        self._made: dict[tuple[int, int], Tensor] = {}  # (group, clip) -> shuffled pixels
        self._from: dict[int, tuple[Encoded, Tensor]] = {}  # shuffled pixels -> prompt, order

    def prompt(self, group: Group, prompt: Prompt) -> Encoded:
        """The prompt's inputs with its clip shuffled under the group's seed."""
        key, seed = (id(group), id(prompt.encoded.pixels)), derive(group.seed, "shuffle")
        if key not in self._made:
            mixed = shuffled_prompt(prompt, self.switches, seed).encoded.pixels
            assert mixed is not None
            self._made[key] = mixed
            order = _order(len(_by_time(prompt)[0]), self.switches, seed)
            self._from[id(mixed)] = (prompt.encoded, order)
        return replace(prompt.encoded, pixels=self._made[key])

    def features(self, prompts: Sequence[Encoded]) -> list[Tensor | None]:
        """(n, H) features of each shuffled clip."""
        vlm = self.vision.vlm
        if self.switches.shuffle == "frame":
            return blank.look(vlm, prompts) if self.lockstep else vlm.features(prompts)
        if not any(p.pixels is not None for p in prompts):
            return [None] * len(prompts)
        found: list[Tensor | None] = []
        for prompt in prompts:
            original, order = self._from[id(prompt.pixels)]
            (known,) = self.vision.look([original])
            assert known is not None
            assert original.grid is not None
            clip, beside = known.tensor_split([int(original.grid[0].prod()) // vlm.merge**2])
            mixed = clip.unflatten(0, (len(order), -1))[order.to(known.device)].flatten(0, 1)
            found.append(torch.cat([mixed, beside]))
        return found


def _pass(
    vlm: VLM,
    groups: Sequence[Group],
    included: Sequence[bool],
    logp: Tensor,
    packing: Packing,
    precision: str,
    vision: Seeing | None,
    change: Callable[[Group, Prompt], Encoded],
    model: Any = None,
) -> dict[int, Tensor]:
    """index of group -> (G, C) logp - logp under the changed prompt, for the included groups."""
    trees: list[Tree] = []
    for group, wanted in zip(groups, included, strict=True):
        if wanted:
            trees += trees_of(group, vlm.is_pad, partial(change, group))
    if not (trees if model is None else ranks.any_of(bool(trees))):
        return {}
    changed, _ = score_trees(
        vlm, trees or [blank.tree(vlm)], packing, vision=vision, precision=precision, model=model
    )
    out, at, row = {}, 0, 0
    for index, (group, wanted) in enumerate(zip(groups, included, strict=True)):
        n = len(group.rollouts)
        if wanted:
            other = torch.zeros_like(logp[at : at + n])
            other[:, : changed.shape[1]] = changed[row : row + n]
            out[index] = logp[at : at + n] - other
            row += n
        at += n
    return out
