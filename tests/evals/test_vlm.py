"""evals.vlm: never blind, positions everywhere the rule's, and sampling equal to plain forwards."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from evals import mrope
from evals.errors import BadInput, BlindForward
from evals.prompts import Turn
from evals.seeds import derive
from evals.types import Decoding, VideoClip
from evals.vlm import VLM, Encoded, _truncate, load
from repro.tiny.model import PROTOCOL

GREEDY = Decoding(temperature=0.0, max_new_tokens=12)
HOT = Decoding(temperature=1.0, max_new_tokens=12, samples=3)


def video(seed: int = 0, n: int = 8, fps: float = 4.0, total: int = 16) -> VideoClip:
    """n random frames spread over a source of `total` frames at `fps`."""
    frames = np.random.default_rng(seed).integers(0, 256, (n, 112, 112, 3), dtype=np.uint8)
    return VideoClip(frames, tuple(np.linspace(0, total - 1, n).round().astype(int)), fps, total)


def image(seed: int = 0) -> VideoClip:
    return VideoClip(video(seed, n=1).frames, (0,), 1.0, 1, "image")


def encode(vlm: VLM, clip: VideoClip | None, text: str | Turn = "Which came first?") -> Encoded:
    return vlm.encode(clip, text, PROTOCOL)


def draws(n: int, seed: int = 0) -> list[int]:
    """One seed per prompt."""
    return [derive(seed, place) for place in range(n)]


@pytest.fixture
def prompts(student: VLM) -> list[Encoded]:
    """Different lengths; videos, an image and a text: what a batch may mix."""
    return [
        encode(student, video(1), "Which came first? A. red circle B. blue square"),
        encode(student, None, "How many?"),
        encode(student, image(2), "Which?"),
        encode(student, video(3, n=4, total=8), "When is the red square visible?"),
    ]


# --- what the model is told --------------------------------------------------------------------


def test_every_part_of_a_turn_has_its_place(student: VLM) -> None:
    """System turn, words before the clip, the clip, words after it, and how the answer begins."""
    turn = Turn("Be brief.", "Four frames:\n", "Which came first?", "Best option:(")
    told = student.processor.tokenizer.decode(encode(student, video(n=4, total=8), turn).ids)
    pads = "<|video_pad|>" * told.count("<|video_pad|>")
    assert told.replace(pads, "<|video_pad|>").endswith(
        "Be brief.<|im_end|>\n<|im_start|>user\nFour frames:\n<|vision_start|><|video_pad|>"
        "<|vision_end|>Which came first?<|im_end|>\n<|im_start|>assistant\nBest option:("
    )
    plain = encode(student, video(n=4, total=8), Turn(None, "", "Which came first?"))
    assert torch.equal(plain.ids, encode(student, video(n=4, total=8)).ids)
    before = encode(student, video(n=4, total=8), Turn(None, "Which came first?", ""))
    assert student.text(before.ids).count("Which came first?") == 1
    with pytest.raises(BadInput, match="must not contain"):
        encode(student, None, Turn("<|video_pad|>", "", "?"))


def test_a_total_budget_of_pixels_makes_frames_smaller(student: VLM) -> None:
    roomy = replace(PROTOCOL, min_pixels=56 * 56, max_pixels=112 * 112)
    tight = replace(roomy, total_pixels=4 * 56 * 56)  # 8 frames, two to a patch: 56 x 56 each
    grids = [student.encode(video(), "?", p).grid for p in (roomy, tight)]
    assert [g[0].tolist() for g in grids if g is not None] == [[4, 8, 8], [4, 4, 4]]


# --- what the processor is told ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "fps", "total", "seconds"),
    [
        (8, 4.0, 16, 1.0),  # 8 frames in 4 s: a row of 2 frames each second
        (8, 4.0, 32, 2.0),
        (8, 30.0, 60, 0.5),
        (16, 25.0, 750, 3.75),
        (4, 29.97, 30, 0.5005005),
        (8, 24.0, 112, 7 / 6),
    ],
)
def test_time_reaches_the_processor(
    student: VLM, n: int, fps: float, total: int, seconds: float
) -> None:
    """Without metadata 24 frames/s would be assumed and time would collapse into one instant."""
    encoded = encode(student, video(n=n, fps=fps, total=total))
    assert encoded.second_per_grid == pytest.approx(seconds, rel=1e-6)
    assert encoded.grid is not None and encoded.grid.tolist() == [[n // 2, 4, 4]]
    pads = student.is_pad(encoded.ids)
    rows = encoded.positions[0, pads].unique()
    steps = [int(np.float32(i) * np.float32(seconds) * 2) for i in range(n // 2)]
    assert (rows - rows[0]).tolist() == steps  # 2 tokens per second
    assert len(rows) == n // 2 and encoded.pixels is not None


def test_constant_time_is_one_second_per_row(student: VLM) -> None:
    clip = video(fps=4.0, total=64)
    true = encode(student, clip)
    flat = student.encode(clip, "Which?", replace(PROTOCOL, time="constant"))
    assert (true.second_per_grid, flat.second_per_grid) == (4.0, 1.0)


def test_positions_are_the_rules(student: VLM, prompts: list[Encoded]) -> None:
    for prompt in prompts:
        pads = student.is_pad(prompt.ids).tolist()
        segments: list[mrope.Text | mrope.Vision] = [mrope.Text(len(pads))]
        if any(pads):
            assert prompt.grid is not None
            t, h, w = prompt.grid[0].tolist()
            block = mrope.Vision((t, h // 2, w // 2), prompt.second_per_grid)
            after = len(pads) - pads.index(True) - sum(pads)
            segments = [mrope.Text(pads.index(True)), block, mrope.Text(after)]
        for rule in mrope.RULES:
            expected = mrope.positions(segments, tokens_per_second=2, rule=rule)
            assert student.positions(prompt, rule).tolist() == expected.tolist()
        assert prompt.positions.tolist() == student.positions(prompt, "original").tolist()
        assert prompt.next_position == prompt.positions.max() + 1


def test_frames_are_not_sampled_again_and_channels_not_confused(student: VLM) -> None:
    for n in (1, 2, 3, 4, 16):
        encoded = encode(student, video(n=n, total=32))
        assert encoded.grid is not None and encoded.grid[0, 0] == (n + 1) // 2
    # Three rows of pixels look like three channels to a processor that guesses.
    flat = VideoClip(np.zeros((4, 3, 64, 3), np.uint8), (0, 1, 2, 3), 4.0, 4)
    slim = replace(flat, frames=flat.frames[:1], indices=(0,), modality="image")
    for clip in (flat, slim):
        grid = encode(student, clip).grid
        assert grid is not None and grid[0, 2] > grid[0, 1]  # wider than high


def test_size_follows_the_protocol(student: VLM) -> None:
    for side, patches in ((56, 4), (112, 8)):
        protocol = replace(PROTOCOL, min_pixels=side**2, max_pixels=side**2)
        for clip in (video(), image()):
            grid = student.encode(clip, "Which?", protocol).grid
            assert grid is not None and grid[0, 1:].tolist() == [patches, patches]


def test_the_prompt_reads_as_the_template_says(student: VLM) -> None:
    encoded = encode(student, image(), "Which?")
    said = student.processor.tokenizer.decode(encoded.ids)
    pads = "<|image_pad|>" * 4
    assert said == (
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>Which?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


# --- never blind -------------------------------------------------------------------------------


def test_as_many_features_as_pads_or_nothing(student: VLM) -> None:
    encoded = encode(student, video())
    (features,) = student.features([encoded])
    assert features is not None
    assert len(features) == int(student.is_pad(encoded.ids).sum()) == 16
    for wrong in (features[:-1], torch.cat([features, features[:1]]), None):
        with pytest.raises(BlindForward, match="16 vision pads but"):
            student.embed(encoded.ids, wrong)
    with pytest.raises(BlindForward, match="0 vision pads but 16"):
        student.embed(encoded.ids[~student.is_pad(encoded.ids)], features)
    assert encoded.grid is not None
    first = int(student.is_pad(encoded.ids).nonzero()[0])
    fewer = torch.cat([encoded.ids[:first], encoded.ids[first + 1 :]])
    for broken in (
        replace(encoded, ids=fewer),
        replace(encoded, grid=2 * encoded.grid),
        replace(encoded, grid=None),
    ):
        with pytest.raises(BlindForward, match="vision pads"):
            student.positions(broken, "original")


def test_features_land_on_the_pads_in_order(student: VLM) -> None:
    encoded = encode(student, video())
    (features,) = student.features([encoded])
    assert features is not None
    embeds, pads = student.embed(encoded.ids, features), student.is_pad(encoded.ids)
    assert torch.equal(embeds[pads], features)
    plain = student.model.get_input_embeddings()(encoded.ids)
    assert torch.equal(embeds[~pads], plain[~pads])


def test_a_question_cannot_smuggle_a_clip_in(student: VLM) -> None:
    for pad in ("<|video_pad|>", "<|image_pad|>"):
        for clip in (None, video()):
            with pytest.raises(BadInput, match="must not contain"):
                encode(student, clip, f"What is {pad}?")


def test_the_tower_runs_once_over_a_batch(student: VLM, prompts: list[Encoded]) -> None:
    before = student.patches
    together = student.features(prompts)
    patches = sum(len(p.pixels) for p in prompts if p.pixels is not None)
    assert student.patches - before == patches == 64 + 16 + 32
    assert [None if f is None else len(f) for f in together] == [16, None, 4, 8]
    for prompt, features in zip(prompts, together, strict=True):
        (alone,) = student.features([prompt])
        assert (alone is None) == (features is None)
        if alone is not None:
            torch.testing.assert_close(alone, features, atol=2e-6, rtol=1e-5)
    assert student.features([prompts[1]]) == [None]


def continuation(vlm: VLM, prompt: Encoded, ids: Sequence[int]) -> Tensor:
    """(len(ids), V) log-probabilities of each next token, by one full forward without a cache."""
    tail = torch.tensor(ids, dtype=torch.long)
    (features,) = vlm.features([prompt])
    embeds = vlm.embed(torch.cat([prompt.ids, tail])[None], features)
    more = torch.arange(len(ids)).expand(3, -1) + prompt.next_position
    positions = torch.cat([prompt.positions, more], 1)[:, None]
    with torch.no_grad():
        hidden = vlm.hidden(embeds, positions, None)[0, len(prompt.ids) - 1 :]
        return vlm.model.lm_head(hidden).float().log_softmax(-1)


def test_other_pixels_give_other_log_probabilities(student: VLM) -> None:
    ids = [40, 50, 60]
    for clip in (video(1), image(1)):
        first = continuation(student, encode(student, clip), ids)
        again = continuation(student, encode(student, clip), ids)
        other = continuation(student, encode(student, replace(clip, frames=255 - clip.frames)), ids)
        assert torch.equal(first, again)
        assert (first - other).abs().max() > 1e-3


def test_one_changed_frame_is_seen(student: VLM) -> None:
    clip = video(1)
    for i in range(8):
        frames = clip.frames.copy()
        frames[i] = 255 - frames[i]
        changed = encode(student, replace(clip, frames=frames))
        gap = continuation(student, encode(student, clip), [40]) - continuation(
            student, changed, [40]
        )
        assert gap.abs().max() > 1e-4


def test_gradients_reach_the_tower_and_depend_on_the_film(student: VLM) -> None:
    def gradient(clip: VideoClip) -> Tensor:
        encoded = encode(student, clip)
        (features,) = student.features([encoded])
        hidden = student.hidden(
            student.embed(encoded.ids[None], features), encoded.positions[:, None], None
        )
        student.model.lm_head(hidden[:, -1]).log_softmax(-1)[0, 40].backward()
        parameters = list(student.model.model.visual.parameters())
        assert all(p.grad is not None for p in parameters)
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        student.model.zero_grad(set_to_none=True)
        return flat

    one, two = gradient(video(1)), gradient(video(2))
    assert one.abs().max() > 1e-6
    assert (one - two).abs().max() > 1e-2 * one.abs().max()


# --- the same numbers as transformers itself ---------------------------------------------------


@pytest.mark.parametrize("rule", ["original", "v5"])
@pytest.mark.parametrize("kind", ["video", "image", "text"])
def test_logits_equal_the_plain_forward(student: VLM, kind: str, rule: str) -> None:
    clip = {"video": video(1), "image": image(1), "text": None}[kind]
    encoded = student.encode(clip, "Which came first?", replace(PROTOCOL, positions=rule))
    (features,) = student.features([encoded])
    media: dict[str, Any] = {}
    if kind == "video":
        media = {"pixel_values_videos": encoded.pixels, "video_grid_thw": encoded.grid}
    elif kind == "image":
        media = {"pixel_values": encoded.pixels, "image_grid_thw": encoded.grid}
    with torch.no_grad():
        hidden = student.hidden(
            student.embed(encoded.ids[None], features), encoded.positions[:, None], None
        )
        ours = student.model.lm_head(hidden)
        theirs = student.model(
            input_ids=encoded.ids[None], position_ids=encoded.positions[:, None], **media
        ).logits
    torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=1e-5)


def test_under_v5_even_the_positions_are_theirs(student: VLM) -> None:
    """The plain call, positions left to transformers, equals ours under the rule `v5` only."""
    clip = video(1)
    logits = {}
    for rule in ("original", "v5"):
        encoded = student.encode(clip, "Which?", replace(PROTOCOL, positions=rule))
        (features,) = student.features([encoded])
        with torch.no_grad():
            hidden = student.hidden(
                student.embed(encoded.ids[None], features), encoded.positions[:, None], None
            )
            logits[rule] = student.model.lm_head(hidden)
    kinds = (encoded.ids == student.video_pad).long()[None] * 2
    with torch.no_grad():
        plain = student.model(
            input_ids=encoded.ids[None], attention_mask=torch.ones_like(encoded.ids)[None],
            mm_token_type_ids=kinds, pixel_values_videos=encoded.pixels,
            video_grid_thw=encoded.grid,
            second_per_grid_ts=torch.tensor([encoded.second_per_grid]),
        ).logits  # fmt: skip
    torch.testing.assert_close(logits["v5"], plain, atol=5e-6, rtol=1e-5)
    assert (logits["original"] - plain).abs().max() > 1e-4


# --- sampling ----------------------------------------------------------------------------------


def naive_greedy(vlm: VLM, prompt: Encoded, decoding: Decoding) -> list[int]:
    ids: list[int] = []
    while len(ids) < decoding.max_new_tokens and vlm.end not in ids:
        logp = continuation(vlm, prompt, ids)[-1]
        logp[vlm.banned] = float("-inf")
        ids.append(int(logp.argmax()))
    return ids


def test_greedy_equals_a_loop_of_full_forwards(student: VLM, prompts: list[Encoded]) -> None:
    """One left-padded batch with a cache, against each prompt by itself without."""
    found = student.sample(prompts, GREEDY, draws(len(prompts)))
    for prompt, replies in zip(prompts, found, strict=True):
        assert len(replies) == 1
        assert list(replies[0].ids) == naive_greedy(student, prompt, GREEDY)
    assert len({replies[0].ids for replies in found}) > 1  # the prompts matter


def test_log_probabilities_are_those_of_a_full_forward(
    student: VLM, prompts: list[Encoded]
) -> None:
    for prompt, replies in zip(
        prompts, student.sample(prompts, HOT, draws(len(prompts))), strict=True
    ):
        assert len(replies) == 3
        for reply in replies:
            full = continuation(student, prompt, reply.ids)[:-1]
            expected = full.gather(1, torch.tensor(reply.ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(reply.logp), expected, atol=2e-5, rtol=1e-5)


def test_the_batch_does_not_change_a_prompts_replies(student: VLM, prompts: list[Encoded]) -> None:
    together = student.sample(prompts, GREEDY, draws(len(prompts)))
    for prompt, replies in zip(prompts, together, strict=True):
        (alone,) = student.sample([prompt], GREEDY, draws(1))
        assert alone[0].ids == replies[0].ids
        np.testing.assert_allclose(alone[0].logp, replies[0].logp, atol=2e-5)


def test_a_prompts_draws_come_from_its_own_seed(student: VLM, prompts: list[Encoded]) -> None:
    """Above temperature 0 too, whatever stands beside it, and in whichever place."""
    seeds = draws(len(prompts))
    together = student.sample(prompts, HOT, seeds)
    assert student.sample(prompts[::-1], HOT, seeds[::-1]) == [
        [replace(r, logp=pytest.approx(r.logp, abs=2e-5)) for r in replies]
        for replies in reversed(together)
    ]
    for prompt, seed, replies in zip(prompts, seeds, together, strict=True):
        (alone,) = student.sample([prompt], HOT, [seed])
        assert [r.ids for r in alone] == [r.ids for r in replies]
    with pytest.raises(ValueError, match="4 prompts need as many seeds, not 3"):
        student.sample(prompts, HOT, seeds[:3])


def test_the_same_seed_gives_the_same_samples(student: VLM, prompts: list[Encoded]) -> None:
    first = student.sample(prompts, HOT, draws(len(prompts), 1))
    assert student.sample(prompts, HOT, draws(len(prompts), 1)) == first
    other = student.sample(prompts, HOT, draws(len(prompts), 2))
    assert [r.ids for own in other for r in own] != [r.ids for own in first for r in own]
    assert len({r.ids for r in first[0]}) == 3  # one prompt's samples differ


def test_samples_follow_the_distribution(student: VLM) -> None:
    """2,000 first tokens at temperature 2 against the probabilities, markers taken out."""
    prompt = encode(student, video(1))
    decoding = Decoding(temperature=2.0, max_new_tokens=1, samples=2000)
    (replies,) = student.sample([prompt], decoding, draws(1))
    logits = continuation(student, prompt, [])[0] / 2.0
    logits[student.banned] = float("-inf")
    p = logits.softmax(-1).double().numpy()
    seen = np.bincount([r.ids[0] for r in replies], minlength=len(p))
    assert seen[student.banned].sum() == 0
    expected = 2000 * p
    big = expected >= 5
    chi2 = ((seen[big] - expected[big]) ** 2 / expected[big]).sum()
    assert chi2 < big.sum() + 5 * np.sqrt(2 * big.sum())


@contextmanager
def favoured(vlm: VLM, *tokens: int) -> Iterator[None]:
    """The head adds 1e4 to the logits of these tokens."""
    bonus = torch.zeros(vlm.model.lm_head.out_features)
    bonus[list(tokens)] = 1e4
    hook = vlm.model.lm_head.register_forward_hook(lambda module, args, out: out + bonus)
    try:
        yield
    finally:
        hook.remove()


def test_pads_and_markers_are_never_drawn(student: VLM, prompts: list[Encoded]) -> None:
    ids = student.processor.tokenizer.convert_tokens_to_ids
    never = [ids(f"<|{name}|>") for name in
             ("image_pad", "video_pad", "vision_start", "vision_end")]  # fmt: skip
    assert sorted(student.banned) == sorted(never)
    truncated = replace(HOT, top_k=1), replace(HOT, top_p=0.01)
    with favoured(student, *never):
        for decoding in (GREEDY, HOT, *truncated):
            for replies in student.sample(prompts, decoding, draws(len(prompts))):
                for reply in replies:
                    assert not set(reply.ids) & set(never)


def test_the_end_token_ends_a_reply(student: VLM, prompts: list[Encoded]) -> None:
    with favoured(student, student.end):
        for replies in student.sample(prompts, HOT, draws(len(prompts))):
            assert all(r.ids == (student.end,) and r.finished for r in replies)
            assert all(r.logp[0] == pytest.approx(0.0, abs=1e-4) for r in replies)
    other = next(i for i in range(30, 99) if i != student.end)
    with favoured(student, other):
        for replies in student.sample(prompts, HOT, draws(len(prompts))):
            assert all(r.ids == (other,) * 12 and not r.finished for r in replies)


def test_every_end_that_the_checkpoint_names_ends_a_reply(
    student: VLM, prompts: list[Encoded]
) -> None:
    model = copy.deepcopy(student.model)
    other = next(i for i in range(30, 99) if i != student.end)
    model.generation_config.eos_token_id = [student.end, other]
    vlm = student.around(model)
    assert vlm.ends == (student.end, other)
    with favoured(vlm, other):
        (replies,) = vlm.sample(prompts[:1], HOT, draws(1))
    assert all(r.ids == (other,) and r.finished for r in replies)


def test_replies_of_different_lengths_are_cut_at_their_own_end(student: VLM) -> None:
    """Some rows end early and others go on: each keeps its own ids and log-probabilities."""
    prompt = encode(student, video(1))
    decoding = Decoding(temperature=1.5, max_new_tokens=30, samples=64)
    (replies,) = student.sample([prompt], decoding, draws(1, 3))
    lengths = {len(r.ids) for r in replies}
    assert len(lengths) > 1 and max(lengths) == 30
    for reply in replies:
        assert len(reply.ids) == len(reply.logp)
        assert reply.finished == (reply.ids[-1] == student.end)
        assert student.end not in reply.ids[:-1]
        assert len(reply.ids) == 30 or reply.finished


def test_generation_goes_on_at_the_next_position(student: VLM, prompts: list[Encoded]) -> None:
    """Every position that the language model was given, in prefill and in generation."""
    seen: list[Tensor] = []
    language = student.model.model.language_model
    forward = language.forward

    def record(**inputs: Any) -> Any:
        seen.append(inputs["position_ids"].clone())
        return forward(**inputs)

    language.forward = record
    try:
        with favoured(student, 40):  # so that nobody ends early
            student.sample(prompts, replace(HOT, samples=2), draws(len(prompts)))
    finally:
        del language.forward
    width = max(len(p.ids) for p in prompts)
    assert seen[0].shape == (3, 4, width)
    for row, prompt in enumerate(prompts):
        assert torch.equal(seen[0][:, row, width - len(prompt.ids) :], prompt.positions)
    assert len(seen) == 12  # the last token needs no forward
    for step, fed in enumerate(seen[1:]):
        assert fed.shape == (3, 4, 2)
        expected = [[prompt.next_position + step] * 2 for prompt in prompts]
        assert fed.tolist() == [expected] * 3


def test_a_prompt_is_prefilled_once(student: VLM, prompts: list[Encoded]) -> None:
    width, tokens, patches = max(len(p.ids) for p in prompts), student.tokens, student.patches
    with favoured(student, 40):
        student.sample(prompts, HOT, draws(len(prompts)))
    assert student.patches - patches == 112
    assert student.tokens - tokens == 4 * width + 11 * 4 * 3


def test_sampling_leaves_the_mode_and_no_gradient(student: VLM, prompts: list[Encoded]) -> None:
    for training in (True, False):
        student.model.train(training)
        student.sample(prompts[:1], GREEDY, draws(1))
        assert student.model.training == training
    assert all(p.grad is None for p in student.model.parameters())


# --- truncation --------------------------------------------------------------------------------


def naive_kept(logits: list[float], top_k: int, top_p: float) -> set[int]:
    """Indices that may be drawn, by the definition: the k likeliest, then of those the fewest
    whose probabilities (renormalised) sum to at least p."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    order = order[:top_k] if top_k else order
    weights = np.exp(np.array([logits[i] for i in order]) - max(logits))
    weights /= weights.sum()
    kept, total = set(), 0.0
    for index, weight in zip(order, weights, strict=True):
        if kept and total >= top_p:
            break
        kept.add(index)
        total += weight
    return kept


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True),
    st.integers(0, 14), st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.77, 0.9, 1.0]),
)  # fmt: skip
def test_truncation_equals_the_definition(tenths: list[int], top_k: int, top_p: float) -> None:
    logits = [t / 10 for t in tenths]
    out = _truncate(torch.tensor([logits, logits]), Decoding(top_k=top_k, top_p=top_p))
    for row in out:
        kept = {i for i, value in enumerate(row.tolist()) if value > float("-inf")}
        assert kept == naive_kept(logits, top_k, top_p)
        assert all(row[i] == pytest.approx(logits[i]) for i in kept)


def test_rows_are_truncated_independently() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [9.0, 0.0, 8.9, 0.0]])
    out = _truncate(logits, Decoding(top_k=3, top_p=0.9)).isfinite().tolist()
    # Of 1, 2, 3: 0.665 + 0.245 = 0.91 is enough; of 9, 8.9 and two noughts: 0.525 + 0.475.
    assert out == [[False, False, True, True], [True, False, True, False]]


# --- checkpoints -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(student: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    student.model.save_pretrained(folder)
    student.processor.save_pretrained(folder)
    return folder


def test_a_saved_student_is_the_same(student: VLM, saved: Path) -> None:
    loaded = load(saved)
    assert not loaded.model.training
    assert (loaded.end, loaded.banned) == (student.end, student.banned)
    clip = video(1)
    ours, theirs = encode(student, clip), encode(loaded, clip)
    assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.positions, theirs.positions)
    assert ours.pixels is not None and theirs.pixels is not None
    assert torch.equal(ours.pixels, theirs.pixels)
    ids = [40, 50]
    assert torch.equal(continuation(student, ours, ids), continuation(loaded, theirs, ids))


def test_what_is_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no checkpoint"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInput, match="is a bert model"):
        load(tmp_path)
    part = tmp_path / "part"
    shutil.copytree(saved, part)
    weights = load_file(part / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("merger.ln_q.weight"))]
    save_file(weights, part / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks 1 weights, .*merger\.ln_q\.weight among them"):
        load(part)


def test_text_drops_specials_and_keeps_the_rest(student: VLM) -> None:
    words = "<think>é 红 so A</think><answer>A</answer>"
    ids = student.processor.tokenizer(words)["input_ids"]
    assert student.text([*ids, student.end]) == words
