"""Every command in docs/ that a CPU can run is run, in the order of its page; all are parsed.

```console            run here, in a folder of the page's own
```console minutes    run in make test-slow
```console gpu        needs a GPU or real data; its options are parsed
```console network    needs a hub; likewise
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from repro.cli import cli

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^ *```console ?(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")
KINDS = ("", "minutes", "gpu", "network")


def commands(page: Path, *kinds: str) -> list[str]:
    """The lines after `$` of the page's blocks of these kinds."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert all(kind in KINDS for kind, _ in blocks), page
    lines = [line.strip() for kind, text in blocks if kind in kinds for line in text.splitlines()]
    assert all(line.startswith("$ ") for line in lines), page
    return [line[2:] for line in lines]


def run(command: str, folder: Path, timeout: int) -> None:
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:"
        f"{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "200",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which `repro` is this tree's."""
    program = tmp_path / "bin" / "repro"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m repro "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_commands_that_a_cpu_can_run(page: Path, folder: Path) -> None:
    for command in commands(page, ""):
        run(command, folder, 280)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_commands_that_take_minutes(page: Path, folder: Path) -> None:
    for command in commands(page, "minutes"):
        if command == "make setup":  # this very environment
            continue
        run(command.replace("make reproduce-ktr", "repro reproduce ktr"), folder, 5000)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_every_command_is_one_of_ours_with_options_that_exist(page: Path) -> None:
    for command in commands(page, *KINDS):
        own = command.split("&& ")[-1]  # after `cd`
        words = [w for w in shlex.split(own) if not re.fullmatch(r"[A-Z_]+=\S+", w)]
        if words[0] in ("bash", "sbatch"):
            assert (ROOT / words[1]).is_file(), command
        elif words[0] == "make":
            assert f"{words[1].replace('-ktr', '-%')}:" in (ROOT / "Makefile").read_text(), command
        else:
            assert words[0] == "repro", command
            parsed(words[1:])


def parsed(words: list[str]) -> None:
    """Raises UsageError for a command or an option that does not exist, also behind `--`."""
    if "--" in words:
        words, inner = words[: words.index("--")], words[words.index("--") + 1 :]
        parsed(inner)
    group: click.Command = cli
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in group.commands, words
        group, words = group.commands[words[0]], words[1:]
    known = {o for p in group.params for o in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--version"}
    assert {w.split("=")[0] for w in words if w.startswith("--")} <= known, words


def test_links_and_pictures_lead_somewhere() -> None:
    for page in (*DOCS, ROOT / "README.md"):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/{page.name}" in readme for page in DOCS)
