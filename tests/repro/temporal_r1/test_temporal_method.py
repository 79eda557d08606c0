"""Temporal-R1 in training: rewards by kind, records by choice, JSON demonstrations, SFT arm."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch

from evals import protocols
from evals.benchmarks.jsonl import read
from evals.errors import BadInput
from evals.extract import Answer, Unparsed, extract
from evals.grade import grade
from evals.types import Sample, VideoClip
from repro import arm as arms
from repro import stages
from repro.arm import supervised, train_arm
from repro.coldstart import extended, taught
from repro.core import demonstrations as core
from repro.core.trainer import GroupTrainer
from repro.core.types import Group, Prompt, Rollout
from repro.recipe import Recipe
from repro.temporal_r1 import demonstrations, method
from repro.temporal_r1.method import METHODS, chosen_records
from repro.temporal_r1.rewards import of_record
from repro.tiny import build
from results.schema import curves_from

if TYPE_CHECKING:
    from evals.vlm import VLM, Encoded

RECIPE = Recipe.load("temporal_r1")
LOCATE = Sample("a", "When?", "temporal grounding", "[1.0, 3.0]", "video", None)
CHOICE = Sample("b", "Which?", "multiple choice", "B", "video", None, ("A. red", "B. blue"))
BOTH = Sample("c", "Which, and when?", "grounded qa", "B [1.0, 3.0]", "video", None, CHOICE.options)
CLIP = VideoClip(np.zeros((8, 56, 56, 3), np.uint8), tuple(range(0, 16, 2)), 4.0, 16)
SAID = {
    "a": '{"start_time": "1.0", "end_time": "2.0"}',
    "b": '{"option": "B"}',
    "c": '{"option": "B", "start_time": "1.0", "end_time": "2.0"}',
}


def group(sample: Sample, *texts: str, clip: VideoClip | None = CLIP) -> Group:
    prompt = Prompt(sample, clip, cast("Encoded", None))
    return Group(prompt, tuple(Rollout(prompt, prompt, (1,), text, True) for text in texts))


def said(sample: Sample) -> str:
    return f"<think>x</think><answer>{SAID[sample.id]}</answer>"


def rewards(name: str, sample: Sample) -> dict[str, list[float]]:
    arm = RECIPE.arm(name)
    made = METHODS[arm.method](arm.switches)
    found = made.rewards(group(sample, said(sample), "nothing"))
    assert made.adjust(group(sample, "", ""), found, torch.ones(2, 1)) is found
    return {name: part.tolist() for name, part in found.items()}


def test_every_kind_earns_its_own_terms() -> None:
    form = {"format": [1.0, 0.0]}
    assert rewards("both", LOCATE) == {"tiou": [0.5, 0.0], **form}
    assert rewards("both", CHOICE) == {"accuracy": [1.0, 0.0], **form}
    assert rewards("both", BOTH) == {"accuracy": [1.0, 0.0], "tiou": [0.5, 0.0], **form}
    released = {"accuracy": [0.25, 0.0], "tiou": [0.125, 0.0], "format": [0.5, 0.0]}
    assert rewards("temporal_r1", BOTH) == released


def test_a_term_that_is_off_is_neither_earned_nor_logged() -> None:
    form = {"format": [1.0, 0.0]}
    assert rewards("semantic", LOCATE) == form == rewards("temporal", CHOICE)
    assert rewards("semantic", BOTH) == {"accuracy": [1.0, 0.0], **form}
    assert rewards("temporal", BOTH) == {"tiou": [0.5, 0.0], **form}


def test_what_earns_nothing_is_measured_all_the_same() -> None:
    made = METHODS["temporal_r1"](RECIPE.arm("temporal").switches)
    asked = group(BOTH, said(BOTH), "nothing")
    told = made.measure(asked, made.rewards(asked))
    assert told == {"accuracy": 0.5, "tiou": 0.25, "format": 0.5, "signal_both": 1.0}
    asked = group(CHOICE, said(CHOICE), said(CHOICE))
    assert made.measure(asked, made.rewards(asked))["signal_what"] == 0.0


def test_a_question_without_a_film_is_refused() -> None:
    made = METHODS["temporal_r1"](RECIPE.arm("both").switches)
    with pytest.raises(BadInput, match="record a has no clip"):
        made.rewards(group(LOCATE, "x", clip=None))


def test_records_that_were_selected_or_as_many_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = [replace(LOCATE, id=str(i)) for i in range(40)]
    monkeypatch.setattr(method, "SELECTED", tmp_path / "selected.ids")
    method.SELECTED.write_text("7\n3\n30\n")
    assert chosen_records(pool, "all", 0) == pool
    assert [r.id for r in chosen_records(pool, "selected", 0)] == ["7", "3", "30"]
    drawn = [tuple(r.id for r in chosen_records(pool, "random", seed)) for seed in range(9)]
    assert all(len(set(ids)) == 3 for ids in drawn) and len(set(drawn)) > 6
    assert drawn[4] == tuple(r.id for r in chosen_records(pool, "random", 4))
    for which in ("selected", "random"):
        with pytest.raises(BadInput, match="names 1 records that the training data lack, first 30"):
            chosen_records(pool[:20], which, 0)


def test_the_control_asks_as_many_of_every_family_and_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = [
        replace(record, id=f"{family}{record.kind}{i}", tags={"family": family})
        for record in (LOCATE, CHOICE) for family in ("a", "b") for i in range(20)
    ]  # fmt: skip
    monkeypatch.setattr(method, "SELECTED", tmp_path / "selected.ids")
    chosen = [r for i, r in enumerate(pool) if i % 20 < 1 + i // 20]  # 1, 2, 3, 4 of each
    method.SELECTED.write_text("".join(f"{r.id}\n" for r in chosen))
    drawn = chosen_records(pool, "random", 0)
    sorts = [Counter((r.tags["family"], r.kind) for r in some) for some in (chosen, drawn)]
    assert sorts[0] == sorts[1] and sorted(sorts[0].values()) == [1, 2, 3, 4]
    assert drawn != chosen


def test_kinds_have_a_standard_deviation_of_their_own() -> None:
    """By hand: the choices' is that of (0, 1, 1, 1), 0.5; the intervals' a tenth of it."""
    given = [torch.tensor(r) for r in ([0.0, 1.0], [0.0, 0.1], [1.0, 1.0], [0.1, 0.1])]
    kinds = ["choice", "when", "choice", "when"]

    def gains(scale: str, eps: float = 1e-4) -> list[float]:
        settings = SimpleNamespace(scale_rewards=scale, advantage_eps=eps)
        trainer = cast(GroupTrainer, SimpleNamespace(settings=settings))
        found = GroupTrainer._advantages(trainer, given, kinds)
        return [round(float(g[1]), 2) for g in found]

    assert gains("kind") == [1.0, 1.0, 0.0, 0.0]
    assert gains("group") == [0.71, 0.71, 0.0, 0.0]
    assert gains("batch") == [1.02, 0.1, 0.0, 0.0]
    assert gains("group", 0.5) == [0.41, 0.09, 0.0, 0.0]  # 0.5 / (0.71 + 0.5), 0.05 / (0.07 + 0.5)
    paper = Recipe.load("temporal_r1", "paper")
    assert (paper.trainer.advantage_eps, RECIPE.trainer.advantage_eps) == (1e-6, 1e-4)


# --- demonstrations ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timed(films: Callable[..., Path]) -> Path:
    return films("timed-train", n=8) / "records.json"


def test_what_is_taught_earns_full_marks_and_is_read_as_its_gold(timed: Path) -> None:
    shown = taught(Recipe.load("temporal_r1"), core.read(timed, timed.parent, ""), 0)
    kinds = {d.sample.kind for d in shown}
    assert kinds == {"multiple choice", "temporal grounding", "grounded qa"}
    for d in shown:
        s = d.sample
        reward = of_record(d.completion, s.kind, s.gold, 4.0, "paper", s.options)
        terms = (reward.accuracy, reward.tiou, reward.format)
        assert {t for t in terms if t is not None} == {1.0}, d.completion
        answer = extract(d.completion, s.kind, "reelproof", s.options)
        assert isinstance(answer, Answer) and grade(answer, s.gold, s.kind, s.options, 1.0) == 1.0
    assert taught(Recipe.load("ktr"), shown, 0) is shown


@pytest.mark.parametrize("sample", [LOCATE, CHOICE, BOTH])
def test_the_papers_supervised_arm_is_taught_what_its_released_parser_reads(sample: Sample) -> None:
    """`sft` is printed without thinking; of one line of JSON that parser reads no interval."""
    paper, micro = Recipe.load("temporal_r1", "paper"), RECIPE.arm("sft").switches
    told = demonstrations.answer(sample, paper.arm("sft").switches)
    assert demonstrations.answer(sample, micro) == demonstrations.answer(sample)
    law = protocols.load("temporal-r1@no-think", "charades_sta")
    if sample is LOCATE:
        assert told == '<answer>{\n"start_time": "1.0",\n"end_time": "3.0"\n}</answer>'
        read = extract(told, sample.kind, law.grader)
        assert isinstance(read, Answer) and read.interval == (1.0, 3.0)
        bare = demonstrations.answer(sample, micro)
        assert isinstance(extract(bare, sample.kind, law.grader), Unparsed)
    robust = extract(told, sample.kind, "reelproof", sample.options)
    assert isinstance(robust, Answer)
    assert grade(robust, sample.gold, sample.kind, sample.options, 1.0) == 1.0


def test_new_tokens_begin_as_the_mean_of_what_spelt_them(student: VLM) -> None:
    vlm = type(student)(copy.deepcopy(student.model), copy.deepcopy(student.processor))
    tokens = vlm.processor.tokenizer
    text = said(BOTH).replace("<think>x", "<think>I see red circle")
    before, ids = (
        vlm.model.get_input_embeddings().weight.detach().clone(),
        tokens(text)["input_ids"],
    )
    spelt = tokens("</think>")["input_ids"]
    extended(vlm, demonstrations.TOKENS)
    weight = vlm.model.get_input_embeddings().weight.detach()
    assert torch.equal(weight[: len(before)], before)
    own = weight[tokens.convert_tokens_to_ids("</think>")]
    assert torch.allclose(own, before[spelt].mean(0))
    assert len(tokens(text)["input_ids"]) < len(ids) / 2
    assert tokens.decode(tokens(text)["input_ids"], skip_special_tokens=True) == text
    size = len(tokens)
    assert len(extended(vlm, demonstrations.TOKENS).processor.tokenizer) == size


# --- the supervised arm ------------------------------------------------------------------------


def test_an_arm_may_learn_right_answers_instead(timed: Path, student: VLM, tmp_path: Path) -> None:
    start = tmp_path / "start"
    student.model.save_pretrained(start)
    student.processor.save_pretrained(start)
    seen: list[dict[str, Any]] = []
    out = tmp_path / "sft"
    train_arm(
        RECIPE, "sft", 0, out, steps=2, data=timed, model=start, progress=seen.append
    )  # fmt: skip
    assert [row["step"] for row in seen] == [1, 2] and "reward" not in seen[0]
    assert len(curves_from((out / "metrics.jsonl").read_text())) == 2  # as the ledger reads them
    done = json.loads((out / "done.json").read_text())
    assert done["steps"] == 2 and (out / "final" / "model.safetensors").is_file()


def test_a_supervised_arm_takes_the_fields_it_shares() -> None:
    settings = RECIPE.arm("sft").trainer
    found = supervised(RECIPE, settings)
    assert found.per_device_train_batch_size == settings.prompts_per_step
    assert (found.learning_rate, found.max_steps) == (settings.learning_rate, settings.max_steps)
    with pytest.raises(BadInput, match="no schedule polynomial"):
        supervised(RECIPE, replace(settings, lr_scheduler_type="polynomial"))
    assert arms.SUPERVISED == RECIPE.arm("sft").method


def test_relays_are_asked_when_what_is_seen(timed: Path) -> None:
    """The gold of every question of a time is the span of frames that are not empty there."""
    samples = read(timed, timed.parent)
    assert {s.tags["film"] for s in samples} == {"relay"}
    spans = {s.gold for s in samples if s.kind == "temporal grounding"}
    lengths = {round(b - a, 1) for a, b in (json.loads(gold) for gold in spans)}
    assert min(lengths) == 1.0 and len(lengths) > 1


def test_the_committed_selection_is_of_the_shipped_start_checkpoint() -> None:
    """Another start, or other rules, would choose otherwise: then select again."""
    found = json.loads(method.SELECTED.with_name("selection.json").read_text())
    ids = method.SELECTED.read_text().split()
    shipped = json.loads((Path(build.__file__).parent / "manifest.json").read_text())
    assert found["model"]["sha256"] == shipped["temporal_r1"]["sha256"]
    assert found["data"]["split"] == RECIPE.data.split
    assert len(ids) == len(set(ids)) == found["kept"] == found["pool"] // 10


def test_the_folder_of_the_supervised_arm_is_no_cold_start(tmp_path: Path) -> None:
    """runs/sft-s0 of seed 0 looks like that of the stage sft, which this recipe does not have."""
    (tmp_path / "sft-s0").mkdir()
    (tmp_path / "sft-s0" / "done.json").write_text("{}")
    assert stages.cold_start(RECIPE, tmp_path) == ()
    assert stages.cold_start(Recipe.load("temporal_r1", "paper"), tmp_path) == ()
    assert stages.cold_start(Recipe.load("ktr", "paper"), tmp_path)[0] == "--model"
