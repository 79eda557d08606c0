"""Every launch file starts two real processes on this CPU, which train two steps together.

Slurm itself is not here: `srun` and `scontrol` are small programs that start what the script asks
for on two "nodes" of one machine, with the variables that Slurm sets.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "repro" / "ktr" / "launch"

SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do SLURM_NODEID=$node "$@" & done
status=0
for job in $(jobs -p); do wait "$job" || status=$?; done
exit $status
"""

RECIPE = """
import sys, yaml
from pathlib import Path
source, target, stage = sys.argv[1:]
raw = yaml.safe_load(Path(source).read_text())
trainer = raw["profiles"]["micro"]["trainer"]
small = {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 6, "max_steps": 2,
         "save_steps": 1, "deepspeed": int(stage)}
for key, value in small.items():
    trainer[key] = {"value": value, "source": "chosen: a test"}
Path(target).write_text(yaml.safe_dump(raw))
"""


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found: int = free.getsockname()[1]
        return found


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from evals import microworld

    return microworld.make("train", n=4, cache=tmp_path_factory.mktemp("films"))


def start(file: str, tmp_path: Path, films: Path, *, stage: int = 0, **variables: str) -> Path:
    """Run a launch file on small data; the folder of its run."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    source = ROOT / "repro" / "ktr" / "recipe.yaml"
    subprocess.run([sys.executable, "-c", RECIPE, str(source), str(recipe), str(stage)], check=True)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "RECIPE": str(recipe), "PROFILE": "micro",
        "OUT": str(out), "PORT": str(port()), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        **variables,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(LAUNCH / file), "--data", str(films / "records.json"), "--videos", str(films)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def trained_by(out: Path) -> int:
    """Processes of a finished run of two steps."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert json.loads((out / "done.json").read_text())["steps"] == 2
    assert (out / "final" / "model.safetensors").is_file()
    found: int = json.loads((out / "provenance.json").read_text())["processes"]
    return found


@pytest.mark.slow
def test_torchrun_with_zero_3(tmp_path: Path, films: Path) -> None:
    assert trained_by(start("torchrun.sh", tmp_path, films, stage=3, CARDS="2")) == 2


@pytest.mark.slow
def test_accelerate(tmp_path: Path, films: Path) -> None:
    """accelerate.yaml asks for GPUs; where there are none, its processes speak gloo."""
    assert trained_by(start("accelerate.sh", tmp_path, films, CARDS="2")) == 2


@pytest.mark.slow
def test_slurm_on_two_nodes(tmp_path: Path, films: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho localhost\necho other\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    out = start(
        "slurm.sbatch", tmp_path, films, CARDS="1", SLURM_JOB_NODELIST="two", SLURM_NNODES="2",
        SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT),
    )  # fmt: skip
    assert trained_by(out) == 2


def test_the_files_name_only_options_that_exist() -> None:
    from click.testing import CliRunner

    from repro.cli import cli

    said = CliRunner().invoke(cli, ["train", "--help"]).output
    for path in LAUNCH.iterdir():
        text = path.read_text()
        assert ("/work" not in text and "runs/" in text) or path.suffix in (".yaml", ".sbatch")
        for option in ("--profile", "--arm", "--seed", "--out", "--resume"):
            assert option in said
