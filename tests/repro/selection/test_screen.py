"""repro.selection.screen and `repro data select`: what is asked, what resumes, what is written."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evals import benchmarks, made, microworld
from evals.errors import BadInput, EnvironmentFault
from evals.models import Question
from evals.seeds import derive
from evals.types import Decoding, Protocol, Reply
from repro import cli_select
from repro.cli import cli
from repro.selection import files, rules, screen, signals
from repro.selection.rules import Rules
from repro.selection.screen import Asking

PROTOCOL = Protocol("made", decoding=Decoding(temperature=1.0, max_new_tokens=64))
OPTIONS = ["A. red", "B. blue", "C. green"]


class Sometimes:
    """Right with a chance of the question's own, `chance` in its text; draws by id and seed."""

    sees, at_once, name = False, 64, "sometimes"
    identity: Mapping[str, str] | None = None

    def __init__(self, fail_after: int | None = None):
        self.asked: Counter[str] = Counter()
        self.fail_after = fail_after

    def under(self, protocol: Protocol) -> Protocol:
        return protocol

    def prompt(self, question: Question, protocol: Protocol) -> str:
        return question.turn(protocol).words

    def answer(
        self, questions: Sequence[Question], protocol: Protocol, decoding: Decoding
    ) -> list[list[Reply]]:
        if self.fail_after is not None and sum(self.asked.values()) >= self.fail_after:
            raise EnvironmentFault("out of memory")
        found = []
        for q in questions:
            self.asked[q.sample.id] += decoding.samples
            found.append([self._reply(q, k) for k in range(decoding.samples)])
        return found

    def _reply(self, q: Question, k: int) -> Reply:
        draw = random.Random(derive(q.own_seed, k))
        right = draw.random() < float(q.sample.question.split()[-1])
        if q.sample.kind == "temporal grounding":
            end = 2 + 4 * draw.random()
            said = f"from 2.0 to {end:.2f} seconds" if right else "I cannot tell"
        elif q.sample.kind == "grounded qa":
            said = f"<answer>B [2.0, {2 + 4 * draw.random():.2f}]</answer>" if right else "A"
        else:
            said = f"<answer>{'B' if right else 'A'}</answer>"
        return Reply(said, 3)


def record(i: int, kind: str, chance: float, source: str) -> dict[str, Any]:
    gold = {"temporal grounding": "[2, 6]", "grounded qa": "B [2, 6]"}.get(kind, "B")
    return {
        "problem": f"chance {chance}", "problem_type": kind, "data_type": "text",
        "options": None if kind == "temporal grounding" else OPTIONS,
        "solution": f"<answer>{gold}</answer>", "problem_id": f"q{i}", "data_source": source,
    }  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> Path:
    kinds = ("multiple choice", "temporal grounding", "grounded qa")
    rows = [
        record(i, kinds[i % 3], (0.0, 0.1, 0.5, 0.9, 1.0)[i % 5], ("easy", "hard")[i % 2])
        for i in range(60)
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(records: Path, out: Path, model: Sometimes, law: Rules) -> screen.Screened:
    pool = files.pool_of_records(records, None)
    out.mkdir(exist_ok=True)
    asking = Asking(model, PROTOCOL, {"id": model.name}, batch=8)
    return screen.screen(
        pool.benchmark, asking, law, out, source=lambda s: files.source(s, "pool", None)
    )


def test_the_rest_goes_only_to_the_undecided(records: Path, tmp_path: Path) -> None:
    model, law = Sometimes(), Rules(tries=8, first=3, seed=1)
    found = run(records, tmp_path / "out", model, law)
    for t in found.tried:
        begun = {name: values[:3] for name, values in t.signals.items()}
        expected = 3 if rules.constant(begun) else 8
        assert model.asked[t.id] == expected
        assert {len(values) for values in t.signals.values()} == {expected}
    assert found.replies == sum(model.asked.values()) < 8 * 60
    assert found.work.asked > 0


def test_an_audit_tries_on_and_no_screen_asks_all(records: Path, tmp_path: Path) -> None:
    model = Sometimes()
    found = run(records, tmp_path / "a", model, Rules(first=3, audit=0.5))
    audited = [t for t in found.tried if t.audited]
    settled = [t for t in found.tried if model.asked[t.id] == 3]
    assert len(audited) == round((len(audited) + len(settled)) / 2) > 0
    whole = Sometimes()
    run(records, tmp_path / "b", whole, Rules(first=8))
    assert set(whole.asked.values()) == {8}
    assert not (tmp_path / "b" / screen.REST).exists()


def test_stopped_twice_it_ends_as_an_unbroken_one(records: Path, tmp_path: Path) -> None:
    law = Rules(first=4, seed=7)
    whole = run(records, tmp_path / "whole", Sometimes(), law)
    asked: Counter[str] = Counter()
    for limit in (64, 250):
        broken = Sometimes(fail_after=limit - sum(asked.values()))
        with pytest.raises(EnvironmentFault, match="--resume continues from them"):
            run(records, tmp_path / "broken", broken, law)
        asked += broken.asked
    last = Sometimes()
    resumed = run(records, tmp_path / "broken", last, law)
    assert resumed.tried == whole.tried
    assert sum((asked + last.asked).values()) == whole.replies  # nothing was asked twice
    again = Sometimes()
    assert run(records, tmp_path / "broken", again, law).tried == whole.tried
    assert not again.asked
    with pytest.raises(BadInput, match="another model, protocol or seed"):
        run(records, tmp_path / "broken", Sometimes(), replace(law, seed=8))


def test_tries_of_the_two_files_are_different_draws(records: Path, tmp_path: Path) -> None:
    found = run(records, tmp_path / "out", Sometimes(), Rules(first=4))
    halves = [(v[:4], v[4:]) for t in found.tried for v in t.signals.values() if len(v) == 8]
    assert sum(a != b for a, b in halves) > len(halves) / 2


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("multiple choice", "The answer is B.", {"accuracy": 1.0}),
        ("multiple choice", '<answer>{"option": "B"}</answer>', {"accuracy": 1.0}),
        ("multiple choice", "no idea", {"accuracy": 0.0}),
        ("temporal grounding", '{"start_time": "2", "end_time": "4"}', {"tiou": 0.5}),
        ("temporal grounding", "from 2 to 4 seconds", {"tiou": 0.5}),
        ("temporal grounding", "from 4 to 2 seconds", {"tiou": 0.0}),
        ("grounded qa", "<answer>B [2, 4]</answer>", {"accuracy": 1.0, "tiou": 0.5}),
        ("grounded qa", "<answer>B</answer>", {"accuracy": 1.0, "tiou": 0.0}),
        (
            "grounded qa", '<answer>{"start_time": "2", "end_time": "4"}</answer>',
            {"accuracy": 0.0, "tiou": 0.5},
        ),
    ],
)  # fmt: skip
def test_signals_have_no_format_term(kind: str, text: str, expected: dict[str, float]) -> None:
    sample = benchmarks.jsonl.sample(record(0, kind, 0.5, "s"), 1, Path("x"), Path())
    assert signals.of_reply(sample, text) == pytest.approx(expected)
    assert tuple(expected) == signals.names(kind)


# --- the command -------------------------------------------------------------------------------


def select(*words: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["data", "select", *map(str, words), "--json", "--no-cache"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_command_writes_what_training_reads(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--data", records, "--model", "random", "--keep", "20%", "--first", "2", "--out", out)
    found = select(*words)
    chosen = benchmarks.load("jsonl", data=out / "selected.jsonl")
    assert found["kept"] == len(chosen.samples) == 12
    ids = files.read_ids(out / "selected.ids")
    assert ids == tuple(s.id for s in chosen.samples)
    original = {row["problem_id"]: row for row in map(json.loads, records.open())}
    assert [original[row["problem_id"]] for row in map(json.loads, (out / "selected.jsonl").open())]
    told = [json.loads(line) for line in (out / files.DECISIONS).open()]
    assert [d["id"] for d in told if d["kept"]] == list(ids) and len(told) == 60
    assert all(d["reason"] for d in told)
    assert len(files.read_ids(out / "random.ids")) == 12
    replies = found["replies"]
    spent = sum(len(next(iter(d["signals"].values()))["tries"]) for d in told)
    assert replies["spent"] == spent < replies["all_tries"] == 480
    assert replies["saved"] == pytest.approx(1 - spent / 480)
    page = (out / "selection.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and len(page) < 300_000
    written = {f.name: f.read_bytes() for f in out.glob("*.jsonl")}
    select(*words[:-1], tmp_path / "again")
    assert written == {f.name: f.read_bytes() for f in (tmp_path / "again").glob("*.jsonl")}
    # Other rules need no further reply.
    wide = select(*words, "--tau", "0.2", "--resume")
    assert wide["replies"] == found["replies"] and wide["rules"]["tau"] == 0.2


def test_a_budget_that_is_not_filled_is_said(records: Path, tmp_path: Path) -> None:
    words = ("--data", records, "--model", "random", "--keep", "90%", "--out", tmp_path / "out")
    found = select(*words)
    assert found["wanted"] == 54 > found["kept"] == found["fits"] and found["short"] == {}
    done = CliRunner().invoke(cli, ["data", "select", *map(str, words), "--resume", "--no-cache"])
    fewer = f"{54 - found['kept']} fewer than the 54 asked for: {found['fits']} of the pool fit"
    assert done.exit_code == 0 and fewer in done.output, done.output
    source = next(iter(found["sources"]))
    found = select(*words[:4], "--quota", f"{source}=50", "--out", tmp_path / "quota")
    assert found["wanted"] is None
    assert found["short"] == {source: 50 - found["sources"][source]["kept"]}


def test_several_pools_without_the_films_of_a_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training splits as their owners write them; what is selected can be trained on."""
    monkeypatch.setenv("REELPROOF_DATA", str(tmp_path))
    charades = made.make("charades_sta", tmp_path)
    lines = ["AB0 0.0 1.5##a person opens a door.", "", "ZZ9 0.5 1.0##a person sits."]
    (charades / "charades_sta_train.txt").write_text("\n".join(lines))
    made.on_disk(charades, ["Charades_v1_480/ZZ9.mp4"])
    captions = made.make("activitynet_captions", tmp_path)
    told = {
        "v_7": {"duration": 2, "timestamps": [[0, 1], [1.5, 0.5]], "sentences": ["One.", " Two."]}
    }
    made.save(captions / "train.json", told)
    made.on_disk(captions, ["videos/v_7.mp4"])
    made.make("nextgqa", tmp_path)
    out = tmp_path / "out"
    found = select(
        "--benchmark", "charades_sta", "--benchmark", "activitynet_captions/train", "--benchmark",
        "nextgqa/test", "--leave-out", "charades_sta", "--model", "random", "--out", out,
        "--protocol", "video-r1",
    )  # fmt: skip
    # AB0 is a film of the test split, AB1 is not in the pool
    assert found["left_out"] == {"charades_sta test": {"films": 1, "samples": 1}}
    assert {n: s["pool"] for n, s in found["sources"].items()} == {
        "charades_sta": 1, "activitynet_captions": 2, "nextgqa": 5
    }  # fmt: skip
    told = {d["id"]: d for d in map(json.loads, (out / files.DECISIONS).open())}
    assert set(told) >= {"charades_sta/ZZ9/3", "activitynet_captions/v_7/2", "nextgqa/3238737531_0"}
    back = told["activitynet_captions/v_7/2"]["signals"]["tiou"]
    assert back["mean"] == 0.0  # the owner's slip, an interval that ends before it starts
    pool, _ = cli_select._pool(None, (), ("charades_sta", "nextgqa/test"), None, None, ())
    rows = tmp_path / "rows.jsonl"
    made.save(rows, list(pool.records.values()))
    read = benchmarks.load("jsonl", data=rows, root=tmp_path).samples
    assert [s.id for s in read] == [s.id for s in pool.benchmark.samples]
    assert {s.tags["data_source"] for s in read} == {"charades_sta", "nextgqa"}
    assert [s.media for s in read] == [s.media for s in pool.benchmark.samples]


def test_a_real_student_on_real_films(tmp_path: Path) -> None:
    folder = microworld.make("train", n=2, cache=tmp_path / "cache")
    found = select(
        "--recipe", "ktr", "--data", folder / "records.json", "--videos", folder, "--tries", 3,
        "--first", 2, "--by", "family", "--workers", "1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert found["lost"] == 0 and found["replies"]["tokens"] > 0
    assert found["pool"] == sum(s["pool"] for s in found["sources"].values())
    assert set(found["sources"]) <= set(microworld.FAMILIES)
    assert found["model"]["sha256"]


def test_ids_name_the_only_records(records: Path, tmp_path: Path) -> None:
    pool = benchmarks.load("jsonl", data=records)
    listed = tmp_path / "a.ids"
    listed.write_text("# chosen\nq3\n\nq1\n")
    part = files.only(pool, files.read_ids(listed), listed)
    assert [s.id for s in part.samples] == ["q1", "q3"] and part.sha256 != pool.sha256
    for text, message in [
        ("", "names no sample"), ("q1\nq1\n", "q1 stands there twice"),
        ("nope\n", "no sample nope"),
    ]:  # fmt: skip
        listed.write_text(text)
        with pytest.raises(BadInput, match=message):
            files.only(pool, files.read_ids(listed), listed)


def test_a_record_without_id_keeps_its_place_as_one(tmp_path: Path) -> None:
    rows = [record(i, "multiple choice", 0.5, "s") for i in range(4)]
    for row in rows:
        del row["problem_id"]
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(rows))
    pool = files.pool_of_records(path, None)
    assert [r["problem_id"] for r in pool.records.values()] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "random"), "name a pool"),
        (
            ("--data", "POOL", "--data", "POOL", "--videos", ".", "--model", "random"),
            "a single pool",
        ),
        (("--data", "POOL", "--data", "POOL", "--model", "random"), "is named twice"),
        (("--data", "POOL"), "name a model"),
        (("--data", "POOL", "--model", "random", "--keep", "many"), "neither a number nor"),
        (("--data", "POOL", "--model", "random", "--quota", "easy"), "is not SOURCE=N"),
        (("--data", "POOL", "--model", "random", "--by", "colour"), "no tag is called"),
        (("--data", "POOL", "--model", "random", "--first", "9"), "the screen needs 2 tries"),
        (("--data", "POOL", "--model", "random", "--quota", "x=1"), "no source is called x"),
    ],
)
def test_refuses(words: tuple[str, ...], message: str, records: Path, tmp_path: Path) -> None:
    given = [str(records) if w == "POOL" else w for w in words]
    done = CliRunner().invoke(cli, ["data", "select", *given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and message in done.output


def test_a_recipe_may_name_its_records_by_id(tmp_path: Path) -> None:
    from repro import arm
    from repro.recipe import Recipe

    recipe = Recipe.load("ktr")
    data = replace(recipe.data, split="validation", ids="chosen.ids")
    recipe = replace(recipe, data=data, file=tmp_path / "recipe.yaml")
    (tmp_path / "chosen.ids").write_text("7\n3\n")
    pool = arm._records(recipe, None, None)
    assert [s.id for s in pool.samples] == ["3", "7"]
    assert recipe.fingerprint != replace(recipe, data=replace(data, ids=None)).fingerprint
