"""The Dockerfile's rules, read from its text; no engine is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from packaging.utils import canonicalize_name

from repro.container import bases

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("cpu", "eval", "train")
FILE = ROOT / "Dockerfile"


@cache
def instructions() -> tuple[tuple[str, str], ...]:
    """(instruction, value), comments left out."""
    parser = DockerfileParser(str(FILE), cache_content=True)
    return tuple(
        (i["instruction"], i["value"]) for i in parser.structure if i["instruction"] != "COMMENT"
    )


@cache
def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions, FROM first, in the file's order."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, value in instructions():
        if instruction == "FROM":
            name = value.split()[-1]
            found[name] = []
        if name:
            found[name].append((instruction, value))
    return found


def of(stage: str, instruction: str) -> list[str]:
    return [value for kind, value in stages()[stage] if kind == instruction]


def parent(stage: str) -> str:
    return of(stage, "FROM")[0].split()[0]


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    run = subprocess.run([str(linter), "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_every_base_is_in_the_lock() -> None:
    locked = {base.argument: base.tag for base in bases()}
    before = dict(v.split("=", 1) for k, v in instructions() if k == "ARG" and "=" in v)
    assert {name: before[name] for name in locked} == locked
    outside = {parent(s) for s in stages()} - set(stages())
    assert outside == {f"${{{name}}}" for name in locked}
    for base in bases():
        assert re.fullmatch(r"[a-z/]+:[\w.-]+", base.tag) and not base.tag.endswith(":latest")


def test_only_our_own_stages_are_copied_from() -> None:
    for kind, value in instructions():
        for name in re.findall(r"--from=(\S+)", value) if kind == "COPY" else []:
            assert name in stages()


def test_the_cpu_target_stands_first_in_classic_syntax() -> None:
    order = list(stages())
    mine = order[: order.index("cpu") + 1]
    assert all(name.startswith("cpu") for name in mine)
    layers = 0
    for name in mine:
        for kind, value in stages()[name]:
            assert "<<" not in value and not re.search(r"--(mount|chmod|link|exclude)", value)
            layers += kind in ("RUN", "COPY", "ADD")
    assert layers <= 7
    assert not FILE.read_text().startswith("# syntax")


@pytest.mark.parametrize("target", TARGETS)
def test_how_a_container_runs(target: str) -> None:
    (user,) = of(target, "USER")
    assert stages()[target][-1][0] == "USER"
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "numeric and not root"
    assert of(target, "STOPSIGNAL") == ["SIGTERM"]
    assert of(target, "ENTRYPOINT") == ['["repro"]'] and of(target, "CMD") == ['["--help"]']
    assert of(target, "VOLUME") == ['["/cache", "/runs"]']
    said = " ".join(of(target, "ENV"))
    for name in ("HOME=/cache", "HF_HOME=/cache/hf", "REELPROOF_CACHE=/cache/", "REPRO_RUNS=/runs"):
        assert name in said
    labels = " ".join(of(target, "LABEL"))
    for name in ("title", "licenses", "revision", "created", "source"):
        assert f"org.opencontainers.image.{name}" in labels


def test_eval_and_train_differ_only_in_name_base_and_packages() -> None:
    """A Dockerfile has no includes: what both say is written twice, and kept equal here."""
    two = []
    for target in ("eval", "train"):
        lines = [f"{k} {v}" for k, v in stages()[target] if k != "FROM" and "apt-get" not in v]
        two.append([line.replace(target, "TARGET") for line in lines])
    assert two[0] == two[1] and len(two[0]) > 10


def test_a_driver_too_old_is_refused_before_anything_starts() -> None:
    for target in ("eval", "train"):
        said = " ".join(of(target, "ENV"))
        assert 'NVIDIA_REQUIRE_CUDA="cuda>=13.0"' in said
        assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in said
    locked = {base.argument: base.tag for base in bases()}
    for name in ("EVAL_BASE", "TRAIN_BASE"):
        assert ":13.0." in locked[name] and locked[name].endswith("ubuntu24.04")


def test_nothing_is_fetched_but_by_apt_and_pip() -> None:
    scripts = [p.read_text() for p in (ROOT / "docker").glob("*.sh")]
    runs = [value for kind, value in instructions() if kind == "RUN"]
    for text in (*runs, *scripts):
        assert not re.search(r"\b(curl|wget)\b|--upgrade|https?://|latest", text)
    assert not [value for kind, value in instructions() if kind == "ADD"]
    for text in runs:
        assert "pip install" not in text, "docker/venv.sh alone installs packages"
        if "apt-get install" in text:
            assert "--no-install-recommends" in text and "rm -rf /var/lib/apt/lists" in text


def test_packages_are_installed_by_hash() -> None:
    script = (ROOT / "docker" / "venv.sh").read_text()
    lines = script.replace("\\\n", " ").splitlines()
    calls = [x.strip() for x in lines if re.match(r"\s*\$pip |/tmp/tools/bin/python -m pip", x)]
    loose = [call for call in calls if "--require-hashes" not in call]
    assert len(calls) == 4 and len(loose) == 1 and "install.TORCH" in loose[0]


def test_no_secret_can_reach_a_layer() -> None:
    """Credentials travel as a secret; the context is a list of what belongs to the project."""
    for kind, value in instructions():
        assert kind not in ("ARG", "ENV") or not re.search(r"(?i)token|password|secret|key", value)
    listed = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in listed
    kept = {line[1:].split("/")[0] for line in listed if line.startswith("!")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:  # not in an image
        known = {line.split("/")[0] for line in tracked.stdout.splitlines()}
        assert kept <= known, f"kept but not tracked: {kept - known}"
        assert known - kept <= {".github", ".gitattributes", "docs"}


LINE = re.compile(r"([a-z0-9-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)")


def locked(name: str) -> dict[str, str]:
    """Package -> version; every line must carry its hash."""
    found = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, f"{name}: {line[:60]}"
            found[match[1]] = match[2]
    return found


def test_the_cpu_lock_is_the_cpu_set() -> None:
    text = (ROOT / "requirements" / "cpu.txt").read_text().splitlines()
    pins = [x.partition(" ;")[0].split("==") for x in text if x and not x.startswith("#")]
    wanted = {canonicalize_name(name): version.strip() for name, version in pins}
    found = locked("cpu.lock")
    added = found.keys() - wanted.keys()
    assert added <= {"pip", "wheel"}, "pip install uv && python requirements/lock.py"
    assert {n: v for n, v in found.items() if n in wanted} == wanted, "run requirements/lock.py"


def test_the_cuda_locks_agree_with_the_project() -> None:
    import tomllib

    from packaging.requirements import Requirement

    evals, train = locked("eval.lock"), locked("train.lock")
    assert not evals.keys() & train.keys()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*extras["dependencies"], *extras["optional-dependencies"]["eval"]]
    for extra, found in ((texts, evals), (extras["optional-dependencies"]["train"], evals | train)):
        for wanted in (Requirement(text) for text in extra):
            name = canonicalize_name(wanted.name)
            if name != "reelproof":
                assert wanted.specifier.contains(found[name]), "run requirements/lock.py"
    assert {"pip", "setuptools", "wheel", "torch", "torchvision", "vllm"} <= evals.keys()
    assert {"trl", "deepspeed", "peft"} <= train.keys()


def test_the_tools_write_the_sbom_and_audit() -> None:
    assert {"cyclonedx-bom", "pip-audit", "pip"} <= locked("tools.lock").keys()
