"""evals.rows: rows survive what kills their writer, and nothing else gets among them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evals.errors import BadInput
from evals.rows import RowFile, complete
from evals.types import Row

HEAD = {"protocol": "abc", "seed": 0}


def row(id: str, k: int = 0, outcome: str = "correct", **more: object) -> Row:
    plain = Row(id, k, "film", "numerical", "1", "1", outcome, 1.0, 3, {"family": "count"})
    return replace(plain, **more)  # type: ignore[arg-type]


def write(path: Path, *batches: Iterable[Row], samples: int = 1) -> None:
    with RowFile(path, HEAD, samples) as file:
        for batch in batches:
            file.add(batch)


def kept(path: Path, samples: int = 1) -> list[Row]:
    with RowFile(path, HEAD, samples) as file:
        return list(file.kept)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters()), st.none() | st.text(st.characters()))
def test_any_reply_comes_back(tmp_path_factory: pytest.TempPathFactory, id: str, said: str) -> None:
    """Control characters and lone surrogates too: a server may send them."""
    both = id + (said or "")
    assume(both == json.loads(json.dumps(both)))  # two halves in a row are one character
    path = tmp_path_factory.mktemp("rows") / "rows.part.jsonl"
    rows = [row(id, prediction=said, reply=said, detail=said)]
    write(path, rows)
    assert kept(path) == rows


def test_a_file_cut_anywhere_keeps_whole_questions(tmp_path: Path) -> None:
    path = tmp_path / "rows.part.jsonl"
    rows = [row(str(i), k) for i in range(4) for k in range(2)]
    write(path, rows, samples=2)
    whole = path.read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[0] + 1, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        lines = sum(end < cut for end in ends[1:])
        # a last line without its newline may be whole all the same
        found = kept(path, samples=2)
        assert found in (rows[: lines // 2 * 2], rows[: (lines + 1) // 2 * 2])
        write(path, [r for r in rows if r not in found], samples=2)
        assert path.read_bytes() == whole


def test_only_what_is_new_is_added(tmp_path: Path) -> None:
    path = tmp_path / "rows.part.jsonl"
    write(path, [row("a"), row("b")])
    write(path, [row("a"), row("b")], [row("c")])
    assert [r.id for r in kept(path)] == ["a", "b", "c"]


def test_lost_clips_are_complete_with_one_row() -> None:
    rows = [row("a", 0), row("a", 1), row("b", 0), row("c", 0, "undecodable"),
            row("d", 0, "timeout"), row("e", 0), row("e", 1), row("e", 2)]  # fmt: skip
    assert list(complete(rows, 2)) == ["a", "c", "d"]


def test_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.part.jsonl"
    write(path, [row("a")])
    with pytest.raises(BadInput, match="begun with another model, protocol or seed"):
        RowFile(path, {**HEAD, "seed": 1}, 1)
    for damage in ("no json\n", "[]\n", '{"protocol": "abc"'):
        path.write_text(damage)
        with pytest.raises(BadInput):
            RowFile(path, HEAD, 1)
    path.write_text("")
    assert kept(path) == []


def test_a_row_is_readable_by_others_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.part.jsonl"
    with RowFile(path, HEAD, 1) as file:
        file.add([row("a")])
        assert path.read_text().count("\n") == 2
