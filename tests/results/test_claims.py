"""Claims: the seed is the unit, both intervals must agree, partial runs never count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from results import arms, ledger, schema, verdict
from results.ledger import Items, Run
from results.policy import Registered
from results.schema import LedgerError, Record
from results.verdict import NotComparable

POLICY = verdict.load_policy()
VIDEOS = np.repeat([f"v{i:02}" for i in range(50)], 4)


def run(arm: str, seed: int, scores: npt.ArrayLike, **more: Any) -> Run:
    """A run in memory with the given score of every question."""
    values = np.asarray(scores, dtype=float)
    fields: dict[str, Any] = {
        "schema": 2,
        "paper": "ktr",
        "profile": "micro",
        "arm": arm,
        "benchmark": "microworld",
        "split": "test",
        "metric": "accuracy",
        "n": len(values),
        "samples": 8,
        "score": float(values.mean()),
        "outcomes": {},
        "by_tag": {},
        "model": {},
        "protocol": {"decoding": {"temperature": 1.0}},
        "protocol_hash": "00000008",
        "dataset": {"revision": "v1", "sha256": None},
        "seed": seed,
        "engine": {},
        "batch": None,
        "image": None,
        "git": {},
        "machine": {},
        "seconds": 1.0,
        "gpu_hours": None,
        "started": "",
        "finished": None,
        "rows": {},
        "curves": None,
        "tokens": None,
        "partial": False,
        "who": "",
    }
    made = Run(Record(**{**fields, **more}), ())
    ids = tuple(f"q{i:04}" for i in range(len(values)))
    made.__dict__["items"] = Items(ids, values, VIDEOS[: len(values)], ({},) * len(values))
    return made


def arm(name: str, shifts: list[float], noise: float = 0.02) -> list[Run]:
    """One run per shift, all of the same difficulty, questions with their own noise."""
    base = np.random.default_rng(5).uniform(0.2, 0.7, 200)
    return [
        run(name, s, base + shift + np.random.default_rng([s, len(name)]).normal(0, noise, 200))
        for s, shift in enumerate(shifts)
    ]


BASE = arm("grpo", [0.0, 0.0, 0.0])


def test_holds_needs_three_seeds_and_both_intervals() -> None:
    better = arm("ktr", [0.05, 0.055, 0.045])
    found = verdict.claim(better, BASE, POLICY)
    assert (found.word, found.text) == ("holds", "holds")
    assert found.delta == pytest.approx(0.05, abs=0.004)
    assert found.seed_interval is not None and found.seed_interval.above
    assert found.item_interval is not None and found.item_interval.above
    assert (found.seeds, found.items, found.clusters) == (3, 200, 50)
    assert [pair.seed for pair in found.per_seed] == [0, 1, 2]
    two = verdict.claim(better[:2], BASE[:2], POLICY)
    assert two.word == "undecided" and two.text == "undecided (2 seeds)"
    assert "at least 3" in two.reason


def test_reversed_is_the_mirror() -> None:
    better = arm("ktr", [0.05, 0.055, 0.045])
    found = verdict.claim(BASE, better, POLICY)
    assert found.word == "reversed"
    assert found.delta == pytest.approx(-0.05, abs=0.004)
    assert "below 0" in found.reason


def test_seeds_that_disagree_leave_it_open_and_say_how_many_would_do() -> None:
    found = verdict.claim(arm("ktr", [0.09, 0.01, 0.03]), BASE, POLICY)
    assert found.word == "undecided"
    assert found.item_interval is not None and found.item_interval.above  # items alone would claim
    assert found.needed is not None and found.needed > 3
    assert f"about {found.needed} would decide" in found.reason


def test_questions_that_disagree_leave_it_open_too() -> None:
    rng = np.random.default_rng(0)
    same = rng.normal(0, 0.4, 50)[np.repeat(np.arange(50), 4)]  # the same in every seed
    base = np.full(200, 0.5)
    method = [run("ktr", s, base + same - same.mean() + 0.01 + 1e-4 * s) for s in range(3)]
    baseline = [run("grpo", s, base) for s in range(3)]
    found = verdict.claim(method, baseline, POLICY)
    assert found.seed_interval is not None and found.seed_interval.above
    assert found.word == "undecided" and "over videos contains 0" in found.reason


def test_one_seed_says_so() -> None:
    found = verdict.claim(arm("ktr", [0.3]), BASE[:1], POLICY)
    assert found.text == "undecided (1 seed)" and "shows no spread" in found.reason
    assert found.needed is None
    assert found.as_dict()["seed_interval"] == [None, None]  # JSON knows no infinity


def test_partial_and_unpaired_runs_never_count_and_are_named() -> None:
    method = arm("ktr", [0.05, 0.05, 0.05, 0.05])
    method[1] = run("ktr", 1, np.full(7, 0.9), partial=True)
    found = verdict.claim(method, BASE, POLICY)
    assert [pair.seed for pair in found.per_seed] == [0, 2]
    assert found.excluded == (
        "ktr seed 1: partial",
        "ktr seed 3: no grpo run",
        "grpo seed 1: no ktr run",
    )
    assert found.word == "undecided"


def test_not_run() -> None:
    assert verdict.claim([], BASE, POLICY, method="ktr").word == "not run"
    other = [run("ktr", 9, np.full(200, 0.5))]
    found = verdict.claim(other, BASE, POLICY)
    assert found.word == "not run" and found.delta is None and found.as_dict()["delta"] is None
    with pytest.raises(ValueError, match="needs its name"):
        verdict.claim([], BASE, POLICY)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"protocol_hash": "ffffffff"}, "protocol"),
        ({"dataset": {"revision": "v2", "sha256": None}}, "dataset"),
        ({"samples": 1}, "samples"),
        ({"split": "validation"}, "split"),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(NotComparable, match=f"ktr seed 0 .*differ in {named}|differ in {named}"):
        verdict.claim([run("ktr", 0, np.full(200, 0.5), **change)], BASE, POLICY)


def test_other_questions_are_not_comparable() -> None:
    with pytest.raises(NotComparable, match="questions"):
        verdict.claim([run("ktr", 0, np.full(196, 0.5))], BASE, POLICY)


def test_an_arm_is_one_arm_and_a_seed_one_run() -> None:
    with pytest.raises(LedgerError, match="seed 0 appears twice"):
        verdict.claim([BASE[0], BASE[0]], BASE, POLICY)
    with pytest.raises(LedgerError, match="one arm is expected, found grpo and ktr"):
        verdict.claim([*BASE, run("ktr", 5, np.full(200, 0.5))], BASE, POLICY)


def test_gain_pairs_every_seed_with_the_start() -> None:
    start = run("cold", 0, np.full(200, 0.4))
    found = verdict.gain([run("grpo", s, np.full(200, 0.46)) for s in (3, 1, 2)], start, POLICY)
    assert (found.baseline, found.word, found.seeds) == ("cold", "holds", 3)
    assert [pair.seed for pair in found.per_seed] == [1, 2, 3]
    half = run("cold", 0, np.full(200, 0.4), partial=True)
    assert verdict.gain([BASE[0]], half, POLICY).word == "not run"


def test_registered_claims_use_the_sampled_replies() -> None:
    greedy = {"samples": 1, "protocol_hash": "00000001"}
    greedy["protocol"] = {"decoding": {"temperature": 0.0}}  # type: ignore[assignment]
    runs = [*BASE, *arm("ktr", [0.05, 0.05, 0.05])]
    twins = [run(r.record.arm, r.record.seed, np.zeros(200), **greedy) for r in runs]
    first, second = verdict.registered([*twins, *runs], POLICY)
    assert (first.method, first.baseline, first.word) == ("ktr", "grpo", "holds")
    assert (second.baseline, second.word) == ("random", "not run")
    assert verdict.registered([run("x", 0, np.zeros(4), paper="other")], POLICY) == ()


def test_claims_of_written_runs(maker: Callable[..., ledger.Run]) -> None:
    method = [maker("ktr", s, 0.2) for s in range(3)]
    baseline = [maker("grpo", s, 0.0) for s in range(3)]
    assert verdict.claim(method, baseline, POLICY).word == "holds"


def test_false_claims_are_rare_where_pooled_items_would_make_many() -> None:
    """Two arms without a difference, training luck of 2.2 points in each, three seeds."""
    rng = np.random.default_rng(11)
    policy = verdict.Policy(**{**POLICY.__dict__, "draws": 1000})
    claimed = pooled = 0
    repetitions = 250
    for _ in range(repetitions):
        p = rng.uniform(0.2, 0.8, 200)
        pairs = [
            [
                run(name, s, rng.binomial(8, np.clip(p + rng.normal(0, 0.022), 0, 1)) / 8)
                for s in range(3)
            ]
            for name in ("ktr", "grpo")
        ]
        found = verdict.claim(*pairs, policy)
        claimed += found.word != "undecided"
        assert found.item_interval is not None
        pooled += found.item_interval.above or found.item_interval.below
    assert claimed / repetitions <= 0.05
    assert pooled / repetitions > 0.15  # what the item interval alone would have claimed


def told(arm: str, seed: int, order: float, mvp: float) -> Run:
    """A run with rows: 20 questions of order and 20 items, a video each."""
    rows = tuple(
        schema.Row(
            id=f"q{n:02}", k=0, cluster=f"v{n}", kind="ordering", gold="", prediction=None,
            outcome="wrong", score=order + n / 1000 if n < 20 else mvp, tokens=1,
            tags={"family": "order" if n < 20 else "mvp 2+2"},
        )
        for n in range(40)
    )  # fmt: skip
    made = run(arm, seed, [row.score for row in rows], paper="mvp")
    del made.__dict__["items"]
    return replace(made, rows=rows)


def test_a_claim_about_a_part_of_the_questions() -> None:
    """Over families by their first word; against the one start checkpoint, which has no seeds."""
    rules = (
        Registered("mvp", "mvp_qa", "qa", "s", ("order",)),
        Registered("mvp", "mvp_qa", "cold", "s", ("mvp",)),
        Registered("mvp", "mvp_qa", "qa", "s", ("cause",)),
        Registered("mvp", "mvp_qa", "cold", "s"),
    )
    runs = [told("cold", 0, 0.2, 0.1)]
    for seed in range(3):
        runs += [told("qa", seed, 0.5, 0.1), told("mvp_qa", seed, 0.4, 0.3 + seed / 100)]
    found = verdict.registered(runs, replace(POLICY, claims=rules))
    assert [claim.word for claim in found] == ["reversed", "holds", "not run", "holds"]
    assert [claim.items for claim in found] == [20, 20, 0, 40]
    assert found[0].delta == pytest.approx(-0.1) and found[1].delta == pytest.approx(0.21)
    assert arms.difference(found[1]) == "MVP + questions \N{MINUS SIGN} cold start on mvp"
    assert found[1].as_dict()["families"] == ["mvp"] and "families" not in found[3].as_dict()
