"""Two given checkpoints: the worked example, agreement with statsmodels, and the closing lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import ztost

from results import checkpoints, stats, terminal
from results.checkpoints import checkpoint_claim
from results.claims import NotComparable
from results.ledger import Run
from results.policy import load_policy
from results.reported import load_reported
from results.schema import Record, Row
from results.scoreboard import build_board

POLICY = load_policy()
ROOT = Path(checkpoints.__file__).parents[1]
PROTOCOL = {
    "id": "x", "max_frames": 64, "max_pixels": 100352, "prompt": "video-r1", "grader": "video-r1",
    "decoding": {"temperature": 0.1},
}  # fmt: skip


def run(scores: Any, weights: str = "KTR", seed: int = 0, **more: Any) -> Run:
    """A run in memory, one question per video."""
    values = np.asarray(scores, dtype=float)
    right = int(values.sum())
    data: dict[str, Any] = {
        "schema": 2, "paper": "ktr", "profile": "paper", "arm": "released",
        "benchmark": "video_holmes", "split": "test", "metric": "accuracy", "n": len(values),
        "samples": 1, "score": float(values.mean()),
        "outcomes": {"correct": right, "wrong": len(values) - right}, "by_tag": {},
        "model": {"id": weights, "revision": None, "sha256": None}, "protocol": PROTOCOL,
        "protocol_hash": "00000001", "dataset": {"revision": None, "sha256": None}, "seed": seed,
        "engine": {"name": "vllm", "version": "1"}, "batch": 8, "git": {}, "image": None,
        "machine": {"cpu": None, "gpu": "H100", "driver": None}, "seconds": 1.0,
        "gpu_hours": 0.7, "started": "2026-12-01T00:00:00+00:00", "finished": None, "rows": {},
        "curves": None, "tokens": None, "partial": False, "who": "",
    }  # fmt: skip
    rows = tuple(
        Row(f"q{i:05}", 0, f"v{i:05}", "multiple choice", "B", None, "wrong", float(v), 1, {})
        for i, v in enumerate(values)
    )
    return Run(Record(**{**data, **more}), rows)


def pair(n: int, gained: int, lost: int, both: int) -> tuple[Run, Run]:
    """Method and baseline: `both` right in both, `gained` only by the method, `lost` only not."""
    method, baseline = np.zeros(n), np.zeros(n)
    method[: both + gained] = 1.0
    baseline[:both] = baseline[both + gained : both + gained + lost] = 1.0
    return run(method), run(baseline, "GRPO")


def test_worked_example_b() -> None:
    """122 gained and 74 lost of 1,837: +2.6 [+1.1, +4.1], McNemar p = 0.0007, the claim holds."""
    found = checkpoint_claim(*([r] for r in pair(1837, 122, 74, 655)), POLICY,
                             method="ktr", baseline="grpo")  # fmt: skip
    assert found.delta is not None and found.item_interval is not None and found.p is not None
    assert (round(100 * found.delta, 1), found.word, found.test) == (2.6, "holds", "exact McNemar")
    ends = (round(100 * found.item_interval.low, 1), round(100 * found.item_interval.high, 1))
    assert ends == (1.1, 4.1) and found.p == pytest.approx(0.0007, abs=5e-5)
    assert found.reason == "exact McNemar p = 0.0007" and found.basis == "two checkpoints"
    back = checkpoint_claim(*([r] for r in pair(1837, 74, 122, 655)), POLICY,
                            method="ktr", baseline="grpo")  # fmt: skip
    assert back.word == "reversed" and back.as_dict()["p"] == found.as_dict()["p"]


def test_too_small_a_difference_says_what_would_decide() -> None:
    method, baseline = pair(400, 22, 14, 180)
    found = checkpoint_claim([method], [baseline], POLICY, method="a", baseline="b")
    assert found.text == "undecided (two checkpoints)"
    assert "such questions would decide" in found.reason
    same = checkpoint_claim([method], [method], POLICY, method="a", baseline="b")
    assert same.word == "undecided" and "no number of questions" in same.reason
    assert checkpoint_claim([], [method], POLICY, method="a", baseline="b").word == "not run"
    probed = replace(method.record, protocol={**PROTOCOL, "id": "x+no-video"})
    left_out = checkpoint_claim([Run(probed, method.rows)], [baseline], POLICY,
                                method="a", baseline="b")  # fmt: skip
    assert left_out.word == "not run"


def test_other_questions_are_refused() -> None:
    with pytest.raises(NotComparable, match="differ in protocol"):
        checkpoint_claim([run(np.ones(9))], [run(np.ones(9), protocol_hash="0000000f")], POLICY,
                         method="a", baseline="b")  # fmt: skip


def test_false_claims_stay_near_five_percent() -> None:
    rng = np.random.default_rng(3)
    policy = replace(POLICY, draws=400)
    claimed = 0
    for _ in range(300):
        p = rng.beta(0.9, 1.1, 250)
        runs = [run((rng.random(250) < p).astype(float)) for _ in range(2)]
        found = checkpoint_claim(runs[:1], runs[1:], policy, method="a", baseline="b")
        claimed += found.word != "undecided"
    assert claimed / 300 <= 0.075


# --- in a paper's cells, and on the terminal -----------------------------------------------


@pytest.fixture(scope="module")
def examples() -> list[Run]:
    """Examples a and b as runs of the real cells: 42.7 printed on 1,837 questions, K = 3."""
    paper = load_reported(ROOT / "repro" / "ktr" / "reported.yaml")
    weights = {m.name: m.weights for m in (n.model for n in paper.numbers) if m.weights}
    ours, theirs = weights["Video-KTR"], weights["Qwen2.5-VL-SFT"]
    runs = []
    for seed in range(3):
        values = np.zeros(1837)
        values[: 777 - 92] = 1.0
        start = 777 + 92 * seed
        values[start : start + 92] = 1.0
        runs.append(run(values, str(ours), seed, batch=8 << seed))
    runs.append(run(np.r_[np.ones(580), np.zeros(1257)], str(theirs)))
    return runs


def test_the_terminal_form(examples: list[Run]) -> None:
    paper = load_reported(ROOT / "repro" / "ktr" / "reported.yaml")
    board = build_board([paper], examples, POLICY)
    entry = next(
        e for e in board.entries
        if e.number.id == "ktr/main/video-ktr@64/video_holmes/accuracy"
    )  # fmt: skip
    assert entry.score is not None
    first, second, third, *rest = terminal.entry_text(entry, entry.score).splitlines()
    assert first.startswith(
        "ktr · video_holmes · Video-KTR, 64 frames · released checkpoint · K = 3"
    )
    assert "reported 42.7" in second and "ours 42.3 ± 1.0 (90 %)" in second
    assert "margin ±1.5" in second  # half of 42.7 - 39.7
    assert third.strip().startswith("−0.4 [−1.4, +0.6]")
    claim = next(line for line in rest if "claim:" in line)
    assert "KTR − cold start" in claim and "printed +9.0" in claim
    assert "sign flips by video p = " in claim and claim.endswith("->  holds")
    assert rest[-1].strip().startswith("1,837 items x 3: 2,331 correct · 3,180 wrong")
    assert rest[-1].endswith("2.1 GPU-hours")
    assert "released checkpoint" in terminal.board_text(board)


# --- the same tests in statsmodels ---------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_statsmodels(gained: int, lost: int) -> None:
    theirs = mcnemar([[5, lost], [gained, 5]], exact=True).pvalue if gained + lost else 1.0
    assert stats.mcnemar_exact(gained, lost) == pytest.approx(min(1.0, theirs), rel=1e-9)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1).map(lambda x: round(x, 6)), min_size=1, max_size=12))
def test_holm_and_benjamini_hochberg_are_statsmodels(p: list[float]) -> None:
    assert stats.holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]), abs=1e-12)
    theirs = list(multipletests(p, method="fdr_bh")[1])
    assert stats.benjamini_hochberg(p) == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=25)
@given(st.integers(2, 900), st.integers(2, 900), st.data())
def test_newcombe_and_wilson_are_statsmodels(n: int, m: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(1, n - 1)), data.draw(st.integers(1, m - 1))
    ours = stats.independent_delta(a / n, b / m, n, m).interval(0.95)
    low, high = confint_proportions_2indep(a, n, b, m, compare="diff", method="newcomb")
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-9)
    low, high = proportion_confint(a, n, method="wilson")
    wilson = stats.wilson(a, n)
    assert (wilson.low, wilson.high) == pytest.approx((low, high), abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 999), st.floats(-0.05, 0.05), st.floats(0.005, 0.03))
def test_tost_is_statsmodels(state: int, shift: float, margin: float) -> None:
    values = np.random.default_rng(state).normal(shift, 0.1, 60)
    delta = stats.Delta(float(values.mean()), float(values.std(ddof=1) / np.sqrt(60)))
    assert delta.tost_p(margin) == pytest.approx(ztost(values, -margin, margin)[0], abs=1e-9)
