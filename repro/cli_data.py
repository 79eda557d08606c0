"""`repro data`: data sets, fetched and checked, and films made here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro import exits
from repro.cli_synthesize import calibrate, marks_, synthesize
from repro.options import FILE, FOLDER, PATH, as_dict, json_option, show_json, table

if TYPE_CHECKING:
    from evals.verify import Finding, Report
    from repro.training import Manifest
    from repro.training import Report as TrainingReport


@click.group()
def data() -> None:
    """Data sets, and data made from them.

    \b
    Example:
      repro data verify mmvu --root ~/data/mmvu
    """


data.add_command(synthesize)
data.add_command(calibrate)
data.add_command(marks_)


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
@click.option("--profile", help="Of a paper: whose training records.  [default: paper]")
@json_option
def verify(
    benchmark: str, root: Path | None, split: str | None, subset: str, no_videos: bool,
    no_hashes: bool, profile: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Check a copy of a benchmark's data: every question, every video, every hash.

    A paper's name checks its training records instead, against repro/PAPER/data.yaml: the published
    file below --root, and every image and film that it names. Exit code 2 if something is wrong.

    \b
    Examples:
      repro data verify video_holmes --root ~/data/video_holmes
      repro data verify ktr --root ~/data/ktr-train
    """
    from rich.console import Console

    from evals.verify import verify as check
    from repro.recipe import papers
    from repro.show import showing

    if benchmark in papers():
        _verify_training(benchmark, profile, root, not no_videos, as_json)
        return
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


def _manifest(paper: str, profile: str | None) -> Manifest:
    from repro.recipe import Recipe
    from repro.training import Manifest

    return Manifest.load(paper, Recipe.load(paper, profile).data.records if profile else "")


def _verify_training(
    paper: str, profile: str | None, root: Path | None, media: bool, as_json: bool
) -> None:
    from rich.console import Console

    from evals.benchmarks import data_root
    from repro import training
    from repro.show import showing

    manifest = _manifest(paper, profile)
    folder = root or data_root(manifest.folder)
    with showing(Console(stderr=True)) as show:
        report = training.verify(
            manifest, folder / manifest.file.name, folder, media=media, progress=show.update
        )
    if as_json:
        show_json({**as_dict(report), "file": str(report.file), "ok": report.ok})
    else:
        _print_training(report)
    if not report.ok:
        raise click.exceptions.Exit(exits.BAD_INPUT)


def _print_training(report: TrainingReport) -> None:
    from repro.training import NOTES

    click.echo(f"{report.name}: {report.records} records, {report.media} images and films")
    click.echo(f"sha256 {report.sha256}")
    _findings(report.findings, NOTES)
    for text in report.unknown:
        click.echo(f"unknown: {text}")
    click.echo("this copy is whole" if report.ok else "this copy has problems")


def _findings(findings: Iterable[Finding], notes: Collection[str]) -> None:
    for finding in findings:
        click.echo(f"{'note' if finding.check in notes else 'PROBLEM'} {finding.check}: "
                   f"{finding.count}")  # fmt: skip
        for example in finding.examples:
            click.echo(f"    {example}")
        if finding.count > len(finding.examples):
            click.echo("    ...")


def _print(report: Report) -> None:
    click.echo(
        f"{report.benchmark}, split {report.split}: {report.questions} questions on "
        f"{report.videos} videos\nannotations sha256 {report.sha256}, revision {report.revision}"
    )
    from evals.verify import NOTES

    _findings(report.findings, NOTES)
    click.echo("this copy is whole" if report.ok else "this copy has problems")


@data.command()
@click.argument("benchmark")
@click.option("--revision", help="Commit of the data set, 40 hex digits.  [default: the card's]")
@click.option("--root", type=PATH, help="Where to.  [default: $REELPROOF_DATA/BENCHMARK]")
@click.option("--only", multiple=True, help="Pattern of the files to fetch; may be repeated.")
@click.option("--arms", metavar="A,B", help="Of a paper: those to train.  [default: its own run]")
@click.option("--profile", default="paper", show_default=True, help="Of a paper.")
def fetch(
    benchmark: str, revision: str | None, root: Path | None, only: tuple[str, ...],
    arms: str | None, profile: str,
) -> None:  # fmt: skip
    """Download a benchmark's data from the Hugging Face hub, at one commit.

    A paper's name fetches the checkpoints and benchmarks of its --profile instead, at the
    locked commits (repro data lock). Run it again after an interruption: it continues. A branch
    name is refused.

    \b
    Examples:
      repro data fetch mmvu --revision COMMIT --only validation.json
      repro data fetch ktr --root ~/data
    """
    from evals.benchmarks import data_root
    from evals.fetch import fetch as download
    from repro.recipe import papers

    if benchmark in papers():
        _fetch_paper(benchmark, profile, root, arms)
        return

    click.echo(download(benchmark, root or data_root(benchmark), revision, only))


def _fetch_paper(paper: str, profile: str, root: Path | None, named: str | None) -> None:
    from evals.benchmarks import data_root
    from repro import needs
    from repro.recipe import Recipe

    recipe = Recipe.load(paper, profile)
    where = root or data_root(paper).parent
    arms = named.split(",") if named else None
    for need, folder in needs.fetch(recipe, where, ("score-released", "train", "eval"), arms):
        click.echo(f"{need.what}: {folder}")
    for need in needs.needs(recipe, arms):
        if not need.folder:
            click.echo(f"by hand: {need.what}, {need.key} (docs/gpu-hosts.md)")


@data.command()
@click.argument("paper")
@click.option("--profile", default="paper", show_default=True)
@click.option("--update", is_flag=True, help="Ask again for what is locked already.")
@json_option
def lock(paper: str, profile: str, update: bool, as_json: bool) -> None:
    """Look up the commit of every model and data set that a recipe names: lock.json beside it.

    Needs network access; copy the file to hosts that have none. What is locked stays locked.

    \b
    Example:
      repro data lock ktr
    """
    from repro import lock as locks
    from repro import needs
    from repro.recipe import Recipe

    recipe = Recipe.load(paper, profile)
    known = locks.read(recipe.file)
    keys = [need.key for need in needs.needs(recipe, recipe.arms)]
    pins = locks.resolve(keys, {} if update else known)
    path = locks.write(recipe.file, {**known, **pins})
    if as_json:
        show_json({key: as_dict(pin) for key, pin in pins.items()})
        return
    rows = [(k, p.revision, "?" if p.bytes is None else f"{p.bytes / 2**30:.1f} GiB")
            for k, p in pins.items()]  # fmt: skip
    table(("what", "commit", "size"), rows)
    click.echo(f"lock: {path}")


@data.command()
@click.argument("paper")
@click.option("--published", type=FILE, help="The file that the authors published.")
@click.option("--holmes", type=FILE, help="train_Video-Holmes.json of its owner.")
@click.option("--masked", type=FOLDER, help="What repro data synthesize filled.")
@click.option("--videos", type=FOLDER, help="Folder that its paths start from, to be linked to.")
@click.option("--profile", help="Whose records, where profiles differ.  [default: paper]")
@click.option("--out", type=PATH, help="[default: $REELPROOF_DATA/PAPER-train/records.json]")
def build(
    paper: str, published: Path | None, holmes: Path | None, masked: Path | None,
    videos: Path | None, profile: str | None, out: Path | None,
) -> None:  # fmt: skip
    """Write a paper's training records as training reads them: every id once.

    What nobody can draw again is left out and said in words.

    \b
    Examples:
      repro data build ktr --published Video-R1-Holmes-16k.json --holmes train_Video-Holmes.json
      repro data build mvp --published questions.json --masked $REELPROOF_DATA/mvp-train/masked
      repro data build temporal_r1 --profile paper_7b --published runs/chosen/selected.jsonl
        --videos /data
    """
    from evals.benchmarks import data_root
    from repro import training

    manifest = _manifest(paper, profile)
    at = out or data_root(manifest.folder) / training.RECORDS
    built = training.build(
        manifest, at, published=published, holmes=holmes, masked=masked, videos=videos
    )
    click.echo(f"{built.records} records: {built.file}")
    for text in built.lacks:
        click.echo(f"lacks {text}")


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
