"""repro.mvp.rewards against the golden vectors of mvp.md 11.3, its chances, and any text."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import BadInput
from repro.mvp.rewards import Marks, chance, form, marks, ordering_reward, parse, parts
from repro.mvp.switches import Weights

FOUR, THREE, TWO = (3, 7, 1, 5), (2, 6, 4), (4, 1)
WEIGHTS = Weights()


def reward(found: Marks, rule: str = "graded") -> float:
    return sum(parts(found, rule, WEIGHTS).values())


@pytest.mark.parametrize(
    ("said", "sel", "ord_", "exact", "task", "slot", "lcs", "vj"),
    [
        ((3, 7, 1, 5), 1, 1, 1, 1.0, 1, 1, 1),
        ((3, 1, 7, 5), 1, 5 / 6, 0, 0.55, 0.5, 0.75, 0.1),
        ((3, 7, 1, 2), 0.75, 0.5, 0, 0.375, 0.75, 0.75, 0.15),
        ((2, 3, 7, 1), 0.75, 0.5, 0, 0.375, 0, 0.75, 0),
        ((5, 1, 7, 3), 1, 0, 0, 0.3, 0, 0.25, 0),
        ((5, 7, 2, 4), 0.5, 0, 0, 0.15, 0.25, 0.25, 0.05),
        ((2, 4, 6, 8), 0, 0, 0, 0, 0, 0, 0),
        ((3, 7, 1), 0, 0, 0, 0, 0, 0, 0),
        ((3, 7, 1, 5, 2), 0, 0, 0, 0, 0, 0, 0),
        ((3, 3, 7, 1), 0, 0, 0, 0, 0, 0, 0),
        ((3, 7, 1, 9), 0, 0, 0, 0, 0, 0, 0),
        ((3, 7, 1, 0), 0, 0, 0, 0, 0, 0, 0),
        (None, 0, 0, 0, 0, 0, 0, 0),
    ],
)
def test_golden_vectors_of_four(
    said: tuple[int, ...] | None, sel: float, ord_: float, exact: float, task: float, slot: float,
    lcs: float, vj: float,
) -> None:  # fmt: skip
    found = marks(said, FOUR, 8)
    assert (found.sel, found.ord, found.exact) == pytest.approx((sel, ord_, exact))
    assert reward(found) == pytest.approx(0.9 * task)
    for rule, value in (("slot", slot), ("lcs", lcs), ("vj", vj), ("exact", exact)):
        assert reward(found, rule) == pytest.approx(0.9 * value), rule


@pytest.mark.parametrize(
    ("said", "gold", "candidates", "task"),
    [
        ((2, 6, 4), THREE, 6, 1.0), ((6, 2, 4), THREE, 6, 0.5), ((4, 6, 2), THREE, 6, 0.3),
        ((2, 6, 1), THREE, 6, 0.3), ((1, 2, 6), THREE, 6, 0.3), ((2, 1, 6), THREE, 6, 0.3),
        ((1, 3, 5), THREE, 6, 0.0), ((4, 1), TWO, 4, 1.0), ((1, 4), TWO, 4, 0.3),
        ((4, 2), TWO, 4, 0.15), ((2, 4), TWO, 4, 0.15), ((2, 1), TWO, 4, 0.15),
        ((2, 3), TWO, 4, 0.0), ((2,), (2,), 4, 1.0), ((1,), (2,), 4, 0.0),
    ],
)  # fmt: skip
def test_golden_vectors_of_fewer(
    said: tuple[int, ...], gold: tuple[int, ...], candidates: int, task: float
) -> None:
    assert reward(marks(said, gold, candidates)) == pytest.approx(0.9 * task)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("<answer>3, 7, 1, 5</answer>", FOUR), ("<answer>[3 7 1 5]</answer>", FOUR),
        ("<answer> 3,7,\n1 ,5 </answer>", FOUR),
        ("<answer>1</answer> no: <answer>3, 7, 1, 5</answer>", FOUR),
        ("<think><answer>1, 2</answer></think><answer>3,7,1,5</answer>", FOUR),
        ("<answer>3, 7, 1, 5", None), ("<answer>3, 7, 1, five</answer>", None),
        ("<answer>3; 7; 1; 5</answer>", None), ("<answer>3,, 7</answer>", None),
        ("<answer>[3, 7</answer>", None), ("<answer>-3, 7</answer>", None),
        ("<answer>3.0, 7</answer>", None), ("<answer></answer>", None), ("3, 7, 1, 5", None),
        ("<answer>" + "9" * 5000 + "</answer>", None), ("<answer>٣, 7</answer>", None),
    ],
)  # fmt: skip
def test_only_a_plain_list_of_numbers_is_read(reply: str, said: tuple[int, ...] | None) -> None:
    assert parse(reply) == said


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        (" <think>a</think>\n<answer>1</answer>\n", 1), ("<answer>1</answer>", 0),
        ("<think>a</think><answer>1</answer><answer>2</answer>", 0),
        ("<think>a<think>b</think><answer>1</answer>", 0),
        ("<think>a</think> so <answer>1</answer>", 0),
    ],
)  # fmt: skip
def test_form(completion: str, kept: float) -> None:
    assert form(completion) == kept


def test_the_reward_in_trls_signature() -> None:
    said = ["<think>a</think><answer>3, 7, 1, 5</answer>", "<answer>3, 1, 7, 5</answer>", "?"]
    given_ = ordering_reward(
        [], [*said[:2], [{"role": "assistant", "content": said[2]}]],
        solution=["<answer>3, 7, 1, 5</answer>"] * 3, candidates=[8] * 3,
    )  # fmt: skip
    assert given_ == pytest.approx([1.0, 0.495, 0.0])


@pytest.mark.parametrize(("k", "m"), [(1, 4), (2, 4), (3, 6), (4, 8)])
def test_chance_is_the_mean_over_all_valid_answers(k: int, m: int) -> None:
    gold = tuple(range(m, m - k, -1))
    every = [marks(said, gold, m) for said in itertools.permutations(range(1, m + 1), k)]
    expected = chance(k, m)
    for name in ("valid", "sel", "ord", "exact", "slot"):
        assert fmean(getattr(x, name) for x in every) == pytest.approx(getattr(expected, name))


@pytest.mark.parametrize("gold", [(), (1, 1), (0, 1), (1, 9)])
def test_a_gold_must_be_an_ordered_choice(gold: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="no ordered choice"):
        marks((1, 2), gold, 8)


ITEMS = st.integers(1, 5).flatmap(
    lambda k: st.tuples(st.permutations(range(1, 2 * k + 1)).map(lambda p: tuple(p[:k])),
                        st.just(2 * k))
)  # fmt: skip


@given(item=ITEMS, said=st.lists(st.integers(-1, 12), max_size=12))
def test_rewards_are_bounded_and_only_the_gold_earns_all(
    item: tuple[tuple[int, ...], int], said: list[int]
) -> None:
    gold, m = item
    found = marks(said, gold, m)
    for rule in ("graded", "exact", "slot", "lcs", "vj"):
        assert 0 <= reward(found, rule) <= 0.9 + 1e-9
        assert (reward(found, rule) == pytest.approx(0.9)) == (tuple(said) == gold)
    if len(said) != len(gold) or len(set(said)) < len(said):
        assert found == Marks()


@given(item=ITEMS, data=st.data())
def test_renaming_the_candidates_changes_nothing(
    item: tuple[tuple[int, ...], int], data: st.DataObject
) -> None:
    gold, m = item
    said = data.draw(st.permutations(range(1, m + 1)))[: len(gold)]
    name = data.draw(st.permutations(range(1, m + 1)))
    renamed = [name[y - 1] for y in said], [name[g - 1] for g in gold]
    assert marks(said, gold, m) == marks(*renamed, m)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    said = parse(f"<answer>{text}</answer>")
    assert said is None or all(y >= 0 for y in said)
    assert form(text) in (0.0, 1.0)
