"""The launch files of MVP start its own recipe and arm through those of ktr."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[3] / "repro" / "mvp" / "launch"


@pytest.mark.parametrize(
    ("file", "program"), [("torchrun", "python"), ("accelerate", "accelerate")]
)
def test_what_is_started(file: str, program: str, tmp_path: Path) -> None:
    stub = tmp_path / program
    stub.write_text('#!/bin/sh\necho "$@"\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CARDS": "2", "SEED": "3"}
    done = subprocess.run(
        ["bash", str(LAUNCH / f"{file}.sh"), "--until", "5"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith(
        "-m repro train mvp --profile paper --arm mvp_qa --seed 3 --out "
        "runs/mvp-paper/mvp_qa-s3 --resume --until 5"
    )


def test_slurm_starts_this_papers_file() -> None:
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "repro/mvp/launch}" in text and '"$0/torchrun.sh"' in text
