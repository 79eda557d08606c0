"""The timeline of located questions: what it draws, what it refuses, and that it asks nothing."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metrics import tiou
from results import ledger, report, verdict
from results.schema import LedgerError, Row, strips_from
from results.sections.timeline import overlap, said_of

POLICY = verdict.load_policy()
EVIL = "<script>alert(1)</script>"
PICTURE = base64.b64encode(b"RIFF\0\0\0\0WEBP").decode()
FILM: dict[str, Any] = {
    "id": "q1", "question": f"When is it red? {EVIL}", "letter": "", "seconds": 4.0,
    "truths": [[1.0, 3.0]], "pictures": [PICTURE] * 3,
}  # fmt: skip
BOTH = {**FILM, "id": "q2", "question": "Which, and when?", "letter": "B",
        "truths": [[0.0, 1.0], [3.0, 4.0]], "pictures": []}  # fmt: skip


def row(ident: str, k: int, prediction: str | None) -> dict[str, Any]:
    return {
        "id": ident, "k": k, "cluster": ident, "kind": "temporal grounding", "gold": "[1, 3]",
        "prediction": prediction, "outcome": "wrong" if prediction else "unparsed", "score": 0.0,
        "tokens": 3, "tags": {},
    }  # fmt: skip


def run(folder: Path, arm: str, said: dict[str, list[str | None]], films: list[Any]) -> ledger.Run:
    from tests.results.conftest import record

    rows = [row(ident, k, text) for ident, own in said.items() for k, text in enumerate(own)]
    samples = len(next(iter(said.values())))
    return ledger.write(record(arm, 0, samples), rows, folder / arm, strips=films)


@pytest.fixture
def runs(tmp_path: Path) -> list[ledger.Run]:
    ktr = {"q1": ["[1.0, 3.0]", "[2.0, 3.0]"], "q2": ["B [3.5, 4.0]", "A [0.0, 1.0]"]}
    grpo = {"q1": ["[3.0, 1.0]", None], "q2": [None, "B [2.0, 9.0]"]}
    films = [FILM, BOTH]
    return [run(tmp_path, "ktr", ktr, films), run(tmp_path, "grpo", grpo, films)]


def build(runs: list[ledger.Run], path: Path) -> str:
    report.build(runs, verdict.registered(runs, POLICY), path)
    return path.read_text(encoding="utf-8")


def reels(html: str) -> list[str]:
    return re.findall(r'<figure class="reel">.*?</figure>', html, re.DOTALL)


def lanes(reel: str) -> dict[str, str]:
    """Arm -> the text of its lane."""
    found = {}
    for lane in re.findall(r'<div class="lane".*?</span></div>', reel, re.DOTALL):
        words = re.sub(r"<title>.*?</title>", "", lane)
        words = " ".join(re.sub(r"<[^>]+>", " ", words).split())
        found[words.split()[0]] = words
    return found


def test_every_arm_has_its_lane_with_the_mean_overlap(
    runs: list[ledger.Run], tmp_path: Path
) -> None:
    first, second = reels(build(runs, tmp_path / "r.html"))
    # (1 + 0.5) / 2; the reversed one and the missing one are 0.
    assert lanes(first) == {
        "KTR": "KTR tIoU 75.0 %", "GRPO": "GRPO tIoU 0.0 % 1 of 2 say no interval",
    }  # fmt: skip
    # (0.5 + 1) / 2 against the better of two windows; 1/7 of a reply that goes beyond the film.
    assert lanes(second) == {
        "KTR": "KTR tIoU 75.0 % option right 1 of 2",
        "GRPO": "GRPO tIoU 7.1 % option right 1 of 2 1 of 2 say no interval",
    }
    assert 'class="said a1 reversed"' in first or 'class="said a2 reversed"' in first
    assert '<rect class="true" x="25.00%" width="50.00%"' in first
    assert second.count('class="true"') == 2 and "0 to 1 s or 3 to 4 s of 4 s, option B" in second
    assert "<title>2 to 9 s</title>" in second and 'x="50.00%" width="50.00%"' in second


def test_it_escapes_asks_nothing_and_is_the_same_twice(
    runs: list[ledger.Run], tmp_path: Path
) -> None:
    html = build(runs, tmp_path / "r.html")
    assert EVIL not in html and "&lt;script&gt;alert(1)" in html
    sources = re.findall(r'<img src="([^"]*)"', html)
    assert sources == [f"data:image/webp;base64,{PICTURE}"] * 3
    assert html == build(runs, tmp_path / "again.html")
    assert 'href="#timeline"' in html


def test_without_films_there_is_no_section(tmp_path: Path) -> None:
    bare = [run(tmp_path, "ktr", {"q1": ["[1.0, 3.0]"]}, [])]
    assert 'id="timeline"' not in build(bare, tmp_path / "r.html")
    other = [run(tmp_path / "b", "ktr", {"q9": ["[1.0, 3.0]"]}, [FILM])]  # was not asked q1
    assert 'id="timeline"' not in build(other, tmp_path / "r.html")


def test_films_stay_with_their_run(tmp_path: Path) -> None:
    made = run(tmp_path, "ktr", {"q1": ["[1.0, 3.0]"]}, [FILM])
    assert made.strips == (FILM,) == ledger.read(tmp_path / "ktr").strips
    again = run(tmp_path, "ktr", {"q1": ["[1.0, 3.0]"]}, [])
    assert again.strips == () and not (tmp_path / "ktr" / ledger.STRIPS).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": ['"><script>']}, "base64"),
        ({"pictures": ["A" * (1 << 19)]}, "larger than 256 KiB"),
        ({"seconds": 0.0}, "seconds above 0"),
        ({"truths": []}, "a true interval"),
        ({"truths": [[1, 2, 3]]}, "two ends, not 3"),
        ({"truths": [["1", 2]]}, "truths"),
        ({"question": 3}, "question"),
    ],
)
def test_refuses_what_could_break_the_page(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        strips_from(json.dumps([{**FILM, **change}]))


ENDS = st.floats(-100, 100).map(lambda x: round(x, 2))


@given(st.tuples(ENDS, ENDS), st.tuples(ENDS, ENDS))
def test_the_overlap_is_the_evaluators(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert overlap(a, b) == tiou(a, b)


@given(st.one_of(st.text(), st.from_regex(r"[A-E ]{0,2}\[[-0-9.e+]{0,6}, [-0-9.e+]{0,6}\]")))
def test_any_prediction_is_an_interval_or_none(text: str) -> None:
    said = said_of(Row("q", 0, "q", "temporal grounding", "[1, 2]", text, "wrong", 0.0, 1, {}))
    assert said is None or all(abs(x) < float("inf") for x in said)
