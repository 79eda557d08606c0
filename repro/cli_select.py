"""`repro data select`: which samples a group can learn from."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import exits
from repro.options import FILE, FOLDER, PATH, json_option, profile_option, show_json, table

if TYPE_CHECKING:
    from evals.types import Protocol, Sample
    from repro.recipe import Recipe
    from repro.selection.files import Pool
    from repro.selection.rules import Rules
    from repro.selection.screen import Screened


@click.command()
@click.option("--recipe", help="Ask as this recipe trains; choose from its records.")
@profile_option
@click.option(
    "--data",
    "records",
    type=FILE,
    multiple=True,
    help="Choose from your records instead; may be repeated, also beside --benchmark.",
)
@click.option(
    "--benchmark",
    "named",
    metavar="NAME[/SPLIT]",
    multiple=True,
    help="Choose from a split of a benchmark; may be repeated.",
)
@click.option("--split", help="Of --benchmark, where it names none.  [default: train]")
@click.option(
    "--videos",
    "--root",
    type=FOLDER,
    help="Folder that the paths of media start from; of a single pool.",
)
@click.option(
    "--leave-out",
    "tests",
    metavar="NAME[/SPLIT]",
    multiple=True,
    help="Leave the films of this benchmark out; may be repeated.",
)
@click.option("--protocol", help="How it is asked.  [default: the recipe's, else as Video-R1 does]")
@click.option(
    "--model", help="Checkpoint folder, vllm:FOLDER, openai:MODEL@URL, or random.  "
    "[default: the recipe's start]",
)  # fmt: skip
@click.option("--tries", type=click.IntRange(2), default=8, show_default=True, help="K.")
@click.option(
    "--first", type=click.IntRange(2), help="Tries that decide who gets the others; K: no screen."
    "  [default: half of K]",
)  # fmt: skip
@click.option(
    "--temperature", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True
)
@click.option("--keep", metavar="N|P%", help="How many samples, or what share of the pool.")
@click.option("--quota", "given", multiple=True, metavar="SOURCE=N", help="Of one source.")
@click.option(
    "--by", help="Tag that names a source: family, data_source, kind.  [default: data_source]"
)
@click.option("--low", type=float, default=0.1, show_default=True, help="Least mean tIoU.")
@click.option("--high", type=float, default=0.9, show_default=True, help="Largest mean tIoU.")
@click.option("--tau", type=float, default=0.0, show_default=True, help="Least std of tIoU.")
@click.option(
    "--audit", type=float, default=0.0, show_default=True,
    help="Share of the screened-out samples that get all tries, to know what the screen loses.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="First samples of the pool only.")
@click.option("--batch", type=click.IntRange(1), help="Samples at once.  [default: 64 replies]")
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes.  [default: cores - 1, up to 8]"
)
@click.option("--cache/--no-cache", default=True, show_default=True, help="Of replies and frames.")
@click.option("--out", type=PATH, help="[default: runs/select-POOL]")
@click.option(
    "--resume", is_flag=True,
    help="Keep the tries in --out; with other rules, decide again without asking again.",
)  # fmt: skip
@json_option
def select(
    recipe: str | None, profile: str, records: tuple[Path, ...], named: tuple[str, ...],
    split: str | None, videos: Path | None, tests: tuple[str, ...], protocol: str | None,
    model: str | None, tries: int, first: int | None, temperature: float, keep: str | None,
    given: tuple[str, ...],
    by: str | None, low: float, high: float, tau: float, audit: float, seed: int,
    limit: int | None, batch: int | None, workers: int | None, cache: bool, out: Path | None,
    resume: bool, as_json: bool,
) -> None:  # fmt: skip
    """Choose training samples by the variance of repeated tries (Temporal-R1).

    Every sample is tried a few times; samples whose tries all earned the same are dropped, the
    others get the remaining tries. Kept is what is sometimes right, or grounded with a spread:
    a group of equal rewards has no advantage. Rewards have no format term.

    \b
    Examples:
      repro data select --benchmark microworld --model DIR --keep 10% --out runs/chosen
      repro data select --data my.jsonl --videos films --model vllm:DIR --keep 32000 --audit 0.02
      repro data select --recipe temporal_r1 --keep 10% --by family
      repro data select --recipe temporal_r1 --profile paper_7b --benchmark charades_sta/train
        --benchmark nextgqa/val --leave-out nextgqa/test --keep 32000
      repro train ktr --data runs/chosen/selected.jsonl --videos films --model DIR --out runs/mine
    """
    from rich.console import Console

    from repro import folder
    from repro.recipe import Recipe
    from repro.selection.rules import Rules
    from repro.show import showing

    if not records and not named and recipe is None:
        raise click.UsageError("name a pool: --data FILE, --benchmark, or --recipe for its own")
    if model is None and recipe is None:
        raise click.UsageError("name a model: --model DIR, or --recipe for its start checkpoint")
    law = Rules(tries, first or max(2, tries // 2), low, high, tau, audit, seed)
    chosen = Recipe.load(recipe, profile) if recipe else None
    pool, left_out = _pool(chosen, records, named, split, videos, tests)
    pool = pool.first(limit)
    asked = _protocol(chosen, pool, protocol, temperature)
    budget, quotas = _budget(keep, len(pool.benchmark.samples)), _quotas(given)
    out = out or Path("runs") / f"select-{pool.benchmark.name}"
    with (
        exits.continues(exits.resuming(resume)),
        folder.writing(out, resume=resume),
        showing(Console(stderr=True)) as show,
    ):
        screened, who = _screen(
            pool, asked, law, out, model, chosen, by, batch, workers, cache, show.update
        )
        found = _conclude(pool, screened, law, budget, quotas, {"left_out": left_out, **who}, out)
    if as_json:
        show_json(found)
    else:
        _tell(found, out)


def _pool(
    recipe: Recipe | None, records: tuple[Path, ...], named: tuple[str, ...], split: str | None,
    videos: Path | None, tests: tuple[str, ...],
) -> tuple[Pool, dict[str, Any]]:  # fmt: skip
    """All that is named as one pool, without the films of `tests`; what these cost."""
    from evals import benchmarks
    from repro import training
    from repro.selection import files, pools

    if videos is not None and len(records) + len(named) > 1:
        raise click.UsageError("--videos is of a single pool: set REELPROOF_DATA for several")
    found = [files.pool_of_records(file, videos) for file in records]
    for each in named:
        name, _, part = each.partition("/")
        found.append(files.pool_of_benchmark(name, part or split, videos))
    if not found:
        assert recipe is not None, "one of the three is named"
        if recipe.data.records in benchmarks.NAMES:
            own = files.pool_of_benchmark(recipe.data.records, recipe.data.split, videos)
        else:
            file, home = training.located(recipe)
            own = files.pool_of_records(file, videos or home)
        found = [own]
    pairs = [each.partition("/")[::2] for each in tests]
    shown = [benchmarks.load(name, split=part or None) for name, part in pairs]
    return pools.without(pools.together(found), shown)


def _protocol(recipe: Recipe | None, pool: Pool, name: str | None, temperature: float) -> Protocol:
    """How training asks, at this temperature; the grader is the lenient one in any case."""
    from evals import protocols
    from evals.types import Decoding, Protocol
    from repro.recipe import Recipe
    from repro.selection.signals import GRADER

    if recipe is None and pool.benchmark.name == "microworld" and name is None:
        recipe = Recipe.load("ktr")  # shown as its student sees it
    if name is not None:
        law = protocols.load(name, pool.benchmark.name)
        drawn = replace(law.decoding, temperature=temperature)
    elif recipe is not None:
        law, t = recipe.training_protocol, recipe.trainer
        drawn = Decoding(temperature, t.top_p, t.top_k, t.max_completion_length)
    else:
        law, drawn = Protocol("video-r1"), Decoding(temperature)
    return replace(law, grader=GRADER, decoding=drawn)


def _screen(
    pool: Pool, asked: Protocol, law: Rules, out: Path, model: str | None, recipe: Recipe | None,
    by: str | None, batch: int | None, workers: int | None, cache: bool, progress: Any,
) -> tuple[Screened, dict[str, Any]]:  # fmt: skip
    from repro.cli_eval import Reading, means_for
    from repro.measure import answering
    from repro.selection import files
    from repro.selection.screen import Asking, screen

    answerer, weights = answering(model, recipe)
    asked, identity = answerer.under(asked), asdict(weights)

    def source(sample: Sample) -> str:
        return files.source(sample, pool.benchmark.name, by)

    with ExitStack() as stack:
        reading = Reading("auto", workers, 120.0, cache, batch)
        means = stack.enter_context(means_for(answerer, pool.benchmark, reading))
        clips = means.decoding.clips(asked) if means.decoding else None
        asking = Asking(answerer, asked, identity, clips, means.replies, batch)
        found = screen(pool.benchmark, asking, law, out, source=source, progress=progress)
    return found, {"model": identity, "protocol": asked.hash}


def _conclude(
    pool: Pool, screened: Screened, law: Rules, budget: int | None, given: dict[str, int],
    facts: dict[str, Any], out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Decide, and write everything that is left in the folder."""
    from repro.folder import write_json
    from repro.selection import files, page, rules

    first = [rules.decide(tried, law) for tried in screened.tried]
    quotas = rules.quotas(first, budget, given)
    decisions = rules.choose(first, quotas, law.seed)
    files.write(out, pool, decisions, rules.controls(decisions, law.seed))
    found = files.summary(decisions, law, quotas, screened.replies, screened.tokens)
    b = pool.benchmark
    short = {name: n - found["sources"][name]["kept"] for name, n in given.items()}
    found |= {"wanted": budget, "short": {name: n for name, n in short.items() if n > 0}}
    found |= {"data": {"name": b.name, "split": b.split, "revision": b.revision,
                       "sha256": b.sha256}, **facts}  # fmt: skip
    write_json(out / files.SUMMARY, found)
    title = f"{b.name} {b.split}, tried by {facts['model']['id']}"
    (out / files.PAGE).write_text(page.build(decisions, found, law, title), encoding="utf-8")
    return found


def _budget(keep: str | None, pool: int) -> int | None:
    """`10%` of the pool or a number of samples."""
    if keep is None:
        return None
    text = keep.strip()
    try:
        n = round(pool * float(text[:-1]) / 100) if text.endswith("%") else int(text)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{keep!r} is neither a number nor a share like 10%") from None
    if n < 1:
        raise click.BadParameter(f"{keep!r} of {pool} samples is less than one")
    return n


def _quotas(given: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not name or not number.isdecimal():
            raise click.BadParameter(f"{text!r} is not SOURCE=N")
        found[name] = int(number)
    return found


def _tell(found: dict[str, Any], out: Path) -> None:
    replies = found["replies"]
    table(
        ("source", "samples", "fit", "quota", "kept"),
        [
            (name, str(s["pool"]), str(s["fits"]), "all" if s["quota"] is None else str(s["quota"]),
             str(s["kept"]))
            for name, s in found["sources"].items()
        ],
    )  # fmt: skip
    click.echo(
        f"{found['kept']} of {found['pool']} samples kept; {replies['spent']} replies instead of "
        f"{replies['all_tries']}, {100 * replies['saved']:.1f} % saved"
    )
    if (found["wanted"] or 0) > found["kept"]:
        click.echo(f"{found['wanted'] - found['kept']} fewer than the {found['wanted']} asked for: "
                   f"{found['fits']} of the pool fit, within the quotas")  # fmt: skip
    for name, n in found["short"].items():
        click.echo(f"{n} fewer than the quota of {name}: no more of it fit")
    for name, of in found["left_out"].items():
        click.echo(f"left out {of['samples']} samples on {of['films']} films of {name}")
    if found["lost"]:
        click.echo(f"{found['lost']} samples have a clip that cannot be read: decisions.jsonl")
    click.echo(f"selected: {out / 'selected.jsonl'}\nplots: {out / 'selection.html'}")
