"""Builds the embedded student's cold starts: a recipe's `sft` section, run, measured and shipped.

repro tiny build --for ktr          about 15 minutes on one core; run again, it continues
repro tiny build --for temporal_r1  goes on from the student of ktr
repro tiny build --for ffr          goes on from the student of ktr
repro tiny build --for mvp          goes on from the student of ktr
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals import benchmarks
from evals.errors import BadInput
from repro.coldstart import demonstrations_of, total_steps, train_sft
from repro.core import checkpoint
from repro.folder import read_json
from repro.recipe import Recipe, papers
from repro.tiny import model as student

HERE = Path(__file__).parent
SEED = 0  # of every cold start that ships
MASKED = "ordering"  # kind of a masked-prediction item
Progress = Callable[[str, int, int, float], None]


def variants() -> dict[str, Recipe]:
    """Paper -> recipe, of every paper whose micro profile builds its own student."""
    recipes = {name: Recipe.load(name) for name in papers()}
    return {n: r for n, r in recipes.items() if r.sft is not None and r.model.id == f"tiny/{n}"}


def build(
    paper: str, out: Path | None = None, progress: Progress = lambda *args: None
) -> dict[str, Any]:
    """Train, measure and write the cold start of `paper` into `out` (default: shipped place).

    Trains in runs/tiny-PAPER, where it also continues. Returns its manifest entry: sha256, seed,
    command, accuracies on validation.
    """
    known = variants()
    if paper not in known:
        raise BadInput(f"no cold start for {paper!r}; there are {', '.join(known)}")
    recipe, folder, run = known[paper], out or HERE / paper, Path("runs") / f"tiny-{paper}"
    total = total_steps(recipe)
    train_sft(
        recipe, SEED, run, resume=True,
        progress=lambda row: progress(paper, row["step"], total, row["loss"]),
    )  # fmt: skip
    final = run / read_json(run / "done.json")["final"]
    checkpoint.write_aside(
        folder, lambda scratch: shutil.copytree(final, scratch, dirs_exist_ok=True)
    )
    entry = {
        "command": f"repro tiny build --for {paper}",
        "seed": SEED,
        "sha256": checkpoint.weights_sha256(folder),
        "parameters": _parameters(folder),
        "validation": measure(folder, recipe),
    }
    own = demonstrations_of(paper)
    if hasattr(own, "probed"):
        entry["patched"] = own.probed(folder, recipe)
    _remember(paper, entry, folder.parent / "manifest.json")
    shutil.rmtree(run)
    return entry


def measure(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Validation split: greedy accuracy; at temperature 1 avg@8, pass@8 and format rate; where it
    holds masked-prediction items, both also apart from the questions."""
    from evals.models import load
    from evals.run import evaluate
    from repro.core.rewards import format_reward

    assert recipe.sft is not None
    split, prompt = recipe.sft.stop_split, recipe.evaluation.prompt
    benchmark, model = benchmarks.load("microworld", split=split), load(folder)
    protocol = replace(recipe.protocol(student.PROTOCOL.decoding), prompt=prompt)
    sampled = evaluate(model, benchmark, protocol, save_replies=True)
    greedy = replace(protocol.decoding, temperature=0.0, samples=1)
    once = evaluate(model, benchmark, replace(protocol, decoding=greedy))
    solved = {row.id for row in sampled if row.score >= 1}
    found = {
        "greedy": _share([row.score for row in once]),
        "avg@8": _share([row.score for row in sampled]),
        "pass@8": round(len(solved) / len(benchmark.samples), 4),
        "format": _share([format_reward(row.reply or "") for row in sampled]),
    }
    if any(row.kind == MASKED for row in once):
        for name, rows in (("greedy", once), ("avg@8", sampled)):
            for part, kept in (("questions", False), ("items", True)):
                own = [row.score for row in rows if (row.kind == MASKED) == kept]
                found[f"{part} {name}"] = _share(own)
    return found


def _share(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _parameters(folder: Path) -> int:
    from evals.vlm import load

    return sum(p.numel() for p in load(folder).model.parameters())


def _remember(paper: str, entry: dict[str, Any], manifest: Path) -> None:
    known = json.loads(manifest.read_text()) if manifest.exists() else {}
    manifest.write_text(json.dumps({**known, paper: entry}, indent=1) + "\n")
