"""Stages of a recipe with `scoring`, in the order in which they run; each may be left out.

| stage          | what                                                                          |
|----------------|-------------------------------------------------------------------------------|
| score-released | the released and the start checkpoint on every cell, K re-scores              |
| sft            | the cold start, on request; where it is finished, training starts from it     |
| train          | arms x seeds, one after another on all cards                                  |
| eval           | every trained arm on every cell, a card each                                  |
| report         | the cells of the paper's table                                                |

<out>/score/<arm>-s<seed>/<benchmark>/<protocol>/   record.json of a re-score
<out>/<arm>-s<seed>/cells/<benchmark>/<protocol>/   record.json of a trained arm
<out>/sft-s0/                                       the cold start

Replies are kept in the rows: any other grader then costs no second asking (`repro score`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evals import benchmarks
from evals.errors import BadInput
from repro import machine, needs, plan, training, weights
from repro.children import Chain, Stage
from repro.coldstart import total_steps
from repro.grid import CELLS, DONE, grid
from repro.recipe import Recipe, Scoring
from repro.show import Show

STAGES = ("score-released", "sft", "train", "eval", "report")
COLD = "cold"


def default(recipe: Recipe) -> tuple[str, ...]:
    """Stages that run where none is named: all but the cold start, which is a checkpoint's own."""
    known = ("train", "eval", "report")
    return ("score-released", *known) if recipe.scoring else known


def check(recipe: Recipe, stages: frozenset[str], arms: Sequence[str], show: Show) -> None:
    """What can be known before the first minute: commits, memory, every question, every record.

    Raises BadInput or EnvironmentFault naming the first thing that is missing.
    """
    needs.require_resolved(recipe, stages, arms)
    cards = machine.cards()
    if "train" in stages and cards:
        plan.require_fits(recipe, arms, min(cards), len(cards))
    for own in (recipe.arm(name).start for name in arms if "train" in stages):
        if own is not None:
            weights.located(own.id)
    if "train" in stages and recipe.data.records not in benchmarks.NAMES:
        show.say("data: training records")
        file, folder = training.located(recipe)
        benchmarks.load("jsonl", data=file, root=folder)
    if stages & {"score-released", "eval"}:
        for name, subset in dict.fromkeys((a.benchmark, a.protocol.subset) for a in grid(recipe)):
            show.say(f"data: {name} {subset}".rstrip())
            benchmarks.load(name, subset=subset)
    if "score-released" in stages and recipe.scoring:
        for _, checkpoint in (*recipe.scoring.public, (COLD, recipe.model.id)):
            weights.located(checkpoint)


def score_chains(recipe: Recipe, name: str, out: Path, limit: int | None = None) -> list[Chain]:
    """One chain for each re-score: checkpoint by checkpoint, seed and batch by seed and batch."""
    s = _scoring(recipe)
    found: list[Chain] = []
    for arm, checkpoint in (*s.public, (COLD, recipe.model.id)):
        for seed, batch in zip(s.seeds, s.batches, strict=True):
            at = out / "score" / f"{arm}-s{seed}"
            label = f"{at.name} score-released"
            total = len(grid(recipe))
            found.append(
                (_cells(recipe, name, label, at, out, checkpoint, arm, seed, batch, total, limit),)
            )
    return found


def eval_chains(
    recipe: Recipe, name: str, out: Path, arms: Sequence[str], seeds: Sequence[int],
    limit: int | None = None,
) -> list[Chain]:  # fmt: skip
    """One chain for each trained arm and seed."""
    batch = _scoring(recipe).batches[0]
    found: list[Chain] = []
    for seed in seeds:
        for arm in arms:
            home = out / f"{arm}-s{seed}"
            total, final = len(grid(recipe, arm)), str(home / "final")
            label = f"{home.name} eval"
            stage = _cells(
                recipe, name, label, home / "cells", out, final, arm, seed, batch, total, limit
            )
            found.append((stage,))
    return found


def _cells(
    recipe: Recipe, name: str, label: str, at: Path, out: Path, checkpoint: str, arm: str,
    seed: int, batch: int, total: int, limit: int | None,
) -> Stage:  # fmt: skip
    engine = "vllm:" if _scoring(recipe).engine == "vllm" else ""
    return Stage(
        name=label,
        argv=(
            "eval", "--recipe", name, "--profile", recipe.profile_name, "--every-cell",
            "--model", engine + checkpoint, "--arm", arm, "--seed", str(seed),
            "--batch", str(batch), "--out", str(at), "--resume", "--no-cache", "--save-replies",
            *(("--limit", str(limit)) if limit else ()),
        ),
        proof=at / DONE,
        pace=at / CELLS,
        total=total,
        log=out / "logs" / f"{label.replace(' ', '-')}.log",
    )  # fmt: skip


def sft_chain(recipe: Recipe, name: str, out: Path, steps: int | None) -> Chain:
    """The cold start, one process on one card."""
    if recipe.sft is None:
        raise BadInput(f"{recipe.file} has no section sft in profile {recipe.profile_name}")
    at = out / "sft-s0"
    argv = ["train", name, "--profile", recipe.profile_name, "--stage", "sft", "--out", str(at),
            "--resume", *(("--steps", str(steps)) if steps else ())]  # fmt: skip
    return (
        Stage(
            name=f"{at.name} sft", argv=tuple(argv), proof=at / "done.json",
            pace=at / "metrics.jsonl", total=total_steps(recipe, steps),
            log=out / "logs" / f"{at.name}.log",
        ),
    )  # fmt: skip


def cold_start(recipe: Recipe, out: Path) -> tuple[str, ...]:
    """What training adds to its command where this folder's own cold start is finished; a recipe
    without that stage may have an arm named sft, whose folder looks like one."""
    if recipe.sft is None or recipe.scoring is None:
        return ()
    final = out / "sft-s0" / "final"
    return ("--model", str(final)) if (out / "sft-s0" / "done.json").exists() else ()


def launcher(processes: int) -> tuple[str, ...]:
    """torchrun before several processes of one machine; nothing before one."""
    if processes == 1:
        return ()
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return (*torchrun, "--nproc_per_node", str(processes), "-m", "repro")


def _scoring(recipe: Recipe) -> Scoring:
    assert recipe.scoring is not None
    return recipe.scoring
