"""Write the locks of the images: one line per package, its version and the sha256 of the one file.

    pip install uv packaging && python requirements/lock.py

| lock       | what it holds                                          | Python |
|------------|--------------------------------------------------------|--------|
| cpu.lock   | the pins of cpu.txt; torch and torchvision come before | 3.11   |
| eval.lock  | the extra `eval`, for CUDA                             | 3.12   |
| train.lock | what the extra `train` needs beyond eval.lock          | 3.12   |
| tools.lock | what writes the SBOM and audits the other locks        | both   |

uv resolves; of the files it names, the best wheel for Linux x86_64 is kept, or the sdist where
there is no wheel. Packages come from uv's own index settings; none is named here or in a lock.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).resolve().parent
#: What installs the rest, so that even pip is one known file.
FIRST = "pip\nsetuptools\nwheel\n"
TOOLS = FIRST + "cyclonedx-bom==7.5.0\npip-audit==2.10.1\n"
GLIBC = 28  # of the bases, at least
HEADER = "# Written by requirements/lock.py for Python {} on Linux x86_64; do not edit.\n"


def resolve(python, *arguments, text=FIRST):
    """{name: (version, {preference: sha256 of a file})} for one Python, the best file lowest."""
    with tempfile.TemporaryDirectory() as scratch:
        extra, out = Path(scratch, "first.in"), Path(scratch, "pylock.toml")
        extra.write_text(text)
        subprocess.run(
            ["uv", "pip", "compile", "--quiet", "--format", "pylock.toml", "--output-file",
             str(out), "--python-version", python, "--python-platform",
             f"x86_64-manylinux_2_{GLIBC}", str(extra), *arguments],
            check=True, cwd=HERE.parent,
        )  # fmt: skip
        packages = tomllib.loads(out.read_text())["packages"]
    return {p["name"]: (p["version"], best(p, python)) for p in packages}


def best(package, python):
    """sha256 of the file that an installer for this Python takes."""
    order = {tag: n for n, tag in enumerate(tags(python))}
    ranked = []
    for wheel in package.get("wheels", []):
        name = wheel["url"].rpartition("/")[2].replace("%2B", "+")
        fits = [order[tag] for tag in parse_wheel_filename(name)[3] if tag in order]
        ranked += [(min(fits), wheel["hashes"]["sha256"])] if fits else []
    return min(ranked)[1] if ranked else package["sdist"]["hashes"]["sha256"]


def tags(python):
    version = tuple(int(part) for part in python.split("."))
    platforms = [f"manylinux_2_{n}_x86_64" for n in range(GLIBC, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64",
                  "linux_x86_64"]  # fmt: skip
    yield from cpython_tags(version, platforms=platforms)
    yield from compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)


def write(name, pythons, found, leave=()):
    """One lock; `found`: what each Python resolved to. The versions must agree."""
    lines = []
    for package in sorted(set().union(*found) - set(leave)):
        versions = {one[package][0] for one in found if package in one}
        if len(versions) != 1:
            sys.exit(f"error: {package} resolves to {' and '.join(sorted(versions))}")
        hashes = dict.fromkeys(one[package][1] for one in found if package in one)
        lines.append(
            " ".join([f"{package}=={versions.pop()}", *(f"--hash=sha256:{h}" for h in hashes)])
        )
    (HERE / name).write_text(HEADER.format(" and ".join(pythons)) + "\n".join(lines) + "\n")
    print(f"{name}: {len(lines)} packages")


def main():
    write("cpu.lock", ["3.11"], [resolve("3.11", "--no-deps", "requirements/cpu.txt")])
    evals = resolve("3.12", "pyproject.toml", "--extra", "eval")
    train = resolve("3.12", "pyproject.toml", "--extra", "train")
    if moved := sorted(name for name in evals if train.get(name) != evals[name]):
        sys.exit("error: the extra train moves " + ", ".join(moved))
    write("eval.lock", ["3.12"], [evals])
    write("train.lock", ["3.12"], [train], leave=evals)
    write("tools.lock", ["3.11", "3.12"], [resolve(p, text=TOOLS) for p in ("3.11", "3.12")])


if __name__ == "__main__":
    main()
