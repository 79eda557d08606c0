"""What a recipe for GPUs needs beyond the micro profile; nothing of it falls back to a CPU.

| finding    | right when                                                      |
|------------|-----------------------------------------------------------------|
| driver     | the NVIDIA driver is new enough for torch's CUDA                |
| cuda       | torch is a CUDA build and sees a device                         |
| capability | every device computes in bf16, where the recipe trains in it    |
| vram       | every device has the memory that the recipe's cost states       |
| shm        | /dev/shm holds what loaders and NCCL pass between processes     |
| data disk  | the downloads fit                                               |
| token      | the hub's token is there, where a benchmark's data are gated    |
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from evals import benchmarks
from repro import machine
from repro.doctor import Finding
from repro.needs import needs
from repro.recipe import Recipe

DRIVERS = {12: 525, 13: 580}  # CUDA major -> first driver that runs it, as NVIDIA's notes list them
SHM_GIB = 8.0  # chosen: PyTorch's loaders and NCCL under eight processes


@dataclass(frozen=True)
class Device:
    """A CUDA device. capability: (major, minor). memory: GiB."""

    name: str
    capability: tuple[int, int]
    memory: float


def examine(recipe: Recipe, folder: Path) -> list[Finding]:
    """Every finding for a recipe; nothing for one whose model is the embedded student."""
    if recipe.model.id.startswith("tiny/"):
        return []
    build, found = devices()
    return [
        driver(build, machine.driver()), cuda(build, found), capability(recipe, found),
        vram(recipe, found), shm(), _disk(recipe, folder), _token(recipe),
    ]  # fmt: skip


def devices() -> tuple[str | None, list[Device]]:
    """(torch's CUDA version, None for a CPU build or no torch; the devices torch sees)."""
    try:
        import torch
    except ImportError:
        return None, []
    if not torch.cuda.is_available():
        return torch.version.cuda, []
    known = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return torch.version.cuda, [
        Device(p.name, (p.major, p.minor), p.total_memory / 2**30) for p in known
    ]


def driver(build: str | None, found: str | None) -> Finding:
    """build: torch's CUDA version. found: the driver's own version."""
    least = DRIVERS.get(int((build or "13").partition(".")[0]), max(DRIVERS.values()))
    ok = found is not None and int(found.partition(".")[0]) >= least
    return Finding(
        "driver", ok, found or "none",
        f"install NVIDIA driver {least} or newer; in a container add --gpus all",
    )  # fmt: skip


def cuda(build: str | None, found: list[Device]) -> Finding:
    """Says which of the two is missing: the build or the device."""
    if build is None:
        return Finding(
            "cuda", False, "torch is a CPU build",
            "pip install --require-hashes --no-deps -r requirements/eval.lock, or the eval image",
        )  # fmt: skip
    if not found:
        return Finding(
            "cuda", False, f"torch is built for CUDA {build} and sees no device",
            "nvidia-smi says what the driver sees; check CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    return Finding("cuda", True, f"{build}, {len(found)} x {found[0].name}")


def capability(recipe: Recipe, found: list[Device]) -> Finding:
    """bf16 is computed from capability 8.0 (Ampere) on."""
    wanted = (8, 0) if recipe.trainer.bf16 else (7, 0)
    least = min((d.capability for d in found), default=(0, 0))
    text = f"{least[0]}.{least[1]}" if found else "no device"
    return Finding(
        "capability", least >= wanted, text,
        f"use a GPU of capability {wanted[0]}.{wanted[1]} or newer"
        + (": the recipe trains in bf16" if recipe.trainer.bf16 else ""),
    )  # fmt: skip


def vram(recipe: Recipe, found: list[Device]) -> Finding:
    """Against the recipe's own cost; unknown is said, not guessed."""
    wanted, least = recipe.cost.memory_gib, min((d.memory for d in found), default=0.0)
    text = f"{least:.0f} GiB a device" if found else "no device"
    if wanted is None:
        return Finding("vram", True, f"{text}; what the recipe needs is unknown", needed=False)
    return Finding(
        "vram", least >= wanted, f"{text}, {wanted:g} GiB needed",
        f"repro plan {recipe.paper} --profile {recipe.profile_name} lists what it takes; "
        "use_peft, gradient_checkpointing or a deepspeed stage need less",
    )  # fmt: skip


def shm(place: Path = Path("/dev/shm")) -> Finding:
    """Docker's own default is 64 MiB."""
    size = shutil.disk_usage(place).total / 2**30 if place.is_dir() else 0.0
    return Finding(
        "shm", size >= SHM_GIB, f"{size:.1f} GiB at {place}",
        "start the container with --shm-size=16g or --ipc=host",
    )  # fmt: skip


def _disk(recipe: Recipe, folder: Path) -> Finding:
    """Against the recipe's own number, else what its downloads add up to, as far as known."""
    found = needs(recipe)
    known = sum(need.bytes or 0 for need in found) / 2**30
    wanted = recipe.cost.download_gib or known
    unsure = recipe.cost.download_gib is None and any(need.bytes is None for need in found)
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 2**30
    more = f"; repro data lock {recipe.paper} says what the rest takes" if unsure else ""
    return Finding(
        "data disk", free >= wanted,
        f"{free:.0f} GiB free, {'at least ' if unsure else ''}{wanted:.0f} GiB to download{more}",
        f"free {wanted - free:.0f} GiB at {existing}, or name another folder with --out",
    )  # fmt: skip


def _token(recipe: Recipe) -> Finding:
    """Whether there is one; its value is never shown."""
    asked = [*(recipe.scoring.benchmarks if recipe.scoring else ()), recipe.evaluation.benchmark]
    names = dict.fromkeys(name.partition("/")[0] for name in asked)
    cards = {n: benchmarks.card(n) for n in names if n in benchmarks.OWNED}
    gated = [name for name, card in cards.items() if "gated" in card.licence]
    if not gated:
        return Finding("token", True, f"the data of {', '.join(names)} need none")
    try:
        from huggingface_hub import get_token
    except ImportError:
        return Finding("token", False, "huggingface_hub is missing", "make setup")
    pages = " and ".join(f"https://huggingface.co/datasets/{cards[n].dataset}" for n in gated)
    return Finding(
        "token", get_token() is not None, f"the data of {', '.join(gated)} are gated",
        f"accept the terms at {pages}, then hf auth login, or set HF_TOKEN",
    )  # fmt: skip
