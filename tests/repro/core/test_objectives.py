"""What a batch may become: several steps, several parts, drawn again, or trained by adapters."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from evals.errors import BadInput, EnvironmentFault
from evals.vlm import VLM, load
from repro.arm import train_arm
from repro.core import lora
from repro.core.checkpoint import latest
from repro.core.losses import entropy_mask
from repro.core.method import Method, Rewards
from repro.core.stages import Stage
from repro.core.trainer import GroupTrainer
from repro.core.types import Group, TokenScores
from repro.recipe import Recipe
from tests.repro.core.conftest import parities

Make = Callable[..., GroupTrainer]


def rows_of(trainer: GroupTrainer) -> list[dict[str, Any]]:
    text = (trainer.out / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def weights_of(trainer: GroupTrainer) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in trainer.vlm.model.named_parameters()}


# --- several optimizer steps on one batch ------------------------------------------------------


def plain_objective(logp: Tensor, old: Tensor, gains: Tensor, valid: Tensor, kind: str) -> Tensor:
    """The objectives from their papers, a token at a time: PPO clip 0.2 (grpo), DAPO's 0.28 above,
    CISPO's capped ratio of 1.1, GSPO's ratio of whole completions."""
    each, tokens = [], 0
    for row in range(len(logp)):
        n, a = int(valid[row].sum()), gains[row]
        ratio = torch.exp(logp[row, :n] - old[row, :n])
        if kind == "gspo":
            ratio = torch.exp((logp[row, :n] - old[row, :n]).sum() / n).expand(n)
        if kind == "cispo":
            gain = ratio.clamp(max=1.1).detach() * a * logp[row, :n]
        else:
            high = 1.28 if kind == "dapo" else 1.2
            gain = torch.minimum(ratio * a, ratio.clamp(0.8, high) * a)
        each.append(gain.sum())
        tokens += n
    if kind in ("dapo", "cispo"):
        return -torch.stack(each).sum() / tokens
    return -(torch.stack(each) / valid.sum(1)).mean()


SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.1},
    "gspo": {"importance_sampling_level": "sequence"},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_second_step_uses_the_first_one_s_rollouts_and_log_probabilities(
    trainer: Make, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the plain formula, on the log-probabilities that the trainer itself used."""
    t = trainer(
        "grpo", steps=4, num_iterations=2, save_steps=2, beta=0.0, prompts_per_step=1,
        learning_rate=3e-2, **SETTINGS[kind],
    )  # fmt: skip
    seen: list[tuple[Any, Tensor, Tensor]] = []
    own = GroupTrainer._loss

    def spy(self: GroupTrainer, scored: Any, logp: Tensor, old: bool) -> Any:
        loss, measured = own(self, scored, logp, old)
        seen.append((scored, logp.detach().clone(), loss.detach().clone()))
        return loss, measured

    monkeypatch.setattr(GroupTrainer, "_loss", spy)
    t.train()
    assert [s[0] is seen[0][0] for s in seen] == [True, True, False, False]
    for scored, logp, loss in seen:
        valid, old = scored.scores[0].valid, scored.logp
        wanted = plain_objective(logp, old, scored.gains[0].float(), valid, kind)
        assert float(loss) == pytest.approx(float(wanted), abs=1e-6)
    assert torch.equal(seen[0][1], seen[0][0].logp) and not torch.equal(seen[1][1], seen[0][1])
    rows = rows_of(t)
    assert rows[0]["clip_share"] == 0 < rows[1]["clip_share"]
    assert rows[0]["tokens"] > rows[1]["tokens"] > 0  # no sampling, one pass


def test_a_run_stops_and_saves_between_batches_alone(trainer: Make) -> None:
    t = trainer("grpo", steps=4, num_iterations=2, save_steps=2)
    assert t.between_batches
    t.state.global_step = 1
    assert not t.between_batches


def test_a_run_that_is_to_stop_within_a_batch_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    arm = recipe.arm("grpo")
    twice = replace(arm, trainer=replace(arm.trainer, num_iterations=2))
    out = tmp_path / "run"
    with pytest.raises(BadInput, match="--until 3 must be a multiple of num_iterations 2"):
        train_arm(replace(recipe, arms={"grpo": twice}), "grpo", 0, out, steps=4, until=3)
    assert not out.exists()


# --- several parts of a step -------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["grpo", "ktr"])
def test_accumulated_parts_are_the_step(trainer: Make, arm: str) -> None:
    runs = {}
    for parts in (1, 2):
        t = trainer(arm, steps=1, gradient_accumulation_steps=parts)
        t.train()
        runs[parts] = (weights_of(t), rows_of(t)[0])
    (whole, row), (split, other) = runs[1], runs[2]
    assert other["loss"] == pytest.approx(row["loss"], abs=1e-6)
    assert other["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-4)
    assert other["reward"] == pytest.approx(row["reward"])
    assert other["patches"] == row["patches"]
    for name in whole:
        torch.testing.assert_close(split[name], whole[name], rtol=0, atol=2e-4)


# --- groups that teach nothing -----------------------------------------------------------------


class Sometimes(Method):
    """Completions about the records in `late` are paid by parity, all others earn nothing."""

    late: ClassVar[set[str]] = set()

    def rewards(self, group: Group) -> Rewards:
        parts = parities(group)
        late = float(group.prompt.record.id in self.late)
        return {name: value * late for name, value in parts.items()}


def test_groups_of_equal_rewards_are_drawn_again(trainer: Make) -> None:
    flat = trainer("grpo", steps=1, prompts_per_step=2)
    first = [r.id for r in flat.collector.pool.draw(0)]
    Sometimes.late = {r.id for b in (1, 2) for r in flat.collector.pool.draw(b)} - set(first)
    runs = {}
    for again in (0, 2):
        t = trainer("grpo", steps=1, method=Sometimes, paid=False, dynamic_sampling=again)
        t.train()
        runs[again] = rows_of(t)[0]
    assert runs[0]["zero_std"] == 1 and runs[0]["resampled"] == 0
    assert runs[2]["zero_std"] < 1 and runs[2]["resampled"] >= 2


def test_what_stays_flat_is_kept_and_counted(trainer: Make) -> None:
    class Never(Method):
        def rewards(self, group: Group) -> Rewards:
            return {"accuracy": torch.zeros(len(group.rollouts))}

    t = trainer("grpo", steps=1, method=Never, paid=False, dynamic_sampling=3, beta=0.0)
    t.train()
    row = rows_of(t)[0]
    assert row["zero_std"] == 1 and row["resampled"] == 6 and row["loss"] == 0


def test_counterfactual_passes_of_flat_groups_can_be_skipped(trainer: Make) -> None:
    class Never(Method):
        needs = frozenset({"visual", "temporal"})

        def rewards(self, group: Group) -> Rewards:
            return {"accuracy": torch.zeros(len(group.rollouts))}

        def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
            assert scores.visual is not None
            return scores.valid.float()

    rows = {}
    for flat in ("score", "skip"):
        t = trainer("ktr", steps=1, method=Never, paid=False, switches={"flat_groups": flat})
        t.train()
        rows[flat] = rows_of(t)[0]
    assert rows["skip"]["tokens"] < rows["score"]["tokens"]
    assert rows["skip"]["patches"] < rows["score"]["patches"]
    assert rows["skip"]["loss"] == rows["score"]["loss"]


# --- the entropy quantile ----------------------------------------------------------------------


def test_the_entropy_mask_by_hand() -> None:
    entropy = [torch.tensor([[0.1, 0.9, 9.0], [0.5, 0.4, 0.3]]), torch.tensor([[0.7, 0.2, 0.8]])]
    valid = [torch.tensor([[1, 1, 0], [1, 1, 1]]).bool(), torch.ones(1, 3).bool()]
    masks = entropy_mask(entropy, valid, 0.25)
    # The 0.75 quantile of 0.1 0.2 0.3 0.4 0.5 0.7 0.8 0.9 lies at 0.725.
    assert masks[0].tolist() == [[0, 1, 0], [0, 0, 0]] and masks[1].tolist() == [[0, 0, 1]]
    everything = entropy_mask(entropy, valid, 1.0)
    assert everything[0].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_the_entropy_quantile_drops_tokens_from_the_policy_term_alone(trainer: Make) -> None:
    kept = {"kl_on": "valid", "normaliser": "valid"}
    rows = {}
    for share in (1.0, 0.2):
        t = trainer("grpo", steps=2, top_entropy_quantile=share, switches=kept)
        t.train()
        rows[share] = rows_of(t)
    assert rows[0.2][0]["grad_norm"] != rows[1.0][0]["grad_norm"]
    assert rows[0.2][0]["kept"] == 1  # what the method kept; the quantile is TRL's


# --- adapters ----------------------------------------------------------------------------------


def test_lora_trains_adapters_resumes_and_merges(
    trainer: Make, student: VLM, tmp_path: Path
) -> None:
    def make() -> GroupTrainer:
        vlm = lora.adapted(student.around(copy.deepcopy(student.model)), r=4, alpha=8, seed=0)
        return trainer("grpo", steps=4, save_steps=2, lora=vlm)

    t = make()
    before = weights_of(t)
    t.train()
    moved = {n for n, p in weights_of(t).items() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in name for name in moved)
    saved = latest(t.out)
    assert saved is not None and (saved / "adapter_model.safetensors").exists()
    assert not list(saved.glob("model*.safetensors"))
    assert t.reference is t.vlm and rows_of(t)[0]["kl"] == 0 < rows_of(t)[-1]["kl"]
    adapters = {n: p for n, p in weights_of(t).items() if "lora_" in n}
    again = make()
    lora.load_adapters(again.vlm.model, saved)
    assert all(torch.equal(weights_of(again)[n], p) for n, p in adapters.items())
    prompt = t.prompts.build(t.collector.pool.draw(0)[0]).encoded
    with torch.no_grad():
        wanted = hidden_of(t.vlm, prompt)
    t.save_final(tmp_path / "final")
    plain = load(tmp_path / "final")
    with torch.no_grad():
        torch.testing.assert_close(hidden_of(plain, prompt), wanted, rtol=1e-4, atol=1e-4)


def hidden_of(vlm: VLM, prompt: Any) -> Tensor:
    vlm.model.eval()
    features = vlm.features([prompt])[0]
    return vlm.run(prompt.ids[None], features, prompt.positions[:, None], None)


# --- memory ------------------------------------------------------------------------------------


def test_running_out_of_memory_names_the_stage_and_the_knob(trainer: Make) -> None:
    class Greedy(Method):
        def token_weights(self, group: Group, scores: TokenScores) -> Tensor:
            return torch.zeros(1 << 50)  # no machine has four petabytes

    with pytest.raises(EnvironmentFault, match="'counterfactual passes': try a lower max_frames"):
        trainer("grpo", method=Greedy).train()
    with pytest.raises(ValueError, match="unknown stage"):
        Stage()("lunch")


def test_memory_that_runs_out_before_or_beside_a_step_is_named(
    trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*args: Any, **kwargs: Any) -> Any:
        return torch.zeros(1 << 50)

    monkeypatch.setattr(GroupTrainer, "_make_reference", greedy)
    with pytest.raises(EnvironmentFault, match="'start': try use_peft: true"):
        trainer("grpo")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),  # outside of torch's own allocator
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:126] data. DefaultCPUAllocator: can't "
                     "allocate memory: you tried to allocate 4503599627370496 bytes."),
        MemoryError("Unable to allocate 7.00 GiB for an array"),  # numpy: frames and pixels
    ],
)  # fmt: skip
def test_every_way_to_say_that_memory_ran_out(error: Exception) -> None:
    said = "out of memory in the stage 'sampling'"
    with pytest.raises(EnvironmentFault, match=said), Stage("sampling").named():
        raise error
    with pytest.raises(RuntimeError, match="size mismatch"), Stage().named():
        raise RuntimeError("size mismatch")
