"""The counterfactual passes ask what they claim to ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evals.seeds import derive
from evals.vlm import VLM
from repro.core import passes
from repro.core.packing import pack, plain, trees_of
from repro.core.passes import permutation, shuffled_prompt, token_scores, vision_free
from repro.core.scoring import score, score_trees
from repro.core.types import Group, TokenScores
from repro.core.vision import Vision
from repro.recipe import Recipe, Switches
from tests.repro.core.conftest import repaired

BOTH = ("visual", "temporal")


@pytest.fixture(scope="module")
def switches(recipe: Recipe) -> Switches:
    return recipe.arm("ktr").switches


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scored(
    vlm: VLM, groups: Sequence[Group], switches: Switches, *, packing: Any = pack, **more: Any
) -> list[TokenScores]:
    """token_scores of groups under a policy pass with gradient, as a training step has it."""
    trees = [tree for group in groups for tree in trees_of(group, vlm.is_pad)]
    logp, entropy = score_trees(vlm, trees, packing)
    needs = more.get("needs", BOTH)
    return token_scores(vlm, groups, logp.detach(), entropy, needs, switches, packing)


# --- without vision ----------------------------------------------------------------------------


def _masked(vlm: VLM, group: Group, positions: str) -> Tensor:
    """The whole sequence, pads and features included, with the pads masked out of attention."""
    packed = pack(trees_of(group, vlm.is_pad), 0)
    pads = vlm.is_pad(packed.ids)
    own = torch.eye(packed.ids.shape[1], dtype=torch.bool)
    attend = packed.attend & (~pads[:, None, None, :] | own)
    if positions == "collapsed":  # what is left is numbered 0, 1, 2, ... along every branch
        stem = len(group.prompt.encoded.ids)
        dropped = int(pads.sum())
        end = stem - dropped
        at = (~pads[0]).long().cumsum(0) - 1
        first = group.prompt.encoded.next_position
        at[stem:] = packed.positions[0, 0, stem:] - first + end
        packed = replace(packed, positions=at.expand(3, 1, -1).contiguous())
    with torch.no_grad():
        return score(vlm, packed, vlm.features(packed.prompts), attend=attend)[0]


@pytest.mark.parametrize("positions", ["kept", "collapsed"])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_vision_free_equals_masking_the_pads(
    loud: VLM, asked: Any, group_of: Callable[..., Group], switches: Switches,
    kind: str, positions: str,
) -> None:  # fmt: skip
    group = group_of(getattr(asked, kind), [1, 7, 4, 9])
    own = replace(switches, masked_positions=positions)
    found = scored(loud, [group], own, needs=("visual",))[0]
    assert found.visual is not None and found.temporal is None
    masked = _masked(loud, group, positions)
    torch.testing.assert_close(found.logp - found.visual, masked, rtol=1e-5, atol=1e-5)
    assert found.visual.abs().max() > 1e-3  # and vision does matter


def test_positions_kept_or_collapsed(student: VLM, asked: Any) -> None:
    stem = asked.video.encoded
    pads = student.is_pad(stem.ids)
    kept = vision_free(stem, pads, "kept")
    assert kept.ids.tolist() == stem.ids[~pads].tolist()
    assert torch.equal(kept.positions, stem.positions[:, ~pads])
    assert kept.next_position == stem.next_position  # completions stay where they were
    collapsed = vision_free(stem, pads, "collapsed")
    assert collapsed.positions.tolist() == [list(range(len(kept.ids)))] * 3
    assert collapsed.next_position == len(kept.ids) < stem.next_position
    for free in (kept, collapsed):
        assert free.pixels is None and free.grid is None
        assert not student.is_pad(free.ids).any()
        text = student.processor.tokenizer.decode(free.ids)
        assert "<|vision_start|><|vision_end|>" in text  # markers stay


@pytest.mark.parametrize("shuffle", ["frame", "group"])
def test_counterfactuals_of_repaired_rollouts_equal_those_of_plain_rows(
    loud: VLM, asked: Any, recipe: Recipe, complete: Any, switches: Switches, shuffle: str
) -> None:
    """Two prompts about one clip: their passes share it, shuffled in the same order."""
    hint = repaired(loud, asked.video, recipe.training_protocol, "look at the end")
    drawn = complete(asked.video, [4, 2, 7], seed=3)
    told = (drawn[0], replace(drawn[1], loss_prompt=hint), drawn[2])
    own = replace(switches, shuffle=shuffle)
    before = loud.patches
    (packed,) = scored(loud, [Group(asked.video, told)], own)
    # The policy's, once for its pass and once for what the group shuffle permutes; and shuffled.
    assert loud.patches - before == 2 * len(asked.video.encoded.pixels)
    (wanted,) = scored(loud, [Group(asked.video, told)], own, packing=plain)
    for name in BOTH:
        mine, other = getattr(packed, name), getattr(wanted, name)
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
        assert mine.abs().max() > 1e-3


def test_a_group_shuffle_runs_no_tower_where_features_are_known(
    loud: VLM, asked: Any, group_of: Callable[..., Group], switches: Switches
) -> None:
    group, own = group_of(asked.video, [5, 3]), replace(switches, shuffle="group")
    vision = Vision(loud)
    trees = trees_of(group, loud.is_pad)
    logp, entropy = score_trees(loud, trees, vision=vision)
    before = loud.patches
    (known,) = token_scores(
        loud, [group], logp.detach(), entropy, BOTH, own, pack, vision=vision
    )  # fmt: skip
    assert loud.patches == before
    (anew,) = token_scores(loud, [group], logp.detach(), entropy, BOTH, own, pack)
    torch.testing.assert_close(known.temporal, anew.temporal, rtol=0, atol=0)
    mixed = shuffled_prompt(group.prompt, own, derive(group.seed, "shuffle"))
    with torch.no_grad():
        encoded, _ = score_trees(loud, trees_of(group, loud.is_pad, lambda p: mixed.encoded))
    torch.testing.assert_close(logp.detach() - known.temporal, encoded, rtol=1e-5, atol=1e-5)


# --- frames in another order -------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", ["frame", "group"])
def test_an_identity_shuffle_scores_exactly_zero(
    loud: VLM, asked: Any, group_of: Callable[..., Group], switches: Switches,
    monkeypatch: pytest.MonkeyPatch, shuffle: str,
) -> None:  # fmt: skip
    own = replace(switches, shuffle=shuffle)
    groups = [group_of(asked.video, [3, 8]), group_of(asked.other, [1, 8], seed=1)]
    moved = scored(loud, groups, own, needs=("temporal",))
    assert all(s.temporal.abs().max() > 1e-4 for s in moved)
    monkeypatch.setattr(passes, "permutation", lambda n, *_: torch.arange(n))
    still = scored(loud, groups, own, needs=("temporal",))
    assert all(float(s.temporal.abs().max()) == 0.0 for s in still)


def test_a_group_shuffle_permutes_feature_blocks(
    loud: VLM, asked: Any, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.tensor([2, 0, 3, 1])
    monkeypatch.setattr(passes, "permutation", lambda n, *_: order)
    mixed = shuffled_prompt(asked.video, replace(switches, shuffle="group"), 7)
    with torch.no_grad():
        before, after = loud.features([asked.video.encoded])[0], loud.features([mixed.encoded])[0]
    blocks = before.view(4, -1, before.shape[-1])
    assert torch.equal(after.view_as(blocks), blocks[order])
    assert not torch.equal(after, before)


@pytest.mark.parametrize("shuffle", ["frame", "group"])
def test_shuffling_patches_equals_processing_shuffled_frames(
    student: VLM, asked: Any, recipe: Recipe, switches: Switches, shuffle: str
) -> None:
    own, text = replace(switches, shuffle=shuffle), asked.video.record.question
    # Noise, so that no two frames are alike: neighbours in a film of microworld may be.
    noise = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3), dtype=np.uint8)
    clip = replace(asked.video.clip, frames=noise)
    encoded = student.encode(clip, text, recipe.training_protocol)
    prompt = replace(asked.video, clip=clip, encoded=encoded)
    mixed = shuffled_prompt(prompt, own, 3).encoded
    units = 8 if shuffle == "frame" else 4
    order = permutation(units, own.identity, seeded(3)).numpy()
    if shuffle == "group":
        order = np.stack([2 * order, 2 * order + 1], 1).reshape(-1)
    shuffled = replace(clip, frames=clip.frames[order])
    again = student.encode(shuffled, text, recipe.training_protocol)
    assert torch.equal(mixed.pixels, again.pixels)
    assert not torch.equal(mixed.pixels, prompt.encoded.pixels)
    assert mixed.ids is prompt.encoded.ids and mixed.positions is prompt.encoded.positions
    assert mixed.second_per_grid == prompt.encoded.second_per_grid


@pytest.mark.parametrize("shuffle", ["frame", "group"])
def test_pictures_beside_a_clip_are_not_shuffled(
    loud: VLM, asked: Any, switches: Switches, shuffle: str, group_of: Callable[..., Group]
) -> None:
    """Only the clip has an order in time; both ways to its features give the same."""
    own, encoded = replace(switches, shuffle=shuffle), asked.pictures.encoded
    patches = int(encoded.grid[0].prod())
    group = group_of(asked.pictures, [4, 7])
    vision = Vision(loud)
    made = passes.Shuffled(vision, own)
    mixed = made.prompt(group, asked.pictures)
    assert torch.equal(mixed.pixels[patches:], encoded.pixels[patches:])
    assert not torch.equal(mixed.pixels[:patches], encoded.pixels[:patches])
    with torch.no_grad():
        (found,), (direct,) = made.features([mixed]), loud.features([mixed])
    torch.testing.assert_close(found, direct, atol=1e-5, rtol=1e-5)
    (scores,) = scored(loud, [group], own)
    assert scores.temporal.abs().max() > 0 and scores.visual.abs().max() > 0


def test_a_group_s_seed_draws_its_one_shuffle(
    loud: VLM, asked: Any, group_of: Callable[..., Group], switches: Switches
) -> None:
    group = group_of(asked.video, [6, 6])
    same, again, other = scored(
        loud, [replace(group, seed=s) for s in (1, 1, 2)], switches, needs=("temporal",)
    )
    torch.testing.assert_close(same.temporal, again.temporal, rtol=1e-4, atol=1e-5)
    assert (same.temporal - other.temporal).abs().max() > 1e-3


@given(st.integers(2, 6), st.integers(0, 2**32))
def test_excluded_never_gives_the_identity(n: int, seed: int) -> None:
    order = permutation(n, "excluded", seeded(seed))
    assert sorted(order.tolist()) == list(range(n)) != order.tolist()


def test_allowed_may_give_the_identity_and_one_frame_has_no_other_order() -> None:
    generator = seeded()
    drawn = {tuple(permutation(2, "allowed", generator).tolist()) for _ in range(20)}
    assert drawn == {(0, 1), (1, 0)}
    assert permutation(1, "excluded", generator).tolist() == [0]


def test_a_prompt_without_frames_is_refused(asked: Any, switches: Switches) -> None:
    with pytest.raises(ValueError, match="no frames"):
        shuffled_prompt(asked.text, switches, 7)


# --- all scores --------------------------------------------------------------------------------


def test_what_each_modality_is_scored_on(
    loud: VLM, asked: Any, group_of: Callable[..., Group], switches: Switches
) -> None:
    groups = [group_of(p, [2, 5]) for p in (asked.text, asked.video, asked.image)]
    text, video, image = scored(loud, groups, switches)
    assert text.visual is None and text.temporal is None
    assert image.visual is not None and image.temporal is None
    assert video.visual is not None and video.temporal is not None
    for s, group in zip((text, video, image), groups, strict=True):
        tables = [s.logp, s.entropy, s.visual, s.temporal]
        assert all(not t.requires_grad for t in tables if t is not None)
        assert all(t.shape == s.valid.shape for t in tables if t is not None)
        assert s.valid.sum(1).tolist() == [len(r.ids) for r in group.rollouts]
        assert all(not t[~s.valid].any() for t in tables if t is not None)
    nothing = scored(loud, groups, switches, needs=())
    assert all(s.visual is None and s.temporal is None for s in nothing)


def test_scores_stay_with_their_group_and_their_rollout(
    loud: VLM, asked: Any, group_of: Callable[..., Group], switches: Switches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Groups without a pass, and longer ones beside them, shift nobody's rows."""
    monkeypatch.setattr(passes, "permutation", lambda n, *_: torch.arange(n).flip(0))
    groups = [
        group_of(asked.text, [9, 1], seed=1),
        group_of(asked.video, [2, 5, 3], seed=2),
        group_of(asked.image, [8], seed=3),
        group_of(asked.other, [4, 1], seed=4),
    ]
    together = scored(loud, groups, switches)
    for group, s in zip(groups, together, strict=True):
        alone = scored(loud, [group], switches)[0]
        width = alone.valid.shape[1]
        for name in ("logp", "entropy", *BOTH):
            own, shared = getattr(alone, name), getattr(s, name)
            assert (own is None) == (shared is None), name
            if own is not None:
                torch.testing.assert_close(shared[:, :width], own, rtol=1e-4, atol=1e-5)


def test_packed_and_plain_scores_agree(
    loud: VLM, asked: Any, group_of: Callable[..., Group], switches: Switches
) -> None:
    groups = [group_of(asked.video, [2, 6, 1]), group_of(asked.image, [5, 5])]
    pairs = zip(
        scored(loud, groups, switches), scored(loud, groups, switches, packing=plain), strict=True
    )
    for packed, padded in pairs:
        torch.testing.assert_close(packed.visual, padded.visual, rtol=1e-4, atol=1e-5)
        if packed.temporal is not None:
            torch.testing.assert_close(packed.temporal, padded.temporal, rtol=1e-4, atol=1e-5)
