"""What several commands share: paths, options, tables and JSON on stdout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)


def words(text: str | None) -> tuple[str, ...]:
    """`a,b` -> ("a", "b")."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """`0,1` -> (0, 1)."""
    try:
        return tuple(int(part) for part in words(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers like 0,1") from None


profile_option = click.option(
    "--profile", default="micro", show_default=True, help="Size of the run."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
arms_option = click.option("--arms", metavar="A,B", help="Instead of the recipe's arms.")
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), help="Arms side by side.  [default: up to 2]"
)
seeds_option = click.option(
    "--seeds", metavar="N,N", callback=numbers, help="Instead of the recipe's seeds."
)


def as_dict(found: Any) -> dict[str, Any]:
    """A dataclass as a dictionary; imported late, since --help should not wait for it."""
    from dataclasses import asdict

    return asdict(found)


def show_json(data: Any) -> None:
    """One JSON document on stdout."""
    import json

    click.echo(json.dumps(data, indent=1, default=str))


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """A plain table on stdout; cells are never cut, whatever the width."""
    lines = [headings, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    for line in lines if any(headings) else lines[1:]:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def default_jobs() -> int:
    """Two arms side by side, one where there is only one core."""
    from repro.machine import cores

    return min(2, cores())
