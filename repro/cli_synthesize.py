"""`repro data synthesize`, `calibrate` and `marks`: records from unlabelled videos, and how good
answers to them are."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.options import FOLDER, PATH, as_dict, json_option, numbers, show_json, table

if TYPE_CHECKING:
    from repro.mvp.synthesis.make import Made

MVP = click.Choice(["mvp"])


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """What pass 1 is told, and who does it."""
    for option in reversed((
        click.option("--videos", type=FOLDER, required=True, help="Every video below it is used."),
        click.option("--cache", type=PATH,
                     help="Of what was decoded.  [default: $REELPROOF_CACHE/mvp]"),
        click.option("--embedder", default="built-in", show_default=True,
                     help="built-in, clip or clip:FOLDER."),
        click.option("--fps", type=click.FloatRange(0, min_open=True), default=1.0,
                     show_default=True, help="Pictures a second."),
        click.option("--frames", type=click.IntRange(8), default=16, show_default=True,
                     help="N: pictures kept per item, masked ones included."),
        click.option("--shortest", type=click.FloatRange(0), default=24.0, show_default=True,
                     help="Seconds that a video must have after trimming."),
        click.option("--keep-bars", is_flag=True, help="Do not cut off black bars."),
        click.option("--workers", type=click.IntRange(1),
                     help="Decoding processes.  [default: cores]"),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("paper", type=MVP)
@_shared
@click.option(
    "--out", type=PATH, required=True, help="Records, pictures, and index.html to look at."
)
@click.option(
    "--excluding", type=FOLDER, help="Videos of benchmarks, say: what shows the same is left out."
)
@click.option(
    "--kappa", type=click.FloatRange(0, 1), help="Alike above it.  [default: the embedder's]"
)
@click.option("--k", default="2,3,4", show_default=True, callback=numbers, help="Missing pictures.")
@click.option("--distractors", type=click.IntRange(1), help="[default: as many as are missing]")
@click.option(
    "--per-film",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Items of each K from a video, at most.",
)
@click.option("--guard", is_flag=True, help="Leave out the pictures that touch the gap.")
@click.option("--wording", type=click.Choice(["full", "short"]), default="full", show_default=True)
@click.option(
    "--context",
    type=click.Choice(["pictures", "clip"]),
    default="pictures",
    show_default=True,
    help="What surrounds the gap, as pictures or as a video.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def synthesize(
    paper: str, videos: Path, cache: Path | None, embedder: str, fps: float, frames: int,
    shortest: float, keep_bars: bool, workers: int | None, out: Path, excluding: Path | None,
    kappa: float | None, k: tuple[int, ...], distractors: int | None, per_film: int, guard: bool,
    wording: Any, context: Any, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Training records of a paper from any folder of videos.

    mvp: some consecutive pictures of a video are taken out, and have to be found among others of
    the same video and put in order. Run it again after an interruption: it continues. What was
    decoded is kept, so other numbers need another --out but no second decoding. What gave no items
    is counted by reason and never stops the run.

    \b
    Examples:
      repro data synthesize mvp --videos films --out mvp-records
      repro eval --benchmark jsonl --data mvp-records/records.jsonl --model DIR --out scores
    """
    from rich.console import Console

    from repro.machine import cores
    from repro.mvp.synthesis import embed, make
    from repro.mvp.synthesis.films import Filming
    from repro.mvp.synthesis.items import Sampling
    from repro.show import showing

    if not k or min(k) < 1 or len(set(k)) < len(k) or max(k) + 6 > frames:
        raise click.BadParameter(
            f"{','.join(map(str, k))}: different numbers from 1 to {frames - 6}, since 3 of the "
            f"{frames} pictures must remain on each side", param_hint="--k",
        )  # fmt: skip
    start = embed.KAPPA.get(embedder.partition(":")[0], 0.0)
    sampling = Sampling(
        start if kappa is None else kappa, tuple(k), frames, distractors, per_film, shortest,
        guard=guard, seed=seed,
    )  # fmt: skip
    settings = make.Settings(Filming(fps, bars=keep_bars), sampling, embedder, wording, context)
    with showing(Console(stderr=True)) as show:
        made = make.synthesize(
            videos, out, settings, cache or _cache(), workers=workers or cores(),
            excluding=excluding, progress=show.update,
        )  # fmt: skip
    if as_json:
        show_json({**as_dict(made), "records": str(out / "records.jsonl")})
    else:
        _print(made, out)
        if context == "clip":
            most = frames - min(k) + 4  # the grey ones, and one filling on each side
            click.echo(f"show them whole: max_frames of {most} or more, else the gap may be lost")


def _cache() -> Path:
    from evals.microworld import default_cache

    return default_cache() / "mvp"


def _print(made: Made, out: Path) -> None:
    table(("videos", ""), [(outcome, f"{n:,}") for outcome, n in made.videos.items()])
    click.echo("items: " + ", ".join(f"{n:,} of K = {k}" for k, n in made.items.items()))
    if total := sum(made.cost.values()):
        shares = ", ".join(f"{what} {c / total:.0%}" for what, c in made.cost.items() if c)
        click.echo(
            f"{made.hours:.2f} hours of video, {3600 * made.hours / total:.0f} x real time per "
            f"core ({shares})"
        )
    for row in made.audits:
        if not row["ok"]:
            keys = [key for key in ("sel", "chance", "bound", "p") if key in row]
            said = ", ".join(f"{key} {row[key]}" for key in keys)
            click.echo(f"AUDIT K = {row['k']}, {row['audit']}: {said}")
    click.echo(f"records: {out / 'records.jsonl'}\nto look at: {out / 'index.html'}")


@click.command()
@click.argument("paper", type=MVP)
@_shared
@click.option(
    "--most",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Videos, the first ones by path.",
)
@json_option
def calibrate(
    paper: str, videos: Path, cache: Path | None, embedder: str, fps: float, frames: int,
    shortest: float, keep_bars: bool, workers: int | None, most: int, as_json: bool,
) -> None:  # fmt: skip
    """The kappa at which an embedder thins out a corpus as wanted, and the curve behind it.

    Wanted: a median of 2 to 4 seconds between kept pictures, and 70 % of the videos of a minute or
    more reach N. Exit code 5 if no kappa does that: see the curve, and choose with --kappa.

    \b
    Example:
      repro data calibrate mvp --videos films
    """
    from rich.console import Console

    from repro import exits
    from repro.machine import cores
    from repro.mvp.synthesis import calibrate as calibration
    from repro.mvp.synthesis import make
    from repro.mvp.synthesis.films import Filming
    from repro.mvp.synthesis.items import Sampling
    from repro.mvp.synthesis.seeing import see
    from repro.mvp.synthesis.store import Store
    from repro.show import showing

    where, filming = cache or _cache(), Filming(fps, bars=keep_bars)
    with showing(Console(stderr=True)) as show:
        seen = see(
            videos, where, filming, embedder, workers=workers or cores(), progress=show.update,
            most=most,
        )  # fmt: skip
    store, name = Store(where, filming), make.embedder_name(embedder)
    films = [store.load(s, name) for s in dict.fromkeys(x.sha256 for x in seen) if s]
    points = calibration.curve(films, Sampling(0.0, frames=frames, shortest=shortest))
    best = calibration.proposed(points)
    if as_json:
        show_json({"kappa": best and best.kappa, "curve": [as_dict(p) for p in points]})
    else:
        table(
            ("kappa", "median step", "long videos reaching N", ""),
            [(f"{p.kappa:.2f}", f"{p.step:.1f} s", f"{p.reach:.0%}", "fits" if p.ok else "")
             for p in points],
        )  # fmt: skip
        words = ["repro", "data", "synthesize", paper, "--videos", str(videos), "--out", "OUT"]
        said = {"embedder": embedder, "fps": fps, "frames": frames, "shortest": shortest,
                "kappa": best and best.kappa}  # fmt: skip
        words += [word for name, value in said.items() for word in (f"--{name}", str(value))]
        words += ["--keep-bars"] * keep_bars
        click.echo(shlex.join(words) if best else "no kappa does what is wanted")
    if best is None:
        raise click.exceptions.Exit(exits.INCONCLUSIVE)


@click.command("marks")
@click.argument("paper", type=MVP)
@click.argument("runs", type=FOLDER, nargs=-1, required=True)
@json_option
def marks_(paper: str, runs: tuple[Path, ...], as_json: bool) -> None:
    """How good a model's answers to masked-prediction questions are, beside a guesser's.

    sel: share of the missing pictures that were picked; ord: of their pairs in the right order;
    exact: all right. RUNS are folders of repro eval.

    \b
    Example:
      repro data marks mvp runs/mvp-micro
    """
    from repro.conclude import ledger_errors
    from repro.mvp.marks import NAMES, by_tier
    from results import ledger

    with ledger_errors():
        read = [run for folder in runs for run in ledger.load(folder)]
    found = [(run.record.arm, run.record.seed, tier) for run in read for tier in by_tier(run.rows)]
    if as_json:
        show_json([{"arm": arm, "seed": seed, **as_dict(tier)} for arm, seed, tier in found])
        return
    rows = [
        (arm, str(seed), f"{tier.k} of {tier.m}", f"{tier.n:,}",
         *(f"{getattr(tier.found, n):.3f} ({getattr(tier.chance, n):.3f})" for n in NAMES))
        for arm, seed, tier in found
    ]  # fmt: skip
    table(("arm", "seed", "K", "replies", *(f"{name} (chance)" for name in NAMES)), rows)
