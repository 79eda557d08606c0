"""repro.temporal_r1.rewards: the vectors of the released code, the presets' differences, limits."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evals.errors import BadInput
from repro.temporal_r1.rewards import (
    KINDS,
    WEIGHTS,
    Preset,
    Weights,
    choice_reward,
    grounded_choice_reward,
    grounding_reward,
    of_record,
)

LENGTH, TRUTH = 20.0, (2.0, 15.0)
J = '{"start_time": "2.7", "end_time": "15.0"}'
PRESETS: tuple[Preset, ...] = ("released", "paper")
OPTIONS = ("A. red", "B. blue", "C. green")


def times(start: object, end: object) -> str:
    return json.dumps({"start_time": start, "end_time": end})


def reply(answer: str, think: str = "a") -> str:
    return f"<think>{think}</think><answer>{answer}</answer>"


#: (completion, released tIoU and F, paper tIoU and F). The released columns are the vectors of
#: temporal_r1.md 1.3, which come from running the released function.
VECTORS = {
    "right form": (f"<think>a</think> <answer>{J}</answer>", (0.9462, 1), (0.9462, 1)),
    "blank lines": (
        f"<think>a</think>\n\n<answer>\n{json.dumps(json.loads(J), indent=2)}\n</answer>",
        (0.9462, 1), (0.9462, 1),
    ),
    "not quoted": (reply(times(2.7, 15.0)), (0.9462, 0), (0.9462, 0)),
    "no think": (f"<answer>{J}</answer>", (0.9462, 0), (0.9462, 0)),
    "swapped keys": (
        reply('{"end_time": "15.0", "start_time": "2.7"}'), (0.9462, 0), (0.9462, 0)
    ),
    "extra key": (
        reply('{"start_time": "2.7", "end_time": "15.0", "option": "A"}'), (0.9462, 0), (0.9462, 0)
    ),
    "trailing newline": (reply(J) + "\n", (0.9462, 0), (0.9462, 0)),
    "leading newline": ("\n" + reply(J), (0.9462, 0), (0.9462, 0)),
    "reversed": (reply(times("15.0", "2.7")), (0, 1), (0, 0)),
    "disjoint": (reply(times("17", "19")), (0, 1), (0, 1)),
    "touching": (reply(times("15", "19")), (0, 1), (0, 1)),
    "zero length": (reply(times("2", "2")), (0, 1), (0, 0)),
    "three dots": (reply(times("...", "15.0")), (0, 1), (0, 0)),
    "two dots": (reply(times("1.2.3", "15.0")), (0, 1), (0, 0)),
    "negative": (reply(times("-3", "15")), (0.7222, 0), (0, 0)),
    "code fence": (reply(f"```json\n{J}\n```"), (0, 0), (0.9462, 0)),
    "unit": (reply(times("2.7s", "15.0s")), (0, 0), (0.9462, 0)),
    "empty": ("", (0, 0), (0, 0)),
    "two blocks": (
        reply(times("2", "15")) + f"<answer>{times('17', '19')}</answer>", (1, 0), (0, 0)
    ),
    "answer in the thinking": (
        reply(times("17", "19"), f"<answer>{times('2', '15')}</answer>"), (1, 1), (0, 1)
    ),
    # Chosen, beyond the vectors.
    "beyond the film": (reply(times("2", "28")), (0.5, 1), (0.5, 0)),
    "far beyond": (reply(times("100", "200")), (0, 1), (0, 0)),
    "nan": (reply('{"start_time": NaN, "end_time": 15.0}'), (0, 0), (0, 0)),
    "nan quoted": (reply(times("nan", "15")), (0, 0), (0, 0)),
    "infinite": (reply(times("2", "inf")), (0, 0), (0, 0)),
    "words": (reply(times("early", "late")), (0, 0), (0, 0)),
    "null": (reply(times(None, 15)), (0, 0), (0, 0)),
    "lists of one": (reply(times([2], [15])), (0, 0), (1, 0)),
    "missing key": (reply('{"start_time": "2"}'), (0, 0), (0, 0)),
    "no JSON": (reply("2.7 to 15.0"), (0, 0), (0.9462, 0)),
    "two intervals": (reply(f"[{J}, {J}]"), (0, 0), (0, 0)),
    "two objects": (reply(f"{J} {J}"), (0, 0), (0, 0)),
    "repeated key": (
        reply('{"start_time": "9", "start_time": "2.7", "end_time": "15.0"}'),
        (0.9462, 0), (0.9462, 0),
    ),
    "unclosed thinking": (f"<think>a <answer>{J}</answer>", (0.9462, 0), (0, 0)),
    "huge integer": (reply('{"start_time": ' + "9" * 400 + ', "end_time": 1}'), (0, 0), (0, 0)),
    "deep": (reply("[" * 3000 + "]" * 3000), (0, 0), (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    completion, released, paper = VECTORS[name]
    for preset, (overlap, form) in zip(PRESETS, (released, paper), strict=True):
        weight = WEIGHTS[preset].content
        got = grounding_reward(completion, TRUTH, LENGTH, preset)
        assert got == pytest.approx((overlap, form, weight * (overlap + form)), abs=1e-4), preset


@pytest.mark.parametrize(
    ("said", "truth", "overlap"),
    [  # Figure 1 of the paper and of the earlier figure (temporal_r1.md 1.3)
        (("75", "127"), (85, 139.5), 0.6512), (("2.7", "15"), (2, 15), 0.9462),
        (("4.2", "18"), (2, 15), 0.675), (("2.6", "16"), (2, 15), 0.8857),
    ],
)  # fmt: skip
def test_figure_values(said: tuple[str, str], truth: tuple[float, float], overlap: float) -> None:
    for preset in PRESETS:
        assert grounding_reward(reply(times(*said)), truth, 150, preset)[0] == pytest.approx(
            overlap, abs=1e-4
        )


def test_zero_length_truth_is_never_hit() -> None:
    for preset in PRESETS:
        assert grounding_reward(reply(times("2", "2")), (2, 2), LENGTH, preset)[0] == 0.0


def test_of_several_true_intervals_the_best_counts() -> None:
    for preset in PRESETS:
        got = grounding_reward(reply(times("10", "20")), [(0, 2), (10, 15)], LENGTH, preset)
        assert got[0] == pytest.approx(0.5)


def test_a_true_end_beyond_the_rounded_length_keeps_the_form() -> None:
    exact = reply(times("2", "20.04"))
    assert grounding_reward(exact, (2, 20.04), 20.0, "paper") == pytest.approx((1, 1, 2))


# --- a choice, and both ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "released", "paper"),
    [
        (reply('{"option": "B"}'), (1, 1, 1), (1, 1, 2)),
        (reply('{"option": "(B)"}'), (1, 1, 1), (1, 1, 2)),
        (reply('{"option": "(B) blue"}'), (0, 0, 0), (1, 0, 1)),
        (reply('{"option": "B. blue"}'), (0, 0, 0), (1, 0, 1)),
        (reply('{"option": "A"}'), (0, 1, 0.5), (0, 1, 1)),
        (reply('{"option": "Z"}'), (0, 1, 0.5), (0, 0, 0)),  # no such option
        (reply('{"option": "b"}'), (0, 0, 0), (1, 0, 1)),
        (reply("B"), (0, 0, 0), (1, 0, 1)),
        ('<answer>{"option": "B"}</answer>', (1, 0, 0.5), (1, 0, 1)),
        (reply('{"option": "A"}', '<answer>{"option": "B"}</answer>'), (1, 1, 1), (0, 1, 1)),
        ("B", (0, 0, 0), (0, 0, 0)),
    ],
)
def test_choice(completion: str, released: tuple[float, ...], paper: tuple[float, ...]) -> None:
    assert choice_reward(completion, "B", "released", OPTIONS) == released
    assert choice_reward(completion, "B", "paper", OPTIONS) == paper


def both(option: str, start: str, end: str) -> str:
    return reply(json.dumps({"option": option, "start_time": start, "end_time": end}))


@pytest.mark.parametrize(
    ("completion", "released", "paper"),
    [
        (both("B", "2", "15"), (1, 1, 1, 1), (1, 1, 1, 3)),
        (both("A", "2", "15"), (0, 1, 1, 0.75), (0, 1, 1, 2)),
        (both("B", "17", "19"), (1, 0, 1, 0.75), (1, 0, 1, 2)),
        (both("B", "15", "2"), (1, 0, 1, 0.75), (1, 0, 0, 1)),
        (reply('{"option": "B"}'), (1, 0, 0, 0.25), (1, 0, 0, 1)),
        (reply(times("2", "15")), (0, 1, 0, 0.25), (0, 1, 0, 1)),
        (reply("B [2, 15]"), (0, 0, 0, 0), (0, 1, 0, 1)),
    ],
)
def test_both(completion: str, released: tuple[float, ...], paper: tuple[float, ...]) -> None:
    truth = [(2.0, 15.0), (19.5, 20.0)]
    for preset, expected in zip(PRESETS, (released, paper), strict=True):
        got = grounded_choice_reward(completion, "B", truth, LENGTH, preset, OPTIONS)
        assert got == pytest.approx(expected)


def test_of_record_reads_the_gold_by_its_kind() -> None:
    said = both("B", "2", "15")
    for kind, gold, parts in [
        ("temporal grounding", "[2, 15]", {"tiou", "format"}),
        ("multiple choice", "B", {"accuracy", "format"}),
        ("grounded qa", "B [2, 15] or [17, 18]", {"accuracy", "tiou", "format"}),
    ]:
        reward = of_record(said, kind, gold, LENGTH, "paper", OPTIONS)
        assert set(reward.parts) == parts
        assert reward.total == pytest.approx(len(parts) - (kind != "grounded qa"))
    swept = of_record(said, "grounded qa", "B [2, 15]", LENGTH, "paper", OPTIONS, Weights(1, 0.1))
    assert swept.parts == pytest.approx({"accuracy": 1, "tiou": 1, "format": 0.1})


@pytest.mark.parametrize(
    ("kind", "gold", "length"),
    [
        ("free-form", "blue", 20), ("multiple choice", "blue", 20), ("multiple choice", "", 20),
        ("temporal grounding", "soon", 20), ("temporal grounding", "[15, 2]", 20),
        ("temporal grounding", "[2, 15]", 0), ("temporal grounding", "[2, 15]", math.nan),
        ("grounded qa", "[2, 15]", 20),
    ],
)  # fmt: skip
def test_refuses(kind: str, gold: str, length: float) -> None:
    with pytest.raises(BadInput):
        of_record(reply(J), kind, gold, length)


def test_refuses_an_unknown_preset_and_no_truth() -> None:
    with pytest.raises(BadInput, match="released, paper"):
        grounding_reward(reply(J), TRUTH, LENGTH, "best")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="true interval"):
        grounding_reward(reply(J), [], LENGTH)


# --- properties --------------------------------------------------------------------------------

TIME = st.floats(0, 1e4).map(lambda t: round(t, 2))
SPAN = st.tuples(TIME, TIME).map(sorted).filter(lambda s: s[0] < s[1])
PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", J, '{"option": "B"}', '"start_time": ', "{",
     "}", '"end_time": "', "1.2", "-3", "nan", "1e400", "\n", " ", "B", "to", "[2, 15]", "9" * 30]
)  # fmt: skip


@given(SPAN, SPAN)
@settings(max_examples=60, deadline=None)
def test_presets_agree_where_the_form_is_right(said: list[float], truth: list[float]) -> None:
    a = grounding_reward(reply(times(f"{said[0]}", f"{said[1]}")), (truth[0], truth[1]), 1e4)
    b = grounding_reward(
        reply(times(f"{said[0]}", f"{said[1]}")), (truth[0], truth[1]), 1e4, "paper"
    )
    assert a[:2] == b[:2] and a[1] == 1.0 and 2 * a[2] == pytest.approx(b[2])
    assert a[0] == 1.0 if said == truth else a[0] < 1.0


@given(SPAN, SPAN, st.floats(1.5, 100))
@settings(max_examples=60, deadline=None)
def test_the_length_cancels(said: list[float], truth: list[float], factor: float) -> None:
    completion = reply(times(str(said[0]), str(said[1])))
    one = grounding_reward(completion, (truth[0], truth[1]), 1e4)
    other = grounding_reward(completion, (truth[0], truth[1]), 1e4 * factor)
    assert one == pytest.approx(other, abs=1e-9)


@given(st.lists(PIECES, max_size=14).map("".join), st.sampled_from(KINDS), st.sampled_from(PRESETS))
@example(reply(J) * 2, "temporal grounding", "paper")
@settings(max_examples=300, deadline=None)
def test_total_and_bounded(completion: str, kind: str, preset: Preset) -> None:
    gold = {"multiple choice": "B", "temporal grounding": "[2, 15]"}.get(kind, "B [2, 15]")
    reward = of_record(completion, kind, gold, LENGTH, preset, OPTIONS)
    terms = [t for t in (reward.accuracy, reward.tiou, reward.format) if t is not None]
    assert all(0.0 <= term <= 1.0 for term in terms)
    assert 0.0 <= reward.total <= (1.0 if preset == "released" else len(terms))
    assert reward.total == pytest.approx(math.fsum(reward.parts.values()))


@given(st.lists(PIECES, min_size=1, max_size=10).map("".join), st.sampled_from(PRESETS))
@settings(max_examples=100, deadline=None)
def test_words_before_the_think_block_cost_the_form(noise: str, preset: Preset) -> None:
    completion = f"so: {noise} {reply(J)}"
    assert grounding_reward(completion, TRUTH, LENGTH, preset)[1] == 0.0
