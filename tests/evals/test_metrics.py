"""evals.metrics: golden values from the papers' documents, and the properties of each metric."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.errors import BadInput
from evals.extract import Answer, Unparsed, extract
from evals.grade import grade, same_number_video_r1, windows
from evals.metrics import (
    avg_at_k,
    best,
    golds,
    iop,
    knowledge_gain,
    macro_mean,
    mean,
    mra,
    pass_at_k,
    recall_at,
    rouge,
    tiou,
    word_error_rate,
)

OPTIONS = ("A. red", "B. blue")


# --- MRA ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "truth", "official", "video_r1"),
    [
        (3, 4, 0.6, 0.5), (1, 2, 0.1, 0.0),  # benchmarks.md 2.7: where `<` and `<=` part
        (88, 100, 0.8, 0.8), (100, 100, 1.0, 1.0), (40, 100, 0.0, 0.0),  # ffr.md 1.14
        (0, 0, 1.0, 1.0), (1, 0, 0.0, 0.0), (-4, -4, 1.0, 1.0), (4, -4, 0.0, 0.0),
        (math.nan, 4, 0.0, 0.0), (math.inf, 4, 0.0, 0.0), (1e300, 4, 0.0, 0.0),
    ],
)  # fmt: skip
def test_mra(prediction: float, truth: float, official: float, video_r1: float) -> None:
    assert mra(prediction, truth, "official") == pytest.approx(official)
    assert mra(prediction, truth, "video-r1") == pytest.approx(video_r1)


def test_mra_rules_differ_on_44_of_820_small_pairs() -> None:
    pairs = list(itertools.product(range(41), range(1, 21)))
    gaps = [mra(p, g, "official") - mra(p, g, "video-r1") for p, g in pairs]
    different = [gap for gap in gaps if gap != 0]
    assert (len(pairs), len(different)) == (820, 44)
    assert different == pytest.approx([0.1] * 44)


def test_mra_video_r1_is_the_float32_formula_of_the_release() -> None:
    torch = pytest.importorskip("torch")
    thresholds = torch.arange(0.5, 0.975, 0.05, dtype=torch.float32)
    rng = np.random.default_rng(0)
    ratios = [k / 20 for k in range(30)]  # on the thresholds, where rounding decides
    pairs = [(g * (1 + s * r), g) for g in rng.integers(1, 50, 20) for r in ratios for s in (1, -1)]
    for p, g in pairs:
        prediction, truth = torch.tensor(float(p)), torch.tensor(float(g))
        error = torch.abs(prediction - truth) / (torch.abs(truth) + 1e-8)
        expected = (error < 1 - thresholds).float().mean().item()
        assert mra(float(p), float(g), "video-r1") == pytest.approx(expected)


def test_mra_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match="finite"):
        mra(1, math.nan, "official")
    with pytest.raises(ValueError, match="unknown MRA rule"):
        mra(1, 1, "strict")  # type: ignore[arg-type]


# --- intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((75, 127), (85, 139.5), 0.6512),  # temporal_r1.md 1.3, with the next three
        ((2.7, 15), (2, 15), 0.9462), ((4.2, 18), (2, 15), 0.675), ((2.6, 16), (2, 15), 0.8857),
        ((2, 5), (2, 5), 1.0), ((0, 10), (2, 3), 0.1), ((-3, 15), (2, 15), 0.7222),
        ((17, 19), (2, 15), 0.0), ((15, 19), (2, 15), 0.0),  # disjoint, touching
        ((15, 2.7), (2, 15), 0.0),  # reversed
        ((2, 2), (2, 2), 0.0), ((2, 2), (1, 3), 0.0),  # zero length, also against itself
        ((math.nan, 3), (2, 3), 0.0), ((2, math.inf), (2, 3), 0.0), ((2, math.inf),) * 2 + (0.0,),
    ],
)  # fmt: skip
def test_tiou(a: tuple[float, float], b: tuple[float, float], expected: float) -> None:
    assert tiou(a, b) == pytest.approx(expected, abs=5e-5)
    assert tiou(b, a) == tiou(a, b)


ANY = st.tuples(st.floats(), st.floats())


@settings(deadline=None)
@given(a=ANY, b=ANY)
def test_tiou_is_symmetric_and_in_range(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert 0.0 <= tiou(a, b) <= 1.0
    assert tiou(a, b) == tiou(b, a)


TIMES = st.tuples(st.integers(0, 60), st.integers(0, 60))


@settings(deadline=None)
@given(a=TIMES, b=TIMES)
def test_tiou_counts_shared_seconds(a: tuple[int, int], b: tuple[int, int]) -> None:
    first, second = set(range(*a)), set(range(*b))
    expected = len(first & second) / len(first | second) if first and second else 0.0
    assert tiou(a, b) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ((3, 5), (2, 8), 1.0), ((0, 4), (2, 8), 0.5), ((0, 10), (2, 8), 0.6), ((9, 10), (2, 8), 0),
        ((8, 10), (2, 8), 0.0), ((2, 2), (2, 8), 1.0), ((1, 1), (2, 8), 0.0), ((5, 3), (2, 8), 0.0),
        ((math.nan, 3), (2, 8), 0.0), ((3, math.inf), (2, 8), 0.0),
    ],
)  # fmt: skip
def test_iop(prediction: tuple[float, float], truth: tuple[float, float], expected: float) -> None:
    assert iop(prediction, truth) == pytest.approx(expected)


@settings(deadline=None)
@given(a=ANY, b=ANY)
def test_iop_is_at_least_iou(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert 0.0 <= tiou(a, b) <= iop(a, b) + 1e-12 <= 1.0 + 1e-12


def test_the_best_of_several_windows_counts() -> None:
    assert best(tiou, (2, 5), [(20, 30), (2, 8)]) == 0.5
    assert best(iop, (2, 5), [(20, 30), (2, 8)]) == 1.0
    with pytest.raises(ValueError, match="empty"):
        best(tiou, (2, 5), [])


@pytest.mark.parametrize(
    ("gold", "kind", "found"),
    [
        ("[2, 5]", "temporal grounding", [(2, 5)]),
        ("2 to 5", "temporal grounding", [(2, 5)]),
        ("[2, 5] [0:07, 9.5]", "temporal grounding", [(2, 5), (7, 9.5)]),
        ("[[2, 5], [7, 9]]", "temporal grounding", [(2, 5), (7, 9)]),
        ("B [2, 5] or [7, 9]", "grounded qa", [(2, 5), (7, 9)]),
    ],
)
def test_windows_of_a_gold(gold: str, kind: str, found: list[tuple[float, float]]) -> None:
    assert windows(gold, kind, OPTIONS) == found


def test_right_answers_in_a_gold() -> None:
    assert golds("B [2, 5] or [7, 9]", "grounded qa") == ("B [2, 5]", "B [7, 9]")
    assert golds("[2, 5]", "temporal grounding") == ("[2, 5]",)
    assert golds("this or that", "free-form") == ("this or that",)


def test_knowledge_gain() -> None:
    assert knowledge_gain(0.5, 0.4) == pytest.approx(0.1 / 0.6)
    assert knowledge_gain(0.4, 0.5) == pytest.approx(-0.2)
    assert knowledge_gain(0.9, 1.0) == 0.0


def test_recall_includes_the_threshold() -> None:
    assert recall_at([0.5, 0.49, 0.9, 0.0], 0.5) == 0.5
    with pytest.raises(ValueError, match="no scores"):
        recall_at([], 0.5)


# --- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "said", "expected"),
    [
        ("a b c", "a b c", 0), ("a b c", "a c", 1 / 3), ("a b", "a x b", 1 / 2), ("a b", "x y", 1),
        ("a", "x y z", 3), ("", "", 0), ("", "x y", 2), ("a b", "", 1), ("A", "a", 1),
    ],
)  # fmt: skip
def test_word_error_rate(truth: str, said: str, expected: float) -> None:
    assert word_error_rate(truth, said) == pytest.approx(expected)


def test_rouge_by_hand() -> None:
    pytest.importorskip("rouge_score")
    # "the cat sat" / "the cat ran": unigrams 2 of 3, bigrams 1 of 2, longest common 2 of 3.
    assert rouge("the cat sat", "the cat ran") == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert rouge("running", "runs") == pytest.approx(2 / 3)  # stemmed; no bigrams
    assert rouge("the cat", "the cat") == 1.0
    assert rouge("the cat", "") == 0.0


# --- grading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "gold", "kind", "score"),
    [
        ("<answer>B. blue</answer>", "B", "multiple choice", 1.0),
        ("<answer>A</answer>", "B", "multiple choice", 0.0),
        ("no idea", "B", "multiple choice", 0.0),
        ("<answer>3.001</answer>", "3", "numerical", 1.0),
        ("<answer>3.01</answer>", "3", "numerical", 0.0),
        ("<answer>1,000</answer>", "1000", "numerical", 1.0),
        ("<answer>3</answer>", "4", "regression", 0.6),
        ("<answer>a c</answer>", "a b c", "OCR", 2 / 3),
        ("<answer>a b c d e</answer>", "x", "OCR", 0.0),
        ("<answer>[2, 5]</answer>", "[2.0, 8.0]", "temporal grounding", 1.0),  # tIoU is 0.5
        ("<answer>[2, 4.9]</answer>", "[2.0, 8.0]", "temporal grounding", 0.0),
        ("<answer>[8, 2]</answer>", "[2.0, 8.0]", "temporal grounding", 0.0),
        ("<answer>B [2, 5]</answer>", "B [2.0, 8.0]", "grounded qa", 1.0),
        ("<answer>A [2, 5]</answer>", "B [2.0, 8.0]", "grounded qa", 0.0),
        ("<answer>B [2, 3]</answer>", "B [2.0, 8.0]", "grounded qa", 0.0),
        ("<answer>[7, 9]</answer>", "[2, 5] [7, 9]", "temporal grounding", 1.0),
    ],
)
def test_grade(reply: str, gold: str, kind: str, score: float) -> None:
    answer = extract(reply, kind, options=OPTIONS)
    assert grade(answer, gold, kind, OPTIONS) == pytest.approx(score)


def test_grade_free_form_is_rouge() -> None:
    pytest.importorskip("rouge_score")
    assert grade(Answer("the cat"), "the cat", "free-form") == 1.0


def test_grade_takes_the_threshold() -> None:
    answer = Answer("[2.0, 5.0]", interval=(2.0, 5.0))
    assert grade(answer, "[2, 8]", "temporal grounding", iou=0.7) == 0.0
    assert grade(answer, "[2, 8]", "temporal grounding", iou=0.3) == 1.0


@pytest.mark.parametrize(
    ("reply", "gold", "kind", "score"),
    [
        ("<answer>B</answer>", "B", "multiple choice", 1.0),
        ("<answer>B.</answer>", "B", "multiple choice", 0.0),
        ("B", "B", "multiple choice", 1.0),
        ("<answer>3.0</answer>", "3", "numerical", 0.0),  # the decimal gate
        ("<answer>3.0</answer>", "3.001", "numerical", 1.0),
        ("<answer>three</answer>", "3", "numerical", 0.0),
        ("<answer>3</answer>", "4", "regression", 0.5),
        ("<answer>nan</answer>", "4", "regression", 0.0),
        ("<answer>about 3</answer>", "4", "regression", 0.0),
        ("<answer>a</answer>", "a", "OCR", 0.0),  # the released evaluator never scores text
        ("<answer>a</answer>", "a", "free-form", 0.0),
        ("<answer>[2, 5]</answer>", "[2, 5]", "temporal grounding", 1.0),
    ],
)
def test_grade_video_r1(reply: str, gold: str, kind: str, score: float) -> None:
    answer = extract(reply, kind, "video-r1", OPTIONS)
    assert grade(answer, gold, kind, OPTIONS, grader="video-r1") == pytest.approx(score)


@pytest.mark.parametrize(
    ("said", "gold", "equal"),
    [
        ("3", "3", True), ("3.0", "3", False), ("3.004", "3.0", True), ("1,000", "1000", False),
        ("1,000", "1,000.0", True), ("x", "x", False), ("nan", "nan", False), ("", "", False),
    ],
)  # fmt: skip
def test_same_number_video_r1(said: str, gold: str, equal: bool) -> None:
    assert same_number_video_r1(said, gold) is equal


@pytest.mark.parametrize(
    ("gold", "kind", "grader"),
    [
        ("C", "multiple choice", "reelproof"), ("24/7 / 3.429", "numerical", "reelproof"),
        ("2 to", "temporal grounding", "reelproof"), ("[2, 5]", "grounded qa", "reelproof"),
        ("many", "regression", "video-r1"),
    ],
)  # fmt: skip
def test_a_gold_that_cannot_be_read_is_bad_input(gold: str, kind: str, grader: str) -> None:
    with pytest.raises(BadInput):
        grade(Answer("B", 1.0, (2.0, 5.0)), gold, kind, OPTIONS, grader=grader)


def test_unparsed_scores_zero() -> None:
    assert grade(Unparsed("because"), "B", "multiple choice", OPTIONS) == 0.0


# --- means -------------------------------------------------------------------------------------


def test_macro_mean_counts_each_group_once() -> None:
    assert macro_mean({"a": [1, 1, 1, 1], "b": [0, 0.5]}) == pytest.approx(0.625)
    with pytest.raises(ValueError, match="no scores"):
        macro_mean({"a": [1], "b": []})


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(8, 0, 8, 0), (8, 1, 8, 1), (8, 3, 1, 3 / 8), (4, 2, 2, 5 / 6), (5, 1, 5, 1), (5, 5, 1, 1)],
)
def test_pass_at_k(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected)


@settings(deadline=None)
@given(n=st.integers(1, 8), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_hit(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    replies = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(replies, k))
    assert pass_at_k(n, c, k) == pytest.approx(mean([float(any(s)) for s in subsets]))


@pytest.mark.parametrize(("n", "c", "k"), [(8, 9, 1), (8, -1, 1), (8, 1, 0), (8, 1, 9)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(n, c, k)


def test_avg_at_k() -> None:
    assert avg_at_k([[1, 0], [0.5, 0.5], [1, 1]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="same number"):
        avg_at_k([[1, 0], [1]])
    with pytest.raises(ValueError, match="no scores"):
        avg_at_k([])
