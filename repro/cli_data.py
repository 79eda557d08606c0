"""`repro data`: data sets, fetched and checked, and films made here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro import exits
from repro.options import FOLDER, PATH, as_dict, json_option, show_json, table

if TYPE_CHECKING:
    from evals.verify import Report


@click.group()
def data() -> None:
    """Data sets, and data made from them.

    \b
    Example:
      repro data verify mmvu --root ~/data/mmvu
    """


@data.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Benchmarks with data of their owners: where from, how many, under which terms.

    \b
    Example:
      repro data list
    """
    from evals.benchmarks import OWNED, card

    cards = {name: card(name) for name in OWNED}
    if as_json:
        show_json({name: as_dict(found) for name, found in cards.items()})
        return
    table(
        ("benchmark", "data set", "questions", "licence"),
        [
            (name, c.dataset, str(next(iter(c.splits.values())) or "unknown"), c.licence)
            for name, c in cards.items()
        ],
    )


@data.command()
@click.argument("benchmark")
@click.option("--root", type=FOLDER, help="Your copy.  [default: $REELPROOF_DATA/BENCHMARK]")
@click.option("--split", help="[default: the one that papers report]")
@click.option("--subset", default="", help="Parts of it, with commas.")
@click.option("--no-videos", is_flag=True, help="Do not open the videos.")
@click.option("--no-hashes", is_flag=True, help="Do not hash the files that were fetched.")
@json_option
def verify(
    benchmark: str, root: Path | None, split: str | None, subset: str, no_videos: bool,
    no_hashes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Check a copy of a benchmark's data: every question, every video, every hash.

    Exit code 2 if something is wrong with it.

    \b
    Example:
      repro data verify video_holmes --root ~/data/video_holmes
    """
    from rich.console import Console

    from evals.verify import verify as check
    from repro.show import showing

    with showing(Console(stderr=True)) as show:
        report = check(
            benchmark, root, split=split, subset=subset, videos=not no_videos,
            hashes=not no_hashes, progress=show.update,
        )  # fmt: skip
    if as_json:
        show_json({**as_dict(report), "root": str(report.root), "ok": report.ok})
    else:
        _print(report)
    if not report.ok:
        raise click.exceptions.Exit(exits.BAD_INPUT)


def _print(report: Report) -> None:
    click.echo(
        f"{report.benchmark}, split {report.split}: {report.questions} questions on "
        f"{report.videos} videos\nannotations sha256 {report.sha256}, revision {report.revision}"
    )
    for finding in report.findings:
        click.echo(f"{'PROBLEM' if finding.problem else 'note'} {finding.check}: {finding.count}")
        for example in finding.examples:
            click.echo(f"    {example}")
        if finding.count > len(finding.examples):
            click.echo("    ...")
    click.echo("this copy is whole" if report.ok else "this copy has problems")


@data.command()
@click.argument("benchmark")
@click.option("--revision", help="Commit of the data set, 40 hex digits.  [default: the card's]")
@click.option("--root", type=PATH, help="Where to.  [default: $REELPROOF_DATA/BENCHMARK]")
@click.option("--only", multiple=True, help="Pattern of the files to fetch; may be repeated.")
def fetch(benchmark: str, revision: str | None, root: Path | None, only: tuple[str, ...]) -> None:
    """Download a benchmark's data from the Hugging Face hub, at one commit.

    Run it again after an interruption: it continues. A branch name is refused.

    \b
    Example:
      repro data fetch mmvu --revision COMMIT --only validation.json
    """
    from evals.benchmarks import data_root
    from evals.fetch import fetch as download

    click.echo(download(benchmark, root or data_root(benchmark), revision, only))


@data.command("make")
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@click.option("--films", type=click.IntRange(1), help="How many.  [default: the split's own size]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--to", type=PATH, help="Instead of the cache.")
def make(split: str, films: int | None, seed: int, to: Path | None) -> None:
    """Write microworld films and their questions, and print the folder.

    \b
    Example:
      repro data make --split test --films 20 --to films
    """
    from evals import microworld
    from evals.errors import BadInput

    if split not in microworld.SIZES:
        raise BadInput(f"microworld has no split {split!r}; it has {', '.join(microworld.SIZES)}")
    click.echo(microworld.make(split, n=films, seed=seed, cache=to))
