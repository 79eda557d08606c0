"""Write the locks of the images: one line per package, its version and the sha256 of the one file.

    pip install uv packaging && python requirements/lock.py [--fresh]

| lock       | what it holds                                          | Python |
|------------|--------------------------------------------------------|--------|
| cpu.lock   | the pins of cpu.txt; torch and torchvision come before | 3.11   |
| eval.lock  | the extra `eval`, for CUDA                             | 3.12   |
| train.lock | what the extra `train` needs beyond eval.lock          | 3.12   |
| tools.lock | what writes the SBOM and audits the other locks        | both   |

uv resolves; of the files it names, the best wheel for Linux x86_64 is kept, or the sdist where
there is no wheel. Versions that a lock already has stay while they fit; --fresh lets all of them
move. Packages come from uv's own index settings; none is named here or in a lock.
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
GLIBC = {"3.11": 36, "3.12": 39}  # of Debian 12 and Ubuntu 24.04: where these Pythons run
#: Have no wheel at all; setuptools builds them when they are installed. Any other sdist may want
#: what no lock holds (llguidance: a Rust compiler), so a lock with one is not written.
SDISTS = frozenset(("deepspeed", "rouge-score", "sqlitedict", "word2number"))
HEADER = "# Written by requirements/lock.py for Python {} on Linux x86_64; do not edit.\n"


def resolve(python, *arguments, text=FIRST, keep=()):
    """{name: (version, sha256 of the file)} for one Python; keep: locks whose versions stay."""
    with tempfile.TemporaryDirectory() as scratch:
        extra, out = Path(scratch, "first.in"), Path(scratch, "pylock.toml")
        extra.write_text(text)
        if "--fresh" not in sys.argv:
            kept = Path(scratch, "kept.txt")
            kept.write_text("".join(f"{pin}\n" for name in keep for pin in pins(name)))
            arguments = (*arguments, "--constraint", str(kept))
        subprocess.run(
            ["uv", "pip", "compile", "--quiet", "--format", "pylock.toml", "--output-file",
             str(out), "--python-version", python, "--python-platform",
             f"x86_64-manylinux_2_{GLIBC[python]}", str(extra), *arguments],
            check=True, cwd=HERE.parent,
        )  # fmt: skip
        packages = tomllib.loads(out.read_text())["packages"]
    return {p["name"]: (p["version"], best(p, python)) for p in packages}


def pins(name):
    """`package==version` of every line of a lock; none where it is not written yet."""
    path = HERE / name
    text = path.read_text().splitlines() if path.exists() else []
    return [line.split()[0] for line in text if not line.startswith("#")]


def best(package, python):
    """sha256 of the file that an installer for this Python takes."""
    order = {tag: n for n, tag in enumerate(tags(python))}
    ranked = []
    for wheel in package.get("wheels", []):
        name = wheel["url"].rpartition("/")[2].replace("%2B", "+")
        fits = [order[tag] for tag in parse_wheel_filename(name)[3] if tag in order]
        ranked += [(min(fits), wheel["hashes"]["sha256"])] if fits else []
    if not ranked and package["name"] not in SDISTS:
        sys.exit(f"error: no wheel of {package['name']} {package['version']} for Python {python}")
    return min(ranked)[1] if ranked else package["sdist"]["hashes"]["sha256"]


def tags(python):
    version = tuple(int(part) for part in python.split("."))
    platforms = [f"manylinux_2_{n}_x86_64" for n in range(GLIBC[python], 4, -1)]
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
    cpu = resolve("3.11", "--no-deps", "requirements/cpu.txt", keep=["cpu.lock"])
    write("cpu.lock", ["3.11"], [cpu])
    cuda = ["eval.lock", "train.lock"]
    evals = resolve("3.12", "pyproject.toml", "--extra", "eval", keep=cuda)
    train = resolve("3.12", "pyproject.toml", "--extra", "train", keep=cuda)
    if moved := sorted(name for name in evals if train.get(name) != evals[name]):
        sys.exit("error: the extra train moves " + ", ".join(moved))
    write("eval.lock", ["3.12"], [evals])
    write("train.lock", ["3.12"], [train], leave=evals)
    both = ["3.11", "3.12"]
    write("tools.lock", both, [resolve(p, text=TOOLS, keep=["tools.lock"]) for p in both])


if __name__ == "__main__":
    main()
