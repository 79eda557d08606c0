"""What a step may cost, counted: films read, patches encoded, tokens forwarded, logits held."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro.core import scoring
from tests.perf.steps import Ours, Scene, prompt_of
from tests.perf.work import work_of

#: Passes through the vision tower: the policy's, which sampling shares, the reference's, and that
#: of KTR's shuffled frames; its vision-free pass encodes nothing.
ENCODES = {"grpo": 2, "ktr": 3}
PASSES = {"grpo": 3, "ktr": 5}


@pytest.fixture(params=["grpo", "ktr"])
def ours(request: pytest.FixtureRequest, scene: Scene, tmp_path: Path) -> Ours:
    return Ours(scene, request.param, tmp_path)


def test_a_film_is_read_once(ours: Ours) -> None:
    assert work_of(ours, ours.model, ours.reference).decodes == 1


def test_every_pass_encodes_the_clip_once_and_not_once_per_completion(ours: Ours) -> None:
    work = work_of(ours, ours.model, ours.reference)
    patches = len(prompt_of(ours).pixels)
    assert work.patches == [patches] * ENCODES[ours.arm]
    assert sum(work.patches) == ours.vlm.patches + ours.trainer.reference.patches


def test_no_pass_forwards_the_prompt_twice(ours: Ours) -> None:
    """At most 1.1 times the lower bound of P + G C tokens a pass, P without vision in one of them;
    the many calls of sampling are one pass."""
    work = work_of(ours, ours.model, ours.reference)
    prompt = prompt_of(ours)
    text = len(prompt.ids) - int(ours.vlm.is_pad(prompt.ids).sum())
    full = PASSES[ours.arm] - (ours.arm == "ktr")
    bound = full * len(prompt.ids) + (PASSES[ours.arm] - full) * text
    bound += PASSES[ours.arm] * ours.g * ours.c
    assert 0.9 * bound < sum(work.tokens) <= 1.1 * bound
    assert sum(work.tokens) == ours.trainer.metrics["tokens"]


@pytest.mark.parametrize("chunk", [8, 1024])
def test_logits_are_of_completion_tokens_and_of_a_chunk_at_a_time(
    ours: Ours, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scoring.score.__kwdefaults__, "chunk", chunk)
    work = work_of(ours, ours.model, ours.reference)
    vocab = ours.model.config.text_config.vocab_size
    assert work.logits == min(chunk, ours.g * ours.c) * vocab * 4


def test_the_counters_count(scene: Scene, tmp_path: Path) -> None:
    """The reference path repeats the prompt's tokens; the counters show it."""
    packed, plain = Ours(scene, "grpo", tmp_path), Ours(scene, "grpo", tmp_path, packed=False)
    ours, theirs = (work_of(s, s.model, s.reference) for s in (packed, plain))
    extra = (packed.g - 1) * len(prompt_of(packed).ids)
    assert sum(theirs.tokens) - sum(ours.tokens) == 2 * extra  # policy and reference
