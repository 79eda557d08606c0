"""Who may import whom, and how light the command line stays."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("repro", "evals", "results")
PAPERS = sorted(p.parent.name for p in (ROOT / "repro").glob("*/recipe.yaml"))
HEAVY = ("torch", "transformers", "trl", "vllm", "decord", "av", "numpy", "scipy", "yaml", "rich")


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the project."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Absolute names of our modules that a file imports anywhere, types included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            base = node.module or ""
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def forbidden(module: str, target: str) -> str:
    """Why `module` must not import `target`, or ""."""
    own, other = module.split("."), target.split(".")
    paper = own[1] if len(own) > 1 and own[1] in PAPERS else None
    their_paper = (
        other[1] if other[0] == "repro" and len(other) > 1 and other[1] in PAPERS else None
    )
    if own[0] == "results" and other[0] != "results":
        return "results imports nothing of ours"
    if own[0] == "evals" and other[0] != "evals":
        return "evals imports neither repro nor results"
    if module.startswith("repro.core") and their_paper:
        return "the core knows no paper"
    if paper and their_paper and their_paper != paper:
        return "a paper never imports another paper"
    inner = module.startswith(("repro.core", "repro.tiny")) or paper
    if inner and other[0] == "results":
        return "only the command line knows the ledger"
    return ""


@pytest.mark.parametrize("module", MODULES)
def test_layers(module: str) -> None:
    broken = [
        f"{module} imports {target}: {why}"
        for target in sorted(imported(MODULES[module]))
        if (why := forbidden(module, target))
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("results.stats", "evals.types"),
        ("evals.run", "repro.recipe"),
        ("evals.run", "results.ledger"),
        ("repro.core.trainer", "repro.ktr.method"),
        ("repro.core.trainer", "results.ledger"),
        ("repro.ktr.method", "results.ledger"),
    ],
)
def test_the_rules_do_forbid(module: str, target: str) -> None:
    assert forbidden(module, target)


def test_no_broad_except() -> None:
    """`except Exception` may only look and raise again."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "everything"
            if {"Exception", "BaseException", "everything"} & set(re.findall(r"[\w.]+", caught)):
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                assert raises, f"{module}:{node.lineno} swallows {caught}"


def test_names_resolve_inside_the_repository() -> None:
    """`evals` and `results` are names that others install too."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        assert Path(spec.origin).is_relative_to(ROOT)


def loaded(code: str) -> list[str]:
    """Top-level modules in sys.modules after running `code` in a fresh interpreter."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def test_help_loads_nothing_heavy() -> None:
    names = loaded(
        "from repro.cli import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0"
    )
    assert "click" in names
    assert not {name.split(".")[0] for name in names} & set(HEAVY)


@pytest.mark.parametrize("module", ["results.ledger", "results.report", "repro.recipe"])
def test_numbers_need_no_torch(module: str) -> None:
    names = loaded(f"import {module}")
    assert not {"torch", "transformers", "av"} & set(names)


def test_help_is_nearly_as_quick_as_click_alone(tmp_path: Path) -> None:
    """The ratio to a program with one empty command, in CPU time, so that load matters less."""
    bare = tmp_path / "bare.py"
    bare.write_text("import click\n@click.command()\ndef main():\n    'Nothing.'\nmain()\n")
    programs = {"bare": [str(bare)], "repro": ["-m", "repro.cli"]}
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(5):
        for name, program in programs.items():
            began = _spent_by_children()
            subprocess.run([sys.executable, *program, "--help"], capture_output=True, check=True)
            best[name] = min(best[name], _spent_by_children() - began)
    assert best["repro"] < 2 * best["bare"], best


def _spent_by_children() -> float:
    """CPU seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
