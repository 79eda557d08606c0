"""The launch files of the later papers start their own recipe and arm through those of ktr."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPRO = Path(__file__).parents[2] / "repro"
PAPERS = (("ffr", "ffr"), ("mvp", "mvp_qa"), ("temporal_r1", "temporal_r1"))  # and its arm


@pytest.mark.parametrize(("paper", "arm"), PAPERS)
@pytest.mark.parametrize(
    ("file", "program"), [("torchrun", "python"), ("accelerate", "accelerate")]
)
def test_what_is_started(paper: str, arm: str, file: str, program: str, tmp_path: Path) -> None:
    stub = tmp_path / program
    stub.write_text('#!/bin/sh\necho "$@"\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CARDS": "2", "SEED": "3"}
    done = subprocess.run(
        ["bash", str(REPRO / paper / "launch" / f"{file}.sh"), "--until", "5"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith(
        f"-m repro train {paper} --profile paper --arm {arm} --seed 3 --out "
        f"runs/{paper}-paper/{arm}-s3 --resume --until 5"
    )


@pytest.mark.parametrize(("paper", "arm"), PAPERS)
def test_slurm_starts_this_papers_file(paper: str, arm: str) -> None:
    text = (REPRO / paper / "launch" / "slurm.sbatch").read_text()
    assert f"repro/{paper}/launch}}" in text and '"$0/torchrun.sh"' in text
