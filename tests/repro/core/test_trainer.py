"""A training step sees its video, obeys its switches, and writes what it did."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TrainingArguments

from evals import mrope
from evals.errors import BadInput
from evals.types import Sample
from evals.vlm import VLM
from repro.core import lora
from repro.core.data import Prompts
from repro.core.health import Diverged
from repro.core.method import Method
from repro.core.rollout import Sampler
from repro.core.trainer import GroupTrainer, Scored, mismatch
from repro.core.types import Group, Prompt, Rollout, TokenScores
from repro.core.vision import Vision
from repro.ktr.method import KTR, RandomTokens
from repro.ktr.switches import Ratios
from repro.recipe import LengthBonus, Recipe

Make = Callable[..., GroupTrainer]
LENGTHS = (1, 8, 5, 3)
KEYS = {
    "step", "reward", "accuracy", "format", "kl", "length", "loss", "entropy", "grad_norm",
    "zero_std", "kept", "seconds", "tokens", "alarms",
}  # fmt: skip


def gradients_of(trainer: GroupTrainer) -> tuple[float, dict[str, Tensor]]:
    """Loss and every gradient of the first step, without taking it."""
    trainer.vlm.model.train()
    trainer.vlm.model.zero_grad()
    loss = trainer.compute_loss(
        trainer.model, {"slots": torch.arange(trainer.settings.prompts_per_step)}
    )
    loss.backward()
    named = trainer.vlm.model.named_parameters()
    return loss.item(), {n: p.grad.clone() for n, p in named if p.grad is not None}


def collect(trainer: GroupTrainer, batch: int, places: list[int]) -> list[Group]:
    """The groups that a trainer draws at these places of a batch."""
    sampler = trainer._sampler(Vision(trainer.vlm))
    return trainer.collector.collect(sampler, batch, places).groups


@pytest.fixture
def fixed(
    monkeypatch: pytest.MonkeyPatch, complete: Callable[..., list[Rollout]]
) -> Callable[..., None]:
    """fixed(lengths, text=None): from now on every group says the same, whatever it is shown."""

    def fix(lengths: Sequence[int] = LENGTHS, text: Sequence[str] | None = None) -> None:
        def groups(
            self: Sampler, prompts: Sequence[Prompt], n: int, seeds: Sequence[int], sampled: Any
        ) -> list[Group]:
            assert n == len(lengths)
            made = [complete(p, lengths, seed=i) for i, p in enumerate(prompts)]
            if text is not None:
                made = [[replace(r, text=t) for r, t in zip(m, text, strict=True)] for m in made]
            return [
                Group(p, tuple(m), seed=s) for p, m, s in zip(prompts, made, seeds, strict=True)
            ]

        monkeypatch.setattr(Sampler, "groups", groups)

    return fix


def rows_of(trainer: GroupTrainer) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (trainer.out / "metrics.jsonl").read_text().splitlines()]


# --- never blind -------------------------------------------------------------------------------


def test_the_vision_tower_learns_from_this_very_video(
    trainer: Make, fixed: Callable[..., None], records: list[Sample]
) -> None:
    fixed()
    first = next(r for r in records if r.modality == "video")
    film = next(r.media for r in records if r.modality == "video" and r.media != first.media)
    settings = {"prompts_per_step": 1}
    _, own = gradients_of(trainer("ktr", pool=[first], **settings))
    _, same = gradients_of(trainer("ktr", pool=[first], **settings))
    _, other = gradients_of(trainer("ktr", pool=[replace(first, media=film)], **settings))
    tower = [name for name in own if ".visual." in name]
    assert len(tower) > 20
    for name in tower:
        assert own[name].abs().max() > 0, name
        assert torch.equal(own[name], same[name]), name
        assert not torch.equal(own[name], other[name]), name


def test_training_moves_the_vision_tower(trainer: Make, student: VLM) -> None:
    t = trainer("ktr", steps=1)
    t.train()
    towers = (v.model.model.visual.parameters() for v in (student, t.vlm))
    assert not any(torch.equal(a, b) for a, b in zip(*towers, strict=True))


def test_no_vision_token_is_ever_sampled(trainer: Make) -> None:
    t = trainer("grpo", max_completion_length=30, num_generations=8, temperature=5.0)
    groups = collect(t, 0, [0, 1])
    drawn = {i for g in groups for r in g.rollouts for i in r.ids}
    assert len(drawn) > 100 and not drawn & set(t.vlm.banned)


@pytest.mark.parametrize(("fps", "frames", "side"), [(4, 16, 56), (3, 12, 84), (8, 16, 112)])
def test_position_ids_are_those_of_evals_mrope(
    trainer: Make, mp4: Callable[..., Path], recipe: Recipe, monkeypatch: pytest.MonkeyPatch,
    fps: int, frames: int, side: int,
) -> None:  # fmt: skip
    """In sampling, the policy pass, the reference, and the pass over shuffled frames."""
    noise = np.random.default_rng(0).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)
    film = mp4(noise, fps=fps)
    record = Sample("noise", "How many?", "numerical", "1", "video", film)
    view = replace(recipe.training_protocol, min_pixels=side * side, max_pixels=side * side)
    monkeypatch.setitem(recipe.__dict__, "training_protocol", view)
    t = trainer("ktr", prompts_per_step=1, pool=[record],
                switches={"ratios": Ratios(0.2, 0.0, 0.2)})  # fmt: skip
    t.vlm.banned = [*t.vlm.banned, t.vlm.end]  # every completion takes all 8 tokens
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((kwargs["inputs_embeds"].detach(), kwargs["position_ids"]))

    for vlm in (t.vlm, t.reference):
        vlm.model.model.language_model.register_forward_pre_hook(spy, with_kwargs=True)
    t.vlm.banned.append(t.vlm.end)  # so that every completion has all eight tokens
    gradients_of(t)

    stem = t.prompts.build(record).encoded
    n = min(frames / fps * 2, 8) // 2 * 2  # two frames a second, at most 8
    grid = (int(n) // 2, side // 28, side // 28)
    seconds = 2 * (frames / fps) / n
    start = stem.ids.tolist().index(t.vlm.video_pad)
    after = len(stem.ids) - start - grid[0] * grid[1] * grid[2]
    wanted = torch.from_numpy(mrope.positions(
        [mrope.Text(start), mrope.Vision(grid, seconds), mrope.Text(after)], tokens_per_second=2
    ))  # fmt: skip
    assert len(set(wanted[0, start : len(stem.ids) - after].tolist())) == grid[0]
    p, following = len(stem.ids), wanted.max() + 1
    prefill, *decoding, policy, shuffled, reference = [positions for _, positions in seen]
    assert torch.equal(prefill[:, 0], wanted)
    assert len(decoding) == 7
    for step, positions in enumerate(decoding):
        assert (positions == following + step).all() and positions.shape == (3, 1, 4)
    for positions in (policy, shuffled, reference):
        assert torch.equal(positions[:, 0, :p], wanted)
        branches = positions[:, 0, p:].view(3, 4, -1)
        assert torch.equal(branches, (following + torch.arange(7)).expand(3, 4, 7))


def test_sampler_and_scorer_agree(trainer: Make, loud: VLM) -> None:
    t = trainer("ktr", steps=1, vlm=loud)
    t.train()
    assert 0 < rows_of(t)[0]["mismatch"] < 1e-4


def test_mismatch_compares_token_by_token(
    asked: Any, complete: Callable[..., list[Rollout]]
) -> None:
    one, two = complete(asked.video, [3, 2])
    logp = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, 0.0]])
    told = [replace(one, logp=(-1.0, -2.0, -3.0)), replace(two, logp=(-4.0, -5.25))]
    assert mismatch([Group(asked.video, tuple(told))], logp) == 0.25
    repaired = replace(told[1], loss_prompt=asked.other)  # scored under what it never saw
    assert mismatch([Group(asked.video, (told[0], repaired))], logp) == 0
    assert mismatch([Group(asked.video, (one, two))], logp) == 0  # a sampler that tells nothing


def test_a_repaired_rollout_is_compared_with_its_own_draw(trainer: Make) -> None:
    class Repairs(Method):
        def repair(self, groups: list[Group], sample: Sampler, prompts: Prompts) -> list[Group]:
            new = sample([g.prompt for g in groups], 1, [g.seed for g in groups])
            return [
                replace(g, rollouts=(*n, *g.rollouts[1:])) for g, n in zip(groups, new, strict=True)
            ]

    t = trainer("grpo", steps=1, method=Repairs)
    t.train()
    assert rows_of(t)[0]["mismatch"] < 1e-4


# --- the reference model -----------------------------------------------------------------------


def test_the_first_step_has_no_kl_unless_the_reference_sees_another_video(
    trainer: Make, loud: VLM, records: list[Sample]
) -> None:
    """Stock TRL's step-1 KL is 0 as well, blind or not; what it reveals is a row that got
    another row's video."""
    pool = [next(r for r in records if r.tags["film"] == kind) for kind in ("parade", "collide")]
    t = trainer("grpo", vlm=loud, pool=pool)
    gradients_of(t)
    assert t.metrics["kl"] == 0.0
    t = trainer("grpo", vlm=loud, pool=pool)
    features = t.reference.features
    swapped = lambda prompts: features(prompts)[::-1]  # noqa: E731
    t.reference.features = swapped
    gradients_of(t)
    assert t.metrics["kl"] > 1e-4


def test_the_reference_stays_where_training_began(trainer: Make, student: VLM) -> None:
    t = trainer("grpo", steps=2)
    t.train()
    begun = dict(student.model.named_parameters())
    assert all(torch.equal(p, begun[n]) for n, p in t.reference.model.named_parameters())
    assert rows_of(t)[0]["kl"] == 0 < rows_of(t)[1]["kl"]
    assert trainer("grpo", beta=0.0).reference is None


# --- one method becomes another ----------------------------------------------------------------


@pytest.mark.parametrize("preset", ["ktr", "ktr_released"])
def test_ktr_with_all_tokens_is_grpo_exactly(
    trainer: Make, recipe: Recipe, fixed: Callable[..., None], preset: str
) -> None:
    fixed()
    switches = vars(replace(recipe.arm(preset).switches, ratios=Ratios(1, 1, 1)))
    loss, wanted = gradients_of(trainer("grpo", switches=switches))
    same, got = gradients_of(trainer("ktr", switches=switches))
    assert same == loss
    assert set(got) == set(wanted)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    part = {**switches, "ratios": Ratios(0.2, 0.2, 0.2)}
    assert gradients_of(trainer("ktr", switches=part))[0] != loss


def test_packed_and_plain_steps_agree(trainer: Make, loud: VLM) -> None:
    loss, got = gradients_of(trainer("ktr", vlm=loud))
    plain_loss, wanted = gradients_of(trainer("ktr", vlm=loud, packed=False))
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for name in wanted:
        assert (got[name] - wanted[name]).norm() <= 1e-5 * wanted[name].norm(), name


def test_gradient_checkpointing_changes_nothing(trainer: Make) -> None:
    runs = []
    for switch in (False, True):
        t = trainer("ktr", steps=2, gradient_checkpointing=switch)
        t.train()
        assert t.vlm.model.is_gradient_checkpointing is switch
        runs.append(([{**r, "seconds": 0} for r in rows_of(t)], t.vlm.model.state_dict()))
    (plain_rows, plain), (rows, weights) = runs
    assert [r["tokens"] for r in rows] == [r["tokens"] for r in plain_rows]
    assert [r["loss"] for r in rows] == pytest.approx([r["loss"] for r in plain_rows], abs=1e-5)
    assert all(torch.allclose(weights[n], plain[n], atol=1e-5) for n in plain)


def test_the_random_control_keeps_as_many_tokens(
    trainer: Make, recipe: Recipe, fixed: Callable[..., None]
) -> None:
    """Per completion, on the very scores that KTR would choose from; and other tokens."""
    fixed()
    scored: list[tuple[Group, TokenScores]] = []

    class Spy(RandomTokens):
        def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
            scored.append((group, scores))
            return super().token_weights(group, scores)

    gradients_of(trainer("random", method=Spy))
    assert len(scored) == 2
    for preset in ("ktr", "ktr_released"):
        switches = recipe.arm(preset).switches
        for group, scores in scored:
            chosen = KTR(switches).token_weights(group, scores)
            drawn = RandomTokens(switches).token_weights(group, scores)
            assert (chosen > 0).sum(1).tolist() == (drawn > 0).sum(1).tolist()
            assert not drawn[~scores.valid].any()
            assert torch.equal(drawn, RandomTokens(switches).token_weights(group, scores))
            other = replace(group, seed=group.seed + 1)
            assert not torch.equal(drawn, RandomTokens(switches).token_weights(other, scores))
            assert not torch.equal(drawn, chosen)


# --- weights, bonuses, rewards -----------------------------------------------------------------


class Nothing(Method):
    def token_weights(self, group: Group, scores: Any) -> Tensor:
        return torch.zeros_like(scores.logp)


@pytest.mark.parametrize("preset", ["ktr", "ktr_released"])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo", "dapo"])
def test_an_empty_selection_is_no_nan(
    trainer: Make, recipe: Recipe, preset: str, loss_type: str, fixed: Callable[..., None]
) -> None:
    fixed()
    switches = vars(recipe.arm(preset).switches)
    t = trainer("grpo", method=Nothing, switches=switches, loss_type=loss_type)
    loss, found = gradients_of(t)
    assert loss == 0 and t.metrics["kept"] == 0
    assert all(not g.any() for g in found.values())


@pytest.mark.parametrize("arm", ["ktr", "random", "ktr_released"])
def test_the_length_bonus_counts_real_tokens_except_as_released(
    trainer: Make, recipe: Recipe, fixed: Callable[..., None], arm: str
) -> None:
    """All answers have 8 tokens, of which KTR keeps fewer: only 8 earns the bonus."""
    fixed([8] * 4, ["<think>x</think><answer>B</answer>"] * 4)
    record = Sample("t", "Which?", "multiple choice", "B", "text", None, ("A. a", "B. b"))
    length = recipe.arm(arm).switches.length_bonus.length
    rule = {"length_bonus": LengthBonus((8, 8), 0.2, length)}
    t = trainer(arm, switches=rule, paid=False, pool=[record])
    gradients_of(t)
    assert t.metrics["kept"] < 1
    assert t.metrics["length_bonus"] == pytest.approx(0.0 if arm == "ktr_released" else 0.2)
    assert t.metrics["length"] == 8  # the metric counts real tokens in every preset


def test_logged_rewards_are_those_of_the_rollouts(
    trainer: Make, fixed: Callable[..., None]
) -> None:
    right, wrong = "<answer>B</answer>", "<answer>A</answer>"
    fixed([2, 8, 8, 8], [f"<think>x</think>{right}", right, f"<think>y</think>{wrong}", "x"])
    record = Sample("t", "Which?", "multiple choice", "B", "text", None, ("A. a", "B. b"))
    t = trainer("grpo", paid=False, pool=[record], switches={
        "length_bonus": LengthBonus((4, 8), 0.2, "valid")
    })  # fmt: skip
    gradients_of(t)
    assert t.metrics["accuracy"] == 0.5 and t.metrics["format"] == 0.5
    assert t.metrics["length_bonus"] == pytest.approx(0.05)  # the second alone is long enough
    assert t.metrics["reward"] == pytest.approx(1.05)
    assert t.metrics["zero_std"] == 0 and t.metrics["length"] == 6.5
    fixed([8] * 4, ["x"] * 4)
    t = trainer("grpo", paid=False, pool=[record])
    gradients_of(t)
    assert t.metrics["reward"] == 0 and t.metrics["zero_std"] == 1


# --- what is written ---------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["grpo", "ktr", "random", "t_grpo", "ktr_released"])
def test_each_method_trains_and_writes_its_metrics(trainer: Make, arm: str) -> None:
    t = trainer(arm, steps=2)
    shown: list[dict[str, Any]] = []
    t.on_step = shown.append
    t.train()
    rows = rows_of(t)
    assert [r["step"] for r in rows] == [1, 2] and rows == shown
    for row in rows:
        assert set(row) >= KEYS
        numbers = [v for k, v in row.items() if k != "alarms"]
        assert all(isinstance(v, int | float) and v == v for v in numbers)
        assert 1 <= row["length"] <= 8 and row["seconds"] > 0 and row["grad_norm"] > 0
        assert row["kept"] == 1 if arm in ("grpo", "t_grpo") else 0 < row["kept"] < 1
        assert row["alarms"] == ["truncated"]  # a random student does not end by itself
    passes = {"grpo": 3, "ktr": 5, "random": 5, "t_grpo": 3, "ktr_released": 5}[arm]
    stems = sum(len(t.prompts.build(r).encoded.ids) for r in t.collector.pool.draw(0))
    assert rows[0]["tokens"] > passes * stems * 0.5
    view = json.loads((t.out / "tokens.json").read_text())
    assert 1 <= len(view) <= 6
    for item in view:
        assert set(item) >= {"question", "gold", "reward", "advantage", "tokens"}
        for token in item["tokens"]:
            assert set(token) >= {"text", "entropy", "visual", "temporal", "signals"}
            assert set(token["signals"]) <= {"entropy", "visual", "temporal"}
            ktr = arm.startswith("ktr")
            assert token["kept"] == bool(token["signals"]) if ktr else not token["signals"]


def test_language_model_tokens_are_counted_pass_by_pass(
    trainer: Make, fixed: Callable[..., None], records: list[Sample]
) -> None:
    fixed()
    record = next(r for r in records if r.modality == "video")
    t = trainer("ktr", prompts_per_step=1, pool=[record])
    gradients_of(t)
    stem = t.prompts.build(record).encoded
    row = len(stem.ids) + sum(n - 1 for n in LENGTHS)
    pads = int(t.vlm.is_pad(stem.ids).sum())
    assert t.metrics["tokens"] == 4 * row - pads  # policy, reference, shuffled; and without vision


@pytest.mark.parametrize(
    ("shuffle", "freeze", "policy", "reference"),
    [
        ("frame", False, 2, 1),  # policy and sampling together, and the shuffled frames
        ("group", False, 1, 1),  # the shuffled groups are the policy's features, permuted
        ("group", True, 1, 0),  # a frozen tower is the reference's too
    ],
)
def test_how_often_a_clip_is_encoded(
    trainer: Make, shuffle: str, freeze: bool, policy: int, reference: int
) -> None:
    t = trainer("ktr", steps=2, switches={"shuffle": shuffle}, freeze=freeze)
    t.train()
    steps = [[t.prompts.build(r) for r in t.collector.pool.draw(step)] for step in (0, 1)]
    clips = [{p.record.media: len(p.encoded.pixels) for p in prompts} for prompts in steps]
    assert t.prompts.clips.decodes == len(clips[0] | clips[1])
    patches = sum(sum(c.values()) for c in clips)
    if freeze:  # its weights never change: not even the second step encodes a clip again
        patches = sum((clips[0] | clips[1]).values())
    assert t.vlm.patches == policy * patches
    assert t.reference.patches == reference * patches


def test_the_gradient_of_shared_features_is_that_of_features_made_anew(
    trainer: Make, loud: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, got = gradients_of(trainer("ktr", vlm=loud))
    monkeypatch.setattr(GroupTrainer, "_see", lambda self, vision: lambda prompts: None)
    again, wanted = gradients_of(trainer("ktr", vlm=loud))
    assert loss == again and set(got) == set(wanted)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


# --- what stops a run --------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run(trainer: Make) -> None:
    class Broken(Method):
        def token_weights(self, group: Group, scores: Any) -> Tensor:
            return scores.valid.float() * float("nan")

    t = trainer("grpo", method=Broken)
    with pytest.raises(Diverged, match="loss of step 1 is nan"):
        t.train()
    assert not list(t.out.glob("checkpoint-*"))


def test_a_gradient_that_is_no_number_is_never_saved(trainer: Make) -> None:
    t = trainer("grpo", steps=3, save_steps=1)
    weight = t.vlm.model.model.visual.patch_embed.proj.weight
    weight.register_hook(lambda g: g * float("inf") if t.state.global_step == 1 else g)
    with pytest.raises(Diverged, match="gradient norm of step 2"):
        t.train()
    assert [p.name for p in t.out.glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_setting_that_would_not_be_obeyed_is_refused(
    trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {
        "multiples of num_iterations 2": {"num_iterations": 2, "save_steps": 3},
        "do not divide": {"prompts_per_step": 3, "gradient_accumulation_steps": 2},
        "divided by the tokens": {"loss_type": "dapo", "gradient_accumulation_steps": 2},
        "scale_rewards": {"scale_rewards": "batch", "gradient_accumulation_steps": 2},
        "policy term alone": {"top_entropy_quantile": 0.2},
        "needs epsilon_high": {"loss_type": "cispo"},
        "one count of tokens": {
            "loss_type": "dapo",
            "switches": {"kl_on": "valid", "normaliser": "selected"},
        },
    }
    for words, settings in refused.items():
        with pytest.raises(BadInput, match=words):
            trainer("grpo", **settings)
    with pytest.raises(BadInput, match="known before tokens are selected"):
        trainer("ktr_released", switches={"flat_groups": "skip"})
    monkeypatch.setattr(TrainingArguments, "world_size", 3)
    with pytest.raises(BadInput, match="3 processes"):
        trainer("grpo")


def test_the_same_seed_gives_the_same_run_and_another_another(trainer: Make) -> None:
    runs = []
    for seed in (0, 0, 1):
        t = trainer("ktr", steps=2, seed=seed)
        t.train()
        runs.append([{**r, "seconds": 0} for r in rows_of(t)])
    assert runs[0] == runs[1] != runs[2]


def test_a_group_s_draws_depend_on_seed_step_and_place_alone(trainer: Make) -> None:
    """So that the groups of a step may be spread over processes."""
    t = trainer("ktr", steps=9)
    together = collect(t, 3, [0, 1])
    alone = collect(t, 3, [1])
    assert [g.seed for g in alone] == [together[1].seed]
    assert [r.ids for r in alone[0].rollouts] == [r.ids for r in together[1].rollouts]
    later = collect(t, 4, [1])
    assert len({together[0].seed, together[1].seed, later[0].seed}) == 3
    assert collect(trainer("ktr", steps=9, seed=1), 3, [1])[0].seed != alone[0].seed


@pytest.mark.parametrize("normaliser", ["valid", "selected"])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo", "dapo"])
def test_the_loss_of_a_batch_by_a_plain_formula(
    trainer: Make, loss_type: str, normaliser: str
) -> None:
    """Two groups of unlike lengths at ratio 1: bnpo and dapo count the tokens of both."""
    t = trainer("grpo", loss_type=loss_type, beta=0.0, switches={"normaliser": normaliser})
    lengths = torch.tensor([[1, 8, 5, 3], [8, 8, 2, 1]])
    valid = torch.arange(8) < lengths[..., None]
    weights = (valid & (torch.arange(8) % 3 != 1)).float()
    gains = torch.tensor([[1.0, -2.0, 0.5, 0.5], [-1.0, 3.0, -1.0, -1.0]])
    logp = torch.zeros(8, 8, requires_grad=True)
    scores = [TokenScores(v, logp[:4].detach(), logp[:4].detach()) for v in valid]
    scored = Scored([], [], [], list(gains), list(weights), scores, logp.detach(), None, 0)
    loss, measured = t._loss(scored, logp, old=False)
    kept = weights.sum(-1)
    counted = kept if normaliser == "selected" else lengths
    wanted = {
        "grpo": (gains * kept / counted).mean(),
        "dr_grpo": (gains * kept).sum() / (8 * 8),
        "bnpo": (gains * kept).sum() / counted.sum(),
        "dapo": (gains * kept).sum() / counted.sum(),
    }[loss_type]
    assert loss.item() == pytest.approx(-float(wanted)) and measured["kl"] == 0


def test_one_process_trains_on_one_gpu_of_many(
    trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = GroupTrainer._arguments

    def two(self: GroupTrainer) -> TrainingArguments:
        args = own(self)
        assert args.n_gpu <= 1  # sets devices up
        args._n_gpu = 2  # what transformers finds on a machine with two
        return args

    monkeypatch.setattr(GroupTrainer, "_arguments", two)
    t = trainer("grpo", steps=1)
    t.train()
    assert t.args.n_gpu == 1 and t.args.train_batch_size == 1
    assert not isinstance(t.model_wrapped, torch.nn.DataParallel)


@pytest.mark.parametrize("adapters", [False, True])
def test_a_frozen_tower_keeps_no_graph_under_gradient_checkpointing(
    trainer: Make, student: VLM, records: list[Sample], adapters: bool
) -> None:
    """transformers then makes embeddings require gradients, those of the patches too; features are
    kept over steps, and a graph of theirs would be walked twice."""
    film = next(r for r in records if r.modality == "video")
    vlm = student.around(copy.deepcopy(student.model))
    trained = {"lora": lora.adapted(vlm, 4, 8, seed=0)} if adapters else {"freeze": True}
    t = trainer("ktr", steps=2, pool=[film], gradient_checkpointing=True, **trained)
    t.train()
    assert [r["grad_norm"] > 0 for r in rows_of(t)] == [True, True]
    (features,) = t.vlm.features([t.prompts.build(film).encoded])
    assert not features.requires_grad
