"""Which records a step trains on, and that their clips are read once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import BadInput, Undecodable
from evals.types import Sample
from evals.vlm import VLM
from repro.core.data import Prompts, Records
from repro.core.demonstrations import Demonstration, Examples
from repro.recipe import Recipe


def _numbered(n: int) -> list[Sample]:
    return [Sample(str(i), "?", "numerical", "1", "text", None) for i in range(n)]


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_an_epoch_visits_every_record_once(n: int, per_step: int, seed: int) -> None:
    pool = Records(_numbered(n), per_step, seed)
    drawn = [r.id for step in range(2 * n) for r in pool.draw(step)]
    assert len(drawn) == 2 * n * per_step
    for epoch in range(2 * per_step):
        assert sorted(drawn[epoch * n : (epoch + 1) * n], key=int) == [str(i) for i in range(n)]


def test_a_step_s_records_depend_on_seed_and_step_alone() -> None:
    one, two = (Records(_numbered(50), 4, seed=3) for _ in range(2))
    first = [one.draw(step) for step in range(30)]
    assert [two.draw(step) for step in reversed(range(30))] == first[::-1]
    assert first[:12] != first[13:25]  # another epoch, another order
    assert Records(_numbered(50), 4, seed=4).draw(0) != first[0]


def test_prompts_are_built_once_and_clips_read_once(
    student: VLM, recipe: Recipe, records: list[Sample]
) -> None:
    prompts = Prompts(student, recipe.training_protocol)
    film = [r for r in records if r.media == records[0].media]
    assert len(film) > 1
    built = [prompts.build(r) for r in film]
    assert [prompts.build(r) for r in film] == built
    assert prompts.clips.decodes == 1
    assert all(p.clip is built[0].clip for p in built)
    assert all(p.encoded.pixels is built[0].encoded.pixels for p in built)
    assert built[0].encoded.ids.tolist() != built[1].encoded.ids.tolist()


def test_training_stops_at_a_file_it_cannot_read(
    student: VLM, recipe: Recipe, records: list[Sample], tmp_path: Path
) -> None:
    prompts = Prompts(student, recipe.training_protocol)
    with pytest.raises(Undecodable, match="no such file"):
        prompts.build(replace(records[0], media=tmp_path / "gone.mp4"))


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(
    student: VLM, recipe: Recipe, records: list[Sample]
) -> None:
    size = len(Prompts(student, recipe.training_protocol).build(records[0]).encoded.ids)
    view = recipe.training_protocol
    assert len(Prompts(student, view, max_length=size).build(records[0]).encoded.ids) == size
    with pytest.raises(
        BadInput, match=f"has {size} tokens, more than max_prompt_length {size - 1}"
    ):
        Prompts(student, view, max_length=size - 1).build(records[0])


def test_old_prompts_are_forgotten(student: VLM, recipe: Recipe) -> None:
    prompts = Prompts(student, recipe.training_protocol)
    first, second, third = _numbered(3)
    size = prompts.build(first).encoded.ids.nbytes * 4  # three rows of positions
    prompts = Prompts(student, recipe.training_protocol, keep=2 * size)
    kept = prompts.build(first), prompts.build(second)
    prompts.build(third)
    assert prompts.build(second) is kept[1]
    assert prompts.build(first) is not kept[0]


def test_questions_about_two_parts_of_a_film_see_their_own(
    student: VLM, recipe: Recipe, records: list[Sample]
) -> None:
    """Their frames, not those of the question that came first: both here and in the cold start."""
    whole = next(r for r in records if r.modality == "video")
    parts = [replace(whole, id=f"part{i}", span=(i, i + 1.0)) for i in range(2)]
    silent = replace(whole, id="silent", modality="text")
    first, second, none = map(Prompts(student, recipe.training_protocol).build, [*parts, silent])
    alone = Prompts(student, recipe.training_protocol).build(parts[1])
    assert torch.equal(second.encoded.pixels, alone.encoded.pixels)
    assert not torch.equal(first.encoded.pixels, second.encoded.pixels)
    assert none.clip is None and none.encoded.pixels is None
    told = [Demonstration(r, "<answer>A</answer>") for r in parts]
    examples = Examples(student, recipe.training_protocol, told, max_length=4096)
    assert [torch.equal(examples[i].prompt.pixels, p.encoded.pixels)
            for i, p in enumerate([first, second])] == [True, True]  # fmt: skip
