"""evals.benchmarks._records: every kind of annotation file, and how each may be broken."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import made
from evals.benchmarks._records import BadGold, Files, Record, lettered, written
from evals.errors import BadInput
from evals.extract import option_texts

ROWS: list[dict[str, Any]] = [{"a": "one", "n": 1}, {"a": "zwei \u2028 drei", "n": 2}]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.parquet", "x.csv"])
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    made.save(tmp_path / "deep" / name, ROWS)
    found = Files("set", tmp_path).rows(f"deep/{name}")
    assert [(r.text("a"), r.number("n")) for r in found] == [("one", 1), ("zwei \u2028 drei", 2)]
    assert found[1].where == f"{tmp_path / 'deep' / name}, record 2"


def test_annotations_in_a_zip_and_shards_in_order(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("in/x.json", json.dumps(ROWS))
    files = Files("set", tmp_path)
    assert len(files.rows("x.json")) == 2
    made.save(tmp_path / "test-00001-of-00002.parquet", ROWS[1:])
    made.save(tmp_path / "test-00000-of-00002.parquet", ROWS[:1])
    files = Files("set", tmp_path)
    assert [r["n"] for r in files.rows("test-*.parquet")] == [1, 2]
    assert len(files.sha256()) == 64 and files.sha256() != Files("set", tmp_path).sha256()


def test_the_first_pattern_that_matches_is_meant_and_disk_wins(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("x.json", "[]")
    made.save(tmp_path / "x.json", ROWS)
    made.save(tmp_path / "y.json", [])
    files = Files("set", tmp_path)
    assert len(files.rows("none.json", "x.json", "y.json")) == 2
    with pytest.raises(BadInput, match=r"no annotations of set \(p\.json or q\.json\)"):
        files.rows("p.json", "q.json")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b'[{"a": 1},\n{"a" 2}]', "line 2: not valid JSON"),
        ("x.jsonl", b'{"a": 1}\n\n{"a": \n', "line 3: not valid JSON"),
        ("x.json", b'{"a": 1}', "expected a list of records"),
        ("x.json", b"[1, 2]", "expected a list of records"),
        ("x.json", b"\xff\xfe[", "not a text file in UTF-8"),
        ("x.csv", b"a,b\n1,2\n3\n", "more or fewer fields"),
        ("x.csv", b"a,b\n1,2,3\n", "more or fewer fields"),
        ("x.csv", b'a,b\n"1,2\n', "no whole table .unexpected end of data"),
        ("x.parquet", b"PAR1 no parquet PAR1", "not a readable parquet file"),
        ("x.parquet", b"", "not a readable parquet file"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=said) as caught:
        Files("set", tmp_path).rows(name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_media_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    made.on_disk(tmp_path, ["v/Art/0.mp4", "v/Law/0.mp4", "v/a.mkv", ".hidden/b.mp4"], b"x")
    made.zipped(tmp_path / "z.zip", ["w/Art/0.mp4", "w/c.mp4", "__MACOSX/w/._c.mp4"], b"x")
    files = Files("set", tmp_path)
    assert files.media("Art/0.mp4") == tmp_path / "v" / "Art" / "0.mp4"  # disk wins
    assert files.video("c") == tmp_path / "z.zip" / "w" / "c.mp4"
    assert files.video("a") == tmp_path / "v" / "a.mkv"
    assert files.video("b") == tmp_path / "b.mp4"  # not there
    assert not files.holds(files.video("b")) and files.holds(files.video("c"))
    with pytest.raises(BadInput, match=r"0\.mp4 is both .*Art/0\.mp4 and .*Law/0\.mp4"):
        files.media("0.mp4")
    assert files.media("rt/0.mp4") == tmp_path / "rt" / "0.mp4"  # whole names only


def test_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "up").symlink_to(tmp_path)
    made.on_disk(tmp_path, ["a.mp4"], b"x")
    assert Files("set", tmp_path).media("a.mp4") == tmp_path / "a.mp4"


RECORD = Record(
    {"t": "red", "l": ["x", None], "d": {"A": "x", "B": "y"}, "n": "3.5", "i": 1, "far": 7, "s": "",
     "span": [1, 2.5], "spans": [[0, 1], [2, 3]], "back": [3, 1], "below": [-3, 1],
     "odd": [1], "nan": float("nan"),
     "letter": "(b)", "wrong": "Z", "frac": 0.5},
    "file, record 9",
)  # fmt: skip
OPTIONS = ("A. green", "B. red")


def test_fields() -> None:
    assert (RECORD.text("none", "t"), RECORD.text("i")) == ("red", "1")
    assert (RECORD.texts("l"), RECORD.texts("d")) == (["x", ""], ["x", "y"])
    assert RECORD.number("n") == 3.5
    assert RECORD.spans("span") == [(1.0, 2.5)] and len(RECORD.spans("spans")) == 2
    assert RECORD.spans("back") == [(3.0, 1.0)]  # an owner's slip: asked, and never won
    assert RECORD.index(OPTIONS, "i") == RECORD.letter(OPTIONS, "letter") == "B"
    assert RECORD.matching(OPTIONS, "t") == "B"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda r: r.text("none"), "`none` is missing"),
        (lambda r: r.text("s"), "`s` must be a text"),
        (lambda r: r.text("l"), "`l` must be a text"),
        (lambda r: r.texts("t"), "`t` must be a list of texts"),
        (lambda r: r.texts("spans"), "`spans` must be a list of texts"),
        (lambda r: r.number("t"), "`t` must be a number"),
        (lambda r: r.inner("t"), "`t` must be an object"),
        (lambda r: r.objects("d"), "`d` must be a list of objects"),
        (lambda r: r.objects("l"), "`l` must be a list of objects"),
        (lambda r: r.number("nan"), "`nan` must be a finite number"),
        (lambda r: r.spans("below"), r"`below` \[-3, 1\] is not a time span"),
        (lambda r: r.spans("odd"), r"`odd` must be \[start, end\]"),
        (lambda r: r.spans("t"), r"`t` must be \[start, end\]"),
    ],
)
def test_unusable_fields(call: Any, said: str) -> None:
    with pytest.raises(BadInput, match=f"^file, record 9: {said}"):
        call(RECORD)


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.index(OPTIONS, "far"),
        lambda r: r.index(OPTIONS, "frac"),
        lambda r: r.letter(OPTIONS, "wrong"),
        lambda r: r.letter(OPTIONS, "t"),
        lambda r: r.matching(("A. x", "B. y"), "t"),
        lambda r: r.matching(("A. red", "B. red"), "t"),
    ],
)
def test_golds_out_of_range(call: Any) -> None:
    with pytest.raises(BadGold, match=r"^file, record 9: "):
        call(RECORD)


def test_labels_are_not_doubled() -> None:
    assert lettered(["red", "B. blue", "(C) sea", "A. late"]) == (
        "A. red", "B. blue", "C. sea", "D. A. late",
    )  # fmt: skip


@given(st.lists(st.text(max_size=8), max_size=26))
def test_any_texts_make_options_that_can_be_read(texts: list[str]) -> None:
    assert list(option_texts(lettered(texts))) == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(texts)])


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), min_size=1, max_size=3))
def test_spans_are_written_exactly(spans: list[tuple[float, float]]) -> None:
    from evals.extract import intervals

    ordered = [(min(s), max(s)) for s in spans]
    plain = [(round(a, 4), round(b, 4)) for a, b in ordered]
    assert intervals(written(plain)) == plain
