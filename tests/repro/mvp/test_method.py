"""repro.mvp.method: which records a step trains on, what a group earns, what is told about it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from evals.errors import BadInput
from evals.types import Sample
from repro.core.data import Records
from repro.core.types import Group, Prompt, Rollout
from repro.mvp.method import KIND, METHODS, MVP
from repro.mvp.switches import Curriculum, Switches, Weights
from repro.strict import Reader

GOLDS = {2: "4, 1", 3: "2, 6, 4", 4: "3, 7, 1, 5"}


def item(k: int, n: int = 0) -> Sample:
    facts = {"candidates": str(2 * k)}
    return Sample(f"{k}-{n}", "Which?", KIND, GOLDS[k], "text", None, facts=facts)


def question(n: int = 0) -> Sample:
    return Sample(f"q{n}", "Which?", "multiple choice", "B", "text", None, ("A. a", "B. b"))


def pool(per_step: int = 4) -> Records:
    made = [item(k, n) for k in GOLDS for n in range(7)] + [question(n) for n in range(9)]
    return Records(made, per_step, 0)


def kinds(method: MVP, step: int, records: Records) -> Counter[int]:
    drawn = method.records(step, records)
    return Counter(len(r.gold.split(",")) if r.kind == KIND else 0 for r in drawn)


def group(record: Sample, *texts: str) -> Group:
    prompt = Prompt(record, None, None)  # type: ignore[arg-type]  # rewards look at texts alone
    return Group(prompt, tuple(Rollout(prompt, prompt, (1,), text, True) for text in texts))


def said(answer: str) -> str:
    return f"<think>so</think><answer>{answer}</answer>"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_the_share_of_masked_prediction(share: float) -> None:
    method = MVP(Switches(share=share, curriculum=Curriculum(steps=5)), 3)
    total = sum((kinds(method, step, pool()) for step in range(20)), Counter())
    assert sum(n for k, n in total.items() if k) == round(80 * share)
    assert total.total() == 80


def test_the_curriculum_climbs_and_carries() -> None:
    method = MVP(Switches(share=1.0, curriculum=Curriculum((2, 3, 4), steps=40, carry=0.2)), 1)
    first, second, third = (
        sum((kinds(method, s, pool()) for s in range(a, a + 40)), Counter()) for a in (0, 40, 80)
    )
    assert set(first) == {2} and set(second) == {2, 3} and set(third) == {3, 4}
    assert 0.1 < second[2] / second.total() < 0.3  # 160 draws at 0.2
    assert kinds(method, 10**6, pool())[2] == 0


def test_a_step_is_the_same_whatever_was_drawn_before() -> None:
    switches = Switches(share=0.5, curriculum=Curriculum(steps=3))
    one, other = MVP(switches, 5), MVP(switches, 5)
    walked = [one.records(step, pool()) for step in range(8)]
    assert [other.records(step, pool()) for step in (7, 2)] == [walked[7], walked[2]]
    assert MVP(switches, 6).records(7, pool()) != walked[7]


def test_what_is_lacking_is_named() -> None:
    only = Records([item(2)], 2, 0)
    with pytest.raises(BadInput, match="no questions"):
        MVP(Switches(share=0.5)).records(0, only)
    with pytest.raises(BadInput, match="K = 3"):
        MVP(Switches(share=1.0, curriculum=Curriculum((3,)))).records(0, only)


def test_parts_of_a_reward_are_logged_apart() -> None:
    method = MVP(Switches())
    asked = group(item(4), said("3, 7, 1, 5"), said("3, 1, 7, 5"), "<answer>3, 7, 1, 2</answer>")
    rewards = method.rewards(asked)
    assert list(rewards) == ["selection", "order", "exact", "form"]
    assert sum(rewards.values()).tolist() == pytest.approx([1.0, 0.595, 0.3375])
    told = method.measure(asked, rewards)
    assert told["format"] == pytest.approx(2 / 3)
    assert told["mvp/exact"] == told["mvp/exact@4"] == pytest.approx(1 / 3)
    assert told["mvp/valid"] == 1
    shares = {n: v for n, v in told.items() if n.startswith("variance/")}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["variance/exact"] > shares["variance/selection"]


def test_a_group_of_equal_rewards_has_no_shares() -> None:
    method = MVP(Switches())
    asked = group(item(2), said("4, 1"), said("4, 1"))
    told = method.measure(asked, method.rewards(asked))
    assert not any(name.startswith("variance/") for name in told)


def test_questions_earn_by_their_own_kind() -> None:
    method = MVP(Switches())
    asked = group(question(), said("B"), said("A"), "<answer>B</answer>")
    rewards = method.rewards(asked)
    assert sum(rewards.values()).tolist() == pytest.approx([1.0, 0.1, 0.9])
    assert "mvp/sel" not in method.measure(asked, rewards)


@pytest.mark.parametrize("rule", ["exact", "slot", "lcs", "vj"])
def test_alternatives(rule: str) -> None:
    method = MVP(Switches(rule=rule, weights=Weights(answer=1.0, form=0.0)))  # type: ignore[arg-type]
    rewards = method.rewards(group(item(4), said("3, 7, 1, 5"), said("2, 3, 7, 1")))
    assert list(rewards) == [rule, "form"]
    other = {"exact": 0, "slot": 0, "lcs": 0.75, "vj": 0}[rule]
    assert sum(rewards.values()).tolist() == pytest.approx([1.0, other])


def test_every_method_that_a_recipe_may_name_is_there() -> None:
    assert set(METHODS) == set(Switches.methods)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("share", {"value": 1.5, "source": "chosen"}, "share must lie"),
        ("rule", {"value": "graded!", "source": "chosen"}, "expected one of graded"),
        ("curriculum", {"tiers": {"value": [3, 2], "source": "chosen"}}, "ascending"),
        ("curriculum", {"carry": {"value": 1.0, "source": "chosen"}}, "carry must lie"),
        ("length_bonus", {"bonus": {"value": 0.2, "source": "chosen"},
                          "window": {"value": [1, 2], "source": "chosen"},
                          "length": {"value": "valid", "source": "chosen"}}, "no length bonus"),
    ],
)  # fmt: skip
def test_switches_are_read_strictly(key: str, value: object, why: str) -> None:
    reader = Reader(Path("r.yaml"), {})
    defaults = {
        "weights": {n: {"value": 0.5, "source": "chosen"} for n in Weights.__annotations__},
        "curriculum": {"tiers": {"value": [2], "source": "chosen"},
                       "steps": {"value": 1, "source": "chosen"},
                       "carry": {"value": 0.0, "source": "chosen"}},
        "length_bonus": {"bonus": {"value": 0.0, "source": "chosen"},
                         "window": {"value": [0, 0], "source": "chosen"},
                         "length": {"value": "valid", "source": "chosen"}},
    }  # fmt: skip
    given = {**defaults, key: {**defaults[key], **value} if key in defaults else value}  # type: ignore[dict-item]
    assert reader.read(Switches, defaults, "switches").share == 0.5
    with pytest.raises(BadInput, match=why):
        reader.read(Switches, given, "switches")
