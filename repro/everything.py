"""`repro reproduce all`: the micro profile of every paper with a recipe, then one scoreboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from repro.conclude import committed, ledger_errors
from repro.recipe import Recipe, papers
from results import ledger, terminal
from results.policy import load_policy
from results.scoreboard import micro_boards

PROFILE = "micro"
RUNS = Path("runs")


def folder_of(paper: str, runs: Path = RUNS) -> Path:
    """Where `repro reproduce PAPER` puts its runs."""
    return runs / f"{paper}-{PROFILE}"


def reproduce_all(run: Callable[[Recipe, Path], None], runs: Path = RUNS) -> str:
    """Let `run` reproduce each paper into a folder of its own; the scoreboard of all of them.

    A paper that was finished earlier costs nothing again.
    """
    known = [Recipe.load(name, PROFILE) for name in papers()]
    for recipe in known:
        run(recipe, folder_of(recipe.paper, runs))
    return scoreboard([folder_of(recipe.paper, runs) for recipe in known])


def scoreboard(folders: list[Path]) -> str:
    """Every registered claim of the runs in these folders, with the word of the committed runs."""
    policy = load_policy()
    with ledger_errors():
        fresh = micro_boards([r for at in folders if at.is_dir() for r in ledger.load(at)], policy)
        kept = micro_boards(ledger.load(committed()), policy) if committed().is_dir() else ()
        return terminal.micro_text(fresh, kept)
