"""`repro reproduce`: arms x seeds as child processes, side by side and resumable.

<out>/recipe.json              which recipe made this folder; another one is refused
<out>/<arm>-s<seed>/           done.json once trained, record.json once evaluated
<out>/<arm>-s<seed>/<probe>/   record.json of the same model under a probe
<out>/<arm>-s<seed>-greedy/    record.json at temperature 0
<out>/cold-s0[-greedy]/        record.json of the start checkpoint
<out>/logs/<stage>.log         what a child printed
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evals import benchmarks
from evals.errors import BadInput
from repro import folder, machine, stages
from repro.arm import SUPERVISED
from repro.children import Chain, Stage, run
from repro.doctor import require_device
from repro.recipe import Recipe, papers
from repro.show import Show, showing

OURS = (sys.executable, "-m", "repro.cli")
COLD = "cold"


@dataclass(frozen=True)
class Scope:
    """What a run covers. steps, limit: shorter than the recipe says, None for the recipe's.

    processes: of one training. stages: of repro.stages.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int | None = None
    limit: int | None = None
    stages: frozenset[str] = frozenset({"train", "eval", "report"})
    processes: int = 1


def reproduce(
    recipe: Recipe,
    out: Path,
    scope: Scope,
    jobs: int,
    *,
    fresh: bool = False,
    program: Sequence[str] = OURS,
    console: Console | None = None,
) -> None:
    """Run the stages of `scope` into `out`, then print the closing table and where the report is.

    fresh: delete what an earlier run left there. program: the child's command (a test's own).
    """
    console = console or Console()
    working = scope.stages - {"report"}
    if "train" in working:
        recipe.require_records(scope.arms)
    if working:
        require_device(recipe)
    with folder.writing(out, resume=True):
        if fresh:
            _delete(out)
        if working and recipe.scoring:
            with showing(console) as show:
                stages.check(recipe, scope.stages, scope.arms, show)
        remember(recipe, out, scope)
        if working:
            with showing(console) as show:
                _work(recipe, out, scope, jobs, show, program)
        if "report" in scope.stages:
            console.print(
                closing(recipe, out, scope), markup=False, highlight=False, soft_wrap=True
            )


def _work(
    recipe: Recipe, out: Path, scope: Scope, jobs: int, show: Show, program: Sequence[str]
) -> None:
    """Arm by arm where the recipe has one benchmark, stage by stage where it has cells."""
    if recipe.scoring is None:
        questions = prepare(recipe, scope, show)
        run(chains(recipe, out, scope, questions), jobs, show, program=program)
        return
    name, each = _name(recipe), (scope.arms, scope.seeds)
    if "sft" in scope.stages:
        chain = stages.sft_chain(recipe, name, out, scope.steps)
        run([chain], 1, show, program=program)
    if "train" in scope.stages:
        arms = [(arm, seed) for seed in scope.seeds for arm in scope.arms]
        run([(_training(recipe, out, scope, *each),) for each in arms], 1, show, program=program)
    found = []
    if "score-released" in scope.stages:
        found += stages.score_chains(recipe, name, out, scope.limit)
    if "eval" in scope.stages:
        found += stages.eval_chains(recipe, name, out, *each, scope.limit)
    devices = [str(i) for i in range(len(machine.cards()))]
    run(found, jobs, show, program=program, devices=devices)


def prepare(recipe: Recipe, scope: Scope, show: Show) -> int:
    """Make or check the data once, before children would all do it; the number of questions."""
    show.say("data: loading")
    if "train" in scope.stages:
        benchmarks.load(recipe.data.records, split=recipe.data.split)
    asked = benchmarks.load(recipe.evaluation.benchmark, split=recipe.evaluation.split)
    return min(scope.limit or len(asked.samples), len(asked.samples))


def closing(recipe: Recipe, out: Path, scope: Scope) -> str:
    """The closing table and the report's path."""
    from repro.conclude import conclude

    if scope.limit is not None:
        return f"with --limit every run is partial: no report and no claim; the rows are in {out}"
    command = f"repro reproduce {_name(recipe)} --profile {recipe.profile_name}"
    done = conclude(out, out=out / "report.html", command=command)
    return f"\n{done.text}\nreport: {done.report}"


def chains(recipe: Recipe, out: Path, scope: Scope, questions: int) -> list[Chain]:
    """The work in the order it starts: the start checkpoint, then arm by arm within each seed."""
    found: list[Chain] = []
    if recipe.evaluation.cold:
        found.append(_evaluations(recipe, out, scope, COLD, 0, questions))
    for seed in scope.seeds:
        for arm in scope.arms:
            train = _training(recipe, out, scope, arm, seed)
            found.append((train, *_evaluations(recipe, out, scope, arm, seed, questions)))
    wanted = [tuple(s for s in chain if s.name.split()[-1] in scope.stages) for chain in found]
    return [chain for chain in wanted if chain]


def _training(recipe: Recipe, out: Path, scope: Scope, arm: str, seed: int) -> Stage:
    at = out / f"{arm}-s{seed}"
    argv = ["train", _name(recipe), *_which(recipe, arm, seed), "--out", str(at), "--resume"]
    argv += stages.cold_start(recipe, out)
    chosen = recipe.arm(arm)
    steps = chosen.trainer.max_steps
    if scope.steps is not None:
        steps = scope.steps
        argv += ["--steps", str(steps)]
    return Stage(
        name=f"{at.name} train",
        argv=tuple(argv),
        proof=at / "done.json",
        pace=at / "metrics.jsonl",
        total=steps,
        log=out / "logs" / f"{at.name}-train.log",
        program=stages.launcher(1 if chosen.method == SUPERVISED else scope.processes),
    )


def _evaluations(
    recipe: Recipe, out: Path, scope: Scope, arm: str, seed: int, questions: int
) -> Chain:
    base = out / f"{arm}-s{seed}"
    probes = recipe.evaluation.probes
    asked = tuple(option for probe in probes for option in ("--probe", probe))
    # The plain record is written first, the last probe's last.
    passes = [(base, asked, base.joinpath(*probes[-1:]))]
    if recipe.evaluation.greedy:
        greedy = out / f"{arm}-s{seed}-greedy"
        passes.append((greedy, ("--greedy",), greedy))
    extra = ("--limit", str(scope.limit)) if scope.limit else ()
    model = () if arm == COLD else ("--model", str(base / "final"))
    return tuple(
        Stage(
            name=f"{at.name} eval",
            argv=(
                "eval", "--recipe", _name(recipe), *_which(recipe, arm, seed), *model,
                "--out", str(at), "--resume", "--no-cache", *options, *extra,
            ),
            proof=last / "record.json",
            pace=at / "rows.part.jsonl",
            total=questions * (1 if "--greedy" in options else recipe.evaluation.samples),
            log=out / "logs" / f"{at.name}-eval.log",
            heading=1,
        )
        for at, options, last in passes
    )  # fmt: skip


def _name(recipe: Recipe) -> str:
    known = papers().get(recipe.paper)
    return recipe.paper if known == recipe.file else str(recipe.file)


def _which(recipe: Recipe, arm: str, seed: int) -> tuple[str, ...]:
    return ("--profile", recipe.profile_name, "--arm", arm, "--seed", str(seed))


def remember(recipe: Recipe, out: Path, scope: Scope) -> None:
    """Writes recipe.json, or raises BadInput if the folder was made by another recipe."""
    now = {
        "paper": recipe.paper,
        "profile": recipe.profile_name,
        "fingerprint": recipe.fingerprint,
        "steps": scope.steps,
        "limit": scope.limit,
    }
    path = out / "recipe.json"
    if path.exists():
        then = folder.read_json(path)
        changed = sorted(key for key, value in now.items() if then.get(key) != value)
        if changed:
            raise BadInput(
                f"{out} was made with another recipe ({', '.join(changed)} changed): --fresh "
                "deletes it and starts again, another --out keeps it"
            )
        return
    if any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise BadInput(f"{out} is not empty and no run of ours; choose another --out")
    folder.write_json(path, now)


def _delete(out: Path) -> None:
    """Empties a folder that a run of ours made; anything else is left for the user to delete."""
    if not (out / "recipe.json").exists():
        return
    for entry in out.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != folder.LOCK:
            entry.unlink()
