"""evals.aggregate: every number against a small table worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.aggregate import METRICS, aggregate, headline
from evals.benchmarks import Card
from evals.errors import BadInput
from evals.types import Protocol, Row

PLAIN = Protocol("test")


def card(*metrics: str, macro: str = "") -> Card:
    return Card("owner/set", {"test": None}, "none", macro=macro, metrics=metrics)


def row(
    id: str, score: float, *, kind: str = "multiple choice", cluster: str = "", k: int = 0,
    gold: str = "A", said: str | None = "A", outcome: str = "", **tags: str,
) -> Row:  # fmt: skip
    found = outcome or ("correct" if score >= 1 else "wrong")
    return Row(id, k, cluster or id, kind, gold, said, found, score, 1, tags)


def numbers(rows: Sequence[Row], found: Card, protocol: Protocol = PLAIN) -> dict[str, float]:
    return {name: round(x, 10) for name, x in aggregate(rows, found, protocol).items()}


def test_micro_and_macro_over_a_tag() -> None:
    rows = [row("1", 1, t="x"), row("2", 0, t="x"), row("3", 1, t="x"), row("4", 0, t="y")]
    assert numbers(rows, card(macro="t")) == {"micro": 0.5, "macro": 0.3333333333, "coverage": 1.0}


def test_without_a_tag_macro_is_over_videos() -> None:
    rows = [row("1", 1, cluster="a"), row("2", 1, cluster="a"), row("3", 0, cluster="b")]
    assert numbers(rows, card())["macro"] == 0.5


def test_several_replies_of_a_question_count_as_one() -> None:
    rows = [row("1", 1), row("1", 0, k=1), row("2", 1), row("2", 1, k=1)]
    assert numbers(rows, card())["micro"] == 0.75


def test_denominators() -> None:
    """Questions without an answer count 0, or leave; the coverage says so either way."""
    rows = [row("1", 1), row("2", 0), row("3", 0, said=None, outcome="unparsed"),
            row("4", 0, said=None, outcome="undecodable")]  # fmt: skip
    assert numbers(rows, card()) == {"micro": 0.25, "macro": 0.25, "coverage": 0.5}
    answered = replace(PLAIN, denominator="answered")
    assert numbers(rows, card(), answered) == {"micro": 0.5, "macro": 0.5, "coverage": 0.5}
    replied = numbers(rows, card(), replace(PLAIN, denominator="replied"))
    assert replied["micro"] == 0.3333333333  # only the film that could not be read has left
    with pytest.raises(ValueError, match="the mean of no scores"):
        numbers(rows[2:], card(), answered)


def test_knowledge_gain() -> None:
    """1 of 4 before, 3 of 4 after: (.75 - .25) / .75; of 3 wrong ones 2 turn, of 1 right none."""
    before = [row(f"q{i}", float(i == 0), cluster=str(i), track="question_only") for i in range(4)]
    after = [row(f"a{i}", float(i < 3), cluster=str(i), track="adaptation") for i in range(4)]
    other = [row("p", 1.0, track="perception"), row("c", 0.0, track="comprehension")]
    found = numbers([*before, *after, *other], card("knowledge gain", macro="track"))
    assert (
        found["mean of tracks"] == 0.5833333333
    )  # (.75 + 1 + 0) / 3, the questions alone left out
    assert found["knowledge gain"] == 0.6666666667
    assert found["wrong to right"] == 0.6666666667 and found["right to wrong"] == 0.0
    assert "knowledge gain" not in numbers([*after, *other], card("knowledge gain"))
    assert "knowledge gain" not in numbers([*before[:3], *after], card("knowledge gain"))


def test_vsibench_counts_directions_once() -> None:
    """Directions (1 + 0 + .5) / 3 = .5; then (.5 + 1 + .3) / 3."""
    rows = [row("1", 1, task="object_rel_direction_easy"),
            row("2", 0, task="object_rel_direction_medium"),
            row("3", 1, task="object_rel_direction_hard"),
            row("4", 0, task="object_rel_direction_hard"),
            row("5", 1, task="route_planning"),
            row("6", 0.3, kind="regression", task="object_counting")]  # fmt: skip
    found = numbers(rows, card("vsibench", "accuracy and MRA", macro="task"))
    assert found["vsibench"] == 0.6
    assert found["accuracy without regression"] == 0.6  # 3 of 5
    assert found["accuracy and MRA"] == 0.45  # (.6 + .3) / 2


def grounding(id: str, said: str | None, cluster: str = "", gold: str = "[2, 4]") -> Row:
    outcome = "unparsed" if said is None else "wrong"
    return row(id, 0, kind="temporal grounding", gold=gold, said=said, cluster=cluster,
               outcome=outcome)  # fmt: skip


def test_grounding() -> None:
    """IoU 1, 1/3 ([3, 5]), 0 (unparsed), and .5 with the better of two windows."""
    rows = [grounding("1", "[2, 4]", "a"), grounding("2", "[3, 5]", "a"), grounding("3", None, "b"),
            grounding("4", "[8, 9]", "b", "[2, 4] or [7, 9]")]  # fmt: skip
    found = numbers(rows, card("grounding", "grounding by video"))
    assert found["mIoU"] == round((1 + 1 / 3 + 0 + 0.5) / 4, 10)
    assert (found["R1@0.3"], found["R1@0.5"], found["R1@0.7"]) == (0.75, 0.5, 0.25)
    assert found["mIoU by video"] == round(((1 + 1 / 3) / 2 + 0.25) / 2, 10)
    assert found["P@0.5 by video"] == 0.5


def test_videos_weigh_the_same_however_many_questions_they_have() -> None:
    rows = [grounding("1", "[2, 4]", "a"), grounding("2", None, "b"), grounding("3", None, "b")]
    found = numbers(rows, card("grounding", "grounding by video"))
    assert (found["mIoU"], found["mIoU by video"]) == (0.3333333333, 0.5)


def gqa(id: str, said: str | None, gold: str = "B [2, 4]") -> Row:
    return row(id, 0, kind="grounded qa", gold=gold, said=said, outcome="wrong")


def test_grounded_qa() -> None:
    """Right and inside (IoP 1, IoU .5); right and half out (IoP .5, IoU 1/3); wrong letter, right
    time; right letter, time elsewhere; no answer."""
    rows = [gqa("1", "B [2, 3]"), gqa("2", "B [3, 5]"), gqa("3", "A [2, 4]"), gqa("4", "B [8, 9]"),
            gqa("5", None)]  # fmt: skip
    found = numbers(rows, card("grounded qa"))
    assert found["Acc@QA"] == 0.6 and found["Acc@GQA"] == 0.4
    assert found["mIoP"] == 0.5 and (found["IoP@0.3"], found["IoP@0.5"]) == (0.6, 0.6)
    assert found["mIoU"] == round((0.5 + 1 / 3 + 1) / 5, 10)
    assert (found["IoU@0.3"], found["IoU@0.5"]) == (0.6, 0.4)
    assert found["Acc and IoU@0.5"] == 0.2


def test_all_pairs_of_a_question_must_be_right() -> None:
    rows = [row("1", 1, group="x"), row("2", 1, group="x"), row("3", 1, group="y"),
            row("4", 0, group="y")]  # fmt: skip
    found = numbers(rows, card("all pairs"))
    assert (found["all pairs"], found["micro"]) == (0.5, 0.75)
    assert "all pairs" not in numbers([row("1", 1)], card("all pairs"))


def test_the_headline_is_the_protocols() -> None:
    rows = [row("1", 1, t="x"), row("2", 0, t="y"), row("3", 0, t="y")]
    assert headline(rows, card(macro="t"), replace(PLAIN, aggregation="macro")) == ("macro", 0.5)
    with pytest.raises(BadInput, match="these rows have no 'mIoU'; they have micro, macro"):
        headline(rows, card(), replace(PLAIN, aggregation="mIoU"))


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0, 1)), min_size=1))
def test_means_lie_between_their_scores(scores: list[tuple[str, float]]) -> None:
    rows = [row(str(i), s, t=tag) for i, (tag, s) in enumerate(scores)]
    found = aggregate(rows, card(macro="t"), PLAIN)
    low, high = min(s for _, s in scores), max(s for _, s in scores)
    for name in ("micro", "macro"):
        assert low - 1e-12 <= found[name] <= high + 1e-12


def test_every_metric_is_tested_here() -> None:
    assert set(METRICS) == {
        "knowledge gain", "vsibench", "accuracy and MRA", "accuracy without regression",
        "grounding", "grounding by video", "grounded qa", "all pairs",
    }  # fmt: skip
