"""What this machine can run, and for each thing it lacks the one command that mends it."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evals.errors import BadInput, EnvironmentFault
from repro import machine
from repro.arm import start_checkpoint
from repro.recipe import Recipe, papers

SETUP = "make setup"
DISK_GIB, MEMORY_GIB = 3.0, 3.0  # what two micro arms side by side need (chosen, with room)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. needed: the micro profile cannot run without it."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    needed: bool = True


def examine(folder: Path) -> list[Finding]:
    """Every finding, needed things first. folder: where runs would be written."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python, _torch, _torchvision, _transformers, _codec, lambda: _disk(folder), _memory,
        _cores, _student, _gpu, _decord, _vllm, _docker,
    )  # fmt: skip
    return [check() for check in checks]


def can_run_micro(findings: list[Finding]) -> bool:
    """Whether nothing needed is missing."""
    return all(finding.ok for finding in findings if finding.needed)


def require_device(recipe: Recipe) -> None:
    """Raises EnvironmentFault where a recipe needs a GPU and there is none; nothing falls back."""
    if not recipe.model.id.startswith("tiny/") and machine.gpu() is None:
        name = f"{recipe.paper} --profile {recipe.profile_name}"
        raise EnvironmentFault(
            f"torch sees no CUDA device, and {recipe.model.id} is not trained on a CPU; "
            f"`repro plan {name}` says what it takes"
        )


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, found, "make setup PYTHON=python3.12")


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", False, str(error), SETUP)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return Finding("torch", True, f"{torch.__version__}, {build} build")


def _torchvision() -> Finding:
    try:
        from evals._torchvision import install

        install()
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:  # RuntimeError: its operators do not register
        return Finding("torchvision", False, _first_line(error), SETUP)
    return Finding("torchvision", True, _version("torchvision") or "?")


def _transformers() -> Finding:
    try:
        from transformers import Qwen2_5_VLForConditionalGeneration as Model
    except (ImportError, RuntimeError) as error:
        return Finding("transformers", False, _first_line(error), SETUP)
    return Finding("transformers", True, f"{_version('transformers')}, has {Model.__name__}")


def _codec() -> Finding:
    try:
        import av

        av.codec.Codec("h264", "r")
        av.codec.Codec("libx264", "w")
    except (ImportError, ValueError) as error:  # PyAV: UnknownCodecError is a ValueError
        return Finding("h264", False, _first_line(error), SETUP)
    return Finding("h264", True, f"decoded and encoded by PyAV {_version('av')}")


def _disk(folder: Path) -> Finding:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 2**30
    return Finding(
        "disk", free >= DISK_GIB, f"{free:.1f} GiB free at {existing}",
        f"free {DISK_GIB:g} GiB there, or name another folder with --out",
    )  # fmt: skip


def _memory() -> Finding:
    total = machine.memory_gib()
    return Finding(
        "memory", total >= MEMORY_GIB, f"{total:.1f} GiB", "repro reproduce ktr --jobs 1"
    )


def _cores() -> Finding:
    count = machine.cores()
    return Finding("cores", count >= 2, f"{count}, {machine.cpu()}", "expect twice the time", False)


def _student() -> Finding:
    absent = [name for name in papers() if not _has_start(Recipe.load(name))]
    mend = " && ".join(f"repro tiny build --for {name}" for name in absent)
    found = f"no start checkpoint for {', '.join(absent)}" if absent else ", ".join(papers())
    return Finding("student", not absent, found, mend)


def _has_start(recipe: Recipe) -> bool:
    try:
        start_checkpoint(recipe)
    except BadInput:
        return False
    return True


def _gpu() -> Finding:
    try:
        found = machine.gpu()
    except ImportError:
        found = None
    return Finding("gpu", found is not None, found or "none", "only profile paper needs one", False)


def _decord() -> Finding:
    return _optional("decord", "pip install decord", "PyAV decodes instead")


def _vllm() -> Finding:
    return _optional("vllm", "pip install 'reelproof[eval]'", "transformers samples instead")


def _docker() -> Finding:
    found = shutil.which("docker")
    return Finding("docker", bool(found), found or "none", "only containers need it", False)


def _optional(name: str, mend: str, instead: str) -> Finding:
    found = _version(name)
    return Finding(name, found is not None, found or f"none; {instead}", mend, False)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
