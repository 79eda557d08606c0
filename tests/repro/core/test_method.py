"""The hooks of a step: called in order, on whole groups, with the promised shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evals.types import Decoding
from evals.vlm import VLM
from repro.core.data import Prompts, Records
from repro.core.method import TGRPO, Method, accuracies
from repro.core.rollout import Sampler
from repro.core.types import Group, Record, Rollout, TokenScores
from repro.ktr.method import KTR
from repro.ktr.switches import Ratios
from repro.recipe import Recipe


def test_hooks_run_in_order_on_whole_groups(trainer: Callable[..., Any]) -> None:
    calls: list[str] = []

    class Spy(Method):
        needs = frozenset({"visual"})

        def records(self, step: int, pool: Records) -> Sequence[Record]:
            calls.append(f"records {step}")
            return super().records(step, pool)

        def auxiliary(self, group: Group, sample: Sampler) -> list[Rollout]:
            calls.append("auxiliary")
            return sample([group.prompt], 1, [group.seed])[0]

        def sampled(self, group: Group) -> None:
            calls.append("sampled")
            assert len(group.rollouts) == 4

        def repair(self, groups: list[Group], sample: Sampler, prompts: Prompts) -> list[Group]:
            calls.append("repair")
            assert [len(g.auxiliary) for g in groups] == [1, 1]
            new = sample([g.prompt for g in groups], 1, [g.seed for g in groups])
            return [
                replace(g, rollouts=(*g.rollouts[:3], *n)) for g, n in zip(groups, new, strict=True)
            ]

        def rewards(self, group: Group) -> dict[str, Tensor]:
            calls.append("rewards")
            assert len(group.rollouts) == 4  # after repair
            return {"accuracy": torch.arange(4.0), "own": torch.ones(4)}

        def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
            calls.append("token_weights")
            assert scores.valid.shape == scores.visual.shape == (4, 8)
            assert scores.temporal is None  # not asked for
            return scores.valid.float() * 0.5

        def adjust(
            self, group: Group, rewards: dict[str, Tensor], weights: Tensor
        ) -> dict[str, Tensor]:
            calls.append("adjust")
            assert set(rewards) == {"accuracy", "own"} and weights.shape == (4, 8)
            return {**rewards, "last": torch.full((4,), 10.0)}

    t = trainer("grpo", steps=1, method=Spy, paid=False)
    t.train()
    assert calls == [
        "records 0", "sampled", "sampled", "auxiliary", "auxiliary", "repair", "rewards", "rewards",
        "token_weights", "token_weights", "adjust", "adjust",
    ]  # fmt: skip
    assert t.metrics["reward"] == pytest.approx(1.5 + 1 + 10)
    assert t.metrics["own"] == 1 and t.metrics["last"] == 10


@pytest.fixture
def sampler(student: VLM) -> Sampler:
    return Sampler(student, Decoding(1.0, max_new_tokens=4))


def test_groups_are_sampled_whole_and_in_order(sampler: Sampler, asked: Any) -> None:
    first, second = sampler.groups([asked.video, asked.text], 3, [1, 2])
    assert first.prompt is asked.video and second.prompt is asked.text
    for group in (first, second):
        assert len(group.rollouts) == 3 and group.auxiliary == ()
        for rollout in group.rollouts:
            assert rollout.prompt is rollout.loss_prompt is group.prompt
            assert 1 <= len(rollout.ids) <= 4 and len(rollout.logp) == len(rollout.ids)
            assert rollout.finished == (rollout.ids[-1] == sampler.vlm.end)
    assert len({r.ids for r in first.rollouts}) == 3


def test_sampling_leaves_the_training_mode_as_it_was(sampler: Sampler, asked: Any) -> None:
    model = sampler.vlm.model
    for mode in (True, False):
        model.train(mode)
        sampler([asked.text], 1, [0])
        assert model.training is mode and model.model.visual.training is mode


def test_t_grpo_samples_half_as_many_on_shuffled_frames_of_videos_only(
    sampler: Sampler, asked: Any, recipe: Recipe, group_of: Callable[..., Group],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    method = TGRPO(recipe.arm("t_grpo").switches)
    for prompt in (asked.image, asked.text):
        assert method.auxiliary(group_of(prompt, [2] * 8), sampler) == []
    shown: list[Any] = []
    sample = sampler.vlm.sample
    monkeypatch.setattr(
        sampler.vlm,
        "sample",
        lambda p, *a, **k: shown.extend(p) or sample(p, *a, **k),
        raising=False,
    )
    rollouts = method.auxiliary(group_of(asked.video, [2] * 8), sampler)
    assert len(rollouts) == 4 and len(shown) == 1
    own, mixed = asked.video.encoded, shown[0]
    assert not torch.equal(mixed.pixels, own.pixels)
    assert torch.equal(mixed.pixels.sum(), own.pixels.sum()) or torch.isclose(
        mixed.pixels.double().sum(), own.pixels.double().sum()
    )
    assert torch.equal(mixed.ids, own.ids) and torch.equal(mixed.positions, own.positions)
    assert all(r.prompt.encoded is mixed for r in rollouts)
    assert len(method.auxiliary(group_of(asked.video, [2]), sampler)) == 1


def test_t_grpo_pays_where_order_helps(
    asked: Any, recipe: Recipe, group_of: Callable[..., Group]
) -> None:
    method = TGRPO(recipe.arm("t_grpo").switches)
    group = group_of(asked.video, [2] * 4)
    gold = asked.video.record.gold

    def said(n: int, of: int) -> tuple[Rollout, ...]:
        text = [f"<answer>{gold}</answer>"] * n + ["<answer>?</answer>"] * (of - n)
        return tuple(replace(group.rollouts[0], text=t) for t in text)

    def bonus(right: int, shuffled: int) -> list[float]:
        own = Group(asked.video, said(right, 4), said(shuffled, 2))
        parts = method.adjust(own, method.rewards(own), torch.ones(4, 2))
        return parts["temporal_bonus"].tolist()

    assert bonus(2, 1) == pytest.approx([0.3, 0.3, 0, 0])  # 0.5 >= 0.8 * 0.5
    assert bonus(1, 1) == [0, 0, 0, 0]  # 0.25 < 0.8 * 0.5
    alone = Group(asked.video, said(2, 4))
    assert "temporal_bonus" not in method.adjust(alone, method.rewards(alone), torch.ones(4, 2))


def test_accuracies_read_the_record_s_own_type(asked: Any, group_of: Callable[..., Group]) -> None:
    rollout = group_of(asked.text, [2]).rollouts[0]
    numerical = replace(asked.text, record=replace(asked.text.record, gold="3.0"))
    texts = ["<answer>3.00</answer>", "<answer>3</answer>", "3.0", ""]
    said = [replace(rollout, prompt=numerical, text=t) for t in texts]
    assert accuracies(said).tolist() == [1, 0, 0, 0]  # rounded, behind the released decimal gate


def test_ktr_asks_only_for_the_passes_of_active_signals(recipe: Recipe) -> None:
    switches = recipe.arm("ktr").switches
    needs = {
        (0.2, 0.2): {"visual", "temporal"}, (0.0, 0.2): {"temporal"},
        (0.2, 0.0): {"visual"}, (0.0, 0.0): set(),
    }  # fmt: skip
    for (visual, temporal), wanted in needs.items():
        assert KTR(replace(switches, ratios=Ratios(0.2, visual, temporal))).needs == wanted


def test_ktr_s_signals_explain_its_weights(recipe: Recipe) -> None:
    generator = torch.Generator().manual_seed(0)
    valid = torch.ones(3, 10, dtype=torch.bool)
    valid[1, 4:] = valid[2, 1:] = False
    tables = [torch.randn(3, 10, generator=generator) * valid for _ in range(4)]
    scores = TokenScores(valid, *tables)
    for arm in ("ktr", "ktr_released", "entropy_only", "visual_only", "temporal_only"):
        method = KTR(recipe.arm(arm).switches)
        masks, weights = method.signals(scores), method.token_weights(Group(None, ()), scores)
        assert torch.equal(weights > 0, torch.stack(list(masks.values())).any(0))
        if arm != "ktr_released":  # the release may drop a completion whole
            assert (weights > 0).any(1).all()
        assert not weights[~valid].any() and set(weights.unique().tolist()) == {0, 1}
