"""The ledger refuses what it should, writes whole runs or none, and notices any change."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results import ledger, schema
from results.schema import LedgerError

SHA = "0123456789abcdef" * 4


def row(**more: Any) -> dict[str, Any]:
    base = {"id": "q1", "k": 0, "cluster": "v1", "kind": "multiple choice", "gold": "B"}
    answer = {"prediction": "B", "outcome": "correct", "score": 1.0, "tokens": 9}
    return {**base, **answer, "tags": {"family": "order"}, **more}


def identity(**more: Any) -> dict[str, Any]:
    return {
        "paper": "ktr",
        "profile": "micro",
        "arm": "ktr",
        "benchmark": "microworld",
        "split": "test",
        "metric": "accuracy",
        "model": {"id": "m", "revision": None, "sha256": SHA},
        "protocol": {"decoding": {"temperature": 1.0}},
        "protocol_hash": "5a5a5a5a",
        "dataset": {"revision": "v1", "sha256": None},
        "seed": 0,
        "engine": {"name": "hf", "version": "5.17"},
        "git": {"commit": None, "dirty": None},
        "machine": {"cpu": "2 cores", "gpu": None},
        "seconds": 2,
        "started": "2026-01-02T03:04:05+00:00",
        "partial": False,
        "who": "tests",
        **more,
    }


ROWS = [
    row(),
    row(k=1, outcome="wrong", score=0.0, prediction="A"),
    row(id="q2", cluster="v2", tags={"family": "count"}, outcome="unparsed", score=0.0),
    row(id="q2", cluster="v2", tags={"family": "count"}, k=1, score=0.25, outcome="wrong"),
]


@pytest.fixture
def filed(tmp_path: Path) -> Path:
    ledger.write(identity(), ROWS, tmp_path / "run")
    return tmp_path / "run"


def edit(folder: Path, **changes: Any) -> None:
    data = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**data, **changes}))


# --- round trip ----------------------------------------------------------------------------


def test_a_written_run_says_what_its_rows_say(filed: Path) -> None:
    run = ledger.read(filed)
    assert (run.record.n, run.record.samples) == (2, 2)
    assert run.record.score == pytest.approx((0.5 + 0.125) / 2)
    assert run.record.outcomes == {"correct": 1, "wrong": 2, "unparsed": 1}
    assert run.record.by_tag["family"]["order"] == {"n": 1, "score": 0.5}
    assert run.record.by_tag["family"]["count"] == {"n": 1, "score": 0.125}
    assert run.items.ids == ("q1", "q2") and run.items.scores.tolist() == [0.5, 0.125]
    assert run.items.clusters.tolist() == ["v1", "v2"]
    assert ledger.verify(run) == []
    assert not run.greedy


def test_equal_rows_give_equal_bytes_whatever_their_order(tmp_path: Path, filed: Path) -> None:
    ledger.write(identity(), reversed(ROWS), tmp_path / "again")
    for name in ("rows.jsonl.gz", "record.json"):
        assert (tmp_path / "again" / name).read_bytes() == (filed / name).read_bytes()
    assert (filed / "rows.jsonl.gz").read_bytes()[4:8] == bytes(4)  # gzip's clock is off


def test_absent_texts_are_not_stored(filed: Path) -> None:
    lines = gzip.decompress((filed / "rows.jsonl.gz").read_bytes()).decode().splitlines()
    assert all("reply" not in json.loads(line) for line in lines)


@given(
    texts=st.lists(st.text(), min_size=1, max_size=6),
    score=st.floats(0, 1).map(lambda x: round(x, 6)),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives(tmp_path: Path, texts: list[str], score: float) -> None:
    rows = [
        row(id=f"q{i}", gold=text, reply=text, score=score, outcome="wrong")
        for i, text in enumerate(texts)
    ]
    run = ledger.write(identity(), rows, tmp_path / "any")
    assert [r.reply for r in run.rows] == texts
    assert ledger.verify(run) == []


def test_load_finds_runs_at_any_depth_and_none_in_an_empty_folder(
    tmp_path: Path, filed: Path
) -> None:
    ledger.write(identity(seed=1), ROWS, tmp_path / "deep" / "er" / "run")
    assert [run.record.seed for run in ledger.load(tmp_path)] == [1, 0]
    (tmp_path / "empty").mkdir()
    assert ledger.load(tmp_path / "empty") == []


def test_curves_and_tokens_are_filed_and_checked(tmp_path: Path) -> None:
    curves, tokens = tmp_path / "m.jsonl", tmp_path / "t.json"
    curves.write_text('{"step": 1, "kl": NaN, "alarms": ["short"]}\n{"step": 2, "kl": 0.5}\n')
    token = {"text": "a", "entropy": 0.1, "visual": None, "temporal": None, "signals": ["entropy"]}
    view = {"question": "?", "gold": "A", "reward": 1, "advantage": 0.5, "tokens": [token]}
    tokens.write_text(json.dumps([view]))
    run = ledger.write(identity(), ROWS, tmp_path / "run", curves=curves, tokens=tokens)
    assert [line["kl"] for line in run.curves] == [None, 0.5]  # a gap, not a zero
    assert run.tokens[0]["tokens"][0]["signals"] == ["entropy"]
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(LedgerError, match=r"metrics\.jsonl has changed"):
        ledger.read(tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kl": 1}', "step must be int"),
        ('{"step": 2}\n{"step": 2}', "step 2 does not ascend"),
        ('{"step": 1, "kl": "high"}', "kl must be float"),
        ('{"step": 1, "alarms": [3]}', "alarms must be str"),
        ('{"step": 1', "is not JSON"),
    ],
)
def test_bad_curves_are_named(text: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        schema.curves_from(text)


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown keys: surprise"),
        ({"score": 61.2}, "fractions in 0..1, not percentages"),
        ({"by_tag": {"f": {"a": {"n": 1, "score": 55.0}}}}, "not percentages"),
        ({"by_tag": {"f": {"a": {"n": 1, "score": 0.5, "x": 1}}}}, "unknown keys: x"),
        ({"outcomes": {"right": 3}}, "unknown keys: right"),
        ({"outcomes": {"correct": -1}}, "cannot be negative"),
        ({"schema": 3}, "schema is 3, expected 2"),
        ({"seed": "0"}, "seed must be int, not str"),
        ({"seed": True}, "seed must be int, not bool"),
        ({"partial": 0}, "partial must be bool"),
        ({"n": 0}, "nothing was measured"),
        ({"protocol_hash": "XYZ"}, "8 lower-case hex digits"),
        ({"protocol": {}}, "temperature is missing"),
        ({"model": {"id": "m", "revision": None}}, "model lacks sha256"),
        ({"rows": {"path": "../../etc/passwd", "sha256": SHA}}, "file name beside the record"),
        ({"rows": {"path": ".hidden", "sha256": SHA}}, "file name beside the record"),
        ({"started": "yesterday"}, "not an ISO date"),
        ({"seconds": -1}, "not negative"),
        ({"git": {"commit": "abc", "dirty": False}}, "40 lower-case hex"),
    ],
)
def test_records_are_strict(filed: Path, change: dict[str, Any], message: str) -> None:
    edit(filed, **change)
    with pytest.raises(LedgerError, match=message) as caught:
        ledger.read(filed)
    assert "record.json" in str(caught.value)


def test_missing_keys_are_named(filed: Path) -> None:
    data = json.loads((filed / "record.json").read_text())
    del data["seed"], data["dataset"]
    (filed / "record.json").write_text(json.dumps(data))
    with pytest.raises(LedgerError, match="lacks dataset, seed"):
        ledger.read(filed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"a": 1, "a": 2}', "has a key twice"),
        ('{"score": NaN}', "holds NaN"),
        ("[]", "must be dict"),
    ],
)
def test_record_files_are_strict_json(filed: Path, text: str, message: str) -> None:
    (filed / "record.json").write_text(text)
    with pytest.raises(LedgerError, match=message):
        ledger.read(filed)


def test_bytes_that_are_no_text_are_named(filed: Path) -> None:
    (filed / "record.json").write_bytes(b"\xff\xfe")
    with pytest.raises(LedgerError, match="not UTF-8"):
        ledger.read(filed)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "measures nothing"),
        ([row(score=70.0)], "not percentages"),
        ([row(outcome="right")], "outcome is 'right'"),
        ([row(extra=1)], "unknown keys: extra"),
        ([{**row(), "k": -1}], "cannot be negative"),
        ([row(), row()], "reply 0 of q1 appears twice"),
        ([row(), row(k=1, cluster="v9")], "disagree about cluster"),
        ([row(), row(k=1, gold="C")], "disagree about cluster, gold"),
        ([row(outcome="truncated", score=1.0)], "is truncated but scores 1.0"),
        ([row(tags={"family": 3})], "family must be str"),
    ],
)
def test_rows_are_strict_and_nothing_is_written(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(LedgerError, match=message):
        ledger.write(identity(), rows, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_record_may_not_contradict_its_rows(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"score is 0\.9.*rows give 0\.3125"):
        ledger.write(identity(score=0.9), ROWS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- what changed afterwards ---------------------------------------------------------------


anything = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3)


@given(st.sampled_from([*row(), "reply", "detail", "colour"]), anything | st.dictionaries(
    st.text(max_size=2), anything, max_size=2), st.booleans())  # fmt: skip
def test_the_quick_look_at_a_row_believes_nothing_that_the_schema_refuses(
    key: str, value: Any, missing: bool
) -> None:
    item = {**row(), key: value}
    if missing:
        del item[key]
    if schema.plain(item):
        schema._keys(schema.ROW_SCHEMA, optional=("reply", "detail"))(item, "row")
    assert schema.plain(row()) and schema.plain({**row(), "reply": "text"})
    assert not schema.plain([]) and not schema.plain({**row(), "tags": {"a": 1}})


def test_changed_rows_are_noticed(filed: Path) -> None:
    path = filed / "rows.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().replace('"score": 0.25', '"score": 0.75')
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    with pytest.raises(LedgerError, match=r"rows\.jsonl\.gz has changed"):
        ledger.read(filed)
    path.unlink()
    with pytest.raises(LedgerError, match=r"rows\.jsonl\.gz is missing"):
        ledger.read(filed)


@pytest.mark.parametrize(
    "packed", [b"no gzip", gzip.compress(b"x" * 5000)[:-9], b""], ids=["text", "cut", "empty"]
)
def test_damaged_rows_are_named(filed: Path, packed: bytes) -> None:
    (filed / "rows.jsonl.gz").write_bytes(packed)
    edit(filed, rows={"path": "rows.jsonl.gz", "sha256": ledger._sha256(packed)})
    with pytest.raises(LedgerError):
        ledger.read(filed)


def test_rows_that_unpack_without_end_are_refused(
    filed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "ROWS_LIMIT", 100)
    with pytest.raises(LedgerError, match="unpacks to more than"):
        ledger.read(filed)


def test_verify_names_every_difference(filed: Path) -> None:
    edit(
        filed,
        score=0.5,
        n=3,
        outcomes={"correct": 2, "wrong": 1, "unparsed": 1},
        by_tag={"family": {"order": {"n": 1, "score": 0.75}, "cause": {"n": 1, "score": 0.1}}},
    )
    found = ledger.verify(ledger.read(filed))
    assert found == [
        "n is 3, rows give 2",
        "score is 0.500000, rows give 0.312500",
        "outcomes.correct is 2, rows give 1",
        "outcomes.wrong is 1, rows give 2",
        "by_tag.family.cause.n is 1, rows give absent",
        "by_tag.family.cause.score is 0.1, rows give absent",
        "by_tag.family.count.n is absent, rows give 1",
        "by_tag.family.count.score is absent, rows give 0.125",
        "by_tag.family.order.score is 0.75, rows give 0.5",
    ]


def test_a_missing_reply_needs_the_mark_partial(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="1 questions have another number of replies"):
        ledger.write(identity(), ROWS[:3], tmp_path / "run")
    assert ledger.write(identity(partial=True), ROWS[:3], tmp_path / "run").record.partial


def test_one_row_may_stand_for_a_film_that_could_not_be_read(tmp_path: Path) -> None:
    lost = row(id="q3", cluster="v3", outcome="undecodable", score=0.0, prediction=None)
    run = ledger.write(identity(), [*ROWS, lost], tmp_path / "run")
    assert run.record.n == 3 and run.record.outcomes["undecodable"] == 1
    assert run.record.score == pytest.approx((0.5 + 0.125 + 0.0) / 3)  # it counts as wrong


# --- whole runs or none --------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        ledger.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupted_rewrite_leaves_no_record(
    filed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def broken(source: Path, target: Path) -> None:
        if Path(target).name == "record.json":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        ledger.write(identity(), [*ROWS, row(id="q9"), row(id="q9", k=1)], filed)
    assert ledger.load(filed) == []  # new rows beside an old record would look like damage


# --- several processes ---------------------------------------------------------------------

WRITER = """
import itertools, json, pathlib, sys, time
from results import ledger
identity, rows, folder, seed, stop = json.loads(sys.argv[1])
for turn in itertools.count():
    if turn and pathlib.Path(stop).exists():
        break
    time.sleep(0.01 * seed)  # readers find nothing where nobody ever pauses
    n = 2 + (seed + turn) % 5
    own = [{**row, "id": f"{row['id']}-{i}"} for i in range(n) for row in rows]
    run = ledger.write({**identity, "seed": seed}, own, folder)
    assert run.record.seed == seed and run.record.n == 2 * n, "another writer's run came back"
"""


def test_writers_of_one_place_take_turns_and_readers_see_whole_runs(tmp_path: Path) -> None:
    folder, stop = tmp_path / "runs" / "place", tmp_path / "stop"
    writers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WRITER,
                json.dumps([identity(), ROWS, str(folder), n, str(stop)]),
            ],
            cwd=Path(ledger.__file__).parents[1],
        )
        for n in (1, 2, 3)
    ]
    seen, until = set(), time.monotonic() + 60
    try:
        while len(seen) < 6 and time.monotonic() < until:
            for run in ledger.load(tmp_path / "runs"):  # never half of one and half of another
                assert ledger.verify(run) == []
                seen.add((run.record.seed, run.record.n))
    finally:
        stop.touch()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(seen) >= 6
    assert sorted(path.name for path in folder.iterdir()) == ["record.json", "rows.jsonl.gz"]
    assert ledger.verify(ledger.read(folder)) == []


def test_a_dead_writers_lock_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ledger.LOCK).touch()
    assert ledger.write(identity(), ROWS, tmp_path / "run").record.n == 2
    assert not (tmp_path / "run" / ledger.LOCK).exists()


def test_damage_is_no_race(filed: Path) -> None:
    """A reader that finds the same record twice stops reading again."""
    (filed / "rows.jsonl.gz").write_bytes(b"damaged")
    with pytest.raises(LedgerError, match="has changed"):
        ledger.load(filed)
