"""Facts about this machine and this working tree, as records and the doctor state them."""

from __future__ import annotations

import getpass
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: https://[user@]host/path, ssh://user@host/path or user@host:path, with or without .git.
_CLONED = re.compile(r"(?:https://|ssh://)?(?:[^@/]*@)?([\w.-]+\.[\w-]+)[:/](.+?)(?:\.git)?/?")


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Physical memory, or the container's limit where that is less; GiB."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total / 2**30


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    found = [line.partition(":")[2].strip() for line in names if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()


def gpu() -> str | None:
    """Name and count of the CUDA devices torch can use."""
    import torch

    if not torch.cuda.is_available():
        return None
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"


def driver() -> str | None:
    """Version of the NVIDIA driver, None where there is none."""
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", _text(path))
    return found[1] if found else None


def image() -> str | None:
    """Digest of the container this runs in, "sha256:...": what started it sets $REPRO_IMAGE."""
    return os.environ.get("REPRO_IMAGE") or None


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def cards() -> list[float]:
    """GiB of memory of each CUDA device torch can use."""
    import torch

    if not torch.cuda.is_available():
        return []
    devices = range(torch.cuda.device_count())
    return [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in devices]


def git() -> dict[str, Any]:
    """`{"commit", "dirty"}` of the tree this code runs from; both None outside git.

    An image has no git and names its commit in $REPRO_COMMIT, `<commit>` or `<commit>-dirty`.
    """
    if stamped := re.fullmatch(r"([0-9a-f]{40})(-dirty)?", os.environ.get("REPRO_COMMIT", "")):
        return {"commit": stamped[1], "dirty": stamped[2] is not None}
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain")) if commit else None}


def committed_at() -> str:
    """When the tree's commit was made, as RFC 3339 writes it; "" outside git."""
    return _git("log", "-1", "--format=%cI") or ""


def origin() -> str:
    """Where the tree was cloned from, as an https address without user or password; "" if it is
    known by none."""
    said = _git("remote", "get-url", "origin") or ""
    match = re.fullmatch(
        r"(?:https://|ssh://)?(?:[^@/]*@)?([\w.-]+\.[\w-]+)[:/](.+?)(?:\.git)?/?", said
    )
    return f"https://{match[1]}/{match[2]}" if match else ""


def who() -> str:
    """Who files a record: $REPRO_WHO, else the account's name."""
    return os.environ.get("REPRO_WHO") or getpass.getuser()


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, no commit yet
        return None
    return run.stdout.strip()
