"""What this machine can run, and for each thing it lacks the one command that mends it."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evals.errors import BadInput, EnvironmentFault, Failure
from evals.microworld import default_cache
from repro import container, machine
from repro.arm import start_checkpoint
from repro.recipe import Recipe, papers

SETUP = "make setup"
LOCKS = machine.ROOT / "requirements"
DISK_GIB, MEMORY_GIB = 3.0, 3.0  # what two micro arms side by side need (chosen, with room)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. needed: nothing runs without it. mend: what to do, often a command."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    needed: bool = True


def examine(folder: Path) -> list[Finding]:
    """Every finding, needed things first. folder: where runs would be written."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python, _torch, _torchvision, _transformers, _codec, lambda: _decodes("pyav"),
        lambda: _disk(folder), _cache, _memory, _student, _sight, _cores, _locked, _hub_cache,
        _gpu, _decord, _vllm, _docker,
    )  # fmt: skip
    return [check() for check in checks]


def can_run(findings: list[Finding]) -> bool:
    """Whether nothing needed is missing."""
    return all(finding.ok for finding in findings if finding.needed)


def require_device(recipe: Recipe) -> None:
    """Raises EnvironmentFault where a recipe needs a GPU and there is none; nothing falls back."""
    here = recipe.model.id.startswith("tiny/") or Path(recipe.model.id).is_dir()
    if not here and machine.gpu() is None:
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


def _decodes(decoder: str) -> Finding:
    """A film is written and read, frame by frame."""
    name = f"{decoder} film"
    try:
        from repro.sight import decode

        with tempfile.TemporaryDirectory(prefix="reelproof-doctor-") as scratch:
            error = decode(Path(scratch), decoder)
    except (ImportError, ValueError, OSError, Failure) as problem:
        return Finding(name, False, _first_line(problem), SETUP, decoder == "pyav")
    return Finding(name, True, f"frames right, {error:.1f} of 255 off", needed=decoder == "pyav")


def _sight() -> Finding:
    """The student looks at a film and at its negative: blind models answer both alike."""
    try:
        from repro.sight import SEEN, see

        recipe = Recipe.load("ktr")
        found = see(recipe, start_checkpoint(recipe), "cpu" if machine.gpu() is None else "cuda")
    except (ImportError, RuntimeError, Failure) as problem:
        return Finding("sight", False, _first_line(problem), SETUP)
    text = f"two films, scores {found:.1f} apart"
    return Finding("sight", found > SEEN, text if found > SEEN else "blind: " + text, SETUP)


def _cache() -> Finding:
    """Where films and frames are kept."""
    return _writable("cache", default_cache(), "REELPROOF_CACHE")


def _hub_cache() -> Finding:
    """Where huggingface_hub keeps what it fetches; a mounted one often belongs to somebody else."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return _writable("hub cache", Path(home), "HF_HOME", needed=False)


def _writable(name: str, place: Path, variable: str, *, needed: bool = True) -> Finding:
    """Writes a file there."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-"):
            pass
    except OSError as error:
        return Finding(
            name, False, f"{place}: {error.strerror}",
            f"sudo chown -R $(id -u) {place}, or set {variable} to a folder of yours", needed,
        )  # fmt: skip
    return Finding(name, True, f"{place} is writable", needed=needed)


def _locked() -> Finding:
    """Installed versions against the pins that belong to this torch."""
    names = ("eval.lock", "train.lock") if _cuda_build() else ("cpu.txt",)
    files = [LOCKS / name for name in names]
    if not all(path.exists() for path in files):
        return Finding("locked", True, "no lock beside this installation", needed=False)
    pins = [line for path in files for line in path.read_text().splitlines() if "==" in line]
    odd = []
    for line in (line for line in pins if not line.startswith("#")):
        name, _, rest = line.partition("==")
        there, wanted = _version(name), rest.split()[0]
        if there is not None and there.partition("+")[0] != wanted:
            odd.append(f"{name} {there} for {wanted}")
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    text = ", ".join(odd[:3]) + more if odd else f"as {' and '.join(names)}"
    return Finding("locked", not odd, text, SETUP, False)


def _cuda_build() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.version.cuda is not None


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
    if _version("decord") is None:
        return Finding("decord film", False, "none; PyAV decodes", "pip install decord", False)
    return _decodes("decord")


def _vllm() -> Finding:
    return _optional("vllm", "pip install 'reelproof[eval]'", "transformers samples instead")


def _docker() -> Finding:
    """The engine, and whether it can hand on a GPU where there is one."""
    if shutil.which("docker") is None:
        return Finding("docker", False, "none", "only containers need it", False)
    try:
        with container.engine(patience=10) as client:
            told = client.info()
    except EnvironmentFault as error:
        found, _, mend = str(error).partition(": ")
        return Finding("docker", False, found, mend or "only containers need it", False)
    runtimes = ", ".join(sorted(told.get("Runtimes", {})))
    blind = machine.driver() is not None and "nvidia" not in runtimes
    return Finding(
        "docker", not blind, f"{told['ServerVersion']}, runtimes {runtimes}", container.TOOLKIT,
        False,
    )  # fmt: skip


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
