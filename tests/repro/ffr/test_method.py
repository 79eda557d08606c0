"""FFR's reward, its second pass and what of it enters the loss; vectors of ffr.md 1.8-1.14."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evals.errors import BadInput
from evals.types import Decoding, Sample
from evals.vlm import VLM
from repro import needs, plan
from repro.core.advantages import group_advantages
from repro.core.data import Prompts, Records
from repro.core.losses import LossConfig, group_loss
from repro.core.packing import trees_of
from repro.core.rollout import Sampler
from repro.core.trainer import GroupTrainer
from repro.core.types import Group, Prompt, Rollout, TokenScores
from repro.ffr import method
from repro.ffr.asking import addressed, opened
from repro.ffr.blind import BlindStudent
from repro.ffr.cache import Cache
from repro.ffr.gate import Gate
from repro.ffr.method import FFR, rir
from repro.ffr.openai_teacher import OpenAITeacher
from repro.ffr.patch import Patch
from repro.ffr.service import Limits, Service
from repro.ffr.switches import Switches
from repro.ffr.teacher import Failure, Repair
from repro.recipe import Recipe

ONE, ZERO = torch.ones(1), torch.zeros(1)
SHORT = {"patch_words": "short", "patch_images": 0, "patch_zoom": False}


# --- the reward --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "acc", "fmt", "second", "second_fmt", "kappa", "reward"),
    [  # ffr.md 1.8
        (1, 1, 1, 0, 0, 0.3, 2.0), (1, 1, 0, 0, 0, 0.3, 1.0),
        (0, 0, 1, 1, 1, 0.3, 1.7), (0, 0, 1, 1, 0, 0.3, 0.7),
        (0, 0, 1, 0, 1, 0.3, 0.7), (0, 0, 1, 0, 0, 0.3, -0.3),
        (0, 0, 1, 0, 1, 0.0, 1.0), (0, 0, 0, 0, 0, 0.0, 0.0),
    ],
)  # fmt: skip
def test_the_reward_s_table(
    z: int, acc: int, fmt: int, second: int, second_fmt: int, kappa: float, reward: float
) -> None:
    values = (torch.tensor([float(v)]) for v in (z, acc, fmt, second, second_fmt))
    assert rir(*values, kappa).item() == pytest.approx(reward)


@pytest.mark.parametrize(
    ("rewards", "gains"),
    [  # ffr.md 1.14
        ([2, 2, 2, 2, 2, 1.7, 0.7, 1.0], [0.6180] * 5 + [0.0475, -1.8541, -1.2836]),
        ([1.7, 1.7] + [0.7] * 6, [1.6198] * 2 + [-0.5399] * 6),
        ([2] * 6 + [1.7] * 2, [0.5397] * 6 + [-1.6190] * 2),
        ([2] * 8, [0] * 8),
    ],
)
def test_the_vectors_of_its_advantages(rewards: list[float], gains: list[float]) -> None:
    assert group_advantages(torch.tensor(rewards, dtype=torch.float32)).tolist() == pytest.approx(
        gains, abs=2e-4
    )


@pytest.mark.parametrize(
    ("kappa", "taxed", "untaxed"),
    [(0.1, 0.164, 0.144), (0.3, -0.139, -0.285), (0.5, -0.354, -0.661), (0.7, -0.506, -0.943),
     (1.0, -0.661, -1.207)],
)  # fmt: skip
def test_what_kappa_does_in_a_group_of_three_values(
    kappa: float, taxed: float, untaxed: float
) -> None:
    """Five right at once, two repaired, one wrong that was taxed or (an outage) was not."""
    for last, gain in ((1 - kappa, taxed), (1.0, untaxed)):
        rewards = torch.tensor([2.0] * 5 + [2 - kappa] * 2 + [last])
        assert group_advantages(rewards)[5].item() == pytest.approx(gain, abs=6e-4)


def test_a_negative_tax_is_refused() -> None:
    with pytest.raises(ValueError, match="kappa must be at least 0"):
        rir(ONE, ONE, ONE, ZERO, ZERO, -0.1)


# --- the second pass, sampler scripted ---------------------------------------------------------


class Script:
    """A sampler whose second answers are written down."""

    def __init__(self, says: Sequence[str]):
        self.says, self.calls = list(says), []
        self.decoding = Decoding(1.0, max_new_tokens=48)

    def __call__(self, prompts: Sequence[Prompt], n: int, seeds: Sequence[int], **how: Any) -> Any:
        self.calls.append((list(prompts), n, list(seeds), how))
        return [[Rollout(p, p, (7, 7), self.says.pop(0), True)] for p in prompts]


class Answers:
    """A service whose repairs are written down."""

    def __init__(self, *repairs: Repair):
        self.repairs, self.asked, self.counts = list(repairs), [], {}

    def start(self, failures: Sequence[Failure]) -> Answers:
        self.asked = list(failures)
        return self

    def result(self, deadline: float) -> list[Repair]:
        return self.repairs


def said(right: bool, gold: str, form: bool = True) -> str:
    answer = f"<answer>{gold if right else '?'}</answer>"
    return f"<think>so</think>{answer}" if form else answer


def first(prompt: Prompt, rights: Sequence[bool], seed: int = 3) -> Group:
    texts = [said(r, prompt.record.gold) for r in rights]
    return Group(prompt, tuple(Rollout(prompt, prompt, (9,), t, True) for t in texts), seed=seed)


def repaired(
    recipe: Recipe, prompts: Prompts, group: Group, says: Sequence[str], arm: str = "ffr",
    service: Any = None, **switches: Any,
) -> tuple[FFR, Group, Script]:  # fmt: skip
    own = replace(recipe.arm(arm).switches, **{**SHORT, **switches})
    ffr, script = FFR(own, 0, service), Script(says)
    ffr.sampled(group)
    (done,) = ffr.repair([group], script, prompts)
    return ffr, done, script


def total(ffr: FFR, group: Group) -> list[float]:
    return torch.stack(list(ffr.rewards(group).values())).sum(0).tolist()


def test_a_failed_rollout_is_answered_again_under_the_patch(
    recipe: Recipe, prompts: Prompts, asked: Any
) -> None:
    gold = asked.video.record.gold
    group = first(asked.video, [True, False, True, False])
    ffr, done, script = repaired(
        recipe, prompts, group, [said(True, gold), said(False, gold)], patch_words="short"
    )
    ((hinted, n, seeds, how),) = script.calls  # one pass for all failures
    assert n == 1 and len(hinted) == 2 and len(set(seeds)) == 2 and how["longest"] == 48
    assert hinted[0] is hinted[1] is not asked.video
    assert hinted[0].encoded.pixels is asked.video.encoded.pixels
    text = prompts.vlm.text(hinted[0].encoded.ids.tolist())
    assert "See" in text and text.index("See") < text.index(asked.video.record.question)
    kept, new = done.rollouts[:2], done.rollouts[2:]
    assert [r.loss_prompt for r in kept] == [asked.video] * 2
    assert all(r.loss_prompt is r.prompt is hinted[0] for r in new)
    assert total(ffr, done) == pytest.approx([2, 2, 1.7, 0.7])
    counts = ffr.counted([done])
    assert counts["failed"] == counts["repaired"] == counts["teacher_ok"] == 2
    assert counts["mended"] == 1
    rates = ffr.rates(counts)
    assert rates == {"failed": 0.5, "repair_rate": 1.0, "mended_rate": 0.5, "teacher_down": 0.0}


def test_key_frames_stand_as_pictures(recipe: Recipe, prompts: Prompts, asked: Any) -> None:
    group = first(asked.video, [False, True])
    patch = Patch("temporal", (1, 2, 3), (), (), "Look again.")
    service = Answers(Repair("ok", patch))
    _, done, script = repaired(recipe, prompts, group, ["x"], service=service, patch_images=2)
    hinted = script.calls[0][0][0]
    shown = hinted.clip.images
    assert len(shown) == 2 and len(hinted.encoded.grid) == 3
    frames = asked.video.clip.frames
    assert all((image == frames[k]).all() for image, k in zip(shown, (1, 3), strict=True))
    assert len(trees_of(done, prompts.vlm.is_pad)) == 2


def test_a_second_try_without_a_patch_asks_the_same_prompt(
    recipe: Recipe, prompts: Prompts, asked: Any
) -> None:
    group = first(asked.video, [False, True])
    ffr, done, script = repaired(
        recipe, prompts, group, [said(True, asked.video.record.gold)], "ffr_retry"
    )
    assert script.calls[0][0] == [asked.video]
    assert total(ffr, done) == pytest.approx([1.7, 2])
    assert ffr.counted([done])["teacher_retry"] == 1


@pytest.mark.parametrize("status", ["none", "timeout", "backend_error", "invalid", "leak_rejected",
                                    "refused", "circuit_open"])  # fmt: skip
@pytest.mark.parametrize("charged", [False, True])
def test_a_teacher_that_gave_nothing_leaves_the_first_answer(
    recipe: Recipe, prompts: Prompts, asked: Any, status: Any, charged: bool
) -> None:
    group = first(asked.video, [False, True])
    ffr, done, script = repaired(
        recipe, prompts, group, [], service=Answers(Repair(status)), tax_on_failure=charged
    )
    assert script.calls == []
    assert [r.ids for r in done.rollouts] == [(9,), (9,)]
    assert total(ffr, done) == pytest.approx([0.7 if charged else 1.0, 2])
    counts = ffr.counted([done])
    assert counts["failed"] == counts[f"teacher_{status}"] == 1 and "repaired" not in counts
    down = status in ("timeout", "backend_error", "circuit_open")
    assert ffr.rates(counts)["teacher_down"] == float(down)


def test_right_rollouts_call_nobody(recipe: Recipe, prompts: Prompts, asked: Any) -> None:
    service = Answers()
    _, done, script = repaired(
        recipe, prompts, first(asked.video, [True, True]), [], service=service
    )
    assert service.asked == [] and script.calls == []
    assert [r.text for r in done.rollouts] == [said(True, asked.video.record.gold)] * 2


def test_the_teacher_is_told_what_failed(recipe: Recipe, prompts: Prompts, asked: Any) -> None:
    service = Answers(Repair("none"))
    repaired(recipe, prompts, first(asked.video, [True, False]), [], service=service)
    (failure,) = service.asked
    assert failure.record is asked.video.record and failure.clip is asked.video.clip
    assert failure.reply == said(False, "") and failure.answer == "?" and failure.score == 0


def test_contexts_of_the_loss(recipe: Recipe, prompts: Prompts, asked: Any) -> None:
    gold = asked.video.record.gold
    group = first(asked.video, [True, False])
    _, original, _ = repaired(recipe, prompts, group, [said(True, gold)], "ffr_distilled")
    assert original.rollouts[1].ids == (7, 7)
    assert original.rollouts[1].loss_prompt is asked.video is not original.rollouts[1].prompt
    ffr, swapped, script = repaired(recipe, prompts, group, [said(True, gold)], "ffr_released")
    assert [r.ids for r in swapped.rollouts] == [(9,), (9,)]  # the first answers' tokens
    assert total(ffr, swapped) == pytest.approx([2, 1.7])  # and the second answer's reward
    assert script.calls[0][3]["longest"] == 48  # 512, or the first pass's own
    said_again = prompts.vlm.text(script.calls[0][0][0].encoded.ids.tolist())
    assert "Key frames" not in said_again  # content only


def test_the_release_s_second_answer_is_shorter(
    recipe: Recipe, prompts: Prompts, asked: Any
) -> None:
    group = first(asked.video, [False, True])
    _, _, script = repaired(recipe, prompts, group, ["x"], second_length=16)
    assert script.calls[0][3]["longest"] == 16


def test_best_of_group_trains_one_rollout(recipe: Recipe, prompts: Prompts, asked: Any) -> None:
    gold = asked.video.record.gold
    scores = TokenScores(torch.ones(3, 2, dtype=torch.bool), torch.zeros(3, 2), torch.zeros(3, 2))
    group = first(asked.video, [False, False, True])
    ffr, done, _ = repaired(recipe, prompts, group, [said(True, gold)] * 2, "ffr_best", kappa=0.0)
    # Rewards are equal without a tax; the unassisted one stands first.
    assert ffr.token_weights(done, scores).tolist() == [[1, 1], [0, 0], [0, 0]]
    failed = first(asked.video, [False, False, False])
    ffr, done, _ = repaired(
        recipe, prompts, failed, [said(False, gold), said(True, gold), "x"], "ffr_best"
    )
    assert ffr.token_weights(done, scores).tolist() == [[0, 0], [1, 1], [0, 0]]


def test_best_of_group_trains_it_as_if_it_were_alone(
    recipe: Recipe, prompts: Prompts, asked: Any
) -> None:
    """Under the loss of the recipe: gradient of policy and KL, and what it is divided by."""
    settings = recipe.arm("ffr_best").trainer
    group = first(asked.video, [False] * 7 + [True])
    ffr, done, _ = repaired(recipe, prompts, group, ["x"] * 7, "ffr_best")
    valid = torch.ones(8, 5, dtype=torch.bool)
    weights = ffr.token_weights(done, TokenScores(valid, torch.zeros(8, 5), torch.zeros(8, 5)))
    kl_on, normaliser = ffr.loss_tokens
    config = LossConfig(
        beta=settings.beta, loss_type=settings.loss_type, kl_on=kl_on, normaliser=normaliser,
        max_completion_length=settings.max_completion_length,
    )  # fmt: skip
    gains = group_advantages(torch.stack(list(ffr.rewards(done).values())).sum(0))
    logp = torch.full((8, 5), -1.0, requires_grad=True)
    ref = torch.linspace(-2, -0.5, 40).view(8, 5)
    group_loss(logp, gains, weights, valid, config, ref_logp=ref).loss.backward()
    (best,) = weights.sum(1).nonzero().flatten().tolist()
    alone = torch.full((1, 5), -1.0, requires_grad=True)
    one = slice(best, best + 1)
    plain = replace(config, kl_on="valid", normaliser="valid")
    group_loss(
        alone, gains[one], torch.ones(1, 5), valid[one], plain, ref_logp=ref[one]
    ).loss.backward()
    assert logp.grad is not None and alone.grad is not None
    torch.testing.assert_close(logp.grad[one], alone.grad)
    assert logp.grad.abs().sum(1).nonzero().flatten().tolist() == [best]


def test_the_trainer_asks_the_method_what_the_loss_counts(
    trainer: Callable[..., GroupTrainer], loud: VLM
) -> None:
    """A step of ffr_best feels no KL of the other rollouts and is divided by the best ones."""
    t = trainer("ffr_best", vlm=loud)
    assert (t._loss_config().kl_on, t._loss_config().normaliser) == ("selected", "selected")
    t.train()
    assert 0 < t.metrics["n_failed"] and t.state.global_step == 1
    t = trainer("ffr", vlm=loud, name="all")
    assert (t._loss_config().kl_on, t._loss_config().normaliser) == ("valid", "valid")


def test_the_tax_may_follow_the_group_s_success(
    recipe: Recipe, prompts: Prompts, asked: Any
) -> None:
    group = first(asked.video, [True, False, False, False])
    ffr, done, _ = repaired(recipe, prompts, group, ["x"] * 3, kappa_scale="group_success")
    assert ffr.rewards(done)["tax"].tolist() == pytest.approx([0, -0.075, -0.075, -0.075])


@given(st.lists(st.tuples(*(st.booleans(),) * 3), min_size=2, max_size=8), st.floats(0, 2))
def test_the_parts_sum_to_the_reward(cases: list[tuple[bool, bool, bool]], kappa: float) -> None:
    """z, second right, second in form; the first answers keep the form."""
    prompt = Prompt(Sample("q", "?", "multiple choice", "A", "text", None, ("A. x",)), None, None)
    recipe = Recipe.load("ffr")
    group = first(prompt, [z for z, _, _ in cases])
    says = [said(right, "A", form) for z, right, form in cases if not z]
    ffr, done, _ = repaired(recipe, None, group, says, "ffr_retry", kappa=kappa)
    z, right, form = torch.tensor(cases).float().unbind(1)
    wanted = rir(z, z, torch.ones_like(z), right, form, kappa)
    failed = [i for i, c in enumerate(cases) if not c[0]]
    order = failed if not done else range(len(cases))
    assert total(ffr, done) == pytest.approx([wanted[i].item() for i in order])


def test_a_model_s_address_comes_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REELPROOF_TEACHER_URL", raising=False)
    assert addressed("oracle") == "oracle"
    assert addressed("openai:m@http://here/v1") == "openai:m@http://here/v1"
    with pytest.raises(BadInput, match="set REELPROOF_TEACHER_URL"):
        addressed("openai:zai-org/GLM-4.5V")
    monkeypatch.setenv("REELPROOF_TEACHER_URL", "http://here/v1")
    assert addressed("openai:zai-org/GLM-4.5V") == "openai:zai-org/GLM-4.5V@http://here/v1"


def test_what_a_teacher_is_told_is_a_switch(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The printed ablations are arms, and reach the teacher's own id (and so the cache's key)."""
    monkeypatch.setenv("REELPROOF_TEACHER_URL", "http://here/v1")
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path))
    paper = recipe.profile("paper")

    def named(arm: str, **switches: Any) -> str:
        with opened(replace(paper.arm(arm).switches, **switches)) as service:
            return service.teacher.id

    assert "?gold+options+guided&" in named("ffr")
    assert "?options+guided&" in named("ffr_no_gold")
    assert "&tools=get_frame,zoom_region,get_temporal_segment&" in named("ffr_tools")
    assert "?gold+guided&" in named("ffr_released")
    assert named("ffr_32b").startswith("openai:Qwen/Qwen3-VL-32B-Instruct@http://here/v1?")
    assert named("ffr", teacher="openai:m@http://here/v1?tokens=9").endswith(
        named("ffr", teacher="openai:m?tokens=9").removeprefix("openai:m@")
    )
    with pytest.raises(BadInput, match="gold is given twice"):
        named("ffr", teacher="openai:m?gold=0")
    assert named("ffr_no_gold", teacher="oracle") == "oracle@1"  # it never reads the gold
    monkeypatch.setenv("REPRO_TEACHER_TOKEN", "x" * 16)
    with pytest.raises(BadInput, match="where it is served"):
        named("ffr_no_gold", teacher="remote:http://here")


def test_arms_start_where_the_paper_s_rows_do(recipe: Recipe) -> None:
    paper = recipe.profile("paper")
    starts = {name: paper.start(name).id for name in paper.arms}
    assert starts.pop("ffr_videorft") == "QiWang98/VideoRFT-SFT"
    assert starts.pop("grpo_zero") == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert set(starts.values()) == {paper.model.id}
    assert {recipe.start(name).id for name in recipe.arms} == {"tiny/ffr"}
    keys = {need.key for need in needs.needs(paper)}
    more = {need.key for need in needs.needs(paper, ("grpo_zero",))} - keys
    assert more == {"model:Qwen/Qwen2.5-VL-7B-Instruct"}
    assert paper.scoring is not None
    assert ("cold_videorft", "QiWang98/VideoRFT-SFT") in paper.scoring.public


def test_switches_that_cannot_be_obeyed(recipe: Recipe) -> None:
    own = recipe.arm("ffr").switches
    for name, value in (("kappa", -1.0), ("right_from", 0.0), ("deadline", 0.0),
                        ("patch_images", -1), ("blind_gain", 1.0),
                        ("patch_fields", "no_visual")):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            replace(own, **{name: value})
    assert issubclass(Switches, type(own)) and set(method.METHODS) >= {"grpo", "ffr"}


# --- whole steps -------------------------------------------------------------------------------


def pay_parity(rollouts: Sequence[Rollout]) -> Tensor:
    """A random student earns nothing, so it is paid by the parity of what it wrote."""
    return torch.tensor([float(sum(r.ids) % 2) for r in rollouts])


@pytest.fixture
def trainer(
    student: VLM, recipe: Recipe, records: list[Sample], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., GroupTrainer]:  # fmt: skip
    monkeypatch.setattr(method, "accuracies", pay_parity)
    monkeypatch.setattr("repro.core.method.accuracies", pay_parity)

    def make(
        arm: str = "ffr", vlm: VLM = student, packed: bool = True, service: Any = None,
        name: str = "run", start: Path | None = None, **switches: Any,
    ) -> GroupTrainer:  # fmt: skip
        chosen, out = recipe.arm(arm), tmp_path / name
        out.mkdir()
        own = replace(chosen.switches, **{**SHORT, **switches})
        settings = replace(
            chosen.trainer, prompts_per_step=2, num_generations=4, max_completion_length=8,
            max_steps=1, learning_rate=1e-3,
        )  # fmt: skip
        ours = vlm.around(copy.deepcopy(vlm.model))
        return GroupTrainer(
            ours, FFR(own, 0, service), settings, own,
            Records(records, 2, 0), Prompts(ours, recipe.training_protocol), out, seed=0,
            start=start, packed=packed,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("images", [0, 2])
def test_a_step_of_mixed_contexts_is_the_plain_one(
    trainer: Callable[..., GroupTrainer], loud: VLM, images: int
) -> None:
    """Values and every gradient: old and reference log-probabilities too, under their prompts."""
    seen = []
    for packed in (True, False):
        t = trainer(vlm=loud, packed=packed, name=f"packed{packed}", patch_images=images)
        loss = t.compute_loss(t.model, {})
        loss.backward()
        grads = {n: p.grad for n, p in t.vlm.model.named_parameters() if p.grad is not None}
        seen.append((loss.item(), t.metrics, grads))
    (one, metrics, packed_grads), (other, plain_metrics, plain_grads) = seen
    assert 0 < metrics["n_repaired"] < metrics["n_rollouts"]
    assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    for name in ("reward", "kl", "mismatch", "n_repaired", "n_mended"):
        assert metrics[name] == pytest.approx(plain_metrics[name], abs=1e-4), name
    assert packed_grads.keys() == plain_grads.keys()
    for name, grad in packed_grads.items():
        torch.testing.assert_close(grad, plain_grads[name], rtol=2e-3, atol=2e-5, msg=name)


def test_repair_is_one_pass_over_the_failed_rows_and_sees_no_clip_again(
    trainer: Callable[..., GroupTrainer],
) -> None:
    t = trainer(patch_images=0)
    passes: list[int] = []
    draw = Sampler.draw
    Sampler.draw = lambda self, prompts, *rest: (passes.append(len(prompts)), draw(self, prompts, *rest))[1]  # fmt: skip  # noqa: E501
    try:
        t.train()
    finally:
        Sampler.draw = draw
    assert passes == [2, t.metrics["n_failed"]]
    plain = trainer("ffr_null", name="null")
    plain.train()
    assert t.metrics["patches"] == plain.metrics["patches"]


def test_calls_start_while_other_groups_are_sampled(
    student: VLM, prompts: Prompts, asked: Any
) -> None:
    """A prompt whose completions have ended is told while another's still grow."""
    events: list[str] = []
    forward = student.hidden

    def hidden(*args: Any, **kwargs: Any) -> Tensor:
        events.append("forward")
        return forward(*args, **kwargs)

    student.hidden = hidden  # type: ignore[method-assign]
    ends, student.ends = student.ends, tuple(range(20, 250))  # half of all tokens end a reply
    try:
        sampler = Sampler(student, Decoding(1.0, max_new_tokens=30))
        groups = sampler.groups(
            [asked.video, asked.other, asked.text], 2, [1, 2, 3], lambda g: events.append("told")
        )
    finally:
        student.ends = ends
        del student.hidden
    assert [g.prompt for g in groups] == [asked.video, asked.other, asked.text]
    assert events.count("told") == 3
    assert "forward" in events[events.index("told") :]


def test_a_dead_teacher_is_told_and_training_goes_on(trainer: Callable[..., GroupTrainer]) -> None:
    class Dead(Answers):
        def start(self, failures: Sequence[Failure]) -> Answers:
            return Answers(*(Repair("circuit_open") for _ in failures))

    t = trainer(service=Dead())
    t.train()
    assert t.state.global_step == 1 and t.metrics["teacher_down"] == 1.0
    assert "teacher" in t.metrics["alarms"] and t.metrics["n_teacher_circuit_open"] > 0


def test_the_blind_test_is_part_of_a_step(
    trainer: Callable[..., GroupTrainer], student: VLM, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The start checkpoint, frozen, is asked about every patch that the rules let pass; at a bound
    that no patch keeps, every one is refused and counted, and the rollouts stay."""
    start = tmp_path / "start"
    student.model.save_pretrained(start)
    student.processor.save_pretrained(start)
    t = trainer(start=start, blind_gain=0.15)
    t.train()
    n = t.metrics
    assert n["n_blind_tests"] > 0 and n.get("n_leak_blind", 0) == 0 and n["n_repaired"] > 0
    blind = t.method.service.gate.blind  # type: ignore[attr-defined]
    assert isinstance(blind, BlindStudent) and blind.vlm.model is not t.vlm.model
    assert not any(p.requires_grad for p in blind.vlm.model.parameters())
    monkeypatch.setattr(BlindStudent, "__call__", lambda self, case, words: float(bool(words)))
    refused = trainer(start=start, blind_gain=0.15, name="refused")
    refused.train()
    n = refused.metrics
    assert n["n_leak_blind"] == n["n_blind_tests"] == 2 * n["n_teacher_leak_rejected"] > 0
    assert "n_repaired" not in n
    with pytest.raises(ValueError, match="give `start`"):
        trainer(blind_gain=0.15, name="nowhere")


def test_no_copy_is_held_where_no_patch_is_tested(recipe: Recipe) -> None:
    paper = recipe.profile("paper")
    copies = {name: a.switches.blind_passes(a.method) > 0 for name, a in paper.arms.items()}
    assert copies["ffr"] and copies["ffr_released"]
    assert not any(copies[name] for name in ("grpo", "t_grpo", "ffr_retry", "ffr_null"))
    off = replace(paper.arm("ffr").switches, leak_gate="off")
    assert off.blind_passes("ffr") == 0
    sizes = plan.sizes_of(paper)
    held = [
        plan.train_memory(paper, paper.arm(name), sizes, 8)["optimizer"] for name in ("grpo", "ffr")
    ]
    assert sum(held[1].values()) - sum(held[0].values()) == 2 * sizes.parameters


def test_no_secret_reaches_a_run_s_folder(
    trainer: Callable[..., GroupTrainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its metrics nor the cache beside it, though every call carries the key."""
    secret = "sk-reelproof-not-a-real-key"
    monkeypatch.setenv("REPRO_TEACHER_KEY", secret)
    teacher = OpenAITeacher("m", "http://127.0.0.1:9/v1")
    cache = Cache(tmp_path / "patches.sqlite")
    with Service(teacher, Gate(), cache, Limits(tries=1)) as service:
        t = trainer(service=service)
        t.train()
    assert t.metrics["teacher_down"] == 1.0 and t.metrics["alarms"].count("teacher") == 1
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"metrics.jsonl", "patches.sqlite"}
    assert all(secret.encode() not in path.read_bytes() for path in written)
