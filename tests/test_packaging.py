"""What is declared, pinned and offered by make agrees with itself."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: What the suite promises to build on.
MISSION = (
    "torch", "transformers", "trl", "vllm", "deepspeed", "decord", "lm-eval", "click", "docker",
    "pytest-benchmark", "av", "peft", "accelerate", "datasets", "rouge-score", "scipy", "numpy",
    "rich", "pyyaml",
)  # fmt: skip
#: Declared for GPU hosts or for later stages, and absent from the CPU set.
NOT_ON_CPU = {"torch", "torchvision", "vllm", "lm-eval", "reelproof"}


def declared() -> dict[str, Requirement]:
    """Every requirement of the project and its extras, by canonical name."""
    extras = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for part in extras.values() for text in part)]
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def pinned() -> dict[str, Requirement]:
    lines = (ROOT / "requirements" / "cpu.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in wanted}


def set_up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_extras_cover_the_mission() -> None:
    assert {canonicalize_name(name) for name in MISSION} <= declared().keys()
    assert {"train", "eval", "dev"} <= PROJECT["optional-dependencies"].keys()


def test_core_is_light() -> None:
    core = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert core == {"click", "numpy", "pyyaml", "rich", "scipy"}


def test_pins_are_exact_and_unlocalised() -> None:
    for name, requirement in pinned().items():
        (pin,) = list(requirement.specifier)
        assert pin.operator == "==" and "+" not in pin.version and "*" not in pin.version, name
        assert requirement.url is None, f"{name} names a place"
    assert not {"torch", "torchvision"} & pinned().keys(), "they come first, on their own"


def test_pins_agree_with_what_is_declared() -> None:
    pins = pinned()
    for name, requirement in declared().items():
        if name in NOT_ON_CPU:
            continue
        assert name in pins, f"requirements/cpu.txt lacks {name}"
        (pin,) = list(pins[name].specifier)
        assert requirement.specifier.contains(pin.version), f"{name}: {pin} against {requirement}"


def test_torch_pins_agree() -> None:
    install = set_up()
    assert str(declared()["torch"].specifier) == f"=={install.TORCH}"
    assert str(declared()["torchvision"].specifier) == f"=={install.TORCHVISION}"


def test_the_pins_hold_what_is_installed() -> None:
    from importlib.metadata import distributions

    installed: dict[str, str] = {}
    for d in distributions():  # the first wins: setuptools, once imported, adds its own copies last
        installed.setdefault(canonicalize_name(d.metadata["Name"]), d.version)
    pins = {name: next(iter(r.specifier)).version for name, r in pinned().items()}
    wrong = {n: (v, installed.get(n)) for n, v in pins.items() if installed.get(n, v) != v}
    assert not wrong, f"pinned against installed: {wrong}"


@pytest.mark.parametrize(
    ("versions", "system", "machine", "build"),
    [
        (["2.13.0+cpu", "2.13.0"], "Linux", "x86_64", "cpu"),
        (["2.13.0"], "Linux", "x86_64", "cuda"),
        (["2.13.0"], "Linux", "aarch64", "cuda"),
        (["2.13.0"], "Darwin", "arm64", "cpu"),
        (["2.13.0+cu130", "2.13.0+cpu", "2.13.0"], "Linux", "x86_64", "cuda"),
        (["2.14.0+cpu", "2.13.0"], "Linux", "x86_64", "cuda"),  # another version's CPU build
        (["2.13.0+cpu"], "Linux", "x86_64", "cpu"),
        ([""], "Linux", "x86_64", "cuda"),  # the index could not be read: warn rather than not
    ],
)
def test_set_up_knows_which_torch_comes(
    versions: list[str], system: str, machine: str, build: str
) -> None:
    assert set_up().build_of(versions, system, machine) == build


def test_old_python_is_refused_with_a_sentence() -> None:
    install = set_up()
    assert not install.too_old((3, 11, 0)) and not install.too_old((3, 13, 1))
    assert "3.9.2" in install.too_old((3, 9, 2)) and "PYTHON=" in install.too_old((3, 9, 2))


def test_set_up_names_no_index() -> None:
    """Where packages come from is the installer's own business."""
    files = [ROOT / "Makefile", *(ROOT / "requirements").glob("*"), ROOT / "pyproject.toml"]
    for path in (p for p in files if p.is_file()):
        text = path.read_text()
        assert "index-url" not in text and "--find-links" not in text, path
        assert not re.search(r"unset|environ\.pop|env -i", text), path


def test_make_help_lists_every_target() -> None:
    run = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = {line.split()[0] for line in run.stdout.splitlines()}
    wanted = {"setup", "smoke", "test", "test-slow", "lint", "bench", "report", "clean", "help"}
    assert wanted | {"reproduce-%"} <= listed


def test_make_names_papers_with_dashes() -> None:
    run = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "reproduce-temporal-r1"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "repro reproduce temporal_r1 --profile micro" in run.stdout


def test_citation_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    init = (ROOT / "repro" / "__init__.py").read_text()
    assert f'__version__ = "{citation["version"]}"' in init
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence


def test_ci_runs_lint_test_and_regress() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("make lint test regress")
