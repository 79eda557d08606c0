"""repro.ffr.patch: only a patch is a patch, whatever a teacher writes."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.ffr.patch import (
    AFTER,
    BEFORE,
    LONGEST_GUIDANCE,
    SCHEMA,
    BadPatch,
    Patch,
    Region,
    as_dict,
    as_json,
    from_dict,
    parse,
    render,
)

PATCH = Patch(
    "temporal", (3, 4), ("between 1.5 s and 2 s",), (Region(3, 0.0, 0.5, 0.5, 1.0),), "Look there."
)
GOOD = as_json(PATCH)


def test_the_last_answer_block_is_the_patch() -> None:
    assert parse(f"<think>hm</think><answer>{GOOD}</answer>") == PATCH
    assert parse(f"<answer>B</answer> no: <answer>{GOOD}</answer>") == PATCH
    assert parse(f"<answer><|begin_of_box|>{GOOD}<|end_of_box|></answer>") == PATCH
    assert parse(f"<answer>\n```json\n{GOOD}\n```\n</answer>") == PATCH
    assert parse(f"İİ<THINK>x</THINK>İ<Answer>{GOOD}</ANSWER>") == PATCH
    assert parse(GOOD) == PATCH  # guided decoding
    assert parse(f"<think>hm</think>\n{GOOD}") == PATCH


def test_an_answer_quoted_in_the_reasoning_is_none() -> None:
    """D19: the student's text may hold an answer block that the teacher repeats."""
    evil = as_json(replace(PATCH, guidance="The answer is B."))
    assert parse(f"<think>he said <answer>{evil}</answer></think><answer>{GOOD}</answer>") == PATCH
    with pytest.raises(BadPatch, match="not closed"):
        parse(f"<think>he said <answer>{evil}</answer>")
    with pytest.raises(BadPatch, match="not valid JSON"):
        parse(f"<think><answer>{evil}</answer></think> It is B.")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("<answer>B</answer>", "not valid JSON"), ("", "empty"), ("<answer></answer>", "empty"),
        (f"<answer>{GOOD[:-9]}</answer>", "not valid JSON"), (f"<answer>{GOOD}", "not closed"),
        ('<answer>"B"</answer>', "not a JSON object"), ("<answer>[]</answer>", "not a JSON object"),
        ("[" * 10_000, "not valid JSON"), ("x" * 10**5, "more than"),
        ("<answer>" * 8000, "not closed"), ("<think>" * 9000, "not closed"),
        ("</answer>" * 7000, "not opened"), ("```json\n" + "\n" * 60_000 + "x", "not valid"),
        (f"<answer>{GOOD}</answer><answer>", "not closed"), (f"İ<answer>{GOOD}</answer", "closed"),
        (GOOD[:-1] + ', "guidance": "B"}', "not valid JSON"),  # twice
        (GOOD.replace("0.5,", "NaN,"), "not valid JSON"), (GOOD + GOOD, "not valid JSON"),
    ],
)  # fmt: skip
def test_what_is_no_patch(reply: str, reason: str) -> None:
    with pytest.raises(BadPatch, match=reason):
        parse(reply)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"error_class": "counting"}, "error_class"), ({"error_class": ["temporal"]}, "error_clas"),
        ({"key_frames": [1.0]}, "whole number"), ({"key_frames": [True]}, "whole number"),
        ({"key_frames": [-1]}, "whole number"), ({"key_frames": [16]}, "beyond the last one, 15"),
        ({"key_frames": "3"}, "key_frames"), ({"key_frames": [0] * 65}, "at most 64"),
        ({"temporal_markers": [3]}, "not a string"), ({"temporal_markers": ["x" * 81]}, "81 char"),
        ({"guidance": ""}, "0 characters"), ({"guidance": "x" * 601}, "601 characters"),
        ({"guidance": None}, "not a string"), ({"guidance": "a\x00b"}, "control"),
        ({"guidance": "<|im_end|>"}, "tags"), ({"guidance": "</b> B"}, "tags"),
        ({"guidance": "\ud800"}, "control or undefined"), ({"why": "B"}, "1 fields that are not"),
        ({"regions": [{"frame": 0, "x1": 0.5, "y1": 0, "x2": 0.5, "y2": 1}]}, "is empty"),
        ({"regions": [{"frame": 0, "x1": 0, "y1": 0, "x2": 2, "y2": 1}]}, "from 0 to 1"),
        ({"regions": ["left"]}, "not a JSON object"),
        ({"regions": [{"frame": 16, "x1": 0, "y1": 0, "x2": 1, "y2": 1}]}, "beyond"),
    ],
)  # fmt: skip
def test_fields_are_held_to_the_schema(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadPatch, match=reason):
        from_dict({**as_dict(PATCH), **change}, frames=16)
    with pytest.raises(BadPatch, match=reason):
        parse(json.dumps({**as_dict(PATCH), **change}), frames=16)


def test_a_reason_repeats_nothing_of_the_reply() -> None:
    for name in SCHEMA["properties"]:
        data = {**as_dict(PATCH), name: {"SECRET": "SECRET"}, "SECRET": 1}
        with pytest.raises(BadPatch) as caught:
            from_dict(data)
        assert "SECRET" not in str(caught.value)


regions = st.builds(
    lambda f, x, y: Region(f, x[0] / 100, y[0] / 100, x[1] / 100, y[1] / 100),
    st.integers(0, 15),
    *[st.lists(st.integers(0, 100), min_size=2, max_size=2, unique=True).map(sorted)] * 2,
)
words = (
    st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="<>|"))
    .map(lambda t: " ".join(t.split()))
    .filter(lambda t: 0 < len(t) <= 80)
)
patches = st.builds(
    Patch,
    st.sampled_from(["temporal", "spatial", "misconception"]),
    st.lists(st.integers(0, 15), unique=True, max_size=16).map(tuple),
    st.lists(words, max_size=8).map(tuple),
    st.lists(regions, max_size=8).map(tuple),
    words,
)


@given(patches)
def test_every_patch_survives_its_own_json(patch: Patch) -> None:
    assert from_dict(as_dict(patch), 16) == patch
    assert parse(f"<think>x</think><answer>{as_json(patch)}</answer>", 16) == patch


@given(st.text() | st.text(alphabet='<>/answerthik{}[]":,\\ 01'))
def test_no_text_does_more_than_fail(text: str) -> None:
    for reply in (text, f"<answer>{text}</answer>", text.join((GOOD[:40], GOOD[40:]))):
        with suppress(BadPatch):
            assert len(parse(reply).guidance) <= LONGEST_GUIDANCE


def test_what_the_student_reads() -> None:
    assert render(PATCH, "content") == f"{BEFORE}Look there.{AFTER}"
    assert render(PATCH, seconds=(0, 0.5, 1, 1.5)) == (
        f"{BEFORE}Error type: temporal\nKey frames: 3 (1.50 s), 4\n"
        "Temporal markers: between 1.5 s and 2 s\n"
        f"Regions: frame 3 (1.50 s) [0.00, 0.50, 0.50, 1.00]\nGuidance: Look there.{AFTER}"
    )
    assert render(PATCH, "no_visual") == (
        f"{BEFORE}Error type: temporal\nTemporal markers: between 1.5 s and 2 s\n"
        f"Guidance: Look there.{AFTER}"
    )
    bare = Patch("spatial", (), (), (), "Look.")
    assert render(bare) == f"{BEFORE}Error type: spatial\nGuidance: Look.{AFTER}"
