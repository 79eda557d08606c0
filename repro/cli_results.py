"""`repro list`, `score`, `report`, `verify` and `export`: what there is, in words and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import exits
from repro.options import FILE, PATH, json_option, show_json, table, words

if TYPE_CHECKING:
    from repro.score import Rescored
    from results.ledger import Run
    from results.printed import Paper
    from results.scoreboard import Board
    from results.status import Status


@click.command("list")
@click.argument("paper", required=False)
@click.option("--all", "every", is_flag=True, help="Exploratory cells too; they never count.")
@json_option
def list_(paper: str | None, every: bool, as_json: bool) -> None:
    """Papers with their status, or the cells of one PAPER.

    \b
    Examples:
      repro list
      repro list ktr
      repro list --json
    """
    from evals.benchmarks import NAMES
    from repro.recipe import Recipe, papers

    known, runs = _papers_and_runs()
    recipes = {name: Recipe.load(name) for name in papers()}
    if paper is not None and paper not in known:
        from repro.strict import nearest

        raise click.UsageError(f"there is no paper {paper!r}{nearest(paper, known)}")
    cells = {
        name: [s for s in _statuses(known[name], runs) if every or s.cell.registered]
        for name in ([paper] if paper else known)
    }
    if as_json:
        found = [_paper_json(known[name], recipes.get(name), cells[name]) for name in cells]
        show_json({"papers": found, "benchmarks": NAMES})
    elif paper is not None:
        _show_cells(known[paper], cells[paper])
    else:
        _show_papers(known, recipes, cells)
        click.echo(f"\nbenchmarks: {', '.join(NAMES)}")
        click.echo("`repro list PAPER` shows its cells; --all also those that never count")


def _papers_and_runs() -> tuple[dict[str, Paper], list[Run]]:
    """Every paper with reported numbers, and the runs that may answer them."""
    from repro.conclude import committed, ledger_errors
    from repro.machine import ROOT
    from results import ledger
    from results.reported import load_reported

    with ledger_errors():
        read = [load_reported(path) for path in sorted(ROOT.glob("repro/*/reported.yaml"))]
        at = committed()
        runs = ledger.load(at, only=lambda r: r.profile != "micro") if at.is_dir() else []
    return {paper.id: paper for paper in read}, runs


def _statuses(paper: Paper, runs: list[Run]) -> list[Status]:
    from repro.conclude import ledger_errors
    from results.policy import load_policy
    from results.status import statuses

    with ledger_errors():
        return statuses(paper, runs, load_policy())


def _paper_json(paper: Paper, recipe: Any, cells: list[Status]) -> dict[str, Any]:
    return {
        "paper": paper.id,
        "title": paper.title,
        "arxiv": paper.arxiv,
        "profiles": list(recipe.profiles) if recipe else [],
        "arms": list(recipe.arms) if recipe else [],
        "status": paper.status,
        "not_available": [] if paper.numbers else list(paper.missing),
        "cells": [cell.as_dict() for cell in cells],
    }


def _show_papers(
    known: dict[str, Paper], recipes: dict[str, Any], cells: dict[str, list[Status]]
) -> None:
    for name, paper in known.items():
        recipe = recipes.get(name)
        click.echo(f"{name}: {paper.title} (arXiv {paper.arxiv})")
        if recipe:
            click.echo(f"  profiles {', '.join(recipe.profiles)}; arms {', '.join(recipe.arms)}")
        else:
            click.echo("  no recipe yet")
        click.echo(f"  {len(cells[name])} cells: {_counts(cells[name])}")


def _counts(cells: list[Status]) -> str:
    from collections import Counter

    found = Counter(cell.word for cell in cells)
    return ", ".join(f"{n} {word}" for word, n in found.most_common()) or "no number could be had"


def _show_cells(paper: Paper, cells: list[Status]) -> None:
    click.echo(f"{paper.title} (arXiv {paper.arxiv})\n{paper.status}\n")
    rows = [
        (
            cell.cell.id, cell.printed,
            "" if cell.ours is None else f"{100 * cell.ours:.1f}", cell.word, cell.reason,
        )
        for cell in cells
    ]  # fmt: skip
    if not paper.numbers:
        rows = [(name, "not available", "", "not run", "nobody here has seen it")
                for name in paper.missing]  # fmt: skip
    table(("cell", "printed", "ours", "word", "why"), rows)


@click.command()
@click.argument("file", type=FILE)
@click.option("--benchmark", help="Its questions, its grader of each tool and its numbers.")
@click.option("--protocol", help="Interval threshold, headline and denominator of this protocol.")
@click.option("--split", help="Of the benchmark.  [default: its own]")
@click.option("--root", type=PATH, help="Folder of the benchmark's data.")
@click.option("--data", type=FILE, help="Records, for --benchmark jsonl.")
@click.option("--type", "kind", help="Of questions whose row names none, as `multiple choice`.")
@click.option(
    "--graders",
    help="Names with commas, or all.  [default: the protocol's and, beside it, reelproof]",
)
@click.option("--judge", metavar="URL", help="An LLM for what no rule could read (.../v1).")
@click.option("--judge-model", metavar="NAME", help="The judge's model.")
@click.option(
    "--judge-cache", type=PATH, default=Path("runs/judge.jsonl"), show_default=True,
    help="Its verdicts.",
)  # fmt: skip
@json_option
def score(
    file: Path, benchmark: str | None, protocol: str | None, split: str | None, root: Path | None,
    data: Path | None, kind: str | None, graders: str | None, judge: str | None,
    judge_model: str | None, judge_cache: Path, as_json: bool,
) -> None:  # fmt: skip
    """Score saved replies again, without a model.

    With several graders it shows how far they differ.

    FILE holds one JSON object a line: {"id", "reply"}, or {"reply", "answer", "type"}; or it is
    lmms-eval's samples_*.jsonl or VLMEvalKit's .xlsx.

    \b
    Examples:
      repro score --benchmark microworld --graders all replies.jsonl
      repro score --benchmark charades_sta --protocol temporal-r1@no-think rows.jsonl.gz
      repro score --benchmark videomme --graders all 20260824_samples_videomme.jsonl
      repro score --benchmark mvbench --graders official,strict,video-r1 model_MVBench.xlsx
    """
    from functools import partial
    from typing import cast

    from evals import benchmarks, protocols
    from evals.judge import Judge
    from evals.types import Kind
    from repro.score import rescore

    if kind is not None:
        from evals.extract import READERS

        if kind not in READERS:
            raise click.UsageError(f"unknown --type {kind!r}; known: {', '.join(READERS)}")
    if protocol and not benchmark:
        raise click.UsageError("--protocol needs --benchmark: it is resolved for one")
    if bool(judge) != bool(judge_model):
        raise click.UsageError("--judge and --judge-model belong together")
    asked = protocols.load(protocol, benchmark) if protocol and benchmark else None
    usual = dict.fromkeys([*([asked.grader] if asked else []), "reelproof"])
    found = rescore(
        file, benchmark, words(graders) or tuple(usual),
        questions=(
            partial(benchmarks.load, benchmark, split=split, root=root, data=data)
            if benchmark else None
        ),
        kind=cast(Kind | None, kind), protocol=asked,
        judge=Judge(judge, judge_model, judge_cache) if judge and judge_model else None,
    )  # fmt: skip
    if as_json:
        show_json(found.as_dict())
    else:
        _show_scores(found)


def _show_scores(found: Rescored) -> None:
    """One line per grader, then what they differ by."""
    leads = () if found.headline in ("micro", "macro") else (found.headline,)
    table(
        ("grader", *leads, "micro", "macro", "luck", "read", "outcomes"),
        [
            (
                name, *(f"{100 * s[key]:.1f} %" for key in (*leads, "micro", "macro")),
                f"+{100 * s['luck']:.1f}" if s["luck"] else "", f"{100 * s['coverage']:.1f} %",
                ", ".join(f"{n} {outcome}" for outcome, n in s["outcomes"].items()),
            )
            for name, s in found.graders.items()
        ],
    )  # fmt: skip
    if len(found.graders) > 1:
        d = found.spread
        click.echo(
            f"spread {100 * d['spread']:.1f} points{''.join(f' of {lead}' for lead in leads)} "
            f"({d['low']['grader']} to {d['high']['grader']}); graders disagree on "
            f"{100 * d['disagreement']:.1f} % of {found.replies} replies"
        )
    if found.skipped:
        click.echo(f"not for such questions: {', '.join(found.skipped)}")
    if found.judge:
        click.echo("judge {id}: {asked} asked, {cached} known".format(**found.judge))


@click.command()
@click.argument("folder", type=PATH, required=False)
@click.option(
    "--out", type=PATH, help="HTML file.  [default: FOLDER/report.html, or results/report.html]"
)
@click.option("--exit-code", is_flag=True, help="End with the code of the worst measured word.")
@json_option
def report(folder: Path | None, out: Path | None, exit_code: bool, as_json: bool) -> None:
    """The HTML report of everything, or of the runs in FOLDER.

    Of a folder it prints the closing table too. Without FOLDER and --out it also writes
    SCOREBOARD.md, the README's block and
    results/report.json, which `repro verify` checks byte by byte.

    \b
    Examples:
      repro report
      repro report runs/ktr-micro
    """
    from repro.conclude import conclude, whole

    if folder is not None:
        page = out or folder / "report.html"
        done = conclude(folder, out=page, command=f"repro report {folder}")
        if as_json:
            show_json({"report": done.report, "claims": [c.as_dict() for c in done.claims]})
        else:
            click.echo(f"{done.text}\nreport: {done.report}")
        worst = [str(claim.word) for claim in done.claims if claim.word != "not run"]
    else:
        found = whole(out)
        if as_json:
            changed = [str(path) for path in found.changed]
            show_json({"report": found.report, "changed": changed, **found.board.as_dict()})
        else:
            click.echo(f"{found.board.headline}.\nreport: {found.report}")
            for path in found.changed:
                click.echo(f"written: {path}")
        worst = _measured(found.board)
    if exit_code:
        raise click.exceptions.Exit(_worst(worst))


def _measured(board: Board) -> list[str]:
    """Words of everything that was measured, the papers' numbers and the micro claims."""
    found: list[str] = [each.verdict.word for entry in board.entries for each in entry.asked]
    found += [each.claim.word for entry in board.entries for each in entry.claims]
    found += [claim.word for micro in board.micro for claim in micro.claims]
    return [word for word in found if word != "not run"]


def _worst(found: list[Any]) -> int:
    """regression, then environment, then not comparable, then inconclusive, then ok."""
    from results.verdict import EXIT_CODES

    codes = {EXIT_CODES[word] for word in found}
    order = (exits.REGRESSION, exits.ENVIRONMENT, exits.NOT_COMPARABLE, exits.INCONCLUSIVE)
    return next((code for code in order if code in codes), exits.OK)


@click.command()
@click.argument("folder", type=PATH, required=False)
@json_option
def verify(folder: Path | None, as_json: bool) -> None:
    """Recompute every score, verdict and generated file.

    Exit code 6 if one differs. Without FOLDER: the ledger, SCOREBOARD.md, the README's block and
    results/report.json, byte by
    byte. With it: the scores of the runs there.

    \b
    Example:
      repro verify
    """
    from repro.conclude import verify as check

    found = check(folder)
    if as_json:
        show_json({"runs": found.runs, "files": found.files, "problems": found.problems})
    else:
        for problem in found.problems:
            click.echo(problem)
        files = f" and {found.files} generated files" if found.files else ""
        click.echo(f"{found.runs} runs{files} computed again, {len(found.problems)} differences")
    if found.problems:
        raise click.exceptions.Exit(exits.REGRESSION)


@click.command()
@click.argument("folder", type=PATH, required=False)
@click.option(
    "--format", "kind", type=click.Choice(["csv", "model-index"]), default="csv", show_default=True
)
@click.option("--model", help="Only runs of this model; the model index is about one.")
@click.option("--name", help="Of the model, in the model index.  [default: as recorded]")
@click.option("--out", type=PATH, help="Instead of stdout.")
def export(
    folder: Path | None, kind: str, model: str | None, name: str | None, out: Path | None
) -> None:
    """The runs of the ledger, or of FOLDER, for other programs.

    csv: a line per run. model-index: the YAML that Hugging Face model cards carry.

    \b
    Examples:
      repro export --out runs.csv
      repro export --format model-index --model ktr-s0
    """
    from repro.conclude import committed, ledger_errors
    from results import ledger
    from results.export import to_csv, to_model_index
    from results.ledger import write_atomically

    with ledger_errors():
        at = folder or committed()
        runs = ledger.load(at, only=lambda r: model in (None, r.model["id"]))
        if not runs:
            from evals.errors import BadInput

            raise BadInput(f"{at} holds no run" + (f" of {model}" if model else ""))
        text = to_csv(runs) if kind == "csv" else to_model_index(runs, name=name)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, text.encode())
        click.echo(f"{len(runs)} runs: {out}", err=True)
