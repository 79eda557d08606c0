"""The command line. Every heavy import is inside the command that needs it.

Exit codes: 0 ok · 1 internal error · 2 usage or bad input · 3 not comparable · 4 environment
· 5 inconclusive, or `above` · 6 regression, or `below` · 130 Ctrl-C · 143 SIGTERM (resumable)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from repro import exits
from repro.cli_container import container
from repro.cli_data import data
from repro.cli_eval import eval_
from repro.cli_ledger import compare, gate, ledger_, regress
from repro.cli_results import export, list_, report, score, verify
from repro.cli_run import rehearse, reproduce, train
from repro.cli_select import select
from repro.cli_teacher import teacher
from repro.options import (
    PATH,
    arms_option,
    as_dict,
    default_jobs,
    jobs_option,
    json_option,
    profile_option,
    seeds_option,
    show_json,
    table,
    words,
)


class Commands(click.Group):
    """A group whose failures are one sentence and an exit code; others keep a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            known = None if isinstance(error, click.ClickException) else exits.explain(error)
            if known is None:
                raise
            code, sentence = known
            if exits.speaks(error):
                click.echo(f"error: {sentence}", err=True)
            raise click.exceptions.Exit(code) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="reelproof", prog_name="repro")
def cli() -> None:
    """Reproduce video-reasoning RL papers, and prove it.

    \b
    Start here:
      repro doctor               what this machine can run
      repro reproduce ktr        train, evaluate and report, in minutes on a CPU
    """


# --- what there is ------------------------------------------------------------------------------


@cli.command()
@click.option("--recipe", help="Also what this paper needs.  [default: all, with --profile]")
@profile_option
@click.option(
    "--out", type=PATH, default=Path("runs"), show_default=True, help="Where runs would go."
)
@json_option
def doctor(recipe: str | None, profile: str, out: Path, as_json: bool) -> None:
    """What this machine can run, and what mends the rest.

    It decodes a film and lets the student look at one. A recipe for GPUs is held against driver,
    devices, memory, disk and token, and everything it would download against what is here already.
    Exit code 4 if something needed is missing.

    \b
    Examples:
      repro doctor
      repro doctor --profile paper --recipe ktr
    """
    from repro import doctor as house
    from repro import doctor_data, doctor_gpu
    from repro.recipe import Recipe, papers

    asked = [recipe] if recipe else list(papers()) if profile != "micro" else []
    chosen = [Recipe.load(name, profile) for name in asked]
    findings = house.examine(out)
    able = house.can_run(findings)
    for one in chosen:
        if found := doctor_gpu.examine(one, out):
            found += doctor_data.examine(one)
        findings += [f for f in found if f not in findings]
    fit = house.can_run(findings)
    if as_json:
        show_json({"micro": able, profile: fit, "findings": [as_dict(f) for f in findings]})
    else:
        table(
            ("", "", "found", "to mend"),
            [(_mark(f), f.name, f.found, "" if f.ok else f.mend) for f in findings],
        )
        click.echo(f"\nprofile {profile} {'can' if fit else 'cannot'} run here")
    if not fit:
        raise click.exceptions.Exit(exits.ENVIRONMENT)


def _mark(finding: Any) -> str:
    return "ok" if finding.ok else "MISSING" if finding.needed else "-"


@cli.command()
@click.argument("recipe")
@profile_option
@arms_option
@seeds_option
@jobs_option
@click.option("--gpus", type=click.IntRange(1), default=8, show_default=True, help="Cards.")
@click.option("--gpu", default="h100", show_default=True, help="Kind of card.")
@click.option(
    "--efficiency", type=click.FloatRange(0.01, 1), default=0.35, show_default=True,
    help="Share of the card's peak that forwards and backwards reach.",
)  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0), help="Price of a GPU-hour.")
@click.option("--cells", is_flag=True, help="Also every cell: what it would run, and its cost.")
@click.option(
    "--markdown",
    is_flag=True,
    help="The README's table instead; with --cells that of the paper's own README.",
)
@json_option
def plan(
    recipe: str, profile: str, arms: str | None, seeds: tuple[int, ...], jobs: int | None,
    gpus: int, gpu: str, efficiency: float, rate: float | None, cells: bool, markdown: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Cost, memory, downloads and unknowns, before anything starts.

    Exit code 4 if a stage does not fit on the cards.

    \b
    Examples:
      repro plan ktr --profile paper
      repro plan ktr --profile paper --gpus 1 --gpu h200 --arms ktr --seeds 0 --rate 3.5
    """
    from repro import plantext
    from repro.plan import Hardware, forecast
    from repro.recipe import Recipe

    chosen = Recipe.load(recipe, profile)
    found = forecast(
        chosen, words(arms) or chosen.run, seeds or chosen.seeds, jobs or default_jobs(),
        Hardware(gpu, gpus, efficiency, rate),
    )  # fmt: skip
    bill = found.bill
    if markdown and bill is None:
        raise click.UsageError(f"{recipe} has no costs to compute in profile {profile}")
    if as_json:
        show_json(as_dict(found))
    elif markdown:
        click.echo(plantext.cells_markdown(found) if cells else plantext.markdown(found))
    else:
        table(("", ""), plantext.summary(found))
    if bill is None:
        return
    if not (as_json or markdown):
        for headings, rows in (
            (plantext.HEADINGS, plantext.stages(bill)),
            (plantext.MOMENTS, plantext.moments(bill)),
            *([(plantext.CELLS, plantext.cells(bill))] if cells else []),
            (plantext.DOWNLOADS, plantext.downloads(bill)),
        ):
            click.echo()
            table(headings, rows)
    if misfits := [s for s in bill.misfits if s.stage != "sft"]:
        need = max(misfits, key=lambda s: s.memory_gib)
        click.echo(
            f"error: {need.what} needs {need.memory_gib:.0f} GiB on each {gpu}; more --gpus under "
            "deepspeed: 3, a larger --gpu, or use_peft in the recipe", err=True,
        )  # fmt: skip
        raise click.exceptions.Exit(exits.ENVIRONMENT)


@cli.command()
@click.option("--out", type=PATH, help="Where training writes.  [default: a folder deleted after]")
@json_option
def smoke(out: Path | None, as_json: bool) -> None:
    """One minute: oracle, parrot, random, two training steps.

    \b
    Example:
      repro smoke
    """
    import tempfile

    from rich.console import Console

    from repro.show import Lines
    from repro.smoke import smoke as run

    with tempfile.TemporaryDirectory(prefix="reelproof-smoke-") as scratch:
        checks = run(out or Path(scratch), Lines(Console(stderr=True)))
    if as_json:
        show_json([as_dict(check) for check in checks])
    else:
        table(
            ("check", "expected", "found", "verdict"),
            [(c.name, c.expected, c.found, "ok" if c.ok else "WRONG") for c in checks],
        )
    if not all(check.ok for check in checks):
        raise click.exceptions.Exit(exits.REGRESSION)


# --- making things ------------------------------------------------------------------------------


@cli.group()
def tiny() -> None:
    """The embedded student.

    \b
    Example:
      repro tiny build --for ktr
    """


@tiny.command("build")
@click.option("--for", "paper", default="ktr", show_default=True, help="Which cold start.")
@click.option("--out", type=PATH, help="Folder.  [default: its shipped place]")
@json_option
def tiny_build(paper: str, out: Path | None, as_json: bool) -> None:
    """Train a cold start again; the shipped ones need no building.

    \b
    Example:
      repro tiny build --for ktr --out runs/tiny
    """
    from rich.console import Console

    from repro.show import showing
    from repro.tiny.build import build

    with showing(Console(stderr=True)) as show:
        entry = build(paper, out, lambda name, step, steps, loss: show.update(name, step, steps))
    if as_json:
        show_json(entry)
    else:
        table(("", ""), [(key, str(value)) for key, value in entry.items()])


for command in (
    list_, data, rehearse, reproduce, train, eval_, score, report, compare, verify, gate, regress,
    ledger_, export, teacher, container,
):  # fmt: skip
    cli.add_command(command)
data.add_command(select)


def main() -> None:
    """Entry point of the `repro` program."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars would break into ours
    exits.listen()
    cli(prog_name="repro")


if __name__ == "__main__":
    main()
