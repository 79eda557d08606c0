"""A packed row is the same computation as one plain row per completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evals.vlm import VLM, Encoded
from repro.core.losses import LossConfig, group_loss
from repro.core.packing import Packed, pack, plain, rows_of
from repro.core.scoring import score_rows
from repro.core.types import Group

PAD = 0


def prompt(ids: Sequence[int], positions: Sequence[int] | None = None) -> Encoded:
    """A text prompt; positions default to 0, 1, 2, ..."""
    at = torch.tensor(list(positions or range(len(ids)))).expand(3, -1)
    return Encoded(torch.tensor(list(ids)), at, None, None, 0.0)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# --- the layout, by hand -----------------------------------------------------------------------


def test_a_row_by_hand() -> None:
    row = (prompt([5, 6], [0, 7]), [(11, 12, 13), (14,), (15, 16)])
    packed = pack([row, (prompt([8]), [(17,)])], PAD)
    assert packed.ids.tolist() == [[5, 6, 11, 12, 15], [8, PAD, PAD, PAD, PAD]]
    assert packed.positions[:, 0].tolist() == [[0, 7, 8, 9, 8]] * 3  # every branch starts at 8
    assert packed.source.tolist()[:3] == [[1, 2, 3], [1, 0, 0], [1, 4, 0]]
    assert packed.source[3, 0] == 5  # flat: the second row begins at 5
    assert packed.targets.tolist() == [[11, 12, 13], [14, 0, 0], [15, 16, 0], [17, 0, 0]]
    assert packed.valid.sum(1).tolist() == [3, 1, 2, 1]
    assert packed.attend[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],  # the third completion sees the stem, not the first completion
    ]
    assert packed.attend[1, 0].any(-1).all()  # no query without a key: softmax would be NaN


ROWS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=4)),
    min_size=1,
    max_size=3,
)


def _invented(shape: list[tuple[int, list[int]]]) -> list[Any]:
    """Rows of the given prompt and completion lengths in which every token is unique."""
    ids = iter(range(1, 10_000))
    rows = []
    for size, lengths in shape:
        stem = prompt([next(ids) for _ in range(size)], [2 * i for i in range(size)])
        rows.append((stem, [tuple(next(ids) for _ in range(n)) for n in lengths]))
    return rows


@given(ROWS, st.sampled_from([pack, plain]))
def test_every_token_is_predicted_from_exactly_what_precedes_it(
    shape: list[tuple[int, list[int]]], packing: Callable[..., Packed]
) -> None:
    rows = _invented(shape)
    packed = packing(rows, PAD)
    width = packed.ids.shape[1]
    number = 0
    for stem, completions in rows:
        for completion in completions:
            for place, token in enumerate(completion):
                row, at = divmod(int(packed.source[number, place]), width)
                seen = packed.attend[row, 0, at].nonzero()[:, 0]
                assert packed.ids[row, seen].tolist() == [*stem.ids.tolist(), *completion[:place]]
                then = [stem.next_position + i for i in range(place)]
                assert packed.positions[0, row, seen].tolist() == [*stem.positions[0], *then]
                assert int(packed.targets[number, place]) == token
            assert packed.valid[number].sum() == len(completion)
            number += 1
    assert number == len(packed.valid)


@given(ROWS)
def test_the_prompt_is_stored_once(shape: list[tuple[int, list[int]]]) -> None:
    rows = _invented(shape)
    for row in rows:
        stem, completions = row
        longest = max(len(c) for c in completions)
        assert pack([row], PAD).ids.numel() <= len(stem.ids) + len(completions) * longest


def test_rows_of_a_group_follow_the_order_of_its_rollouts(
    asked: Any, group_of: Callable[..., Group]
) -> None:
    group = group_of(asked.video, [2, 3, 4, 1])
    other = asked.other
    mixed = [replace(r, loss_prompt=other) if i in (1, 2) else r
             for i, r in enumerate(group.rollouts)]  # fmt: skip
    rows = rows_of(Group(group.prompt, tuple(mixed)))
    assert [stem is other.encoded for stem, _ in rows] == [False, True, False]
    assert [c for _, cs in rows for c in cs] == [r.ids for r in group.rollouts]


# --- the numbers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch(asked: Any, group_of: Callable[..., Group], complete: Callable[..., Any]) -> list[Group]:
    """Video, repaired video, image and text groups with completions of 1 to 9 tokens."""
    repaired = tuple(
        replace(r, loss_prompt=asked.other) if i % 2 else r
        for i, r in enumerate(complete(asked.video, [4, 1, 6, 2], seed=9))
    )
    return [
        group_of(asked.video, [1, 5, 9, 3], seed=1),
        Group(asked.video, repaired),
        group_of(asked.image, [7, 1], seed=2),
        group_of(asked.text, [2, 8, 4], seed=3),
        group_of(asked.other, [9, 9, 9, 9], seed=4),
    ]


def _losses(groups: list[Group], logp: Tensor, valid: Tensor) -> Tensor:
    config = LossConfig(beta=0.04)
    generator = torch.Generator().manual_seed(5)
    total, at = logp.new_zeros(()), 0
    for group in groups:
        part = slice(at, at + len(group.rollouts))
        at = part.stop
        gains = torch.randn(len(group.rollouts), generator=generator)
        reference = logp[part].detach() + 0.3 * torch.randn(logp[part].shape, generator=generator)
        weights = valid[part].float()
        terms = group_loss(logp[part], gains, weights, valid[part], config, ref_logp=reference)
        total = total + terms.loss
    return total / len(groups)


def _backward(vlm: VLM, groups: list[Group], packing: Callable[..., Packed]) -> Any:
    vlm.model.zero_grad()
    rows = [row for group in groups for row in rows_of(group)]
    logp, entropy = score_rows(vlm, rows, packing)
    loss = _losses(groups, logp, packing(rows, PAD).valid)
    loss.backward()
    return logp.detach(), entropy, loss.item()


def test_packed_equals_plain(
    loud: VLM, batch: list[Group], gradients: Callable[[Any], dict[str, Tensor]]
) -> None:
    logp, entropy, loss = _backward(loud, batch, plain)
    wanted = gradients(loud.model)
    packed_logp, packed_entropy, packed_loss = _backward(loud, batch, pack)
    got = gradients(loud.model)
    loud.model.zero_grad()
    assert relative(packed_logp, logp) < 1e-5
    assert relative(packed_entropy, entropy) < 1e-5
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert set(got) == {name for name, _ in loud.model.named_parameters()}
    assert any("visual" in name for name in got)
    assert min(float(g.norm()) for g in wanted.values()) > 0
    worst = {name: relative(got[name], wanted[name]) for name in wanted}
    assert max(worst.values()) < 1e-5, max(worst, key=worst.__getitem__)


def test_plain_equals_the_model_s_own_forward(loud: VLM, batch: list[Group]) -> None:
    """Against transformers itself, one unpadded row at a time, with dense logits."""
    rows = [row for group in batch for row in rows_of(group)]
    with torch.no_grad():
        logp, entropy = score_rows(loud, rows, plain)
    number = 0
    for stem, completions in rows:
        for completion in completions:
            dense = _dense(loud, stem, completion)
            n = len(completion)
            own = dense.gather(-1, torch.tensor(completion)[:, None])[:, 0]
            torch.testing.assert_close(logp[number, :n], own, rtol=1e-5, atol=1e-5)
            uncertain = -(dense.exp() * dense).sum(-1)
            torch.testing.assert_close(entropy[number, :n], uncertain, rtol=1e-5, atol=1e-5)
            assert not logp[number, n:].any() and not entropy[number, n:].any()
            number += 1


def _dense(vlm: VLM, stem: Encoded, completion: tuple[int, ...]) -> Tensor:
    """(n, V) log-probabilities that predict the completion, by the whole model at once."""
    ids = torch.cat([stem.ids, torch.tensor(completion)])[None]
    after = torch.arange(stem.next_position, stem.next_position + len(completion)).expand(3, -1)
    media: dict[str, Tensor | None] = {}
    if stem.pixels is not None:
        video = bool((stem.ids == vlm.video_pad).any())
        names = ("pixel_values_videos", "video_grid_thw") if video else (
            "pixel_values", "image_grid_thw")  # fmt: skip
        media = dict(zip(names, (stem.pixels, stem.grid), strict=True))
    with torch.no_grad():
        logits = vlm.model(
            input_ids=ids, position_ids=torch.cat([stem.positions, after], 1)[:, None], **media
        ).logits
    return logits[0, len(stem.ids) - 1 : -1].log_softmax(-1)


def test_each_clip_is_encoded_once_and_each_prompt_forwarded_once(
    student: VLM, asked: Any, group_of: Callable[..., Group]
) -> None:
    group = group_of(asked.video, [9] * 8)
    stem = asked.video.encoded
    patches, tokens = student.patches, student.tokens
    with torch.no_grad():
        score_rows(student, rows_of(group), pack)
    assert student.patches - patches == len(stem.pixels)
    assert student.tokens - tokens <= len(stem.ids) + 8 * 9
    patches, tokens = student.patches, student.tokens
    with torch.no_grad():
        score_rows(student, rows_of(group), plain)
    assert student.patches - patches == len(stem.pixels)
    assert student.tokens - tokens == 8 * (len(stem.ids) + 8)
