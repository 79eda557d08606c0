"""Two processes train to the loss and weights of one, fail together, and resume exactly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evals.errors import BadInput
from evals.vlm import VLM
from repro.core import checkpoint, ranks, zero
from repro.recipe import Recipe
from tests.tiny import tiny_qwen3_vl

pytestmark = pytest.mark.timeout(600)  # real processes, perhaps on a busy machine

Answer = dict[str, Any]
Run = Callable[..., Answer]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
#: Which records of `data` the two steps train on; the first two of four are the first process's.
VIDEOS = [0, 5, 9, 20, 24, 28, 2, 17]
MIXED = [0, 5, 12, 13, 32, 33, 9, 20]  # videos beside images, then text beside videos
BLIND = [32, 33, 12, 13, 12, 0, 32, 34]  # text beside images, then an image and a video beside text

#: Settings that one batch of two processes must treat as one process would.
CASES: dict[str, dict[str, Any]] = {
    "videos": {"order": VIDEOS},
    "mixed": {"order": MIXED},
    "blind": {"order": BLIND},
    "tokens of all ranks": {
        "order": MIXED, "arm": "grpo",
        "trainer": {
            "loss_type": "dapo", "scale_rewards": "batch", "top_entropy_quantile": 0.3,
            "dynamic_sampling": 2,
        },
        "switches": {"kl_on": "valid", "normaliser": "valid"},
    },
    "adapters": {"order": MIXED, "trainer": {"use_peft": True}},
    "frozen tower": {"order": BLIND, "freeze": True},
    "groups shuffled": {"order": BLIND, "switches": {"shuffle": "group"}},
    "flat groups skipped": {"order": BLIND, "switches": {"flat_groups": "skip"}},
    "checkpointing": {"order": MIXED, "trainer": {"gradient_checkpointing": True}},
    "bnpo": {"order": BLIND, "arm": "grpo", "trainer": {"loss_type": "bnpo"}},
    "cispo": {"order": MIXED, "trainer": {"loss_type": "cispo", "epsilon_high": 5.0}},
    "dr_grpo": {
        "order": BLIND, "trainer": {"loss_type": "dr_grpo", "dynamic_sampling": 2},
    },
    "two iterations": {"order": MIXED, "steps": 4,
                       "trainer": {"num_iterations": 2, "save_steps": 2}},
    "two parts": {"order": MIXED, "trainer": {"gradient_accumulation_steps": 2}},
    "T-GRPO": {"order": MIXED, "arm": "t_grpo"},
}  # fmt: skip
FAST = [("mixed", 0), ("mixed", 2), ("tokens of all ranks", 0), ("adapters", 0)]
SLOW = [(name, stage) for name in CASES for stage in (0, 2, 3) if (name, stage) not in FAST]


@pytest.fixture(scope="module")
def data(films: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions of eight films (12 to 15: stills), then four without a clip."""
    folder = films("train", n=8)
    records = json.loads((folder / "records.json").read_text())
    records += [
        {"problem": "How many shapes are there?", "solution": str(i), "data_type": "text",
         "problem_type": "numerical", "problem_id": f"text{i}"}
        for i in range(4)
    ]  # fmt: skip
    kinds = [r.get("data_type", "video") for r in records]
    assert kinds == ["video"] * 12 + ["image"] * 4 + ["video"] * 16 + ["text"] * 4
    path = folder / "mixed.json"
    path.write_text(json.dumps(records))
    return path


@pytest.fixture(scope="module")
def model(student: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    student.model.save_pretrained(folder)
    student.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(model: Path, data: Path) -> Iterator[Run]:
    """run(out, processes=2, stage=0, ...) -> how the processes that trained there ended."""
    driver = Path(__file__).with_name("ranks_driver.py")
    with subprocess.Popen(
        [sys.executable, str(driver)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=ENV,
    ) as process:  # fmt: skip
        assert json.loads(process.stdout.readline())["ready"]

        def ask(out: Path, *, processes: int = 2, stage: int = 0, **more: Any) -> Answer:
            given = {**more.pop("trainer", {}), "deepspeed": stage}
            request = {
                "out": str(out), "model": str(model), "data": str(data), "arm": "ktr", "steps": 2,
                "processes": processes, "order": MIXED, "trainer": given, **more,
            }  # fmt: skip
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def trained(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """trained("mixed", processes=2, stage=2) -> the folder of that run, made once."""
    made: dict[Any, Path] = {}

    def make(case: str, processes: int = 2, stage: int = 0) -> Path:
        key = (case, processes, stage)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("run")
            answer = run(made[key], processes=processes, stage=stage, **CASES[case])
            assert not any(answer["codes"]), answer["said"]
        return made[key]

    return make


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def sha_of(out: Path) -> str:
    done = json.loads((out / "done.json").read_text())
    assert done["sha256"] == checkpoint.weights_sha256(out / "final")
    return str(done["sha256"])


def assert_equals_one_process(trained: Callable[..., Path], case: str, stage: int) -> None:
    """Loss, rewards, KL and gradient norm of every step, and the weights after the last.

    Adam divides by the gradient's own size, so rounding of a gradient near 0 moves a weight by up
    to a few per cent of the learning rate, 1e-3.
    """
    one, two = trained(case, processes=0), trained(case, stage=stage)
    alone, both = rows_of(one), rows_of(two)
    assert [r["step"] for r in both] == [r["step"] for r in alone]
    for a, b in zip(alone, both, strict=True):
        for name in ("loss", "grad_norm", "kl", "reward", "accuracy", "length", "resampled"):
            assert b[name] == pytest.approx(a[name], rel=2e-5, abs=2e-7), (name, a["step"])
        assert b["patches"] >= a["patches"] > 0
    final, wanted = weights_of(two / "final"), weights_of(one / "final")
    assert final.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(final[name], value, rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize(("case", "stage"), FAST)
def test_two_processes_are_as_one(trained: Callable[..., Path], case: str, stage: int) -> None:
    assert_equals_one_process(trained, case, stage)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "stage"), SLOW)
def test_two_processes_are_as_one_in_every_setting(
    trained: Callable[..., Path], case: str, stage: int
) -> None:
    assert_equals_one_process(trained, case, stage)


def test_the_comparison_sees_a_difference(trained: Callable[..., Path], model: Path) -> None:
    """Training moves every weight by more than the comparison lets pass, the tower's too."""
    before, after = weights_of(model), weights_of(trained("mixed", processes=0) / "final")
    assert all((after[name] - before[name]).abs().max() > 5e-4 for name in before)
    alone = rows_of(trained("mixed", processes=0))
    assert alone[0]["grad_norm"] != pytest.approx(alone[1]["grad_norm"], rel=2e-5)


def test_one_process_writes_for_all(trained: Callable[..., Path]) -> None:
    out = trained("mixed")
    names = {p.name for p in out.iterdir()}
    assert names == {p.name for p in trained("mixed", processes=0).iterdir()}
    assert json.loads((out / "provenance.json").read_text())["processes"] == 2
    assert "shards" not in json.loads((out / "provenance.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_trains(run: Run, tmp_path: Path, stage: int) -> None:
    """Two processes in bf16: the first loss is that of one process to bf16's rounding."""
    for name, processes in (("one", 0), ("two", 2)):
        answer = run(tmp_path / name, processes=processes, stage=stage if processes else 0,
                     trainer={"bf16": True})  # fmt: skip
        assert not any(answer["codes"]), answer["said"]
    one, two = rows_of(tmp_path / "one")[0], rows_of(tmp_path / "two")[0]
    assert two["entropy"] == pytest.approx(one["entropy"], abs=0.05)
    assert two["mismatch"] < 1


@pytest.fixture(scope="module")
def other(student: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3-VL, whose tower feeds the first layers of the language model too."""
    vlm = tiny_qwen3_vl(student.processor.tokenizer)
    folder = tmp_path_factory.mktemp("other")
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_processes_train_qwen3_vl_as_one(
    run: Run, tmp_path: Path, other: Path, stage: int
) -> None:
    given = {"model": str(other), "view": {"min_pixels": 64 * 64, "max_pixels": 64 * 64}}
    for name, processes in (("one", 0), ("two", 2)):
        answer = run(tmp_path / name, processes=processes, stage=stage if processes else 0,
                     order=BLIND, **given)  # fmt: skip
        assert not any(answer["codes"]), answer["said"]
    for a, b in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        for name in ("loss", "grad_norm", "kl", "reward"):
            assert b[name] == pytest.approx(a[name], rel=2e-5, abs=2e-7), (name, a["step"])


# --- resuming ----------------------------------------------------------------------------------


def kill_and_resume(
    run: Run, whole: Path, out: Path, stage: int, *, between: Callable[[], None] = lambda: None,
    **case: Any,
) -> None:  # fmt: skip
    killed = run(out, stage=stage, kill=[2, 1], **case)
    assert killed["codes"] == [-signal.SIGKILL] * 2
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-1"]
    between()
    resumed = run(out, stage=stage, **case)
    assert not any(resumed["codes"]), resumed["said"]
    assert sha_of(out) == sha_of(whole)
    assert rows_of(out) == rows_of(whole)


def test_a_killed_group_goes_on_bit_for_bit(
    run: Run, trained: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def alone() -> None:
        refused = run(out, processes=0)
        assert refused["codes"] == [2] and "--nproc_per_node 2" in refused["said"][0]

    kill_and_resume(run, trained("mixed"), out, 0, between=alone)


def test_a_killed_group_goes_on_with_shards_that_provenance_vouches_for(
    run: Run, trained: Callable[..., Path], tmp_path: Path
) -> None:
    out, copied = tmp_path / "run", tmp_path / "copied"

    def spoil() -> None:
        saved = out / "checkpoint-1"
        checkpoint.trust(out, saved)
        told = json.loads((out / "provenance.json").read_text())["shards"]
        assert set(told) == {"checkpoint-1"} and len(told["checkpoint-1"]) >= 4
        assert not list(saved.glob("*.py"))
        shutil.copytree(out, copied)
        with pytest.raises(BadInput, match="does not vouch"):  # the same bytes, in another run
            checkpoint.trust(out, copied / "checkpoint-1")
        (copied / "provenance.json").write_text("{}")
        with pytest.raises(BadInput, match="does not vouch"):
            checkpoint.trust(copied, copied / "checkpoint-1")
        shard = next(saved.glob("global_step*/*optim_states.pt"))
        written = shard.read_bytes()
        shard.write_bytes(written + b"\0")
        refused = run(out, stage=2)
        assert refused["codes"] == [2, 2] and "does not vouch" in refused["said"][0]
        assert refused["said"][1] == ""
        shard.write_bytes(written)

    kill_and_resume(run, trained("mixed", stage=2), out, 2, between=spoil)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mixed", "adapters"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_every_killed_group_goes_on_bit_for_bit(
    run: Run, trained: Callable[..., Path], tmp_path: Path, case: str, stage: int
) -> None:
    kill_and_resume(run, trained(case, stage=stage), tmp_path / "run", stage, **CASES[case])


# --- failing together --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "codes", "said"),
    [
        ("nan", [1, 1], "the loss of step 2 is nan"),
        ("record", [2, 2], "is spoilt (process 1)"),
        ("gone", [1, 4], "another process of this run has ended"),
    ],
)
def test_what_fails_in_one_process_ends_all(
    run: Run, tmp_path: Path, what: str, codes: list[int], said: str
) -> None:
    """With one sentence, and the exit code of what failed; the step before stays saved."""
    answer = run(tmp_path / "run", fail=[2, 1, what])
    assert answer["codes"] == codes
    assert said in answer["said"][0] and answer["said"][1] == ""
    assert [p.name for p in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_teacher_that_one_process_cannot_reach_hangs_nobody(run: Run, tmp_path: Path) -> None:
    """Its calls time out, the other's are answered; both train on, and the log counts for both."""
    answer = run(
        tmp_path, paper="ffr", arm="ffr_retry", teacher=1, switches={"deadline": 1.0}, steps=2
    )
    assert answer["codes"] == [0, 0], answer["said"]
    for row in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()):
        lost = row.get("n_teacher_timeout", 0) + row.get("n_teacher_circuit_open", 0)
        assert row["n_rollouts"] == 16 and row["n_failed"] == row["n_teacher_retry"] + lost
        assert lost > 0 and row["n_repaired"] == row["n_teacher_retry"] > 0
        assert row["teacher_down"] == pytest.approx(lost / row["n_failed"])
        assert ("teacher" in row["alarms"]) == (row["teacher_down"] > 0.5)


def test_a_signal_to_one_process_lets_the_step_of_all_end_and_be_saved(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stopped = run(out, fail=[1, 1, "signal"], trainer={"save_steps": 100})
    assert stopped["codes"] == [143, 143]
    assert stopped["said"][0].startswith("interrupted") and stopped["said"][1] == ""
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-1"]


def test_processes_must_divide_the_prompts(run: Run, tmp_path: Path) -> None:
    answer = run(tmp_path / "run", trainer={"prompts_per_step": 3})
    assert answer["codes"] == [2, 2] and "2 processes" in answer["said"][0]
    assert answer["said"][1] == ""


def test_deepspeed_needs_torchrun(run: Run, tmp_path: Path) -> None:
    answer = run(tmp_path / "run", processes=0, stage=2)
    assert answer["codes"] == [2] and "torchrun --nproc_per_node" in answer["said"][0]


# --- the command line --------------------------------------------------------------------------


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    return subprocess.run(
        [*command, "2", "-m", "repro", *arguments], capture_output=True, text=True, env=ENV
    )


def test_torchrun_trains_an_arm(tmp_path: Path, model: Path, data: Path) -> None:
    out = tmp_path / "run"
    told = torchrun("train", "ktr", "--arm", "grpo", "--steps", "1", "--out", str(out), "--model",
                    str(model), "--data", str(data), "--videos", str(data.parent))  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("1 steps in") == 1
    assert json.loads((out / "provenance.json").read_text())["processes"] == 2
    assert sha_of(out) and len(rows_of(out)) == 1


@pytest.mark.slow
def test_torchrun_tells_a_failure_once(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("not a run")
    told = torchrun("train", "ktr", "--arm", "grpo", "--out", str(tmp_path))
    assert told.returncode != 0
    assert told.stderr.count("error: ") == 1 and "is not empty" in told.stderr
    assert "exitcode  : 2" in told.stderr  # torchrun's own report


# --- pieces ------------------------------------------------------------------------------------


def test_alone_every_answer_is_one_s_own() -> None:
    assert (ranks.world(), ranks.rank(), ranks.launched()) == (1, 0, False)
    assert ranks.gather(3) == [3] and ranks.first("a") == "a" and ranks.total(2.5) == 2.5
    assert ranks.together(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        ranks.together(lambda: 1 // 0)


def test_the_configuration_of_deepspeed(recipe: Recipe) -> None:
    from dataclasses import replace

    settings = recipe.profile("paper").trainer
    assert zero.config(replace(settings, deepspeed=0)) is None
    for stage in (2, 3):
        made = zero.config(replace(settings, deepspeed=stage))
        assert made is not None and json.dumps(made)
        part = made["zero_optimization"]
        assert part["stage"] == stage and not any("offload" in key for key in part)
        assert made["bf16"] == {"enabled": True} and made["gradient_clipping"] == "auto"
        assert part["overlap_comm"] is torch.cuda.is_available()
