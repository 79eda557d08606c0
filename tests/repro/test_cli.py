"""Every command: its help, its exit codes, and that a mistake is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from evals.errors import EnvironmentFault
from repro.cli import cli

if TYPE_CHECKING:
    from evals.vlm import VLM


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def fails(code: int, *words: object) -> str:
    """The one sentence a command ends with."""
    result = run(*words)
    assert result.exit_code == code, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), "a traceback would reach the user"
    (line,) = [x for x in result.stderr.splitlines() if x.lower().startswith("error: ")]
    assert "Traceback" not in result.output
    return line


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands()))
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0 and f"repro {' '.join(path)}" in result.output.split("Example")[1]


def test_the_list_of_commands_is_the_promised_one() -> None:
    assert set(cli.commands) == {
        "list", "doctor", "plan", "rehearse", "reproduce", "train", "eval", "score", "report",
        "compare", "teacher",
        "verify", "gate", "regress", "ledger", "export", "smoke", "tiny", "data", "container",
    }  # fmt: skip
    for line in run("--help").output.split("Commands:")[1].splitlines():
        assert not line.endswith("..."), f"help is cut short: {line}"


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "kt"), "no paper 'kt'; did you mean 'ktr'"),
        (("reproduce", "kt"), "no paper 'kt'"),
        (("reproduce", "ktr", "--arms", "grpp"), "no arm 'grpp'; did you mean 'grpo'"),
        (("plan", "ktr", "--profile", "papr"), "no profile 'papr'; did you mean 'paper'"),
        (("plan", "ktr", "--seeds", "0;1"), "is not a list of whole numbers"),
        (("train", "--arm", "ktr", "--out", "x"), "name a recipe"),
        (("train", "ktr", "--arm", "kt", "--out", "x"), "no arm 'kt'"),
        (("train", "ktr", "--stage", "sft", "--arm", "ktr"), "the cold start has no arms"),
        (("train", "ktr", "--stage", "SFT"), "'SFT' is not one of 'rl', 'sft'"),
        (("train", "none.yaml", "--arm", "ktr", "--out", "x"), "no file none.yaml"),
        (("train", "ktr", "--arm", "ktr", "--out", "x", "--data", "none.jsonl"), "does not exist"),
        (("eval", "--benchmark", "microworld", "--out", "x"), "name a model"),
        (("eval", "--model", "oracle", "--out", "x"), "name a benchmark"),
        (("eval", "--benchmark", "mikro", "--model", "oracle", "--out", "x"), "'mikro'"),
        (("eval", "--benchmark", "jsonl", "--model", "oracle", "--out", "x"), "--data"),
        (("report", "nowhere"), "holds no whole run"),
        (("verify", "nowhere"), "holds no record"),
        (("compare", "nowhere", "nowhere"), "does not exist"),
        (("data", "make", "--split", "tset"), "no split 'tset'"),
        (("tiny", "build", "--for", "kt"), "'kt'"),
        (("nothing",), "No such command"),
    ],
)
def test_bad_input_is_exit_2(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in fails(2, *words)
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_an_unknown_key_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("paper: x\ncolour: red\n")
    assert f"{path}: recipe.colour: unknown key" in fails(2, "plan", path)


def test_an_environment_fault_is_exit_4(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise EnvironmentFault("no GPU; borrow one")

    monkeypatch.setattr("repro.plan.forecast", broken)
    assert fails(4, "plan", "ktr") == "error: no GPU; borrow one"


def test_an_internal_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("repro.plan.forecast", broken)
    result = run("plan", "ktr")
    assert result.exit_code == 1 and isinstance(result.exception, ZeroDivisionError)


# --- looking ------------------------------------------------------------------------------------


def test_list() -> None:
    found = json.loads(run("list", "--json").stdout)
    (ktr,) = [paper for paper in found["papers"] if paper["paper"] == "ktr"]
    assert {"grpo", "ktr", "random"} <= set(ktr["arms"])
    assert "microworld" in found["benchmarks"]
    assert "Video-KTR" in run("list").output


def test_plan() -> None:
    found = json.loads(run("plan", "ktr", "--profile", "paper", "--json").stdout)
    assert {"model.revision", "data.revision"} <= set(found["unknown"])
    assert found["minutes"] is None
    text = run("plan", "ktr", "--seeds", "0", "--arms", "grpo").output
    assert "grpo x seeds 0" in text and "about" in text


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro import doctor

    whole = [doctor.Finding("a", True, "1"), doctor.Finding("b", False, "", "mend b", needed=False)]
    monkeypatch.setattr(doctor, "examine", lambda folder: whole)
    result = run("doctor")
    assert result.exit_code == 0 and "can run here" in result.output
    whole.append(doctor.Finding("c", False, "", "make setup"))
    result = run("doctor")
    assert result.exit_code == 4 and "MISSING" in result.output and "make setup" in result.output
    assert json.loads(run("doctor", "--json").stdout)["micro"] is False


# --- evaluating ---------------------------------------------------------------------------------


@pytest.fixture
def records(films: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six films with their records, as a user would bring them: mine/records.json, mine/films/.
    Replies and frames are cached in tmp_path/cache."""
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "cache"))
    shutil.copytree(films("test", 6), tmp_path / "mine")
    return tmp_path / "mine" / "records.json"


def ask(records: Path, out: Path, model: str = "oracle", *more: object) -> tuple[object, ...]:
    return (
        "eval", "--benchmark", "jsonl", "--data", records, "--model", model, "--out", out, *more
    )  # fmt: skip


def test_eval_files_a_record(records: Path, tmp_path: Path) -> None:
    result = run(*ask(records, tmp_path / "oracle", "oracle", "--json"))
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["score"] == 1.0 and record["partial"] is False and record["arm"] == "oracle"
    work = record.pop("work")
    assert work["coverage"] == 1.0 and work["asked"] == record["n"] and work["clips"] == {}
    stored = json.loads((tmp_path / "oracle" / "record.json").read_text())
    assert stored == record
    assert "is not empty: --resume" in fails(2, *ask(records, tmp_path / "oracle"))


def test_a_limited_eval_is_partial(records: Path, tmp_path: Path) -> None:
    result = run(*ask(records, tmp_path / "few", "parrot", "--limit", 3))
    assert "of 3 questions (partial)" in result.output
    assert json.loads((tmp_path / "few" / "record.json").read_text())["partial"] is True


def test_compare_and_verify(records: Path, tmp_path: Path) -> None:
    a, b, few = tmp_path / "runs" / "a", tmp_path / "runs" / "b", tmp_path / "few"
    for out, model, more in ((a, "parrot", ()), (b, "oracle", ()), (few, "oracle", ("--limit", 3))):
        assert run(*ask(records, out, model, *more)).exit_code == 0
    found = json.loads(run("compare", a, b, "--json").stdout)
    assert found["lost"] == 0 and found["difference"] > 0.3
    assert "points [" in run("compare", a, b).output
    assert "differ in questions" in fails(3, "compare", a, few)

    assert "2 runs computed again, 0 differences" in run("verify", tmp_path / "runs").output
    record = json.loads((a / "record.json").read_text())
    (a / "record.json").write_text(json.dumps({**record, "score": record["score"] + 0.01}))
    result = run("verify", tmp_path / "runs")
    assert result.exit_code == 6 and "score is" in result.output
    (b / "rows.jsonl.gz").write_bytes(b"x")
    assert "sha256" in fails(2, "verify", tmp_path / "runs")


def test_score_saved_replies(tmp_path: Path) -> None:
    rows = [
        {"reply": "<answer>B</answer>", "answer": "B", "type": "multiple choice"},
        {"reply": "no idea", "answer": "3", "type": "numerical"},
    ]
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(run("score", path, "--graders", "all", "--json").stdout)
    assert {"reelproof", "video-r1"} <= set(found["graders"])
    assert found["graders"]["reelproof"]["micro"] == 0.5
    assert found["graders"]["reelproof"]["outcomes"] == {"correct": 1, "unparsed": 1}
    assert "50.0 %" in run("score", path).output
    assert "grader" in fails(2, "score", path, "--graders", "nobody")
    path.write_text('{"answer": "B"}\n')
    assert f"{path}, row 1: `reply` is missing" in fails(2, "score", path)
    path.write_text('{"reply": "B", "type": "riddle", "answer": "B"}\n')
    assert "a `type` out of" in fails(2, "score", path)


def test_score_against_a_benchmark(records: Path, tmp_path: Path) -> None:
    data = json.loads(records.read_text())
    path = tmp_path / "replies.jsonl"
    gold = [{"id": row["problem_id"], "reply": row["solution"]} for row in data]
    path.write_text("".join(json.dumps(row) + "\n" for row in gold))
    words = ("score", path, "--benchmark", "jsonl", "--data", records, "--json")
    assert json.loads(run(*words).stdout)["graders"]["reelproof"]["micro"] == 1.0
    path.write_text('{"id": "nine", "reply": "B"}\n')
    assert "has no question 'nine'" in fails(2, *words)


@pytest.fixture(scope="module")
def checkpoint(student: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random student, saved as any trained one is."""
    path = tmp_path_factory.mktemp("student") / "final"
    student.model.save_pretrained(path)
    student.processor.save_pretrained(path)
    return path


def test_a_real_model_on_your_own_films(records: Path, tmp_path: Path, checkpoint: Path) -> None:
    """A film that cannot be read is an outcome with a reason; the others are answered."""
    data = json.loads(records.read_text())
    lost = data[0]["path"]
    (records.parent / lost).write_bytes(b"not a film")
    words = ("--recipe", "ktr", "--split", "test", "--samples", 2, "--save-replies", "--json")
    result = run(*ask(records, tmp_path / "out", str(checkpoint), *words))
    assert result.exit_code == 0, (result.output, result.exception)
    record = json.loads(result.stdout)
    asked_of_it = sum(row["path"] == lost for row in data)
    assert record["outcomes"]["undecodable"] == asked_of_it
    assert record["n"] == len(data) and record["samples"] == 2
    assert record["model"]["id"] == checkpoint.parent.name and len(record["model"]["sha256"]) == 64
    assert record["protocol"]["max_frames"] == 8


def test_your_own_films_without_a_recipe(records: Path, tmp_path: Path, checkpoint: Path) -> None:
    """Asked as Video-R1 asks; and a folder that holds no such films is said, not just scored 0."""
    words = ("--videos", tmp_path, "--limit", 2)
    result = run(*ask(records, tmp_path / "out", str(checkpoint), *words))
    assert result.exit_code == 0, (result.output, result.exception)
    score, cost, where, lost = result.stdout.splitlines()
    assert cost.startswith("coverage 0.0 %")
    assert where == f"record: {tmp_path / 'out' / 'record.json'}"
    assert "0.0 % of 2 questions (partial) (2 undecodable)" in score
    assert lost.startswith(f"2 questions have a clip that cannot be read, first {tmp_path}")
    assert lost.endswith(": no such file")
    stored = json.loads((tmp_path / "out" / "record.json").read_text())
    assert stored["protocol"]["prompt"] == "video-r1" and stored["benchmark"] == "jsonl"


def test_probes_pair_with_the_plain_run(records: Path, tmp_path: Path, checkpoint: Path) -> None:
    """Two probes and a rotation; asked again with --resume, nothing is asked of the model."""
    out, words = (
        tmp_path / "out",
        ("--videos", records.parent, "--recipe", "ktr", "--split", "test"),
    )
    probes = ("--probe", "no-video", "--probe", "shuffled", "--probe", "rotate-options")
    result = run(*ask(records, out, str(checkpoint), *words, "--greedy", *probes, "--json"))
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert list(found["probes"]) == ["no-video", "shuffled", "rotate-options"]
    blind = found["probes"]["no-video"]
    assert blind["name"] == "video gain" and found["probes"]["shuffled"]["name"] == "order gain"
    stored = json.loads((out / "no-video" / "record.json").read_text())
    assert stored["protocol"]["id"].endswith("+no-video") and stored["score"] == blind["score"]
    assert blind["difference"] == pytest.approx(found["score"] - blind["score"])
    low, high = blind["interval"]
    assert low <= blind["difference"] <= high and blind["questions"] == found["n"]
    assert 0 < found["work"]["clips"]["decoded"] <= 6

    again = run(*ask(records, out, str(checkpoint), *words, "--greedy", *probes, "--resume"))
    assert again.exit_code == 0, (again.output, again.exception)
    assert "order gain" in again.stdout and "no-video" in again.stdout
    other = ask(records, out, str(checkpoint), *words, "--greedy", "--resume", "--seed", 9)
    assert "record of another model, protocol, seed" in fails(2, *other)


def test_a_second_evaluation_answers_from_the_cache(
    records: Path, tmp_path: Path, checkpoint: Path
) -> None:
    words = ("--videos", records.parent, "--recipe", "ktr", "--split", "test", "--greedy", "--json")
    costs = []
    for name in ("a", "b", "c"):
        more = ("--no-cache",) if name == "c" else ()
        result = run(*ask(records, tmp_path / name, str(checkpoint), *words, *more))
        costs.append(json.loads(result.stdout)["work"])
    assert [(c["asked"] > 0, c["from_cache"] > 0) for c in costs] == [
        (True, False), (False, True), (True, False)
    ]  # fmt: skip
    rows = [(tmp_path / name / "rows.jsonl.gz").read_bytes() for name in "abc"]
    assert rows[0] == rows[1] == rows[2]


def test_a_server_that_fails_is_exit_4_and_resumable(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    line = fails(4, *ask(records, tmp_path / "out", "openai:m@http://localhost:9/v1", "--limit", 2,
                         "--videos", records.parent))  # fmt: skip
    assert "cannot be reached" in line and "0 rows are kept" in line and "--resume" in line
    assert (tmp_path / "out" / "rows.part.jsonl").exists()


def test_the_harness_takes_our_benchmarks(records: Path, checkpoint: Path) -> None:
    result = run(
        "eval", "--harness", "lm-eval", "--tasks", "jsonl", "--data", records, "--videos",
        records.parent, "--model", "oracle", "--limit", 5, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout[result.stdout.index("{") :])
    assert found == {"reelproof_jsonl": {"score": 1.0, "coverage": 1.0}}
    assert "needs --tasks" in run("eval", "--harness", "lm-eval").output


def test_training_on_your_own_records(records: Path, tmp_path: Path, checkpoint: Path) -> None:
    """The command as the README has it: no arm named is the paper's own."""
    out = tmp_path / "out"
    words = ("--data", records, "--model", checkpoint, "--steps", 1, "--out", out)
    result = run("train", "--recipe", "ktr", *words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "ktr-s0: 1 steps in 0:" in result.output and f"model: {out / 'final'}" in result.output
    begun = json.loads((out / "provenance.json").read_text())
    assert (begun["arm"], begun["data"]["name"], begun["steps"]) == ("ktr", "jsonl", 1)
    assert (out / "final" / "config.json").exists()
    done = json.loads((out / "done.json").read_text())
    assert done["steps"] == 1
    again = run("train", "--recipe", "ktr", *words, "--resume", "--json")
    assert json.loads(again.stdout) == done, "finished, and not repeated"
    assert "is not empty: --resume" in fails(2, "train", "--recipe", "ktr", *words)


def test_the_cold_start_of_your_own_records(
    records: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repro.recipe import Recipe

    recipe = Recipe.load("ktr")
    short = replace(recipe.sft, blind_steps=1, per_device_train_batch_size=2)
    monkeypatch.setattr(Recipe, "load", lambda name, profile: replace(recipe, sft=short))
    monkeypatch.chdir(tmp_path)
    words = ("train", "ktr", "--stage", "sft", "--steps", 2, "--data", records)
    result = run(*words, "--model", checkpoint)
    assert result.exit_code == 0, (result.output, result.exception)
    out = Path("runs") / "ktr-sft-s0"
    assert "sft-s0: 3 steps in 0:0" in result.output and f"model: {out / 'final'}" in result.output
    assert json.loads((out / "provenance.json").read_text())["arm"] == "sft"
    assert "is not empty: --resume" in fails(2, *words)


def test_where_records_go_when_nobody_says(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("eval", "--benchmark", "jsonl", "--data", records, "--model", "oracle")
    assert run(*words).exit_code == 0
    assert (tmp_path / "runs" / "jsonl-oracle-s0" / "record.json").exists()
    assert "runs/jsonl-oracle-s0 is not empty" in fails(2, *words)
    (tmp_path / "runs" / "ktr-grpo-s3").mkdir()
    (tmp_path / "runs" / "ktr-grpo-s3" / "mine").touch()
    words = ("train", "ktr", "--arm", "grpo", "--seed", 3, "--data", records)
    assert "runs/ktr-grpo-s3 is not empty: --resume" in fails(2, *words)
    assert "runs/ktr-grpo-s3 is not empty and no run of ours" in fails(2, *words, "--resume")
    assert [p.name for p in (tmp_path / "runs" / "ktr-grpo-s3").glob("[!.]*")] == ["mine"]


def test_a_recipe_of_your_own_belongs_to_a_paper(tmp_path: Path) -> None:
    """Whose method it trains is the folder of that name; others are refused before any work."""
    from repro.recipe import papers

    path = tmp_path / "mine.yaml"
    path.write_text(papers()["ktr"].read_text().replace("paper: ktr\n", "paper: kt\n"))
    said = fails(2, "train", path, "--arm", "ktr", "--out", tmp_path / "out")
    assert "mine.yaml: there is no paper 'kt'; did you mean 'ktr'?" in said
    assert not (tmp_path / "out").exists()


def test_training_stops_at_a_film_it_cannot_read(
    records: Path, tmp_path: Path, checkpoint: Path
) -> None:
    for film in (records.parent / "films").iterdir():
        film.write_bytes(b"not a film")
    words = ("--data", records, "--model", checkpoint, "--steps", 1, "--out", tmp_path / "out")
    said = fails(2, "train", "ktr", *words)
    assert "films/" in said and "not a readable" in said
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    assert not (tmp_path / "out" / "done.json").exists()


def test_a_folder_that_is_no_checkpoint(records: Path, tmp_path: Path) -> None:
    assert "no checkpoint" in fails(2, *ask(records, tmp_path / "out", str(tmp_path)))


def test_data_make(tmp_path: Path) -> None:
    words = ("data", "make", "--split", "validation", "--films", 3, "--to", tmp_path)
    folder = Path(run(*words).output.strip())
    assert folder.is_relative_to(tmp_path) and (folder / "records.json").exists()
    assert run(*words).output.strip() == str(folder)
