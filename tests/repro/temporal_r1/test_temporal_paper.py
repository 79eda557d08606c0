"""The paper profile of Temporal-R1: its grid, its plan, its records in the authors' schema."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from evals import benchmarks, made, protocols
from evals.errors import BadInput
from evals.prompts import question_text
from evals.types import Protocol
from evals.video import Clips
from repro import arm, cli_select, doctor_data, needs, plan, training
from repro.cli import cli
from repro.grid import grid
from repro.recipe import Recipe
from repro.temporal_r1.data import published, record
from repro.temporal_r1.rewards import of_record
from repro.training import Manifest
from results import ledger
from results.cells import cells, judge
from results.ledger import Run
from results.policy import load_policy
from results.reported import load_reported
from results.schema import Row, record_from

PAPER = Recipe.load("temporal_r1", "paper")
N = 3720  # questions of Charades-STA
ROW = {"dataset": "charades_train", "video": "AB.mp4", "problem": "When?", "solution": [0.1, 0.75],
       "video_length": 20}  # fmt: skip
SAID = '<think>a</think> <answer>{"start_time": "2.7", "end_time": "20.02"}</answer>'


def run_of(protocol: Protocol, seed: int, arm: str, model: str) -> Run:
    """A run of mIoU as `repro eval --every-cell` files it, every second question right."""
    rows = tuple(
        Row(f"q{i}", 0, f"v{i // 5}", "temporal grounding", "[1.0, 2.0]", "[1.0, 2.0]",
            "correct" if i % 2 else "wrong", float(i % 2), 9, {})
        for i in range(N)
    )  # fmt: skip
    record = record_from({
        **asdict(ledger.summarise(rows)), "schema": 2, "paper": "temporal_r1", "profile": "paper",
        "arm": arm, "benchmark": "charades_sta", "split": "test", "metric": "mIoU",
        "model": {"id": model, "revision": "0" * 40, "sha256": None},
        "protocol": protocol.as_dict(), "protocol_hash": protocol.hash,
        "dataset": {"revision": None, "sha256": None}, "seed": seed,
        "engine": {"name": "vllm", "version": "0.31.0"}, "batch": 64 - 16 * seed,
        "git": {"commit": None, "dirty": None}, "image": None,
        "machine": {"cpu": None, "gpu": "1 x H100", "driver": None}, "seconds": 1.0,
        "gpu_hours": 0.1, "started": "2027-01-01T00:00:00+00:00", "finished": None,
        "rows": {"path": "rows.jsonl.gz", "sha256": "0" * 64}, "curves": None, "tokens": None,
        "partial": False, "who": "test",
    })  # fmt: skip
    return Run(record, rows)


def test_every_printed_row_of_the_readme_is_asked() -> None:
    assert [a.name for a in grid(PAPER)] == [
        f"{name}/{how}"
        for name in ("charades_sta", "activitynet_captions")
        for how in ("think", "no-think")
    ]
    systems = {a.protocol.system for a in grid(PAPER)}
    assert len(systems) == 2 and all(a.protocol.total_pixels == 1605632 for a in grid(PAPER))
    assert PAPER.scoring is not None
    assert PAPER.scoring.public == (
        ("temporal_r1", "appletea2333/Temporal-R1-3B-Charades"),
        ("sft", "appletea2333/SFT-3B-Charades"),
    )
    keys = {need.key for need in needs.needs(PAPER)}
    assert "model:appletea2333/SFT-3B-Charades" in keys


def test_the_readmes_cells_are_filled_by_what_is_asked() -> None:
    """As released weights would answer, right on every second question of Charades-STA."""
    assert PAPER.scoring is not None
    runs = [
        run_of(replace(a.protocol, decoding=replace(a.protocol.decoding, seed=seed)), seed, arm, id)
        for a in grid(PAPER)
        if a.benchmark == "charades_sta"
        for arm, id in (*PAPER.scoring.public, ("cold", PAPER.model.id))
        for seed in (0, 1)
    ]
    reported = load_reported(PAPER.file.with_name("reported.yaml"))
    found = {
        cell.reported.model.name: judge(cell, runs, load_policy())
        for cell in cells(reported)
        if cell.registered and cell.kind == "score" and "readme_table" in cell.id
        and cell.reported.benchmark == "charades_sta"
    }  # fmt: skip
    assert {name: verdict.word for name, verdict in found.items()} == {
        "Qwen2.5-VL-3B-Instruct (no think)": "above",
        "SFT-3B-Charades (no think)": "above",
        "Temporal-R1-3B-Charades (no think)": "reproduced",
        "Temporal-R1-3B-Charades (think)": "below",
    }  # fmt: skip


def test_training_shows_what_the_script_says() -> None:
    shown = PAPER.training_protocol
    assert shown.system is not None and "answer.\n The reasoning" in shown.system
    assert (shown.total_pixels, shown.max_frames) == (1605632, 768)


def test_an_arm_may_train_otherwise_in_one_profile(tmp_path: Path) -> None:
    micro = Recipe.load("temporal_r1")
    assert PAPER.arm("sft").trainer.learning_rate == 1e-5
    assert PAPER.arm("temporal_r1").trainer.learning_rate == 1e-6
    assert micro.arm("sft").trainer.learning_rate == micro.trainer.learning_rate
    raw = yaml.safe_load(PAPER.file.read_text(encoding="utf-8"))
    raw["profiles"]["paper"]["arms"]["stf"] = raw["profiles"]["paper"]["arms"].pop("sft")
    other = tmp_path / "recipe.yaml"
    other.write_text(yaml.safe_dump(raw))
    with pytest.raises(BadInput, match=r"paper\.arms\.stf: unknown key; did you mean 'sft'"):
        Recipe.load(other, "paper")


def test_the_plan_counts_visual_tokens_and_the_supervised_arm() -> None:
    found = plan.forecast(PAPER, ("temporal_r1", "sft"), (0,), 1)
    assert found.bill is not None and found.rollouts == 630 * 16 * 8
    train, sft = (stage for stage in found.bill.stages if stage.stage == "train")
    assert "supervised" in sft.what and sft.gpu_hours < train.gpu_hours
    # 1,605,632 pixels are 2,048 tiles; whole tiles of a frame hold a little less
    assert 1800 < plan._asked(PAPER, 110.0).seen.tokens <= 2048


def test_a_record_in_the_authors_fields() -> None:
    assert record(ROW, 7) == {
        "problem_id": 7, "problem": "When?", "data_type": "video",
        "problem_type": "temporal grounding", "options": None,
        "solution": "<answer>[2.00, 15.00]</answer>", "path": "Charades/AB.mp4",
        "data_source": "charades_train",
    }  # fmt: skip
    assert record({**ROW, "video": "Charades/AB.mp4"}, 1)["path"] == "Charades/AB.mp4"


@pytest.mark.parametrize(
    "wrong",
    [
        {"solution": [0.75, 0.1]}, {"solution": [2, 15]}, {"solution": [0.1]}, {"solution": None},
        {"video_length": 0}, {"video_length": "nan"}, {"video_length": "long"},
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="record 3: "):
        record({**ROW, **wrong}, 3)
    with pytest.raises(BadInput, match=r"record 3: .* are needed \('video'\)"):
        record({k: v for k, v in ROW.items() if k != "video"}, 3)


def test_a_true_end_may_lie_a_little_beyond_the_film() -> None:
    """As the reward takes it: lengths are rounded."""
    assert (
        record({**ROW, "solution": [0.1, 1.001]}, 1)["solution"] == "<answer>[2.00, 20.02]</answer>"
    )
    assert of_record(SAID, "temporal grounding", "[2.00, 20.02]", 20.0, "paper").format == 1.0
    for beyond in ([0.1, 1.2], [1.0, 1.05]):
        with pytest.raises(BadInput, match="is no interval of fractions"):
            record({**ROW, "solution": beyond}, 1)


def test_one_odd_record_costs_itself_and_is_counted(tmp_path: Path) -> None:
    manifest = Manifest.load("temporal_r1")
    file = tmp_path / manifest.file.name
    rows = [{**ROW, "video": f"{i}.mp4"} for i in range(3)]
    rows[1]["solution"] = [0.75, 0.1]
    file.write_text(json.dumps(rows))
    built = training.build(manifest, tmp_path / "records.json", published=file)
    assert built.records == 2 and len(built.lacks) == 1
    assert built.lacks[0].startswith("1 of 3 records that cannot be used, first ")
    assert "record 2: solution [0.75, 0.1] is no interval" in built.lacks[0]
    ids = [row["problem_id"] for row in json.loads(built.file.read_text())]
    assert ids == ["charades/1", "charades/3"]  # the places of the published file
    seen = {
        f.check: f.count for f in training.verify(manifest, file, tmp_path, media=False).findings
    }
    assert seen["record"] == 1
    file.write_text(json.dumps([rows[1]]))
    with pytest.raises(BadInput, match=r"no record can be used: .* record 1: "):
        training.build(manifest, tmp_path / "again.json", published=file)


def test_the_substitute_of_the_7b_profile_is_built_from_a_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the pools below $REELPROOF_DATA to what training reads, by the commands of README.md."""
    monkeypatch.setenv("REELPROOF_DATA", str(tmp_path))
    for name in ("charades_sta", "nextgqa"):
        made.make(name, tmp_path)
    (tmp_path / "charades_sta" / "charades_sta_train.txt").write_text("AB0 0.0 1.5##a door opens.")
    words = ["--benchmark", "charades_sta", "--benchmark", "nextgqa/test", "--model", "random",
             "--low", "0", "--no-cache"]  # fmt: skip
    out = tmp_path / "chosen"
    choose = ["data", "select", "--recipe", "temporal_r1", "--profile", "paper_7b", *words]
    done = CliRunner().invoke(cli, [*choose, "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (out / "random.jsonl").open()]
    assert rows and {row["data_source"] for row in rows} <= {"charades_sta", "nextgqa"}
    build = ["data", "build", "temporal_r1", "--profile", "paper_7b", "--videos", str(tmp_path)]
    done = CliRunner().invoke(cli, [*build, "--published", str(out / "random.jsonl")])
    assert done.exit_code == 0, done.output
    seven = Recipe.load("temporal_r1", "paper_7b")
    pool = arm._records(seven, None, None)
    assert len(pool.samples) == len(rows) and {s.id.split("/")[0] for s in pool.samples} <= {
        "charades", "nextgqa"
    }  # fmt: skip
    assert all(s.media and Clips(seven.training_protocol).load(s) for s in pool.samples)
    grounded = next(s for s in pool.samples if s.kind == "grounded qa")
    assert question_text(grounded, seven.view.prompt).endswith(grounded.options[-1])


def test_what_is_known_of_the_substitute() -> None:
    seven = Recipe.load("temporal_r1", "paper_7b")
    manifest = training.manifest_of(seven)
    assert manifest is not None and not manifest.published
    assert manifest.file.records == seven.data.size == 32000
    assert [p.pool for p in manifest.parts] == [
        next(n for split, n in benchmarks.card(name).splits.items() if split == part)
        for name, part in (("charades_sta", "train"), ("activitynet_captions", "train"),
                           ("nextqa", "train"), ("nextgqa", "val"))
    ]  # fmt: skip
    asked = [a.benchmark for a in grid(seven)]
    assert sorted(asked) == sorted(protocols.covered("temporal-r1"))
    assert seven.scoring is not None and seven.scoring.public == ()
    models = {need.key for need in needs.needs(seven) if need.key.startswith("model:")}
    assert models == {"model:Qwen/Qwen2.5-VL-7B-Instruct"}  # nothing released to score


def test_records_are_found_by_the_profiles_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paper_7b must not train on the 3B records of Charades-STA that lie beside."""
    monkeypatch.setenv("REELPROOF_DATA", str(tmp_path))
    seven = Recipe.load("temporal_r1", "paper_7b")
    file = tmp_path / "temporal_r1-train" / training.RECORDS
    file.parent.mkdir()
    file.write_text("[]")
    assert training.located(PAPER) == (file, file.parent)
    for take in (
        lambda: training.located(seven), lambda: arm._records(seven, None, None),
        lambda: cli_select._pool(seven, (), (), None, None, ()),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=r"temporal-rlt-substitute is not on .*: repro"):
            take()
    own = tmp_path / "temporal-rlt-substitute" / training.RECORDS
    own.parent.mkdir()
    own.write_text("[]")
    assert training.located(seven) == (own, own.parent)
    finding = doctor_data._records(seven)
    assert "temporal-rlt-substitute" in finding.found and "holds no record" in finding.found


@pytest.mark.parametrize("name", ["selected", "random_records"])
def test_what_was_selected_for_micro_is_refused_at_once(name: str, tmp_path: Path) -> None:
    words = ["temporal_r1", "--profile", "paper", "--out", str(tmp_path / "out")]
    for command in (["reproduce", *words, "--arms", name], ["train", *words, "--arm", name]):
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 2 and "a selection out of microworld timed-train" in done.output
        assert not (tmp_path / "out" / "recipe.json").exists()
    Recipe.load("temporal_r1").require_records([name, "both"])
    PAPER.require_records(PAPER.run)


def test_the_published_file_becomes_what_training_reads(tmp_path: Path) -> None:
    manifest = Manifest.load("temporal_r1")
    file = tmp_path / manifest.file.name
    rows = [published({"problem_id": i, "problem": f"What {i}?"}) for i in (1, 2)]
    file.write_text(json.dumps(rows))
    built = training.build(manifest, tmp_path / "records.json", published=file)
    assert (built.records, built.lacks) == (2, ())
    first = json.loads(built.file.read_text())[0]
    assert (first["problem_id"], first["solution"]) == (
        "charades/1",
        "<answer>[0.00, 1.00]</answer>",
    )
    found = training.verify(manifest, file, tmp_path, media=False)
    assert {f.check for f in found.findings} == {"count"}
    file.write_text(json.dumps([*rows, {"video": "x"}]))
    lacks = training.build(manifest, tmp_path / "again.json", published=file).lacks
    assert "charades_train.json, record 3: " in lacks[0]
