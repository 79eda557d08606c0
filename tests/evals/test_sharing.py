"""evals.sharing: the same inputs, the same draws, fewer patches and tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evals import sharing
from evals.models import Checkpoint, Question
from evals.run import evaluate
from evals.types import Decoding, Modality, Sample, VideoClip
from evals.vlm import VLM, Encoded
from repro.tiny.model import PROTOCOL
from tests.evals.test_run import bench
from tests.tiny import tiny_qwen3_vl

Writer = Callable[..., Path]
ASKED = ("Which came first?", "How many shapes are there?", "Which came last, and why? Say it.",
         "Which came first then?", "Who?", "What moved it?", "Is it red?")  # fmt: skip


def clip(seed: int, n: int = 8, side: int = 56, modality: Modality = "video") -> VideoClip:
    frames = np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return VideoClip(frames, tuple(range(n)), 4.0, n, modality)


def question(text: str, shown: VideoClip | None, id: str = "") -> Question:
    modality: Modality = shown.modality if shown else "text"
    media = Path("a.mp4") if shown else None
    sample = Sample(id or text, text, "numerical", "1", modality, media)
    return Question(sample, shown, 3)


def mixed() -> list[Question]:
    """Seven questions on a film, two on another, two on a picture, one on nothing."""
    film, other, picture = clip(0), clip(1, n=4), clip(2, 1, modality="image")
    return [
        *(question(text, film) for text in ASKED),
        *(question(text, other, f"o{text}") for text in ASKED[:2]),
        *(question(text, picture, f"p{text}") for text in ASKED[1:3]),
        question("How many?", None),
    ]


@pytest.fixture(scope="module")
def models(student: VLM) -> tuple[Checkpoint, Checkpoint]:
    return Checkpoint(student, "shared"), Checkpoint(student, "plain", shared=False)


def encoded(model: Checkpoint, questions: list[Question]) -> list[Encoded]:
    return model._encoded(questions, PROTOCOL)


def test_inputs_are_those_of_encoding_each_alone(models: tuple[Checkpoint, Checkpoint]) -> None:
    questions = mixed()
    ours, plain = (encoded(model, questions) for model in models)
    for mine, alone in zip(ours, plain, strict=True):
        assert torch.equal(mine.ids, alone.ids) and torch.equal(mine.positions, alone.positions)
        assert (mine.pixels is None) == (alone.pixels is None)
        if mine.pixels is not None:
            assert torch.equal(mine.pixels, alone.pixels) and torch.equal(mine.grid, alone.grid)
        assert mine.second_per_grid == alone.second_per_grid
    assert len({id(e.pixels) for e in ours[:7]}) == 1 and ours[7].pixels is ours[8].pixels
    assert len({id(e.pixels) for e in plain if e.pixels is not None}) == 11


def test_stems_cover_the_clip_and_leave_a_token(
    models: tuple[Checkpoint, Checkpoint], student: VLM
) -> None:
    prompts = encoded(models[0], mixed())
    owner, length = sharing.stems(student, prompts)
    assert owner == [0] * 7 + [7] * 2 + [9] * 2 + [11]
    for prompt, n, place in zip(prompts, length, owner, strict=True):
        assert 1 <= n < len(prompt.ids)
        assert not student.is_pad(prompt.ids[n:]).any()
        assert torch.equal(prompt.ids[:n], prompts[place].ids[:n])
    twins = [prompts[0], prompts[0]]  # the same question twice: all but the last token
    assert sharing.stems(student, twins)[1] == [len(prompts[0].ids) - 1] * 2
    moved = replace(prompts[1], positions=prompts[1].positions + 1)  # as another rule would
    assert sharing.stems(student, [prompts[0], moved])[0] == [0, 1]


def test_hidden_states_agree(models: tuple[Checkpoint, Checkpoint], student: VLM) -> None:
    from transformers import DynamicCache

    prompts = encoded(models[0], mixed())
    with torch.no_grad():
        features = student.features(prompts)
        ours, _ = sharing.prefill(student, prompts, features, DynamicCache())
        width = max(len(p.ids) for p in prompts)
        plain, _ = student._prefill(prompts, features, width, DynamicCache())
    assert torch.allclose(ours, plain, atol=2e-5)


@pytest.mark.parametrize(
    "decoding",
    [Decoding(max_new_tokens=12), Decoding(temperature=1.0, max_new_tokens=12, samples=3)],
)
def test_replies_are_the_same(models: tuple[Checkpoint, Checkpoint], decoding: Decoding) -> None:
    questions = mixed()
    ours, plain = (model.answer(questions, PROTOCOL, decoding) for model in models)
    assert ours == plain
    assert ours[:1] == models[1].answer(questions[:1], PROTOCOL, decoding)  # nor of its company


def test_qwen3_shares_too(student: VLM) -> None:
    """Times told in words between the frames, and a tower that feeds the first layers."""
    qwen3 = tiny_qwen3_vl(student.processor.tokenizer)
    shared, plain = Checkpoint(qwen3, "shared"), Checkpoint(qwen3, "plain", shared=False)
    film = clip(0, n=8, side=64)
    questions = [question(text, film) for text in ASKED[:3]]
    protocol = replace(PROTOCOL, min_pixels=64 * 64, max_pixels=64 * 64)
    ours, alone = (m._encoded(questions, protocol) for m in (shared, plain))
    for mine, one in zip(ours, alone, strict=True):
        assert torch.equal(mine.ids, one.ids) and torch.equal(mine.positions, one.positions)
    assert ours[0].pixels is ours[2].pixels
    assert sharing.stems(qwen3, ours)[0] == [0, 0, 0]
    drawn = Decoding(temperature=1.0, max_new_tokens=8, samples=2)
    assert shared.answer(questions, protocol, drawn) == plain.answer(questions, protocol, drawn)


def test_a_film_costs_one_encoding_and_one_stem(
    models: tuple[Checkpoint, Checkpoint], student: VLM
) -> None:
    """Counted for seven questions: patches once instead of seven times, and the stem's tokens."""
    questions = mixed()[:7]
    cost = []
    for model in models:
        before = student.patches, student.tokens
        model.answer(questions, PROTOCOL, Decoding(max_new_tokens=1))
        cost.append((student.patches - before[0], student.tokens - before[1]))
    (patches, tokens), (all_patches, all_tokens) = cost
    assert 7 * patches == all_patches
    prompts = encoded(models[0], questions)
    stem = sharing.stems(student, prompts)[1][0]
    longest = max(len(p.ids) for p in prompts)
    assert tokens == stem + 7 * (longest - stem) and all_tokens == 7 * longest


def test_an_evaluation_is_the_same_either_way(
    models: tuple[Checkpoint, Checkpoint], mp4: Writer
) -> None:
    paths = [
        mp4(np.random.default_rng(i).integers(0, 256, (16, 56, 56, 3), dtype=np.uint8),
            name=f"{i}.mp4")
        for i in range(2)
    ]  # fmt: skip
    benchmark = bench(
        *(Sample(f"{i}{text}", text, "numerical", "1", "video", path, cluster=str(i))
          for text in ASKED for i, path in enumerate(paths))
    )  # fmt: skip
    protocol = replace(PROTOCOL, decoding=Decoding(temperature=1.0, max_new_tokens=10, samples=2))
    ours = evaluate(models[0], benchmark, protocol, save_replies=True)
    assert ours == evaluate(models[1], benchmark, protocol, save_replies=True, batch=1)
