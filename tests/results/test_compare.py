"""Pairing by question: every flip has one kind, and what is not the same question is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import compare, gate, ledger, stats
from results.claims import NotComparable
from results.ledger import Run
from results.policy import load_policy
from results.schema import Record, Row

POLICY = load_policy()
PROTOCOL = {"id": "p", "max_frames": 16, "decoding": {"temperature": 0.0, "seed": 0}}
OTHER = {"id": "m", "revision": None, "sha256": "b" * 64}
UNKNOWN = {"id": "m", "revision": None, "sha256": None}
OUTCOME = {"B": "correct", "?": "unparsed", "~": "truncated"}


def run(replies: str | list[str], per_video: int = 1, **more: Any) -> Run:
    """One letter per reply: B is right, ? unparsed, ~ truncated; a string per question."""
    questions = list(replies)
    half = len(questions) / 2
    rows = tuple(
        Row(
            f"q{i:04}", k, f"v{i // per_video:04}", "multiple choice", "B",
            None if letter in "?~" else letter, OUTCOME.get(letter, "wrong"),
            float(letter == "B"), 5, {"half": "first" if i < half else "second"},
        )
        for i, letters in enumerate(questions)
        for k, letter in enumerate(letters)
    )  # fmt: skip
    score = float(ledger.by_item(rows).scores.mean())
    data: dict[str, Any] = {
        "schema": 2, "paper": "ktr", "profile": "micro", "arm": "grpo", "benchmark": "microworld",
        "split": "test", "metric": "accuracy", "n": len(questions), "samples": len(questions[0]),
        "score": score, "outcomes": {}, "by_tag": {},
        "model": {"id": "m", "revision": None, "sha256": "a" * 64}, "protocol": PROTOCOL,
        "protocol_hash": "00000001", "dataset": {"revision": "v1", "sha256": None}, "seed": 0,
        "engine": {}, "batch": None, "git": {}, "image": None, "machine": {}, "seconds": 1.0,
        "gpu_hours": None, "started": "", "finished": None, "rows": {}, "curves": None,
        "tokens": None, "partial": False, "who": "",
    }  # fmt: skip
    return Run(Record(**{**data, **more}), rows)


# --- kinds ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("A", "B", "fixed"),
        ("B", "A", "broken"),
        ("?", "B", "format only"),
        ("B", "~", "format only"),
        ("?", "A", "format only"),
        ("A", "A", "same wrong"),
        ("?", "?", "same wrong"),
        ("?", "~", "other wrong"),
        ("A", "C", "other wrong"),
        ("B", "B", None),
    ],
)
def test_every_pair_of_replies_has_one_kind(first: str, second: str, kind: str | None) -> None:
    found = compare.flips(run([first]), run([second]))
    assert [flip.kind for flip in found] == ([kind] if kind else [])


def test_several_replies_per_question() -> None:
    first = ["AAAB", "BBBB", "AB?B", "AAAA", "ABBB"]
    second = ["ABBB", "BBBA", "AB~~", "AAAA", "BBBA"]
    kinds = {flip.id: flip.kind for flip in compare.flips(run(first), run(second))}
    assert kinds == {"q0000": "fixed", "q0001": "broken", "q0002": "broken", "q0003": "same wrong"}
    steady = compare.flips(run(["AB??"]), run(["ABAB"]))[0]
    assert steady.kind == "format only"  # half right among those read, in both
    assert steady.answers == ("2 x (unparsed), 1 x A, 1 x B", "2 x A, 2 x B")


@given(st.lists(st.tuples(*[st.sampled_from("ABC?~")] * 2), min_size=2, max_size=40))
def test_counts_add_up(pairs: list[tuple[str, str]]) -> None:
    first, second = run([a for a, _ in pairs]), run([b for _, b in pairs])
    found = compare.compare(first, second, POLICY)
    right = sum(a == b == "B" for a, b in pairs)
    assert sum(found.counts.values()) == len(pairs) - right
    assert found.gained - found.lost == round(len(pairs) * found.difference.estimate)
    back = compare.compare(second, first, POLICY)
    assert (back.gained, back.lost, back.p) == (found.lost, found.gained, found.p)
    assert found.counts["fixed"] == back.counts["broken"]


# --- numbers -------------------------------------------------------------------------------


def test_one_question_per_video_is_mcnemar() -> None:
    first, second = (
        run("A" * 12 + "B" * 60 + "A" * 28),
        run("B" * 12 + "A" * 2 + "B" * 58 + "A" * 28),
    )
    found = compare.compare(first, second, POLICY)
    assert (found.gained, found.lost, found.test) == (12, 2, "exact McNemar")
    assert found.p == stats.mcnemar_exact(12, 2)
    assert found.difference.estimate == pytest.approx(0.10)
    assert found.scores == (0.60, 0.70) and found.counts["same wrong"] == 28
    assert found.by_tag["half"]["first"].estimate == pytest.approx(0.2)
    assert found.by_tag["half"]["second"].estimate == 0.0


def test_questions_that_share_a_video_flip_together() -> None:
    first, second = run("A" * 40, per_video=4), run("B" * 20 + "A" * 20, per_video=4)
    found = compare.compare(first, second, POLICY)
    assert found.test == "sign flips by video" and found.clusters == 10
    assert found.p == pytest.approx(2 / 32, abs=0.01)  # 5 videos, all in one direction
    assert stats.mcnemar_exact(20, 0) < 1e-5  # what pooling the questions would have claimed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"protocol": {**PROTOCOL, "max_frames": 32}}, "max_frames 16 and 32"),
        ({"protocol": {**PROTOCOL, "decoding": {"temperature": 1.0}}}, "temperature 0 and 1"),
        ({"protocol": {**PROTOCOL, "subtitles": "all"}}, "subtitles none and all"),
        ({"protocol": {**PROTOCOL, "prefix": "("}}, r"prefix none and \("),
        (
            {"protocol": {**PROTOCOL, "grader": "official:mvbench", "max_frames": 8}},
            "grader none and official:mvbench; max_frames 16 and 8",
        ),
        ({"protocol_hash": "00000002"}, "the benchmark's code"),
        ({"split": "validation"}, "split test and validation"),
        ({"metric": "mIoU"}, "metric accuracy and mIoU"),
        ({"dataset": {"revision": "v2", "sha256": None}}, "dataset"),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(NotComparable, match=named):
        compare.compare(run("AB"), run("AB", **change), POLICY)


def test_a_field_is_named_once() -> None:
    many = {**PROTOCOL, "decoding": {"temperature": 0.0, "samples": 8}}
    with pytest.raises(NotComparable) as caught:
        compare.compare(
            run("AB", protocol={**PROTOCOL, "decoding": {"temperature": 0.0, "samples": 1}}),
            run("AB", protocol=many, samples=8), POLICY,
        )  # fmt: skip
    assert str(caught.value).count("samples 1 and 8") == 1


def test_the_draws_seed_is_no_difference_but_other_questions_are() -> None:
    other = {**PROTOCOL, "decoding": {"temperature": 0.0, "seed": 9}}
    assert compare.compare(run("AB"), run("BB", protocol=other), POLICY).gained == 1
    with pytest.raises(NotComparable, match="questions"):
        compare.compare(run("AB"), run("ABB", n=2), POLICY)


def test_as_dict_is_plain(maker: Callable[..., Run]) -> None:
    import json

    found = compare.compare(maker("grpo", 0), maker("ktr", 0, 0.2), POLICY)
    data = json.loads(json.dumps(found.as_dict()))
    assert data["questions"] == 240 and data["videos"] == 60
    assert sum(data["counts"].values()) == len(data["flips"])
    assert set(data["by_tag"]) == {"family", "modality"}


# --- gate ----------------------------------------------------------------------------------


def flipped(n: int, down: int, up: int) -> tuple[Run, Run]:
    """n questions half right; `down` right ones break and `up` wrong ones are fixed."""
    half = n // 2
    before = "B" * half + "A" * (n - half)
    after = "A" * down + "B" * (half - down) + "B" * up + "A" * (n - half - up)
    return run(before), run(after)


def test_a_real_drop_is_a_regression() -> None:
    before, after = flipped(1837, 90, 46)  # -2.4 points
    found = gate.gate([before], [after], POLICY)
    assert found.word == "regression" and gate.EXIT_CODES[found.word] == 6
    assert found.checks[0].p == stats.mcnemar_exact(46, 90, "less")
    assert gate.gate([after], [before], POLICY).word == "ok"  # better is no regression


def test_both_conditions_must_hold() -> None:
    before, after = flipped(4000, 38, 0)  # p = 4e-12, but 0.95 points
    assert gate.gate([before], [after], POLICY).word == "ok"
    before, after = flipped(4000, 40, 0)  # exactly one point
    assert gate.gate([before], [after], POLICY).word == "regression"
    before, after = flipped(200, 12, 6)  # 3 points, but p = 0.12
    assert gate.gate([before], [after], POLICY).word == "ok"


def test_holm_over_benchmarks() -> None:
    """p = 0.0095 alone is a regression, as one of five it is not."""
    before, after = flipped(400, 21, 7)
    p = stats.mcnemar_exact(7, 21, "less")
    assert 0.002 < p < 0.01
    assert gate.gate([before], [after], POLICY).word == "regression"
    same = [run("AB" * 50, benchmark=f"b{i}") for i in range(4)]
    found = gate.gate([before, *same], [after, *same], POLICY)
    assert found.word == "ok" and found.checks[-1].adjusted == pytest.approx(5 * p)


@pytest.mark.parametrize(
    ("baseline", "candidate", "message"),
    [
        ([], [run("AB")], "nothing guards this change"),
        ([run("AB", partial=True)], [run("AB")], "nothing guards"),
        ([run("AB")], [], "was not run again"),
        ([run("AB")], [run("AB", model=OTHER)], "weights"),
        ([run("AB", model=UNKNOWN)], [run("AB", model=UNKNOWN)], "weights"),
        ([run("AB")], [run("AB", protocol_hash="00000002")], "the benchmark's code"),
        ([run("AB"), run("AB")], [run("AB")], "twice"),
    ],
)  # fmt: skip
def test_what_the_gate_refuses(baseline: list[Run], candidate: list[Run], message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        gate.gate(baseline, candidate, POLICY)


def exact_power(n: int, background: float, drop: float, alpha: float) -> float:
    """P(gate | n, flips each way, drop added on one side), from the two binomials."""
    import scipy.stats

    up, down = background / 2, background / 2 + drop
    ups, downs = np.arange(0, 160), np.arange(0, 260)
    weight = scipy.stats.binom.pmf(ups, n, up)[:, None] * scipy.stats.binom.pmf(
        downs[None, :], n - ups[:, None], down / (1 - up)
    )
    p = scipy.stats.binom.cdf(ups[:, None], ups[:, None] + downs[None, :], 0.5)
    loss = (downs[None, :] - ups[:, None]) / n >= POLICY.gate_drop - 1e-12
    return float((weight * ((p < alpha) & loss)).sum())


@pytest.mark.parametrize(
    ("alpha", "drop", "power"),
    [
        (0.01, 0.00, 0.007), (0.01, 0.01, 0.25), (0.01, 0.02, 0.81), (0.01, 0.03, 0.99),
        (0.002, 0.00, 0.001), (0.002, 0.01, 0.11), (0.002, 0.02, 0.62), (0.002, 0.03, 0.95),
    ],
)  # fmt: skip
def test_operating_characteristics(alpha: float, drop: float, power: float) -> None:
    """n = 1,837 and 5 % background flips, as printed in statistics.md 4."""
    assert exact_power(1837, 0.05, drop, alpha) == pytest.approx(power, abs=0.012)


def test_simulated_size_and_power_of_the_gate() -> None:
    rng = np.random.default_rng(4)
    found = {0.0: 0, 0.03: 0}
    for drop in found:
        for _ in range(60):
            up, down = rng.binomial(900, 0.025), rng.binomial(900, 0.025 + drop)
            before, after = flipped(1837, 2 * down, 2 * up)
            found[drop] += gate.gate([before], [after], POLICY).word == "regression"
    assert found[0.0] <= 4 and found[0.03] >= 50


def test_gate_of_written_runs(maker: Callable[..., Run], tmp_path: Path) -> None:
    before = maker("grpo", 0, 0.0)
    assert gate.gate([before], [before], POLICY).as_dict()["checks"][0]["test"] == (
        "sign flips by video"
    )
    worse = ledger.Run(before.record, maker("grpo", 0, -0.3).rows)
    assert gate.gate([before], [worse], POLICY).word == "regression"
