"""Counterfactual passes: what the policy would have said without vision, or with frames shuffled.

    visual_t   = logp_t(full) - logp_t(no vision)
    temporal_t = logp_t(full) - logp_t(frames in random order)

No gradient; teacher-forced on the same completions. Sources: ktr.md 1.3, 6.3, 9.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Generator, Tensor

from evals.seeds import derive
from evals.vlm import VLM, Encoded
from repro.core.packing import Row, pack, rows_of
from repro.core.scoring import Packing, score_rows
from repro.core.types import Group, Prompt, TokenScores
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
    encoded = prompt.encoded
    pixels, grid = encoded.pixels, encoded.grid
    if prompt.clip is None or pixels is None or grid is None:
        raise ValueError(f"record {prompt.record.id} has no frames to shuffle")
    rows, generator = pixels.view(int(grid[0, 0]), -1, pixels.shape[-1]), seeded(seed)
    if switches.shuffle == "group":
        order = permutation(len(rows), switches.identity, generator)
        mixed = rows[order].flatten(0, 1)
    else:
        order = permutation(2 * len(rows), switches.identity, generator)
        mixed = _permute_frames(rows, order)
    return replace(prompt, encoded=replace(encoded, pixels=mixed))


def seeded(seed: int) -> Generator:
    """A generator on the CPU, so that a shuffle is the same on every device."""
    return torch.Generator().manual_seed(seed)


def permutation(n: int, identity: str, generator: Generator) -> Tensor:
    """(n,) random order; with `excluded` never 0, 1, 2, ... unless n is 1."""
    while True:
        order = torch.randperm(n, generator=generator)
        if identity == "allowed" or n == 1 or not torch.equal(order, torch.arange(n)):
            return order


def _permute_frames(rows: Tensor, order: Tensor) -> Tensor:
    """Permute frames inside patch rows (t, patches, channels * 2 * side * side): the same pixels
    as patching the permuted frames, without running the processor again."""
    t, patches, size = rows.shape
    frames = rows.view(t, patches, 3, 2, size // 6).permute(0, 3, 1, 2, 4).flatten(0, 1)
    mixed = frames[order].view(t, 2, patches, 3, size // 6).permute(0, 2, 3, 1, 4)
    return mixed.reshape(t * patches, size)


def token_scores(
    vlm: VLM,
    groups: Sequence[Group],
    logp: Tensor,
    entropy: Tensor,
    needs: Collection[str],
    switches: Switches,
    packing: Packing = pack,
) -> list[TokenScores]:
    """Scores of every group: entropy always, the counterfactual differences that are needed.

    logp, entropy: (N, C) of all rollouts in order, without gradient. visual: every prompt with
    vision; temporal: videos only, None for the others.
    """
    valid = torch.zeros_like(logp, dtype=torch.bool)
    for row, rollout in enumerate(r for g in groups for r in g.rollouts):
        valid[row, : len(rollout.ids)] = True
    seen = [g.prompt.encoded.pixels is not None for g in groups]
    moving = [g.prompt.clip is not None and g.prompt.clip.modality == "video" for g in groups]
    free, mixed = {}, {}
    if "visual" in needs:
        free = _pass(vlm, groups, seen, logp, packing, switches.precision, lambda g, p: replace(
            p, encoded=vision_free(p.encoded, vlm.is_pad(p.encoded.ids), switches.masked_positions)
        ))  # fmt: skip
    if "temporal" in needs:
        mixed = _pass(vlm, groups, moving, logp, packing, switches.precision, lambda g, p: (
            shuffled_prompt(p, switches, derive(g.seed, "shuffle"))
        ))  # fmt: skip
    scores, at = [], 0
    for index, group in enumerate(groups):
        part = slice(at, at + len(group.rollouts))
        at = part.stop
        scores.append(
            TokenScores(valid[part], logp[part], entropy[part], free.get(index), mixed.get(index))
        )
    return scores


def _pass(
    vlm: VLM,
    groups: Sequence[Group],
    included: Sequence[bool],
    logp: Tensor,
    packing: Packing,
    precision: str,
    change: Callable[[Group, Prompt], Prompt],
) -> dict[int, Tensor]:
    """index of group -> (G, C) logp - logp under the changed prompt, for the included groups."""
    rows: list[Row] = []
    for group, wanted in zip(groups, included, strict=True):
        if wanted:
            rows += rows_of(group, partial(change, group))
    if not rows:
        return {}
    changed, _ = score_rows(vlm, rows, packing, precision=precision)
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
