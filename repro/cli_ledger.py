"""`repro compare`, `gate`, `regress` and `ledger add`: runs beside runs, and into the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro import exits
from repro.options import FOLDER, PATH, default_jobs, jobs_option, json_option, show_json, table

if TYPE_CHECKING:
    from results.compare import Comparison

SHOWN = 20  # flips printed without --all (chosen)


@click.command()
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@click.option("--all", "every", is_flag=True, help="List every flip, and what is wrong in both.")
@json_option
def compare(first: Path, second: Path, every: bool, as_json: bool) -> None:
    """Pair two runs by question: SECOND minus FIRST.

    Shows which questions flipped, and the difference by category. Exit code 3, naming every
    protocol field that differs, if they are not comparable.

    \b
    Example:
      repro compare runs/ktr-micro/grpo-s0 runs/ktr-micro/ktr-s0
    """
    from repro.conclude import compare as pair

    found = pair(first, second)
    if as_json:
        show_json(found.as_dict())
        return
    d, (before, after) = found.difference, found.scores
    click.echo(
        f"{100 * before:.1f} % -> {100 * after:.1f} %: {100 * d.estimate:+.1f} points "
        f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}], {found.test} p = {found.p:.2g}\n"
        f"{found.questions} questions on {found.clusters} videos: {found.gained} better, "
        f"{found.lost} worse, {found.questions - found.gained - found.lost} equal"
    )
    click.echo(", ".join(f"{n} {kind}" for kind, n in found.counts.items()))
    _categories(found)
    _flips(found, every)


def _categories(found: Comparison) -> None:
    rows = [
        (f"{tag}: {value}", f"{100 * part.estimate:+.1f}",
         f"[{100 * part.low:+.1f}, {100 * part.high:+.1f}]")
        for tag, parts in found.by_tag.items()
        for value, part in parts.items()
    ]  # fmt: skip
    if rows:
        click.echo()
        table(("category", "points", "interval"), rows)


def _flips(found: Comparison, every: bool) -> None:
    """Fixed and broken first; what is wrong in both only with --all."""
    listed = [flip for flip in found.flips if every or not flip.kind.endswith("wrong")]
    shown = listed if every else listed[:SHOWN]
    if not shown:
        return
    click.echo()
    table(
        ("question", "", "gold", "first", "second", "score"),
        [
            (flip.id, flip.kind, flip.gold, *flip.answers,
             f"{100 * flip.first:.0f} -> {100 * flip.second:.0f}")
            for flip in shown
        ],
    )  # fmt: skip
    if len(shown) < len(listed):
        click.echo(f"and {len(listed) - len(shown)} more; --all lists them")


@click.command()
@click.argument("candidate", type=FOLDER, required=False)
@click.option(
    "--baseline", required=True, metavar="REF",
    help="A folder of runs, or a git revision whose results/runs are taken.",
)  # fmt: skip
@click.option(
    "--allow-missing", is_flag=True, help="Name baselines that were not run again, do not refuse."
)
@json_option
def gate(candidate: Path | None, baseline: str, allow_missing: bool, as_json: bool) -> None:
    """Did a change of the suite cost points?

    The same weights under two versions of the suite.

    CANDIDATE holds the new runs (default: the ledger). A regression, exit code 6, is both a drop
    of at least one point and p < 0.01 after Holm; 3 if two runs cannot be compared.

    \b
    Examples:
      repro gate --baseline main
      repro gate --baseline results/runs runs/again --allow-missing
    """
    from repro.conclude import committed, hold

    found = hold(baseline, candidate or committed(), allow_missing=allow_missing)
    if as_json:
        show_json(found.as_dict())
    else:
        table(
            ("run", "before", "after", "points", "better", "worse", "p, Holm", "word"),
            [
                (c.name, f"{100 * c.scores[0]:.1f}", f"{100 * c.scores[1]:.1f}",
                 f"{100 * c.delta:+.1f}", str(c.gained), str(c.lost), f"{c.adjusted:.2g}", c.word)
                for c in found.checks
            ],
        )  # fmt: skip
        for name in found.missing:
            click.echo(f"not run again: {name}")
        click.echo(f"\ngate: {found.word}")
    if found.word == "regression":
        raise click.exceptions.Exit(exits.REGRESSION)


@click.group("ledger")
def ledger_() -> None:
    """The ledger of runs.

    \b
    Example:
      repro ledger add runs/from-the-gpu-host
    """


@ledger_.command("add")
@click.argument("folder", type=FOLDER)
@click.option("--dry-run", is_flag=True, help="Check everything, file nothing.")
@json_option
def ledger_add(folder: Path, dry_run: bool, as_json: bool) -> None:
    """File runs made on another host or in a container.

    They are checked, computed again from their rows, and put where their identity says. Nothing
    is filed if one run under FOLDER is bad. Filing the same run again changes nothing.

    \b
    Example:
      repro ledger add /runs
    """
    from repro.conclude import home, ledger_errors
    from results.filing import add

    with ledger_errors():
        found = add(folder, home(), dry_run=dry_run)
    if as_json:
        show_json([{"path": filed.path, "word": filed.word} for filed in found])
        return
    for filed in found:
        click.echo(f"{filed.word}: {filed.path}")
    if not dry_run and any(filed.word == "filed" for filed in found):
        click.echo("next: `repro report` writes the scoreboard again, `repro verify` checks it")


@click.command()
@click.argument("papers", nargs=-1)
@click.option(
    "--out", type=PATH, default=Path("runs/regress"), show_default=True,
    help="Where the new runs go; emptied first.",
)  # fmt: skip
@jobs_option
@json_option
def regress(papers: tuple[str, ...], out: Path, jobs: int | None, as_json: bool) -> None:
    """Do the committed numbers of the micro profile still come out?

    The shipped start checkpoints are evaluated again and gated against their committed rows; a new
    seed trains a while and its curves are held against the reference seeds. Minutes on two cores;
    exit code 6 if one differs.

    \b
    Example:
      repro regress ktr
    """
    from rich.console import Console

    from repro.regress import regress as again
    from repro.show import showing

    with showing(Console(stderr=True)) as show:
        found = again(out, papers, jobs or default_jobs(), show)
    if as_json:
        show_json([finding.as_dict() for finding in found])
    else:
        table(
            ("paper", "part", "run", "word", "why"),
            [(f.paper, f.part, f.name, f.word, f.reason) for f in found],
        )
    if not all(finding.ok for finding in found):
        raise click.exceptions.Exit(exits.REGRESSION)
