"""`repro teacher`: FFR's teacher, tried on one example, served to a trainer elsewhere, replayed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro import exits
from repro.options import FILE, FOLDER, PATH, json_option, show_json, table

if TYPE_CHECKING:
    from repro.ffr.probe import Probed
    from repro.ffr.service import Service

teacher_option = click.option(
    "--teacher", "name", default="oracle", show_default=True,
    help="oracle, random_interval, retry, null, leaky, openai:MODEL@URL, remote:URL, replay:FILE.",
)  # fmt: skip
data_option = click.option(
    "--data", type=FILE, help="Records, .json or .jsonl.  [default: films made here]"
)
videos_option = click.option(
    "--videos", type=FOLDER, help="Folder of the records' videos.  [default: beside --data]"
)

blind_option = click.option(
    "--blind", type=FOLDER, metavar="CHECKPOINT",
    help="Add the blind test by this student, which sees no video.",
)  # fmt: skip
prompt_option = click.option(
    "--prompt", default="video-r1", show_default=True, help="How that student is asked."
)


@click.group()
def teacher() -> None:
    """FFR's teacher: who tells a student where to look.

    \b
    Examples:
      repro teacher probe
      repro teacher probe --teacher leaky
    """


@teacher.command()
@teacher_option
@data_option
@videos_option
@click.option("--record", metavar="ID", help="Of which record.  [default: the first video's]")
@click.option("--reply", help="What the student said.  [default: a wrong answer]")
@click.option(
    "--frames", type=click.IntRange(1, 64), default=16, show_default=True, help="Shown frames."
)
@click.option(
    "--fields", type=click.Choice(["all", "content", "no_visual"]), default="all",
    show_default=True, help="What of a patch the student reads.",
)  # fmt: skip
@blind_option
@prompt_option
@json_option
def probe(
    name: str, data: Path | None, videos: Path | None, record: str | None, reply: str | None,
    frames: int, fields: Any, blind: Path | None, prompt: str, as_json: bool,
) -> None:  # fmt: skip
    """Send one example: the patch, the leak gate's view of it, and what the student would read.

    The key of an openai: teacher is read from $REPRO_TEACHER_KEY, its address, where the name has
    none, from $REELPROOF_TEACHER_URL. Exit code 4 if the teacher does
    not answer.

    \b
    Examples:
      repro teacher probe
      repro teacher probe --teacher leaky --json
      repro teacher probe --teacher "openai:glm@http://localhost:8000/v1?tools=1"
    """
    from repro.ffr import probe as probing
    from repro.ffr.asking import addressed
    from repro.ffr.teacher import named

    found, _ = probing.samples(data, videos)
    sample = probing.chosen(found, record)
    gate = probing.gate_with(blind, prompt)
    probed = probing.probe(
        named(addressed(name)), sample, reply=reply, frames=frames, fields=fields, gate=gate
    )
    if as_json:
        show_json(probed.as_dict())
    else:
        _show(probed)
    if probed.repair.status in ("timeout", "backend_error", "circuit_open"):
        raise click.exceptions.Exit(exits.ENVIRONMENT)


def _show(probed: Probed) -> None:
    from repro.ffr.patch import as_json

    record, repair = probed.failure.record, probed.repair
    used = ", ".join(f"{n} {what}" for what, n in repair.usage.items())
    table(
        ("", ""),
        [
            ("record", f"{record.id}, {record.media}"),
            ("question", " | ".join((record.question, *record.options))),
            ("gold", record.gold),
            ("student", probed.failure.reply),
            ("status", f"{repair.status}, {repair.seconds:.2f} s" + (f", {used}" if used else "")),
        ],
    )
    if probed.why:
        click.echo(f"why: {probed.why}")
    if probed.alarm:
        click.echo(f"alarm: {probed.alarm}")
    if probed.patch is not None:
        click.echo(f"\npatch: {as_json(probed.patch)}\n")
        table(("gate", ""), [(stage, probed.view(stage)) for stage in probed.stages])
    if probed.reading:
        click.echo(f"\nthe student reads, after the question:{probed.reading}")


@teacher.command()
@click.argument("cache", type=FILE)
@data_option
@videos_option
@json_option
def replay(cache: Path, data: Path | None, videos: Path | None, as_json: bool) -> None:
    """What a cache of patches holds, and what today's leak gate says of it; no teacher is asked.

    To train from it, name the teacher replay:FILE.

    \b
    Example:
      repro teacher replay runs/patches.sqlite --data records.jsonl
    """
    from repro.ffr import probe as probing
    from repro.ffr.cache import Cache

    found = probing.samples(data, videos)[0] if data else ()
    replayed = probing.replay(Cache(cache, readonly=True), found)
    if as_json:
        show_json(replayed.as_dict())
        return
    table(
        ("teacher", "outcome", "kept"),
        [(who, status, str(n)) for (who, status), n in replayed.by.items()],
    )
    refused = ", ".join(f"{n} by {stage}" for stage, n in replayed.refused.items())
    click.echo(
        f"\n{replayed.judged} patches judged again, refused: {refused or 'none'}; "
        f"{replayed.unknown} without their record (--data)"
    )


@teacher.command()
@teacher_option
@click.option("--data", type=FILE, required=True, help="Records that may be asked about.")
@videos_option
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
@click.option("--cache", type=PATH, help="Where patches are kept.  [default: nowhere]")
@click.option(
    "--match", type=click.Choice(["exact", "by_answer"]), default="exact", show_default=True,
    help="Whether a kept patch fits the same reply, or any reply with the same answer.",
)  # fmt: skip
@click.option(
    "--gate", type=click.Choice(["on", "audit", "off"]), default="on", show_default=True,
    help="Refuse leaks, only count them, or do not look.",
)  # fmt: skip
@blind_option
@prompt_option
@click.option("--parallel", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option(
    "--timeout", type=click.FloatRange(1, 600), default=60.0, show_default=True,
    help="Seconds for one try.",
)  # fmt: skip
def serve(
    name: str, data: Path, videos: Path | None, port: int, cache: Path | None, match: Any,
    gate: str, blind: Path | None, prompt: str, parallel: int, timeout: float,
) -> None:  # fmt: skip
    """Offer a teacher to a trainer elsewhere, as remote:URL; until Ctrl-C.

    It listens on 127.0.0.1 (use an ssh tunnel) and wants $REPRO_TEACHER_TOKEN, the same on both
    sides. Only records of --data can be asked about; golds and a teacher's reasoning stay here.

    \b
    Example:
      repro teacher serve --teacher openai:glm@http://localhost:8000/v1 --data records.jsonl
    """
    from dataclasses import replace

    from evals.decoding import Decoding
    from evals.decoding import Limits as Reading
    from repro.ffr import probe as probing
    from repro.ffr.cache import Cache
    from repro.ffr.remote import token
    from repro.ffr.serve import PIXELS, Desk, Library, server
    from repro.ffr.service import Limits, Service
    from repro.ffr.teacher import named

    secret = token()
    found, root = probing.samples(data, videos)
    kept = Cache(cache, match=match) if cache else None
    rules = probing.gate_with(blind, prompt)
    asked = None if gate == "off" else replace(rules, audit=gate == "audit")
    limits = Limits(parallel=parallel, timeout=timeout)
    with (
        Decoding(limits=Reading(pixels=PIXELS)) as decoding,
        Service(named(name, decoding.read), asked, kept, limits) as service,
        server(Desk(service, Library(found, root, decoding.read)), port, secret) as http,
    ):
        click.echo(f"serving {name} for {len(found)} records: remote:{_address(http)}")
        try:
            http.serve_forever()
        except KeyboardInterrupt:
            _summary(service)


def _address(http: Any) -> str:
    return f"http://127.0.0.1:{http.server_port}"


def _summary(service: Service) -> None:
    counts = ", ".join(f"{n} {what}" for what, n in sorted(service.counts.items()))
    click.echo(f"served: {counts or 'nothing'}")
