"""Make .venv what requirements/cpu.txt says; safe to run again, quick when nothing has changed.

Order matters. torch first: alone and pinned, so that no looser range elsewhere picks another build.
torchvision second and without dependencies: its wheel wants a CUDA torch that a CPU does not need
(evals/_torchvision.py lets it import). Then the rest, then this project itself, editable.

Where packages come from is the installer's business: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL,
PIP_FIND_LINKS and pip's configuration are left alone.
"""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path

TORCH, TORCHVISION = "2.13.0", "0.28.0"
CUDA_SIZE = "2.7 GB"  # torch 2.13.0 for CUDA with its nvidia-* wheels, as listed on PyPI
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".ready"
SHAPING = ("requirements/cpu.txt", "requirements/install.py", "pyproject.toml")


def too_old(version):
    """A sentence if this Python cannot run the suite, else ""."""
    if tuple(version[:2]) >= (3, 11):
        return ""
    found = ".".join(str(part) for part in version[:3])
    return (
        "ReelProof needs Python 3.11 or newer and this is "
        + found
        + "; name another one: make setup PYTHON=python3.12"
    )


def build_of(versions, system, machine):
    """Which torch the installer would pick, "cpu" or "cuda", from the versions an index offers.

    Of equal versions pip takes the highest local label (2.13.0+cpu over 2.13.0); the unlabelled
    wheel is the CUDA build on Linux and a CPU build elsewhere.
    """
    labels = sorted(v.partition("+")[2] for v in versions if v.partition("+")[0] == TORCH)
    if labels and labels[-1]:
        return "cpu" if labels[-1].startswith("cpu") else "cuda"
    return "cuda" if system == "Linux" and machine in ("x86_64", "aarch64") else "cpu"


def pip(*arguments, **options):
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, cwd=ROOT, **options)


def offered():
    """Versions of torch on the configured indexes, without downloading anything."""
    found = pip(
        "index", "versions", "torch", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout.decode()
    line = next((x for x in found.splitlines() if x.startswith("Available versions:")), "")
    return [v.strip() for v in line.partition(":")[2].split(",")]


def installed_torch():
    code = "import importlib.metadata as m; print(m.version('torch').partition('+')[0])"
    run = subprocess.run(
        [str(PYTHON), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return run.stdout.decode().strip()


def say(text):
    print("setup: " + text, flush=True)


def announce_torch():
    if build_of(offered(), platform.system(), platform.machine()) == "cpu":
        say("torch " + TORCH + ", the CPU build (about 200 MB)")
        return
    say("torch " + TORCH + " would be the CUDA build: about " + CUDA_SIZE + " to download")
    say("for the CPU build instead, stop now and set an index that has it, for example")
    say("    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup")


def digest():
    parts = [(ROOT / name).read_bytes() for name in SHAPING] + [sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install():
    """Create and fill .venv; the stamp is written last, so a broken set-up starts again."""
    if not PYTHON.exists():
        say("creating .venv with " + sys.executable)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    STAMP.unlink(missing_ok=True)
    pins = str(ROOT / "requirements" / "cpu.txt")
    if installed_torch() != TORCH:
        announce_torch()
    pip("install", "--quiet", "--constraint", pins, "torch==" + TORCH)
    say("torchvision " + TORCHVISION)
    pip("install", "--quiet", "--no-deps", "torchvision==" + TORCHVISION)
    say("the packages of requirements/cpu.txt")
    pip("install", "--quiet", "--requirement", pins)
    pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    STAMP.write_text(digest())


def main():
    problem = too_old(sys.version_info)
    if problem:
        sys.exit("error: " + problem)
    if STAMP.exists() and STAMP.read_text() == digest():
        STAMP.touch()
        return
    try:
        install()
    except subprocess.CalledProcessError as error:
        step = " ".join(str(part) for part in error.cmd[1:])
        sys.exit("error: set-up stopped at `" + step + "`; mend what it says and run make again")
    say("ready: .venv")


if __name__ == "__main__":
    main()
