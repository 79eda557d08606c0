"""The two-schema remedy, in fresh interpreters: what one process imported cannot be un-imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evals import _torchvision


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.timeout(240)
def test_video_classes_import_after_install() -> None:
    done = run(
        "from evals._torchvision import install\n"
        "install(); install()\n"
        "import torchvision\n"
        "from torchvision.transforms import v2\n"
        "from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLVideoProcessor\n"
        "print(Qwen2_5_VLForConditionalGeneration.__name__, Qwen2VLVideoProcessor.__name__)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == [
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2VLVideoProcessor",
    ]


def test_the_schemas_outlive_the_call() -> None:
    """The object is kept by the module; otherwise garbage collection would take the schemas."""
    done = run(
        "import gc, torch\n"
        "from evals._torchvision import install\n"
        "if torch.version.cuda is None:\n"
        "    install(); gc.collect()\n"
        "    print(torch.ops.torchvision.nms, torch.ops.torchvision.qnms)\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_native_library_that_loads_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a CPU build the operators register themselves; declaring them twice ends the process."""
    import torch

    (tmp_path / "_C.so").touch()
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert _torchvision._native_works(tmp_path)


def test_a_native_library_that_wants_cuda_does_not_work(tmp_path: Path) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")  # dlopen: OSError, as for a missing link
    assert not _torchvision._native_works(tmp_path)
    assert not _torchvision._native_works(tmp_path / "empty")
