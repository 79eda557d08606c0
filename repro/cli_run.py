"""`repro reproduce` and `train`: commands that run for minutes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import exits
from repro.options import (
    FILE,
    FOLDER,
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

if TYPE_CHECKING:
    from repro.recipe import Recipe
    from repro.show import Show


@click.command()
@click.argument("recipe")
@profile_option
@arms_option
@seeds_option
@jobs_option
@click.option(
    "--out", type=PATH, help="Run folder; of all, the one above.  [default: runs/PAPER-PROFILE]"
)
@click.option(
    "--stage", "stages", multiple=True,
    type=click.Choice(["score-released", "sft", "train", "eval", "report"]),
    help="Only this stage; may be repeated.  [default: all but sft]",
)  # fmt: skip
@click.option(
    "--gpus", type=click.IntRange(1), help="Processes of one training.  [default: all cards]"
)
@click.option("--steps", type=click.IntRange(1), help="Shorter training than the recipe's.")
@click.option("--limit", type=click.IntRange(1), help="Fewer questions; the runs are then partial.")
@click.option("--fresh", is_flag=True, help="Delete the run folder and start again.")
def reproduce(
    recipe: str, profile: str, arms: str | None, seeds: tuple[int, ...], jobs: int | None,
    out: Path | None, stages: tuple[str, ...], gpus: int | None, steps: int | None,
    limit: int | None, fresh: bool,
) -> None:  # fmt: skip
    """The whole chain: train every arm and seed, evaluate, report.

    Run it again after an interruption: it continues, and repeats no finished arm. In profile paper
    score-released comes first: released checkpoints on every cell of the paper's main table.
    RECIPE `all` is the micro profile of every paper in turn, with one scoreboard at the end.

    \b
    Examples:
      repro reproduce ktr
      repro reproduce ktr --seeds 0,1,2,3,4 --out runs/ktr-five
      repro reproduce all
      repro reproduce ktr --profile paper --stage score-released --stage report
    """
    from repro.everything import PROFILE, reproduce_all
    from repro.recipe import Recipe

    run = partial(
        _reproduce, arms=arms, seeds=seeds, jobs=jobs, stages=stages, gpus=gpus, steps=steps,
        limit=limit, fresh=fresh,
    )  # fmt: skip
    if recipe == "all":
        if arms or stages or profile != PROFILE:
            raise click.UsageError("all papers share no arms, and only the micro profile")
        click.echo(reproduce_all(run, out or Path("runs")), nl=False)
        return
    chosen = Recipe.load(recipe, profile)
    run(chosen, out or Path("runs") / f"{chosen.paper}-{chosen.profile_name}")


def _reproduce(
    chosen: Recipe, folder: Path, *, arms: str | None, seeds: tuple[int, ...], jobs: int | None,
    stages: tuple[str, ...], gpus: int | None, steps: int | None, limit: int | None, fresh: bool,
) -> None:  # fmt: skip
    from repro import machine
    from repro.reproduce import Scope, reproduce
    from repro.stages import default

    scope = Scope(
        arms=tuple(chosen.arm(name).name for name in words(arms) or chosen.run),
        seeds=seeds or chosen.seeds,
        steps=steps,
        limit=limit,
        stages=frozenset(stages or default(chosen)),
        processes=gpus or (max(1, len(machine.cards())) if chosen.scoring else 1),
    )
    if not chosen.scoring and scope.stages & {"score-released", "sft"}:
        raise click.UsageError(f"profile {chosen.profile_name} has no stage score-released or sft")
    with exits.continues():
        reproduce(chosen, folder, scope, jobs or default_jobs(), fresh=fresh)


@click.command()
@click.argument("recipe", required=False)
@click.option("--recipe", "also", metavar="RECIPE", help="The same, as an option.")
@profile_option
@click.option(
    "--stage", type=click.Choice(["rl", "sft"]), default="rl", show_default=True,
    help="sft: the cold start before RL, from records with process and solution.",
)  # fmt: skip
@click.option("--arm", help="Arm of the recipe (repro list).  [default: the paper's own method]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--out", type=PATH,
    help="Folder, empty unless resumed.  [default: runs/RECIPE-ARM-sSEED, ARM sft for that stage]",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue from the newest checkpoint in --out.")
@click.option("--steps", type=click.IntRange(1), help="Instead of the recipe's max_steps.")
@click.option(
    "--until", type=click.IntRange(1),
    help="Save and stop after this step; the schedule stays that of all steps.",
)  # fmt: skip
@click.option("--data", type=FILE, help="Your records (.jsonl or .json) instead of the recipe's.")
@click.option("--videos", type=FOLDER, help="Folder that the paths in --data start from.")
@click.option("--model", type=FOLDER, help="Start checkpoint instead of the recipe's.")
@json_option
def train(
    recipe: str | None, also: str | None, profile: str, stage: str, arm: str | None, seed: int,
    out: Path | None, resume: bool, steps: int | None, until: int | None, data: Path | None,
    videos: Path | None, model: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Train one arm, or the cold start it begins from.

    \b
    Examples:
      repro train ktr --arm grpo --seed 0 --out runs/mine
      repro train ktr --stage sft --out runs/cold
      repro train ktr --data my.jsonl --videos films --model DIR --out runs/mine
      torchrun --nproc_per_node 8 -m repro train ktr --profile paper --out runs/mine
    """
    name = recipe or also
    if name is None:
        raise click.UsageError("name a recipe, for example: repro train ktr --out DIR")
    if stage == "sft" and arm is not None:
        raise click.UsageError("the cold start has no arms: leave --arm out with --stage sft")
    if stage == "sft" and until is not None:
        raise click.UsageError("the cold start trains to its end: leave --until out")
    from rich.console import Console

    from repro import machine
    from repro.arm import train_arm
    from repro.coldstart import total_steps, train_sft
    from repro.doctor import require_device
    from repro.folder import read_json
    from repro.plan import require_fits
    from repro.recipe import Recipe
    from repro.show import clock, showing

    chosen = Recipe.load(name, profile)
    if stage == "sft":
        arm, total, work = stage, total_steps(chosen, steps), partial(train_sft, chosen)
    else:
        arm = arm or chosen.paper  # a paper's own method is the arm of its name
        total = steps or chosen.arm(arm).trainer.max_steps
        work = partial(train_arm, chosen, arm, until=until)
    out = out or Path("runs") / f"{chosen.paper}-{arm}-s{seed}"
    if stage == "rl" and data is None:
        chosen.require_records([arm])
    require_device(chosen)
    if stage == "rl" and (cards := machine.cards()):
        require_fits(chosen, (arm,), min(cards), int(os.environ.get("WORLD_SIZE", "1")))
    again = exits.continues(exits.resuming(resume))
    with showing(Console(stderr=True)) as show, again:
        seen = _watching(chosen, arm, seed, total, out, show) if data is model is None else None

        def progress(row: dict[str, Any]) -> None:
            show.update(f"{arm}-s{seed}", row["step"], until or total)
            if seen is not None:
                seen(row["step"])

        work(
            seed, out, resume=resume, steps=steps, data=data, videos=videos, model=model,
            progress=progress,
        )  # fmt: skip
    if int(os.environ.get("RANK", "0")):  # torchrun's first process speaks for all
        return
    if not (out / "done.json").exists():
        click.echo(f"{arm}-s{seed}: stopped after step {until}; --resume continues", err=True)
        return
    done = read_json(out / "done.json")
    if as_json:
        show_json(done)
        return
    took = clock(done["seconds"])
    click.echo(f"{arm}-s{seed}: {done['steps']} steps in {took}; model: {out / done['final']}")


def _watching(
    recipe: Recipe, arm: str, seed: int, steps: int, out: Path, show: Show
) -> Callable[[int], None]:
    """Says at 10, 25 and 50 % of the steps whether the arm learns as its committed references."""
    from repro.watch import watch

    return watch(recipe.paper, recipe.profile_name, arm, seed, steps, out, show.say)


@click.command()
@click.argument("recipe")
@click.option("--profile", default="paper", show_default=True, help="What is rehearsed.")
@click.option("--out", type=PATH, help="Empty folder to keep.  [default: one deleted after]")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True,
              help="Of a training, started by torchrun.")  # fmt: skip
@json_option
def rehearse(
    recipe: str, profile: str, out: Path | None, processes: int, as_json: bool
) -> None:  # fmt: skip
    """Every stage of a paper in small, before a GPU is rented.

    Random tiny weights and made data in the owners' schemas: data, sft, two RL steps with a kill
    and a resume, every benchmark under its protocol, a ledger of its own, the report. Minutes. It
    ends with what it could not rehearse, and why.

    \b
    Example:
      repro rehearse ktr --out runs/rehearsal
    """
    import tempfile

    from rich.console import Console

    from repro.rehearse import CUTS, NOT_REHEARSED
    from repro.rehearse import rehearse as run

    with tempfile.TemporaryDirectory(prefix="reelproof-rehearsal-") as scratch:
        at = out or Path(scratch)
        checks = run(recipe, profile, at, Console(stderr=True), processes=processes)
    if as_json:
        show_json({"checks": [as_dict(check) for check in checks], "cuts": CUTS,
                   "not_rehearsed": NOT_REHEARSED})  # fmt: skip
        return
    table(("rehearsed", "seconds", "seen"), [(c.name, f"{c.seconds:g}", c.seen) for c in checks])
    click.echo("\nsmaller than the paper's:")
    for key, (value, why) in CUTS.items():
        click.echo(f"  {key} = {value}: {why}")
    click.echo("could not be rehearsed:")
    for text in NOT_REHEARSED:
        click.echo(f"  {text}")
