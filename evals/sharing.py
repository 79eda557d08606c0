"""Questions about one clip share its work: pixels made once, the common stem prefilled once.

    row of a plain prefill    [pad .. pad, prompt]
    row of a shared prefill   [pad .. pad, stem | pad .. pad, branch]

The stem is what the prompts of one clip have in common, at least the clip and at most all but the
last token; its keys and values are computed once and copied to every question. A position attends
to the same tokens in both forms, so the hidden states agree up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from evals.types import Protocol, VideoClip
    from evals.vlm import VLM, Encoded


@dataclass(frozen=True)
class Asked:
    """A clip, and the rendered prompt with one pad where the clip goes."""

    clip: VideoClip | None
    prompt: str


def encode(
    vlm: VLM, asked: Sequence[Asked], protocol: Protocol, whole: Callable[[int], Encoded]
) -> list[Encoded]:
    """Model inputs of every question. whole: encodes one from scratch, clip and all, by place.

    The others with the same clip get its pixels, and token ids put together from the first one's:
    special tokens end every word, so the text after the clip has the same ids on its own.
    """
    first: dict[int, int] = {}
    found: list[Encoded] = []
    for place, one in enumerate(asked):
        known = first.get(id(one.clip)) if one.clip is not None else None
        again = None
        if known is not None:
            again = _like(vlm, asked[known], found[known], one, protocol)
        if again is None:
            again = whole(place)
            first[id(one.clip)] = place
        found.append(again)
    return found


def _like(
    vlm: VLM, known: Asked, encoded: Encoded, one: Asked, protocol: Protocol
) -> Encoded | None:
    """`one` from the encoding of `known`; None where more differs than the text after the clip."""
    assert one.clip is not None
    tokenizer = vlm.processor.tokenizer
    pad = vlm.image_pad if one.clip.modality == "image" else vlm.video_pad
    mark = tokenizer.convert_ids_to_tokens(pad)
    (before, after), (start, end) = (x.prompt.rsplit(mark, 1) for x in (known, one))
    if before != start or encoded.pixels is None:
        return None
    tail, new = (tokenizer(text, return_tensors="pt")["input_ids"][0] for text in (after, end))
    kept = len(encoded.ids) - len(tail)
    if kept < 1 or not torch.equal(encoded.ids[kept:], tail):
        return None
    again = replace(encoded, ids=torch.cat([encoded.ids[:kept], new]))
    return replace(again, positions=vlm.positions(again, protocol.positions))


def stems(vlm: VLM, prompts: Sequence[Encoded]) -> tuple[list[int], list[int]]:
    """For each prompt the place of the first prompt of its stem, and the length of the stem."""
    groups: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        key = place if prompt.pixels is None else -id(prompt.pixels)
        groups.setdefault(key, []).append(place)
    owner, length = [0] * len(prompts), [0] * len(prompts)
    for places in groups.values():
        stem = _common([prompts[place] for place in places])
        last = [int(vlm.is_pad(prompts[p].ids).nonzero().max()) for p in places
                if prompts[p].pixels is not None]  # fmt: skip
        if last and stem <= max(last):  # a clip that is not wholly shared: everyone for himself
            for place in places:
                owner[place], length[place] = place, len(prompts[place].ids) - 1
            continue
        for place in places:
            owner[place], length[place] = places[0], stem
    return owner, length


def _common(prompts: Sequence[Encoded]) -> int:
    """Tokens that all have in common, ids and positions; at most all but the last token of each."""
    n = min(len(p.ids) for p in prompts) - 1
    first = prompts[0]
    for other in prompts[1:]:
        same = (first.ids[:n] == other.ids[:n]) & (
            first.positions[:, :n] == other.positions[:, :n]
        ).all(0)
        n = n if bool(same.all()) else int(same.int().argmin())
    return n


def prefill(
    vlm: VLM, prompts: Sequence[Encoded], features: Sequence[Tensor | None], cache: Any
) -> tuple[Tensor, Tensor]:
    """Last hidden state (B, H) of each prompt and the (B, width) mask of real tokens; fills
    `cache` with one row per prompt."""
    owner, length = stems(vlm, prompts)
    places = sorted(set(owner))
    row = {place: number for number, place in enumerate(places)}
    ids, positions, keep = _padded(
        vlm, [(prompts[p].ids[: length[p]], prompts[p].positions[:, : length[p]]) for p in places]
    )
    seen = [f for p in places if (f := features[p]) is not None]
    vlm.run(ids, torch.cat(seen) if seen else None, positions, _causal(keep), cache)
    order = torch.tensor([row[place] for place in owner], device=vlm.device)
    if len(places) < len(prompts):
        cache.batch_select_indices(order)
    ids, positions, own = _padded(
        vlm, [(p.ids[n:], p.positions[:, n:]) for p, n in zip(prompts, length, strict=True)]
    )
    stem = keep[order]
    attend = torch.cat([stem[:, None, None].expand(-1, 1, own.shape[1], -1), _causal(own)], -1)
    hidden = vlm.run(ids, None, positions, attend, cache)
    return hidden[:, -1], torch.cat([stem, own], 1)


def _padded(vlm: VLM, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """ids (B, L), positions (3, B, L) and mask (B, L) of parts of prompts, padded on the left."""
    width = max(len(ids) for ids, _ in parts)
    pad = vlm.processor.tokenizer.pad_token_id
    ids = torch.full((len(parts), width), pad, dtype=torch.long)
    positions = torch.zeros(3, len(parts), width, dtype=torch.long)
    keep = torch.zeros(len(parts), width, dtype=torch.bool)
    for row, (own, places) in enumerate(parts):
        start = width - len(own)
        ids[row, start:], keep[row, start:], positions[:, row, start:] = own, True, places
    return ids.to(vlm.device), positions.to(vlm.device), keep.to(vlm.device)


def _causal(keep: Tensor) -> Tensor:
    """(B, 1, L, L): to what was before and is real; pads see themselves, or nothing would."""
    width = keep.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=keep.device).tril()
    return (causal & keep[:, None, None, :]) | torch.eye(
        width, dtype=torch.bool, device=keep.device
    )
