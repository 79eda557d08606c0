"""`repro reproduce`, `train` and `eval`: the commands that run for minutes."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro import exits
from repro.options import (
    FILE,
    FOLDER,
    PATH,
    arms_option,
    default_jobs,
    jobs_option,
    json_option,
    profile_option,
    seeds_option,
    show_json,
    words,
)

if TYPE_CHECKING:
    from evals.benchmarks import Benchmark
    from evals.types import Protocol
    from repro.recipe import Recipe


@click.command()
@click.argument("recipe")
@profile_option
@arms_option
@seeds_option
@jobs_option
@click.option("--out", type=PATH, help="Run folder.  [default: runs/PAPER-PROFILE]")
@click.option(
    "--stage", "stages", multiple=True, type=click.Choice(["train", "eval", "report"]),
    help="Only this stage; may be repeated.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Shorter training than the recipe's.")
@click.option("--limit", type=click.IntRange(1), help="Fewer questions; the runs are then partial.")
@click.option("--fresh", is_flag=True, help="Delete the run folder and start again.")
def reproduce(
    recipe: str, profile: str, arms: str | None, seeds: tuple[int, ...], jobs: int | None,
    out: Path | None, stages: tuple[str, ...], steps: int | None, limit: int | None, fresh: bool,
) -> None:  # fmt: skip
    """The whole chain: train every arm and seed, evaluate, report.

    Run it again after an interruption: it continues, and repeats no finished arm.

    \b
    Examples:
      repro reproduce ktr
      repro reproduce ktr --seeds 0,1,2,3,4 --out runs/ktr-five
    """
    from repro.recipe import Recipe
    from repro.reproduce import Scope, reproduce

    chosen = Recipe.load(recipe, profile)
    scope = Scope(
        arms=tuple(chosen.arm(name).name for name in words(arms) or chosen.run),
        seeds=seeds or chosen.seeds,
        steps=steps,
        limit=limit,
        stages=frozenset(stages or ("train", "eval", "report")),
    )
    folder = out or Path("runs") / f"{chosen.paper}-{chosen.profile_name}"
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
@click.option("--data", type=FILE, help="Your records (.jsonl or .json) instead of the recipe's.")
@click.option("--videos", type=FOLDER, help="Folder that the paths in --data start from.")
@click.option("--model", type=FOLDER, help="Start checkpoint instead of the recipe's.")
@json_option
def train(
    recipe: str | None, also: str | None, profile: str, stage: str, arm: str | None, seed: int,
    out: Path | None, resume: bool, steps: int | None, data: Path | None, videos: Path | None,
    model: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Train one arm, or the cold start it begins from.

    \b
    Examples:
      repro train ktr --arm grpo --seed 0 --out runs/mine
      repro train ktr --stage sft --out runs/cold
      repro train ktr --data my.jsonl --videos films --model DIR --out runs/mine
    """
    name = recipe or also
    if name is None:
        raise click.UsageError("name a recipe, for example: repro train ktr --out DIR")
    if stage == "sft" and arm is not None:
        raise click.UsageError("the cold start has no arms: leave --arm out with --stage sft")
    from rich.console import Console

    from repro.arm import train_arm
    from repro.coldstart import total_steps, train_sft
    from repro.doctor import require_device
    from repro.folder import read_json
    from repro.recipe import Recipe
    from repro.show import clock, showing

    chosen = Recipe.load(name, profile)
    if stage == "sft":
        arm, total, work = stage, total_steps(chosen, steps), partial(train_sft, chosen)
    else:
        arm = arm or chosen.paper  # a paper's own method is the arm of its name
        total = steps or chosen.arm(arm).trainer.max_steps
        work = partial(train_arm, chosen, arm)
    out = out or Path("runs") / f"{chosen.paper}-{arm}-s{seed}"
    require_device(chosen)
    again = exits.continues(exits.resuming(resume))
    with showing(Console(stderr=True)) as show, again:
        work(
            seed, out, resume=resume, steps=steps, data=data, videos=videos, model=model,
            progress=lambda row: show.update(f"{arm}-s{seed}", row["step"], total),
        )  # fmt: skip
    done = read_json(out / "done.json")
    if as_json:
        show_json(done)
        return
    took = clock(done["seconds"])
    click.echo(f"{arm}-s{seed}: {done['steps']} steps in {took}; model: {out / done['final']}")


@click.command("eval")
@click.option("--recipe", help="Take protocol, benchmark and sampling from this recipe.")
@profile_option
@click.option("--benchmark", help="Id of a benchmark (repro list).  [default: the recipe's]")
@click.option("--split", help="[default: the recipe's, else test]")
@click.option("--data", type=FILE, help="Your records, for --benchmark jsonl.")
@click.option("--videos", type=FOLDER, help="Folder that the paths in the records start from.")
@click.option(
    "--model", help="Checkpoint folder, oracle, parrot or random.  [default: the recipe's]"
)
@click.option("--arm", help="Name in the record.  [default: the model's]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws.")
@click.option("--samples", type=click.IntRange(1), help="Replies per question.")
@click.option("--temperature", type=click.FloatRange(0), help="0 is greedy.")
@click.option("--greedy", is_flag=True, help="One reply at temperature 0.")
@click.option(
    "--limit", type=click.IntRange(1), help="First questions only; the run is then partial."
)
@click.option("--save-replies", is_flag=True, help="Keep the texts in the rows.")
@click.option(
    "--out", type=PATH,
    help="Where record.json and rows.jsonl.gz go.  [default: runs/BENCHMARK-ARM-sSEED]",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Keep the questions already answered in --out.")
@json_option
def eval_(
    recipe: str | None, profile: str, benchmark: str | None, split: str | None, data: Path | None,
    videos: Path | None, model: str | None, arm: str | None, seed: int, samples: int | None,
    temperature: float | None, greedy: bool, limit: int | None, save_replies: bool,
    out: Path | None, resume: bool, as_json: bool,
) -> None:  # fmt: skip
    """Evaluate a model and file its record.

    Own records are asked as Video-R1 asks; with --recipe as that recipe trains and asks.

    \b
    Examples:
      repro eval --benchmark microworld --model oracle --out runs/oracle
      repro eval --benchmark jsonl --data my.jsonl --videos films --model DIR --out runs/mine
    """
    from repro.measure import asking

    if model is None and recipe is None:
        raise click.UsageError("name a model: --model DIR, or --recipe for its start checkpoint")
    if benchmark is None and recipe is None:
        raise click.UsageError("name a benchmark, for example: --benchmark microworld")
    chosen, loaded, protocol = asking(
        recipe, profile, benchmark, split, data, videos, seed, greedy, samples, temperature
    )
    _evaluate(
        chosen, loaded, protocol, model, arm, seed, out,
        limit=limit, save_replies=save_replies, resume=resume, as_json=as_json,
    )  # fmt: skip


def _evaluate(
    recipe: Recipe | None, benchmark: Benchmark, protocol: Protocol, model: str | None,
    arm: str | None, seed: int, out: Path | None, *, limit: int | None, save_replies: bool,
    resume: bool, as_json: bool,
) -> None:  # fmt: skip
    from rich.console import Console

    from repro import folder
    from repro.measure import Label, answering, measure
    from repro.show import showing

    answerer, weights = answering(model, recipe)
    label = Label(
        paper=recipe.paper if recipe else "own",
        profile=recipe.profile_name if recipe else "own",
        arm=arm or answerer.name,
        seed=seed,
    )
    out = out or Path("runs") / f"{benchmark.name}-{label.arm}-s{seed}"
    again = exits.continues(exits.resuming(resume))
    with folder.writing(out, resume=resume), showing(Console(stderr=True)) as show, again:
        run = measure(
            answerer, weights, benchmark, protocol, label, out, limit=limit,
            save_replies=save_replies, progress=lambda n, of: show.update(label.arm, n, of),
        )  # fmt: skip
    record = run.record
    if as_json:
        show_json(asdict(record))
        return
    part = " (partial)" if record.partial else ""
    counts = ", ".join(f"{n} {name}" for name, n in record.outcomes.items())
    click.echo(f"{record.arm}: {100 * record.score:.1f} % of {record.n} questions{part} ({counts})")
    click.echo(f"record: {out / 'record.json'}")
    lost = [row.detail for row in run.rows if row.outcome == "undecodable"]
    if lost:
        click.echo(f"{len(lost)} questions have a clip that cannot be read, first {lost[0]}")
