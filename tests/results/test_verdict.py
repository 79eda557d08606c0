"""Questions E and T: words in their precedence, the worked examples as printed, honest counting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import stats, verdict
from results.ledger import Run
from results.protocol import Assumed
from results.schema import LedgerError, Record, Row
from results.verdict import NotComparable, Verdict, decide, decide_paper

POLICY = verdict.load_policy()
STATED = {"frames": 32, "prompt": "video-r1", "temperature": 0.0}
OURS = {"max_frames": 32, "prompt": "video-r1", "decoding": {"temperature": 0.0, "seed": 7}}


@dataclass(frozen=True)
class Number:
    """A printed number with what `decide` asks of it."""

    fraction: float
    half_digit: float = 0.0005
    n: int | None = 400
    protocol: Mapping[str, Any] = field(default_factory=lambda: STATED)
    verified: str = "paper"
    may_turn_green: bool = True


def run(
    scores: npt.ArrayLike,
    seed: int = 0,
    *,
    lost: int = 0,
    per_video: int = 1,
    curves: bool = False,
    **more: Any,
) -> Run:
    """A run in memory; its last `lost` questions could not be decoded."""
    values = np.asarray(scores, dtype=float)
    n = len(values)
    protocol = more.pop("protocol", OURS)
    data: dict[str, Any] = {
        "schema": 2, "paper": "ktr", "profile": "paper", "arm": "released",
        "benchmark": "video_holmes", "split": "test", "metric": "accuracy", "n": n, "samples": 1,
        "score": float(values.mean()), "outcomes": {}, "by_tag": {},
        "model": {"id": "m", "revision": None, "sha256": f"{seed if curves else 0:064x}"},
        "protocol": protocol, "protocol_hash": f"{hash(str(protocol)) % 2**32:08x}",
        "dataset": {"revision": "v1", "sha256": None}, "seed": seed,
        "engine": {"name": "hf", "version": "1"}, "batch": 8, "git": {}, "image": None,
        "machine": {"cpu": None, "gpu": "H100", "driver": None}, "seconds": 1.0,
        "gpu_hours": None, "started": "2026-06-01T00:00:00+00:00", "finished": None, "rows": {},
        "curves": {"path": "c"} if curves else None, "tokens": None, "partial": False, "who": "",
    }  # fmt: skip
    rows = tuple(
        Row(
            f"q{i:05}", 0, f"v{i // per_video:05}", "multiple choice", "B", None,
            "undecodable" if i >= n - lost else "wrong", float(v), 1, {},
        )
        for i, v in enumerate(values)
    )  # fmt: skip
    return Run(Record(**{**data, **more}), rows)


def answers(n: int, correct: int, flipped: int, count: int, shift: int = 0) -> list[Run]:
    """`count` runs of n items with `correct` right; each pair differs on 2 x `flipped` items."""
    out = []
    for k in range(count):
        values = np.zeros(n)
        values[: correct - flipped] = 1.0
        start = correct + flipped * k + shift
        values[start : start + flipped] = 1.0
        out.append(run(values, k))
    return out


def judged(
    number: Number, runs: Sequence[Run], margin: float | None = 0.0155, **more: Any
) -> Verdict:
    return decide(number, runs, POLICY, margin=margin, **more)


def points(interval: stats.Interval) -> tuple[float, float]:
    """The ends in percentage points, as printed."""
    return round(100 * interval.low, 1), round(100 * interval.high, 1)


# --- worked examples of statistics.md 2.6 --------------------------------------------------


def test_example_a_reproduced() -> None:
    """42.7 printed, n = 1,837; K = 3 with mean 42.3 and D = 10 %; printed gain 3.1."""
    runs = answers(1837, 777, 92, 3)  # pairs differ on 184 items: D = 10.0 %
    number = Number(0.427, n=1837)
    found = judged(number, runs, POLICY.margin(0.031))
    assert found.delta is not None and found.narrow is not None and found.wide is not None
    assert found.score == pytest.approx(0.423, abs=5e-4)
    assert found.delta.error == pytest.approx(0.0060, abs=5e-5)
    assert found.margin == pytest.approx(0.0155)
    assert round(100 * found.delta.estimate, 1) == -0.4
    assert points(found.narrow) == (-1.4, 0.6) and points(found.wide) == (-1.6, 0.8)
    assert (found.word, found.symbol, found.counted) == ("reproduced", "K = 3", True)


def test_example_a_with_one_run() -> None:
    found = judged(Number(0.427, n=1837), answers(1837, 777, 92, 1))
    assert found.word == "within noise" and not found.counted
    assert found.narrow is not None and 100 * found.narrow.half_width == pytest.approx(
        2.7, abs=0.05
    )
    assert found.method == "independent samples" and found.needed == 2


def test_example_b_the_claim_holds() -> None:
    """122 gained and 74 lost of 1,837: +2.6 points [+1.1, +4.1], exact p = 0.0007."""
    assert stats.mcnemar_exact(122, 74) == pytest.approx(0.0007, abs=5e-5)
    delta = np.zeros(1837)
    delta[:122], delta[122:196] = 1.0, -1.0
    interval = stats.clustered_interval(delta, [str(i) for i in range(1837)])
    assert round(100 * interval.estimate, 1) == 2.6 and points(interval) == (1.1, 4.1)


@pytest.mark.parametrize(
    ("printed", "got", "n", "low", "high", "word"),
    [
        (57.4, 53.48, 2700, -6.6, -1.3, "below"),
        (72.6, 69.73, 7540, -4.3, -1.4, "below"),
        (34.6, 30.28, 5130, -6.1, -2.5, "below"),
        (64.2, 64.16, 625, -5.3, 5.3, "within noise"),
        (49.8, 48.44, 900, -6.0, 3.3, "within noise"),
    ],
)
def test_example_c_a_strangers_retraining(
    printed: float, got: float, n: int, low: float, high: float, word: str
) -> None:
    """One seed and no rows: the K = 1 fallback. Video-R1 issue #65."""
    found = stranger(printed, got, n)
    assert found.word == word and found.wide is not None
    assert points(found.wide) == (low, high)


def stranger(printed: float, got: float, n: int) -> Verdict:
    values = np.full(n, got / 100)  # only the mean is known
    return judged(Number(printed / 100, n=n), [run(values)], question="E")


def test_example_c_paper_level_is_below_after_holm() -> None:
    table = [(57.4, 53.48, 2700), (72.6, 69.73, 7540), (34.6, 30.28, 5130), (64.2, 64.16, 625)]
    cells = [stranger(*row) for row in [*table, (49.8, 48.44, 900)]]
    found = decide_paper(cells, POLICY)
    assert found.word == "below" and "3 of 5 measured cells" in found.reason
    assert (found.reproduced, found.counted, found.cells) == (0, 0, 5)  # one run each


# --- precedence ----------------------------------------------------------------------------

SAME = answers(400, 200, 10, 3)


def test_not_run_and_failed() -> None:
    found = judged(Number(0.5), [], absent="data gated")
    assert (found.word, found.reason, found.runs) == ("not run", "data gated", 0)
    failed = judged(Number(0.5), [], failure="out of memory")
    assert (failed.word, failed.reason) == ("failed", "out of memory")
    assert judged(Number(0.5), SAME, failure="an earlier try").word == "reproduced"
    partial = judged(Number(0.5), [run(np.ones(9), partial=True)])
    assert partial.word == "not run" and partial.excluded == ("released seed 0: partial",)


def test_lost_questions_fail_only_where_they_matter() -> None:
    base = np.r_[np.ones(200), np.zeros(200)]
    some = [run(base, s, lost=6) for s in range(3)]  # 1.5 %
    assert judged(Number(0.5), some, 0.03).word == "reproduced"
    many = [run(base, s, lost=30) for s in range(3)]
    found = judged(Number(0.5), many)
    assert found.word == "failed" and not found.counted
    assert (
        "7.5 % undecodable" in found.reason
        and "reproduced if all of them are wrong" in found.reason
    )
    few = [run(base, s, lost=4) for s in range(3)]  # 1.0 %: not more than 1 %
    assert judged(Number(0.5), few, 0.0101).word == "reproduced"


@pytest.mark.parametrize(
    ("protocol", "named"),
    [
        ({**OURS, "max_frames": 16}, "frames"),
        ({**OURS, "prompt": "think"}, "prompt"),
        ({**OURS, "decoding": {"temperature": 0.1}}, "temperature"),
        ({"max_frames": 32, "decoding": {"temperature": 0.0}}, "prompt"),
    ],
)
def test_a_differing_field_is_named(protocol: dict[str, Any], named: str) -> None:
    runs = [replace_protocol(r, protocol) for r in SAME]
    found = judged(Number(0.5), runs)
    assert found.word == "not comparable" and found.text == f"not comparable ({named})"
    assert named in found.reason and not found.counted
    assert found.delta is not None  # still shown


def replace_protocol(made: Run, protocol: Mapping[str, Any]) -> Run:
    name = f"{hash(str(protocol)) % 2**32:08x}"
    return Run(replace(made.record, protocol=protocol, protocol_hash=name), made.rows)


def test_another_number_of_questions_is_another_benchmark() -> None:
    found = judged(Number(0.5, n=390), SAME)
    assert found.text == "not comparable (n)" and found.method == "independent samples"
    assert "n 400, the paper has 390" in found.reason
    assert judged(Number(0.5, protocol={}), SAME).reason == "the paper states no protocol"


def test_unstated_needs_an_assumption_from_before_the_run() -> None:
    open_prompt = Number(0.5, protocol={**STATED, "prompt": "unstated"})
    assert judged(open_prompt, SAME).text == "not comparable (prompt)"
    early = {"prompt": Assumed(("video-r1",), date(2026, 6, 1))}
    late = {"prompt": Assumed(("video-r1",), date(2026, 6, 2))}
    found = judged(open_prompt, SAME, assumed=early)
    assert found.word == "reproduced"
    assert [f.state for f in found.fields if f.name == "prompt"] == ["assumed"]
    assert "after the run" in judged(open_prompt, SAME, assumed=late).reason
    wrong = {"prompt": Assumed(("other",), date(2026, 1, 1))}
    assert judged(open_prompt, SAME, assumed=wrong).word == "not comparable"
    no_n = Number(0.5, n=None)
    assert judged(no_n, SAME).text == "not comparable (n)"
    assert judged(no_n, SAME, assumed={"n": Assumed((400,), date(2026, 1, 1))}).word == "reproduced"


def test_plausible_protocols_must_all_be_run_and_agree() -> None:
    open_prompt = Number(0.5, protocol={**STATED, "prompt": "unstated"})
    both = {"prompt": Assumed(("video-r1", "think"), date(2026, 1, 1))}
    half = judged(open_prompt, SAME, assumed=both)
    assert half.text == "not comparable (prompt)" and "prompt think was not run" in half.reason
    think = {**OURS, "prompt": "think"}
    agreeing = [replace_protocol(r, think) for r in answers(400, 201, 10, 3)]
    found = judged(open_prompt, [*SAME, *agreeing], 0.03, assumed=both)
    assert found.word == "reproduced" and len(found.alternatives) == 2
    assert found.delta is not None and found.delta.estimate == pytest.approx(0.0025)  # the worse
    fewer = judged(open_prompt, [*SAME, agreeing[0]], 0.03, assumed=both)
    assert (fewer.runs, fewer.counted) == (1, False)  # each plausible protocol needs its runs
    other = [replace_protocol(r, think) for r in answers(400, 150, 10, 3)]
    found = judged(open_prompt, [*SAME, *other], assumed=both)
    assert found.text == "not comparable (prompt)"
    assert found.reason == "plausible protocols disagree: below, reproduced" or (
        found.reason == "plausible protocols disagree: reproduced, below"
    )
    assert {v.word for v in found.alternatives} == {"below", "reproduced"}


def test_a_value_that_follows_another_field_comes_only_with_its_own() -> None:
    """Two prompts, each with its grader: two plausible protocols, not four."""
    open_both = Number(0.5, protocol={**STATED, "prompt": "unstated", "grader": "unstated"})
    day = date(2026, 1, 1)
    pairs = {
        "prompt": Assumed(("video-r1", "think"), day),
        "grader": Assumed(("own", "other"), day, follows="prompt"),
    }

    def asked(prompt: str, grader: str) -> list[Run]:
        protocol = {**OURS, "prompt": prompt, "grader": grader}
        return [replace_protocol(r, protocol) for r in answers(400, 201, 10, 3)]

    plain, think = asked("video-r1", "own"), asked("think", "other")
    assert judged(open_both, [*plain, *think], 0.03, assumed=pairs).word == "reproduced"
    half = judged(open_both, plain, 0.03, assumed=pairs)
    assert "prompt think, grader other was not run" in half.reason
    found = judged(open_both, [*plain, *asked("think", "own")], 0.03, assumed=pairs)
    assert found.word == "not comparable"
    assert found.excluded == ("3 runs of another protocol (grader)",)


def test_a_plausible_number_of_questions_is_a_plausible_protocol() -> None:
    two = {"n": Assumed((400, 200), date(2026, 1, 1))}
    unknown = Number(0.5, n=None)
    assert "n 200 was not run" in judged(unknown, SAME, assumed=two).reason
    part = answers(200, 100, 1, 3)
    found = judged(unknown, [*SAME, *part], assumed=two)
    assert found.word == "reproduced" and [v.n for v in found.alternatives] == [200, 400]
    assert judged(Number(0.5), SAME, assumed=two).word == "reproduced"  # stated: nothing to assume


def test_runs_of_another_protocol_stand_aside() -> None:
    other = [replace_protocol(r, {**OURS, "max_frames": 16}) for r in answers(400, 100, 10, 3)]
    found = judged(Number(0.5), [*SAME, *other])
    assert found.word == "reproduced" and found.runs == 3
    assert found.excluded == ("3 runs of another protocol (frames)",)


def test_numeric_words() -> None:
    assert judged(Number(0.5), SAME).word == "reproduced"
    assert judged(Number(0.6), SAME).word == "below"
    above = judged(Number(0.4), SAME)
    assert above.word == "above" and "explain" in above.reason
    noisy = answers(400, 200, 60, 3)
    assert judged(Number(0.51), noisy).word == "within noise"


def test_small_and_significant_inside_the_margin_is_reproduced() -> None:
    steady = answers(4000, 2000, 5, 3)
    found = judged(Number(0.505, n=4000), steady)
    assert found.wide is not None and found.wide.below and found.word == "reproduced"


def test_without_margin_or_with_a_weak_source_nothing_turns_green() -> None:
    found = judged(Number(0.5), SAME, None)
    assert found.word == "within noise" and "no margin" in found.reason
    for kind in ("figure_estimate", "third_party"):
        weak = Number(0.5, verified=kind, may_turn_green=False)
        found = judged(weak, SAME)
        assert found.word == "within noise" and not found.counted
        assert "never turns green" in found.reason
        assert judged(replace(weak, fraction=0.7), SAME).word == "below"


# --- how many runs -------------------------------------------------------------------------


def test_a_copy_is_no_second_run() -> None:
    twice = [SAME[0], SAME[0], run(SAME[0].items.scores, 0, batch=16)]
    found = judged(Number(0.5), twice)
    assert found.runs == 2  # another batch size is another run
    assert found.excluded == ("released seed 0: varies nothing against an earlier run",)


def test_needed_runs_decide_as_predicted() -> None:
    runs = answers(1837, 919, 120, 2)
    number = Number(runs[0].record.score + 0.001, n=1837)
    found = judged(number, runs, 0.0125)
    assert found.word == "within noise" and found.needed is not None and found.needed > 2
    q = stats.flips(np.array([r.items.scores for r in runs]), [str(i) for i in range(1837)])

    def inside(k: int) -> bool:
        error = math.sqrt(stats.variance_of_flips(q, 1837, k, 0.0005))
        return stats.Delta(-0.001, error).interval(0.9).inside(0.0125)

    assert inside(found.needed) and not inside(found.needed - 1)
    assert f"about {found.needed} re-scores would decide" in found.reason
    hopeless = judged(number, runs, 0.008)
    assert hopeless.needed is None and "no number of re-scores" in hopeless.reason


def trained(scores: Sequence[float], n: int = 400) -> list[Run]:
    return [
        run(np.r_[np.ones(round(s * n)), np.zeros(n - round(s * n))], seed, curves=True, arm="ktr")
        for seed, s in enumerate(scores)
    ]


def test_training_seeds_use_the_prediction_interval() -> None:
    found = judged(Number(0.52), trained([0.50, 0.51, 0.52]))
    assert found.question == "T" and found.symbol == "S = 3" and found.wide is not None
    assert found.wide.half_width == pytest.approx(4.303 * 0.01 * math.sqrt(4 / 3), rel=1e-3)
    assert found.word == "within noise" and found.counted
    assert judged(Number(0.58), trained([0.50, 0.51, 0.52])).word == "below"
    assert not judged(Number(0.52), trained([0.50, 0.51])).counted


def test_a_pooled_spread_narrows_three_seeds() -> None:
    pooled = stats.Spread(0.004, 12)
    found = judged(Number(0.511), trained([0.51, 0.51, 0.5125]), spread=pooled)
    assert found.word == "reproduced" and "pooled" in found.method
    own = judged(Number(0.511), trained([0.50, 0.51, 0.52]), spread=stats.Spread(0.004, 1))
    assert own.method == "prediction interval, s of 3 seeds"  # fewer degrees than their own


def test_one_seed_is_below_or_nothing() -> None:
    found = judged(Number(0.55), trained([0.50]), 0.03)
    assert (found.word, found.text, found.counted) == ("below", "below (1 seed)", False)
    near = judged(Number(0.51), trained([0.505]), 0.03)
    assert near.word == "within noise" and "registered prior" in near.method
    wide = judged(Number(0.50), trained([0.5]), 1.0)
    assert wide.word == "within noise"  # never reproduced, whatever the margin


def test_ledger_spread_pools_trained_arms_only() -> None:
    runs = [*trained([0.50, 0.52]), *[replace_arm(r) for r in trained([0.30, 0.33, 0.36])], *SAME]
    found = verdict.ledger_spread(runs)
    assert found is not None and found.df == 3
    assert found.s == pytest.approx(math.sqrt((0.0002 + 0.0018) / 3), rel=1e-3)
    assert verdict.ledger_spread(SAME) is None


def replace_arm(made: Run) -> Run:
    return Run(replace(made.record, arm="grpo"), made.rows)


def test_what_cannot_be_decided_is_refused() -> None:
    with pytest.raises(LedgerError, match="one arm is expected"):
        judged(Number(0.5), [SAME[0], run(np.ones(400), 1, arm="grpo")])
    with pytest.raises(NotComparable, match="different questions"):
        other = Run(SAME[1].record, tuple(replace(r, id=f"x{r.id}") for r in SAME[1].rows))
        judged(Number(0.5), [SAME[0], other])
    twice = [trained([0.5])[0], run(np.ones(400), 0, curves=True, arm="ktr", batch=2)]
    with pytest.raises(LedgerError, match="seed 0 appears twice"):
        judged(Number(0.5), twice)


# --- papers --------------------------------------------------------------------------------


def test_a_paper_is_reproduced_only_whole() -> None:
    green, low = judged(Number(0.5), SAME), judged(Number(0.6), SAME)
    assert decide_paper([green, green], POLICY).word == "reproduced"
    missing = judged(Number(0.5), [])
    found = decide_paper([green, missing], POLICY)
    assert (found.word, found.reproduced, found.counted, found.cells) == ("open", 1, 1, 2)
    assert decide_paper([green, low], POLICY).word == "below"
    assert decide_paper([missing, missing], POLICY).word == "not run"
    assert decide_paper([judged(Number(0.5, n=3), SAME)], POLICY).word == "open"


def test_one_shaky_below_does_not_survive_holm() -> None:
    """p = 0.04 in one of five cells is what chance gives."""
    base = judged(Number(0.5), SAME)
    cells = [replace(base, delta=stats.Delta(-0.0205, 0.01), word="below")]
    cells += [replace(base, delta=stats.Delta(-0.001, 0.01), word="within noise")] * 4
    assert decide_paper(cells, POLICY).word == "open"
    assert decide_paper(cells[:1], POLICY).word == "below"


# --- properties ----------------------------------------------------------------------------


@given(
    reported=st.floats(0.3, 0.7).map(lambda x: round(x, 3)),
    flipped=st.integers(0, 40),
    count=st.integers(1, 3),
    margin=st.sampled_from([None, 0.01, 0.02, 0.03]),
)
def test_words_are_exclusive_and_say_what_the_intervals_say(
    reported: float, flipped: int, count: int, margin: float | None
) -> None:
    found = judged(Number(reported), answers(400, 200, flipped, count), margin)
    assert found.narrow is not None and found.wide is not None and found.delta is not None
    inside = margin is not None and found.narrow.inside(margin)
    expected = (
        "reproduced" if inside
        else "below" if found.wide.below
        else "above" if found.wide.above
        else "within noise"
    )  # fmt: skip
    assert found.word == expected
    assert found.wide.half_width > found.narrow.half_width
    assert found.counted == (count >= 2)
    assert set(found.as_dict()["protocol"]) == {"frames", "prompt", "temperature", "n"}


def test_size_and_power_of_the_words() -> None:
    """A true reproduction turns red in about 2.5 % of runs, a true drop of 6 points in most."""
    rng = np.random.default_rng(1)
    red = found_drop = 0
    for _ in range(150):
        p = rng.beta(0.9, 1.1, 400)
        for drop in (0.0, 0.06):
            printed = (rng.random(400) < np.clip(p + drop, 0, 1)).mean()
            runs = [run(rng.random(400) < p, k) for k in range(3)]
            word = judged(Number(round(printed, 3)), runs, 0.01).word
            red += drop == 0 and word == "below"
            found_drop += drop > 0 and word == "below"
    assert red <= 10 and found_drop >= 75
