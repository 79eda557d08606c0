"""`repro eval`: ask a model a benchmark's questions, plainly and under probes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from repro import exits
from repro.options import (
    FILE,
    FOLDER,
    PATH,
    as_dict,
    json_option,
    profile_option,
    show_json,
    table,
)

if TYPE_CHECKING:
    from evals.benchmarks import Benchmark
    from evals.models import Model
    from evals.types import Protocol
    from repro.measure import Label, Means, Weights
    from results.ledger import Run

#: evals.probes.NAMES, written out so that --help imports nothing of it.
PROBES = ("no-video", "one-frame", "shuffled", "reversed", "other-video", "rotate-options")


@click.command("eval")
@click.option("--recipe", help="Take protocol, benchmark and sampling from this recipe.")
@profile_option
@click.option("--benchmark", help="Id of a benchmark (repro list).  [default: the recipe's]")
@click.option("--split", help="[default: the recipe's, else the one that papers report]")
@click.option("--subset", help="Parts of the benchmark, with commas.  [default: the protocol's]")
@click.option(
    "--protocol",
    help="official, video-r1@32f, ffr, temporal-r1, lmms-eval, vlmevalkit@64frame, ..."
    "  [default: the recipe's, else as Video-R1 asks]",
)
@click.option("--data", type=FILE, help="Your records, for --benchmark jsonl.")
@click.option(
    "--root", "--videos", "videos", type=FOLDER,
    help="Your copy of the benchmark's data, or the folder that paths in --data start from."
    "  [default: $REELPROOF_DATA/BENCHMARK]",
)  # fmt: skip
@click.option(
    "--model",
    help="Checkpoint folder, vllm:FOLDER, openai:MODEL@URL, oracle, parrot or random."
    "  [default: the recipe's]",
)
@click.option("--arm", help="Name in the record.  [default: the model's]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws.")
@click.option("--samples", type=click.IntRange(1), help="Replies per question.")
@click.option("--temperature", type=click.FloatRange(0), help="0 is greedy.")
@click.option("--greedy", is_flag=True, help="One reply at temperature 0.")
@click.option(
    "--probe", "probes", multiple=True, type=click.Choice(PROBES),
    help="Ask again with the video hidden, disordered, ...; may be repeated. Each difference to "
    "the plain run is shown with its interval over videos.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(1), help="First questions only; the run is then partial."
)
@click.option("--save-replies", is_flag=True, help="Keep the texts in the rows.")
@click.option("--batch", type=click.IntRange(1), help="Questions at once.  [default: 64 replies]")
@click.option(
    "--decoder", type=click.Choice(["auto", "pyav", "decord"]), default="auto", show_default=True,
    help="Who decodes videos; auto is decord for films made here, PyAV for all others.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes.  [default: cores - 1, up to 8]"
)
@click.option(
    "--clip-seconds", type=click.FloatRange(min=0, min_open=True), default=120.0,
    show_default=True, help="A clip that takes longer to read is a timeout.",
)  # fmt: skip
@click.option(
    "--cache/--no-cache", default=True, show_default=True,
    help="Look replies and frames up in $REELPROOF_CACHE and keep new ones there.",
)  # fmt: skip
@click.option(
    "--out", type=PATH,
    help="Where record.json and rows.jsonl.gz go.  [default: runs/BENCHMARK-ARM-sSEED]",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Keep the questions already answered in --out.")
@click.option(
    "--every-cell", is_flag=True,
    help="Every benchmark and protocol of the recipe's `scoring`, a folder each below --out.",
)  # fmt: skip
@click.option(
    "--harness", type=click.Choice(["lm-eval"]),
    help="Hand --tasks over to lm-evaluation-harness; no record is filed.",
)  # fmt: skip
@click.option("--tasks", metavar="A,B", help="For --harness: its tasks, or benchmarks of ours.")
@click.option("--include-path", type=FOLDER, help="For --harness: folder of further task files.")
@json_option
def eval_(
    recipe: str | None, profile: str, benchmark: str | None, split: str | None,
    subset: str | None, protocol: str | None, data: Path | None, videos: Path | None,
    model: str | None, arm: str | None, seed: int, samples: int | None,
    temperature: float | None, greedy: bool, probes: tuple[str, ...], limit: int | None,
    save_replies: bool, batch: int | None, decoder: str, workers: int | None,
    clip_seconds: float, cache: bool, out: Path | None, resume: bool, every_cell: bool,
    harness: str | None, tasks: str | None, include_path: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Evaluate a model and file its record.

    Own records are asked as Video-R1 asks; with --recipe as that recipe trains and asks.

    \b
    Examples:
      repro eval --benchmark microworld --model oracle --out runs/oracle
      repro eval --benchmark mmvu --protocol video-r1@32f --root ~/data/mmvu --model DIR
      repro eval --benchmark jsonl --data my.jsonl --videos films --model DIR --out runs/mine
      repro eval --recipe ktr --probe no-video --probe shuffled --out runs/probed
      repro eval --recipe ktr --profile paper --every-cell --model vllm:Video-KTR/Video-KTR-7B
      repro eval --harness lm-eval --tasks arc_easy,hellaswag --model DIR
    """
    if harness:
        _by_harness(tasks, model, recipe, profile, include_path, limit, seed, videos, data, as_json)
        return
    if model is None and recipe is None:
        raise click.UsageError("name a model: --model DIR, or --recipe for its start checkpoint")
    if benchmark is None and recipe is None and not every_cell:
        raise click.UsageError("name a benchmark, for example: --benchmark microworld")
    reading = Reading(decoder, workers, clip_seconds, cache, batch)
    if every_cell:
        given = {"--benchmark": benchmark, "--split": split, "--subset": subset, "--data": data,
                 "--protocol": protocol, "--root": videos, "--probe": probes, "--greedy": greedy,
                 "--samples": samples, "--temperature": temperature}  # fmt: skip
        if recipe is None or any(given.values()):
            raise click.UsageError("--every-cell needs --recipe, which says what is asked and how: "
                                   f"leave {', '.join(k for k, v in given.items() if v)} out"
                                   if recipe else "--every-cell needs --recipe")  # fmt: skip
        with exits.continues(exits.resuming(resume)):
            _every_cell(
                recipe, profile, model, arm, seed, limit, save_replies, resume, out, reading
            )
        return
    from repro.measure import Label, answering, asking

    chosen, loaded, law = asking(
        recipe, profile, benchmark, split, data, videos, seed, greedy, samples, temperature,
        protocol, subset,
    )  # fmt: skip
    answerer, weights = answering(model, chosen)
    label = Label(
        paper=chosen.paper if chosen else "own",
        profile=chosen.profile_name if chosen else "own",
        arm=arm or _plain(answerer.name),
        seed=seed,
    )
    asked = _Asked(answerer, weights, loaded, law, label, limit, save_replies, resume)
    out = out or Path("runs") / f"{loaded.name}-{label.arm}-s{seed}"
    with exits.continues(exits.resuming(resume)):
        runs = _evaluate(asked, out, dict.fromkeys(probes), reading)
    _tell(runs, loaded, out, as_json)


class _Asked(NamedTuple):
    model: Model
    weights: Weights
    benchmark: Benchmark
    protocol: Protocol
    label: Label
    limit: int | None
    save_replies: bool
    resume: bool
    trained: Path | None = None


class Reading(NamedTuple):
    """Who decodes, in how many processes, for how long; whether caches and what batch are used."""

    decoder: str
    workers: int | None
    seconds: float
    cache: bool
    batch: int | None


def _evaluate(
    asked: _Asked, out: Path, probes: dict[str, None], reading: Reading
) -> dict[str | None, Run]:
    """The plain run in `out`, every probe in `out`/PROBE; by probe, None the plain one."""
    from rich.console import Console

    from repro import folder
    from repro.show import showing

    runs: dict[str | None, Run] = {}
    with (
        folder.writing(out, resume=asked.resume),
        showing(Console(stderr=True)) as show,
        _means(asked, reading) as means,
    ):
        for probe in (None, *probes):
            name = f"{asked.label.arm} {probe}" if probe else asked.label.arm
            runs[probe] = _run(
                asked, out / probe if probe else out, probe, means,
                lambda n, of, name=name: show.update(name, n, of),
            )  # fmt: skip
    return runs


def _run(asked: _Asked, out: Path, probe: str | None, means: Means, progress: Any) -> Run:
    from repro.measure import finished, measure, noting_failure

    out.mkdir(parents=True, exist_ok=True)
    done = finished(
        asked.model, asked.weights, asked.benchmark, asked.protocol, asked.label, out,
        limit=asked.limit, probe=probe,
    ) if asked.resume else None  # fmt: skip
    if done:
        return done
    with noting_failure(out, asked.label, asked.weights.id, asked.benchmark.name, asked.protocol):
        return measure(
            asked.model, asked.weights, asked.benchmark, asked.protocol, asked.label, out,
            limit=asked.limit, save_replies=asked.save_replies, progress=progress, probe=probe,
            means=means, trained=asked.trained,
        )  # fmt: skip


def _every_cell(
    recipe: str, profile: str, model: str | None, arm: str | None, seed: int, limit: int | None,
    save_replies: bool, resume: bool, out: Path | None, reading: Reading,
) -> None:  # fmt: skip
    """One model, loaded once, on everything that `scoring` asks; a line in cells.jsonl for each."""
    import json
    from dataclasses import replace

    from rich.console import Console

    from evals import benchmarks
    from repro import folder
    from repro.grid import CELLS, DONE, grid
    from repro.measure import Label, answering, numbers
    from repro.recipe import Recipe
    from repro.show import showing

    chosen = Recipe.load(recipe, profile)
    askings = grid(chosen, arm if arm in chosen.arms else None)
    if not askings:
        raise click.UsageError(f"{recipe} has no section scoring in profile {profile}")
    answerer, weights = answering(model, chosen)
    label = Label(chosen.paper, chosen.profile_name, arm or _plain(answerer.name), seed)
    home = Path((model or "").removeprefix("vllm:")).parent
    trained = home if (home / "done.json").exists() else None
    out = out or Path("runs") / f"cells-{label.arm}-s{seed}"
    loaded: dict[tuple[str, str], Benchmark] = {}
    with folder.writing(out, resume=resume), showing(Console(stderr=True)) as show:
        (out / CELLS).unlink(missing_ok=True)
        means: Means | None = None
        with ExitStack() as stack:
            for asking in askings:
                law = asking.protocol
                key = (asking.benchmark, law.subset)
                if key not in loaded:
                    loaded[key] = benchmarks.load(asking.benchmark, subset=law.subset)
                law = replace(law, decoding=replace(law.decoding, seed=seed))
                asked = _Asked(answerer, weights, loaded[key], law, label, limit, save_replies,
                               True, trained)  # fmt: skip
                means = means or stack.enter_context(_means(asked, reading))
                run = _run(asked, out / asking.name, None, means,
                           lambda n, of, name=asking.name: show.update(name, n, of))  # fmt: skip
                numbers(run, loaded[key], out / asking.name)
                line = {"cell": asking.name, "score": run.record.score, "n": run.record.n}
                with (out / CELLS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                show.say(f"{asking.name}: {100 * run.record.score:.1f} % of {run.record.n}")
        folder.write_json(out / DONE, {"cells": len(askings)})


@contextmanager
def _means(asked: _Asked, reading: Reading) -> Iterator[Means]:
    with means_for(asked.model, asked.benchmark, reading) as means:
        yield means


@contextmanager
def means_for(model: Model, benchmark: Benchmark, reading: Reading) -> Iterator[Means]:
    """Decoder processes where the model sees, the cache of replies where it can be cached."""
    from evals.decoding import Decoding, Limits
    from evals.microworld import default_cache
    from evals.replies import ReplyCache
    from repro.machine import cores
    from repro.measure import Means

    cache = default_cache() if reading.cache else None
    with ExitStack() as stack:
        decoding = replies = None
        if model.sees:
            decoding = stack.enter_context(
                Decoding(
                    decoder=_decoder(reading.decoder, benchmark),
                    workers=reading.workers or min(8, max(1, cores() - 1)),
                    limits=Limits(seconds=reading.seconds),
                    cache=cache,
                )
            )
        if cache and model.identity is not None:
            replies = stack.enter_context(ReplyCache(cache / "replies.sqlite"))
        yield Means(decoding, replies, reading.batch)


def _decoder(asked: str, benchmark: Benchmark) -> Any:
    """auto: decord only for films whose every GOP stands alone for sure, those made here."""
    if asked != "auto":
        return asked
    from evals.decoder_process import versions

    return "decord" if benchmark.name == "microworld" and "decord" in versions() else "pyav"


def _by_harness(
    tasks: str | None, model: str | None, recipe: str | None, profile: str,
    include_path: Path | None, limit: int | None, seed: int, root: Path | None, data: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Benchmarks of ours are asked as --recipe says, else as Video-R1 does; greedy."""
    if not tasks or (model is None and recipe is None):
        raise click.UsageError("--harness needs --tasks A,B and --model DIR, or --recipe")
    from evals.lm_harness import plain, run
    from repro.measure import answering
    from repro.options import words
    from repro.recipe import Recipe

    chosen = Recipe.load(recipe, profile) if recipe else None
    answerer, _ = answering(model, chosen)
    protocol = chosen.protocol(chosen.decoding(greedy=True)) if chosen else None
    results = run(
        answerer, words(tasks), protocol=protocol, limit=limit, include_path=include_path,
        root=root, data=data, seed=seed,
    )  # fmt: skip
    found = plain(results)
    if as_json:
        show_json(found)
        return
    table(
        ("task", "metric", "value"),
        (
            (task, name, f"{value:.4f}")
            for task, values in found.items()
            for name, value in values.items()
        ),
    )


def _plain(name: str) -> str:
    """A model's name as a part of a path."""
    kept = "".join(c if c.isalnum() or c in "_.-" else "-" for c in name)
    return kept.strip("-.")[:80] or "model"


def _tell(runs: dict[str | None, Run], benchmark: Benchmark, out: Path, as_json: bool) -> None:
    from evals.run import BACKWARDS
    from repro.folder import read_json
    from repro.measure import WORK, numbers
    from repro.probing import gain
    from results.policy import load_policy

    plain = runs[None]
    policy = load_policy()
    gains = {p: gain(p, plain, run, policy) for p, run in runs.items() if p}
    work = read_json(out / WORK) if (out / WORK).exists() else {}
    if as_json:
        probed = {"probes": {p: g.as_dict() for p, g in gains.items()}} if gains else {}
        found = {"numbers": numbers(plain, benchmark, out)} if benchmark.card else {}
        show_json({**as_dict(plain.record), **found, "work": work, **probed})
        return
    record = plain.record
    part = " (partial)" if record.partial else ""
    counts = ", ".join(f"{n} {name}" for name, n in record.outcomes.items())
    click.echo(f"{record.arm}: {100 * record.score:.1f} % of {record.n} questions{part} ({counts})")
    if benchmark.card:
        known = numbers(plain, benchmark, out).items()
        click.echo(", ".join(f"{name} {100 * x:.1f} %" for name, x in known))
    if work:
        click.echo(_cost(work))
    if gains:
        table(("probe", "score", "plain - probe", "interval", "name"), (g.line() for g in
              gains.values()))  # fmt: skip
    click.echo(f"record: {out / 'record.json'}")
    lost = [row.detail for row in plain.rows if row.outcome in ("undecodable", "timeout")]
    if lost:
        click.echo(f"{len(lost)} questions have a clip that cannot be read, first {lost[0]}")
    hopeless = {row.id for row in plain.rows if row.detail == BACKWARDS}
    if hopeless:
        click.echo(f"{len(hopeless)} questions nobody can win, first {min(hopeless)}: {BACKWARDS}")


def _cost(work: dict[str, Any]) -> str:
    parts = [f"coverage {100 * work['coverage']:.1f} %"]
    if work["asked"]:
        parts.append(f"model idle {100 * work['idle']:.1f} % of the time")
    if work["from_cache"]:
        parts.append(f"{work['from_cache']} questions answered from the cache")
    clips = ", ".join(f"{n} {name}" for name, n in sorted(work["clips"].items()))
    return ", ".join(parts) + (f"; clips: {clips}" if clips else "")
