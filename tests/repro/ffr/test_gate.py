"""repro.ffr.gate on made leaks and clean patches, on held-out phrasings, and on anything at all.

Bounds are what was measured when they were written; a paraphrase that no rule knows is what the
blind test is for.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.benchmarks.jsonl import read
from evals.types import Protocol, VideoClip
from evals.video import Wanted, read_clip
from repro.ffr.case import Case, stem
from repro.ffr.gate import BOUND, RULES, Gate
from repro.ffr.patch import Patch, Region
from repro.ffr.readings import decoded, fold, readings
from repro.ffr.readings import words as words_of
from repro.ffr.teacher import Failure, named


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


made = _load("made")
GATE = Gate()


def stage(guidance: str, case: str, **fields: Any) -> str | None:
    patch = Patch("spatial", (4, 5, 6), (), (), guidance)
    found = GATE.check(replace(patch, **fields), Case.of(made.CASES[case]))
    return found.stage if found else None


def refused(items: Iterable[Any]) -> tuple[Counter[str], Counter[str]]:
    """How many patches of each kind were refused, and how many there are."""
    hits, all_ = Counter[str](), Counter[str]()
    for item in items:
        all_[item.kind] += 1
        hits[item.kind] += GATE.check(item.patch, Case.of(item.failure)) is not None
    return hits, all_


def test_made_leaks_are_refused() -> None:
    hits, all_ = refused(made.leaks())
    assert all_.total() >= 200 and all_ >= Counter(
        direct=100, letter=70, paraphrase=60, lookalike=60, code=60, injection=48, elimination=30,
        further=50, pointing=6,
    )  # fmt: skip
    missed = all_ - hits
    assert missed <= Counter(paraphrase=2), missed  # 58 of 60; everything else is refused


def test_clean_patches_pass() -> None:
    hits, all_ = refused(made.clean())
    assert all_["clean"] >= 270 and hits["clean"] <= 1  # 1 of 275


def test_hidden_words_that_the_gate_was_not_made_for() -> None:
    words = {made.gold(item.failure)[1].split()[-1]: item.failure for item in made.heldout()}
    pairs = [
        (made.patch(f"Watch for {hidden} near frame 5."), Case.of(failure))
        for word, failure in words.items() if word.isascii() and word.isalpha()
        for hidden in (*made.lookalikes(word), *made.codes(word))
    ]  # fmt: skip
    assert len(pairs) == 198 and all(GATE.check(*pair) for pair in pairs)


def test_phrasings_that_the_gate_was_not_made_for() -> None:
    hits, all_ = refused(made.heldout())
    assert all_ == Counter(direct=63, letter=20, elimination=14, paraphrase=51, clean=85)
    assert hits["direct"] >= 61 and hits["letter"] == 20 and hits["elimination"] >= 11
    assert hits["paraphrase"] >= 22  # 43 %: rules do not know the world
    assert hits["clean"] <= 4  # 5 %


def test_the_oracle_passes_and_the_leaky_teacher_does_not(films: Callable[..., Path]) -> None:
    folder = films("validation", 10)
    protocol = Protocol("test", prompt="micro", fps=4, max_frames=16)
    for sample in read(folder / "records.json", folder):
        clip = read_clip(Wanted.of(sample), protocol)
        reply = "<think>I see red circle, then blue square</think><answer>A</answer>"
        failure = Failure(sample, clip, reply, "A", 0.0, 1)
        for name in ("oracle", "random_interval", "leaky"):
            patch = asyncio.run(named(name).patch(failure))
            assert patch is not None
            found = GATE.check(patch, Case.of(failure))
            assert (found is not None) == (name == "leaky"), (sample, patch, found)


# --- stage by stage ------------------------------------------------------------------------------


def test_form() -> None:
    look = "Look there."
    assert stage(look, "colour") is None
    assert stage(look, "colour", key_frames=(16,)) == "form"
    assert stage(look, "colour", regions=(Region(99, 0, 0, 1, 1),)) == "form"
    assert stage(look, "colour", regions=(Region(1, 0.5, 0, 0.2, 1),)) == "form"
    assert stage("x" * 601, "colour") == "form"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Look at the correct answer.", "phrases"), ("You should select what you see.", "phrases"),
        ("Check frame 5 before you answer.", None), ("The second option.", "phrases"),
        ("Option number 2.", "phrases"), ("Take (b).", "phrases"), ("Look at B.", "phrases"),
        ("A person hides it in frame 5.", None), ("A is what frame 5 shows.", "phrases"),
        ("Look\u200b there.", "phrases"), ("Смотри на кадр.", "phrases"),
        ("Look at UWc9PQ==.", "phrases"), ("Look at 0x42.", "phrases"),
        ("Look at ⒷⒷ", None), ("See Ⓑ there", "phrases"), ("See 🅱 there", "phrases"),
    ],
)  # fmt: skip
def test_phrases(words: str, expected: str | None) -> None:
    assert stage(words, "cause" if "person" in words else "colour") == expected


def test_content_spares_what_the_question_says() -> None:
    assert stage("Look at the circle in frame 5.", "colour") is None
    assert stage("Look at the red one in frame 5.", "shape") is None
    assert stage("See the book.", "object") == "content"
    assert stage("See the novel.", "object") == "content"
    assert stage("Watch what the person sets on the table.", "object") is None
    # Of a long option one word is too much, unless the student said it.
    assert stage("Watch what she does to the evidence.", "motive") == "content"
    said = replace(made.CASES["motive"], reply="She has evidence in her bag.")
    patch = Patch("spatial", (4,), (), (), "Watch what she does to the evidence.")
    assert GATE.check(patch, Case.of(said)) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Look at frame 5.", None), ("Look at frame 9.", "numbers"), ("See t=2.5 s.", None),
        ("There are 3.", "numbers"), ("There are three.", "numbers"), ("You saw 2.", "numbers"),
        ("Look at each one in turn.", None), ("Look at 12.5 s.", "numbers"), ("● ● ●", "numbers"),
        ("The second half of the clip is fuller.", None), ("III", "numbers"),
        ("There is another and another.", "numbers"), ("There are more than you saw.", "numbers"),
    ],
)  # fmt: skip
def test_numbers_where_a_count_is_asked_for(words: str, expected: str | None) -> None:
    assert stage(words, "count") == expected


def test_numbers_elsewhere() -> None:
    assert stage("He knocks 4 times.", "number") == "numbers"
    assert stage("Look at frames 4 to 6.", "number") is None
    wide = {"key_frames": tuple(range(2, 10))}
    assert stage("Look there.", "locate", **wide) is None
    assert stage("Look there.", "locate", key_frames=(4, 5)) == "numbers"
    assert stage("It begins at 2.0 s.", "locate", **wide) == "numbers"
    assert stage("Look.", "locate", temporal_markers=("1 s to 5 s",), **wide) is None


def test_lexicon() -> None:
    assert stage("Look at the yellow thing.", "colour") == "lexicon"
    assert stage("Look at the yellow thing.", "count") is None
    assert stage("It is pointed.", "shape") == "content"
    assert stage("It never happens.", "yes") == "lexicon"
    box = (Region(5, 0.5, 0, 1, 1),)
    assert stage("Look.", "direction", regions=box) == "lexicon"
    assert stage("Look.", "object", regions=box) is None


def test_an_order_that_is_asked_for() -> None:
    asked = replace(made.CASES["count"].record, kind="ordering", gold="3, 1, 2")
    case = Case.of(replace(made.CASES["count"], record=asked))
    for words, expected in (
        ("Look at frames 4 to 6.", None), ("Picture three leads.", "numbers"),
        ("It begins with the ball.", "lexicon"),
    ):  # fmt: skip
        found = GATE.check(Patch("temporal", (4, 5, 6), (), (), words), case)
        assert (found.stage if found else None) == expected


def test_elimination() -> None:
    assert stage("Neither the phone nor the cup.", "object") == "elimination"
    assert stage("You took it for the cup.", "object") is None
    assert stage("The phone, the blanket and the cup stay.", "object") == "elimination"
    assert stage("It is not the cup.", "object") == "elimination"


def test_the_blind_test_has_a_bound() -> None:
    patch, case = Patch("spatial", (), (), (), "It has pages."), Case.of(made.CASES["object"])
    assert GATE.check(patch, case) is None and GATE.test(patch, case) is None
    for gain, refused_ in ((BOUND - 0.01, False), (BOUND + 0.01, True)):
        gate = Gate(lambda c, words, gain=gain: 0.25 if words is None else 0.25 + gain)
        found = gate.test(patch, case)
        assert (found is not None) == refused_
    assert Gate().id != Gate(lambda c, w: 0.0).id != Gate(audit=True).id


def test_a_gold_is_read_as_the_graders_read_it() -> None:
    record = made.CASES["colour"].record
    for gold in ("B", "b", "(B)", "B.", "b)", "B. blue", "blue"):
        case = Case.of(replace(made.CASES["colour"], record=replace(record, gold=gold)))
        assert (case.letter, case.answer) == ("B", "blue")
        assert GATE.check(made.patch("It is blue."), case) is not None
    odd = Case.of(replace(made.CASES["colour"], record=replace(record, gold="purple")))
    assert (odd.letter, odd.answer) == ("", "purple")
    assert GATE.check(made.patch("It is purple."), odd) is not None


def test_every_gold_interval_is_guarded() -> None:
    case = Case.of(made.MORE["windows"])
    assert case.spans == ((2.0, 3.0), (5.0, 6.0))
    wide = made.patch("Look there.", key_frames=tuple(range(2, 14)))
    assert GATE.check(wide, case) is None
    for frames in ((4, 5), (10, 11), (0, 4, 5), (4, 5, 10, 11)):
        assert GATE.check(replace(wide, key_frames=frames), case) is not None


def test_scripts_without_spaces_are_read_in_pairs() -> None:
    assert words_of(fold("第5帧蓝色")) == ["第", "5", "帧蓝", "蓝色"]
    assert words_of(fold("사과를")) == ["사과", "과를"] and words_of("книгу, он") == ["книгу", "он"]


def test_reasons_do_not_repeat_the_gold() -> None:
    for item in made.leaks():
        for found in GATE.findings(item.patch, Case.of(item.failure)):
            assert item.failure.record.gold not in found.reason.split()
            for word in ("blue", "triangle", "book", "evidence", "[2.0"):
                assert word not in found.reason


# --- readings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "ｂｌｕｅ",
        "𝐛𝐥𝐮𝐞",
        "ƅlue".replace("ƅ", "b"),
        "b\u200bl\u200bu\u200be",
        "blúé",
        "ʙʟᴜᴇ",
        "bⅼue",
    ],
)
def test_look_alikes_fold(text: str) -> None:
    assert fold(text).lower() == "blue"


@pytest.mark.parametrize("text", ["b l u e", "b-l-u-e", "b.l.u.e", "bl-ue", "eulb", "oyhr", "8lu3"])
def test_respellings_are_read(text: str) -> None:
    assert any("blue" in way.lower().split() for way in readings(f"see {text} there")), readings(
        text
    )


def test_codes_are_read() -> None:
    for item in made.codes("blue"):
        ways = [w.lower() for w in (*readings(item), *decoded(item))]
        assert any("blue" in way for way in ways), (item, ways)
    assert not decoded("Look again at the hand between frames four and six.")


def test_stems() -> None:
    for group in (
        ("red", "reds", "reddish"), ("blue", "bluish", "blues"), ("move", "moves", "moving"),
        ("circle", "circles"), ("box", "boxes"), ("drop", "dropped", "dropping"),
    ):  # fmt: skip
        assert len({stem(w) for w in group}) == 1, group
    assert stem("glass") == "glass" and stem("yes") == "yes" and stem("is") == "is"


@given(st.text(max_size=600), st.sampled_from(sorted(made.CASES)))
def test_every_rule_takes_any_text(text: str, name: str) -> None:
    case = Case.of(made.CASES[name])
    patch = Patch("temporal", (5,), (text[:80],), (), text)
    for rule in RULES.values():
        reason = rule(patch, case)
        assert reason is None or isinstance(reason, str)


def test_a_case_without_a_clip() -> None:
    case = Case.of(replace(made.CASES["count"], clip=None))
    assert (case.frames, case.duration) == (0, 0.0)
    still = VideoClip(np.zeros((1, 4, 4, 3), np.uint8), (0,), 1.0, 1, "image")
    case = Case.of(replace(made.CASES["colour"], clip=still))
    assert GATE.check(Patch("spatial", (0,), (), (Region(0, 0, 0, 0.5, 1),), "Look."), case) is None
