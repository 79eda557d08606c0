"""`repro score`, `report`, `compare` and `verify`: the commands that need no model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from repro import exits
from repro.options import FILE, FOLDER, PATH, json_option, show_json, table, words


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--benchmark", help="Where the gold answers are; without it each row carries its own."
)
@click.option("--split", default="test", show_default=True)
@click.option("--data", type=FILE, help="Records, for --benchmark jsonl.")
@click.option(
    "--graders", default="reelproof", show_default=True, help="Names with commas, or all."
)
@json_option
def score(
    file: Path, benchmark: str | None, split: str, data: Path | None, graders: str, as_json: bool
) -> None:
    """Score saved replies again, without a model.

    FILE holds one JSON object a line: {"id", "reply"}, or {"reply", "answer", "type"}.

    \b
    Example:
      repro score --benchmark microworld --graders all replies.jsonl
    """
    from evals import benchmarks
    from evals.extract import GRADERS
    from repro.score import rescore

    gold = benchmarks.load(benchmark, split=split, data=data) if benchmark else None
    found = rescore(file, gold, tuple(GRADERS) if graders == "all" else words(graders))
    if as_json:
        show_json(found)
        return
    table(
        ("grader", "score", "n", "outcomes"),
        [
            (name, f"{100 * s['score']:.1f} %", str(s["n"]),
             ", ".join(f"{n} {outcome}" for outcome, n in s["outcomes"].items()))
            for name, s in found.items()
        ],
    )  # fmt: skip


@click.command()
@click.argument("folder", type=PATH, default=Path("runs/ktr-micro"))
@click.option("--out", type=PATH, help="HTML file.  [default: FOLDER/report.html]")
def report(folder: Path, out: Path | None) -> None:
    """The HTML report and the closing table of the runs in FOLDER.

    \b
    Example:
      repro report runs/ktr-micro
    """
    from repro.conclude import conclude

    done = conclude(folder, out=out or folder / "report.html", command=f"repro report {folder}")
    click.echo(done.text)
    click.echo(f"report: {done.report}")


@click.command()
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@json_option
def compare(first: Path, second: Path, as_json: bool) -> None:
    """Pair two runs by question: SECOND minus FIRST. Exit code 3 if they are not comparable.

    \b
    Example:
      repro compare runs/ktr-micro/grpo-s0 runs/ktr-micro/ktr-s0
    """
    from repro.conclude import compare as pair

    found = pair(first, second)
    if as_json:
        show_json(asdict(found))
        return
    d = found.difference
    click.echo(
        f"{100 * found.scores[0]:.1f} % -> {100 * found.scores[1]:.1f} %: "
        f"{100 * d.estimate:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}]\n"
        f"{found.questions} questions: {found.better} better, {found.worse} worse, "
        f"{found.questions - found.better - found.worse} equal"
    )


@click.command()
@click.argument("folder", type=PATH, required=False)
@json_option
def verify(folder: Path | None, as_json: bool) -> None:
    """Recompute every score from its rows. Exit code 6 if a record says something else.

    \b
    Example:
      repro verify results/runs
    """
    from repro.conclude import committed
    from repro.conclude import verify as check

    count, problems = check(folder or committed())
    if as_json:
        show_json({"runs": count, "problems": problems})
    else:
        for problem in problems:
            click.echo(problem)
        click.echo(f"{count} runs read, {len(problems)} differences")
    if problems:
        raise click.exceptions.Exit(exits.REGRESSION)
