"""repro.core.losses: every member against loops over tokens, values and gradients."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.core.advantages import group_advantages
from repro.core.losses import LossConfig, LossTerms, group_loss, k3

G, C = 4, 7
LENGTHS = (7, 4, 1, 5)
OURS = {"kl_on", "normaliser"}  # ktr.md 9; everything else carries TRL's name


def case(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs; the padding holds NaN, and one completion has no selected token."""
    draw = torch.Generator().manual_seed(seed)
    valid = torch.arange(C)[None] < torch.tensor(LENGTHS)[:, None]
    logp = -2 * torch.rand(G, C, generator=draw, dtype=torch.float64)
    weights = (torch.rand(G, C, generator=draw) < 0.5).double() * (
        0.5 + torch.rand(G, C, generator=draw, dtype=torch.float64)
    )
    weights[3] = 0
    return {
        "logp": logp.masked_fill(~valid, math.nan),
        "old_logp": logp + 0.5 * torch.randn(G, C, generator=draw, dtype=torch.float64),
        "ref_logp": (logp + torch.randn(G, C, generator=draw, dtype=torch.float64)).masked_fill(
            ~valid, math.nan
        ),
        "advantages": torch.tensor([1.2, -0.4, 0.3, -1.1], dtype=torch.float64),
        "weights": weights,
        "valid": valid,
    }


def run(
    inputs: dict[str, torch.Tensor], config: LossConfig, **more: float
) -> tuple[LossTerms, torch.Tensor]:
    inputs = dict(inputs)
    logp = inputs.pop("logp").clone().requires_grad_()
    terms = group_loss(logp, config=config, **inputs, **more)
    terms.loss.backward()
    assert logp.grad is not None
    return terms, logp.grad


def by_loops(
    inputs: dict[str, torch.Tensor], config: LossConfig, total: float | None = None
) -> tuple[float, torch.Tensor]:
    """The plain formulas, one token at a time."""
    logp = inputs["logp"].clone().requires_grad_()
    old, ref = inputs.get("old_logp"), inputs.get("ref_logp")
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    rows_policy, rows_kl, chosen, counts, valid_counts = [], [], [], [], []
    for i in range(logp.shape[0]):
        here = [t for t in range(logp.shape[1]) if inputs["valid"][i, t]]
        picked = [t for t in here if inputs["weights"][i, t] != 0]
        log_ratio = {
            t: logp[i, t] - (logp[i, t].detach() if old is None else old[i, t]) for t in picked
        }
        if config.importance_sampling_level == "sequence" and picked:
            whole = sum(log_ratio.values()) / len(picked)
            log_ratio = dict.fromkeys(picked, whole)
        policy = torch.zeros((), dtype=logp.dtype)
        for t in picked:
            ratio, a = torch.exp(log_ratio[t]), inputs["advantages"][i]
            if config.loss_type == "cispo":
                token = min(ratio.item(), high) * a * logp[i, t]
            elif a >= 0:
                token = a * (ratio if ratio <= 1 + high else 1 + high)
            else:
                token = a * (ratio if ratio >= 1 - config.epsilon else 1 - config.epsilon)
            policy = policy - inputs["weights"][i, t] * token
        kl = torch.zeros((), dtype=logp.dtype)
        for t in picked if config.kl_on == "selected" else here:
            if ref is not None:
                d = ref[i, t] - logp[i, t]
                d = d if abs(d.item()) <= 10 else torch.tensor(math.copysign(10.0, d.item()))
                scale = inputs["weights"][i, t] if config.kl_on == "selected" else 1.0
                kl = kl + scale * (torch.exp(d) - d - 1)
        rows_policy.append(policy)
        rows_kl.append(kl)
        chosen.append(len(picked))
        valid_counts.append(len(here))
        counts.append(len(picked) if config.normaliser == "selected" else len(here))
    kl_counts = counts if config.kl_on == "selected" else valid_counts

    def over(rows: list[torch.Tensor], n: list[int]) -> torch.Tensor:
        if config.loss_type == "grpo":
            return sum(r / max(1, k) for r, k in zip(rows, n, strict=True)) / len(rows)
        if config.loss_type == "dr_grpo":
            return sum(rows) / (len(rows) * config.max_completion_length)
        return sum(rows) / max(1, sum(n) if total is None else total)

    loss = over(rows_policy, counts) + config.beta * over(rows_kl, kl_counts)
    loss.backward()
    return loss.item(), logp.grad


CONFIGS = [
    LossConfig(
        loss_type=loss_type,
        importance_sampling_level=level,
        kl_on=kl_on,
        normaliser=normaliser,
        epsilon=0.2,
        epsilon_high=1.1 if loss_type == "cispo" else 0.28,
        max_completion_length=16,
    )
    for loss_type, level, kl_on, normaliser in itertools.product(
        ("grpo", "dr_grpo", "bnpo", "dapo", "cispo"),
        ("token", "sequence"),
        ("selected", "valid"),
        ("selected", "valid"),
    )
]


@pytest.mark.parametrize("off_policy", [False, True], ids=["old=None", "old"])
@pytest.mark.parametrize(
    "config",
    CONFIGS,
    ids=lambda c: f"{c.loss_type}-{c.importance_sampling_level}-{c.kl_on}-{c.normaliser}",
)
def test_against_loops(config: LossConfig, off_policy: bool) -> None:
    inputs = case()
    if not off_policy:
        del inputs["old_logp"]
    terms, grad = run(inputs, config)
    expected, expected_grad = by_loops(inputs, config)
    assert terms.loss.item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(grad, expected_grad.nan_to_num(0.0))
    assert (terms.policy + config.beta * terms.kl).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo", "cispo"])
def test_total_tokens_makes_the_batch_loss_a_sum_over_groups(loss_type: str) -> None:
    config = LossConfig(loss_type=loss_type, epsilon_high=2.0)
    first, second = case(1), case(2)
    total = float(first["valid"].sum() + second["valid"].sum())
    parts = [run(c, config, total_tokens=total) for c in (first, second)]
    together = {k: torch.cat([first[k], second[k]]) for k in first}
    whole, grad = run(together, config)
    assert (parts[0][0].loss + parts[1][0].loss).item() == pytest.approx(whole.loss.item())
    torch.testing.assert_close(torch.cat([parts[0][1], parts[1][1]]), grad)


# --- the papers' vectors -----------------------------------------------------------------------


def test_k3_vector() -> None:
    ref = torch.tensor([0.0, 1.0, -1.0, 20.0], dtype=torch.float64)
    values = k3(ref, torch.zeros(4, dtype=torch.float64))
    assert values.tolist() == pytest.approx([0, 0.718282, 0.367879, 22015.4658], abs=1e-4)


def _gap(k: float) -> float:
    """d > 0 with exp(d) - d - 1 = k, by bisection."""
    low, high = 0.0, 5.0
    for _ in range(80):
        d = (low + high) / 2
        low, high = (d, high) if math.exp(d) - d - 1 < k else (low, d)
    return d


@pytest.mark.parametrize(("normaliser", "expected"), [("selected", 0.0100), ("valid", -0.05475)])
def test_loss_vector_of_the_paper_document(normaliser: str, expected: float) -> None:
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    weights = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    logp = torch.full((2, 4), -1.0)
    ref = logp.clone()
    ref[0, 2] += _gap(0.5)
    ref[1, 1] += _gap(0.25)
    inputs = {
        "logp": logp, "ref_logp": ref, "weights": weights, "valid": valid,
        "advantages": group_advantages(torch.tensor([2.0, 1.0])),
    }  # fmt: skip
    terms, _ = run(inputs, LossConfig(normaliser=normaliser))
    assert terms.loss.item() == pytest.approx(expected, abs=2e-5)
    assert float(terms.kept) == pytest.approx(3 / 7)
    # The comparable KL is the mean over valid tokens, whatever the loss is normalised by.
    assert float(terms.kl_valid) == pytest.approx((0.5 / 4 + 0.25 / 3) / 2, abs=1e-5)


def test_gradient_by_hand_with_a_ratio_of_one() -> None:
    """d loss / d lp_it = -w (A - beta (1 - exp d)) / (G n_i)."""
    inputs = case()
    del inputs["old_logp"]
    _, grad = run(inputs, LossConfig(beta=0.04))
    valid, n = inputs["valid"], inputs["valid"].sum(1, keepdim=True)
    d = (inputs["ref_logp"] - inputs["logp"]).nan_to_num(0.0)
    pull = inputs["advantages"][:, None] - 0.04 * (1 - torch.exp(d))
    expected = torch.where(valid, -inputs["weights"] * pull / (G * n), 0.0)
    torch.testing.assert_close(grad, expected)


# --- what KTR relies on ------------------------------------------------------------------------


@pytest.mark.parametrize("kl_on", ["selected", "valid"])
@pytest.mark.parametrize("normaliser", ["selected", "valid"])
@given(seed=st.integers(0, 2**31), old=st.booleans())
@settings(max_examples=20, deadline=None)
def test_weights_of_one_are_plain_grpo_exactly(
    kl_on: str, normaliser: str, seed: int, old: bool
) -> None:
    inputs = case(seed)
    inputs["weights"] = torch.ones(G, C, dtype=torch.float64)
    if not old:
        del inputs["old_logp"]
    terms, grad = run(inputs, LossConfig(kl_on=kl_on, normaliser=normaliser))

    logp = inputs["logp"].clone().requires_grad_()
    lp, valid = torch.where(inputs["valid"], logp, 0.0), inputs["valid"]
    anchor = torch.where(valid, inputs["old_logp"], 0.0) if old else lp.detach()
    ratio, a = torch.exp(lp - anchor), inputs["advantages"][:, None]
    surrogate = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
    d = torch.where(valid, inputs["ref_logp"], 0.0) - lp
    k = torch.exp(d) - d - 1
    n = valid.sum(1)
    plain = (-(surrogate * valid).sum(1) / n).mean() + 0.04 * ((k * valid).sum(1) / n).mean()
    plain.backward()
    assert terms.loss.item() == plain.item()
    assert torch.equal(grad, logp.grad)
    assert terms.kept.item() == 1


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.loss_type}-{c.kl_on}-{c.normaliser}")
@pytest.mark.parametrize("empty", ["weights", "valid"])
def test_an_empty_selection_gives_no_nan(config: LossConfig, empty: str) -> None:
    inputs = case()
    inputs[empty] = torch.zeros_like(inputs[empty])
    terms, grad = run(inputs, config)
    assert terms.policy.item() == 0
    assert all(math.isfinite(v.item()) for v in vars(terms).values())
    assert bool(torch.isfinite(grad).all())
    if empty == "valid" or config.kl_on == "selected":
        assert terms.loss.item() == 0
        assert not bool(grad.any())


@given(seed=st.integers(0, 2**31), rate=st.floats(0, 1), config=st.sampled_from(CONFIGS))
@settings(max_examples=60, deadline=None)
def test_dropped_tokens_get_no_gradient(seed: int, rate: float, config: LossConfig) -> None:
    config = dataclasses.replace(config, kl_on="selected")
    inputs = case(seed)
    keep = torch.rand(G, C, generator=torch.Generator().manual_seed(seed)) < rate
    inputs["weights"] = keep.double()
    terms, grad = run(inputs, config)
    assert math.isfinite(terms.loss.item())
    assert not bool(grad[~(keep & inputs["valid"])].any())


def test_an_exploded_ratio_of_a_dropped_token_does_no_harm() -> None:
    inputs = case()
    inputs["weights"] = torch.ones(G, C, dtype=torch.float64)
    inputs["weights"][0, 1] = 0
    expected, expected_grad = run(inputs, LossConfig(normaliser="selected"))
    inputs["old_logp"] = inputs["old_logp"].clone()
    inputs["old_logp"][0, 1] = -1e6
    terms, grad = run(inputs, LossConfig(normaliser="selected"))
    assert terms.loss.item() == expected.loss.item()
    assert torch.equal(grad, expected_grad)


def test_clip_share_counts_selected_tokens_whose_gradient_is_cut() -> None:
    # Ratios e and 1/e: with A > 0 only the first is cut, with A < 0 only the second.
    logp = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    old = torch.tensor([[-1.0, 1.0, 0.0, -1.0], [-1.0, 1.0, 0.0, -1.0]])
    weights = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0]])
    inputs = {
        "logp": logp, "old_logp": old, "weights": weights,
        "valid": torch.ones(2, 4, dtype=torch.bool), "advantages": torch.tensor([1.0, -1.0]),
    }  # fmt: skip
    terms, grad = run(inputs, LossConfig(beta=0))
    assert float(terms.clip_share) == pytest.approx(2 / 6)
    assert (grad == 0).tolist() == [[True, False, False, True], [False, True, False, True]]
    assert terms.kl is None
    assert terms.kl_valid is None
    capped, _ = run(inputs, LossConfig(beta=0, loss_type="cispo", epsilon_high=2.0))
    assert float(capped.clip_share) == pytest.approx(1 / 6)


def test_only_the_loss_carries_a_gradient() -> None:
    inputs = case()
    logp = inputs.pop("logp").requires_grad_()
    weights = inputs.pop("weights").requires_grad_()
    advantages = inputs.pop("advantages").requires_grad_()
    terms = group_loss(logp, config=LossConfig(), weights=weights, advantages=advantages, **inputs)
    assert terms.loss.requires_grad
    detached = (terms.policy, terms.kl, terms.kl_valid, terms.clip_share, terms.kept)
    assert not any(t.requires_grad for t in detached)
    terms.loss.backward()
    assert weights.grad is None
    assert advantages.grad is None


# --- misuse ------------------------------------------------------------------------------------


def test_config_is_checked() -> None:
    for wrong in (
        {"loss_type": "ppo"}, {"kl_on": "all"}, {"normaliser": "group"}, {"loss_type": "cispo"},
        {"importance_sampling_level": "group"}, {"max_completion_length": 0},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            LossConfig(**wrong)


def test_inputs_are_checked() -> None:
    good = case()
    wrong = [
        ({"ref_logp": None}, LossConfig(), {}),
        ({"weights": good["weights"][:, :3]}, LossConfig(), {}),
        ({"advantages": good["advantages"][:2]}, LossConfig(), {}),
        ({"valid": good["valid"].float()}, LossConfig(), {}),
        (
            {},
            LossConfig(loss_type="dapo", kl_on="valid", normaliser="selected"),
            {"total_tokens": 9.0},
        ),
    ]
    for change, config, more in wrong:
        with pytest.raises(ValueError):
            run({**good, **change}, config, **more)


def test_every_config_field_is_trls_or_declared_ours() -> None:
    pytest.importorskip("trl")
    from evals import _torchvision

    _torchvision.install()
    from trl import GRPOConfig

    trls = {field.name for field in dataclasses.fields(GRPOConfig)}
    mine = {field.name for field in dataclasses.fields(LossConfig)}
    assert mine - OURS <= trls
    assert not OURS & trls
    assert "scale_rewards" in trls  # advantages.py's modes carry its name
