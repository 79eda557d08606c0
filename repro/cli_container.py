"""`repro container`: build, run, prove and pin the images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from repro import exits
from repro.options import FILE, FOLDER, PATH, json_option, show_json, table

TARGETS = ("cpu", "eval", "train")
image_option = click.option("--image", metavar="NAME", help="[default: reelproof:TARGET]")
target_option = click.option(
    "--target", type=click.Choice(TARGETS), default="cpu", show_default=True
)


@click.group()
def container() -> None:
    """Docker images and containers.

    \b
    Example:
      repro container build cpu && repro container run -- reproduce ktr
    """


@container.command()
@click.argument("target", type=click.Choice(TARGETS), default="cpu")
@click.option("--tag", help="[default: reelproof:TARGET]")
@click.option("--release", is_flag=True, help="Refuse an unpinned base and local changes.")
@click.option("--network", default="default", show_default=True, help="Network of the build steps.")
@click.option("--pip-conf", type=FILE, help="pip's settings, as a secret of the build (BuildKit).")
@click.option("--base", metavar="IMAGE", help="Another base for the cpu target.")
def build(
    target: str, tag: str | None, release: bool, network: str, pip_conf: Path | None,
    base: str | None,
) -> None:  # fmt: skip
    """Build an image with the docker client.

    pip's settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, ...) reach the build.

    \b
    Example:
      repro container build eval
    """
    from repro.image import build

    name = build(
        target, tag=tag or "", release=release, network=network, pip_conf=pip_conf,
        base={"CPU_BASE": base} if base else None,
        say=lambda text: click.echo(text, err=True),
    )  # fmt: skip
    click.echo(name)


@container.command(context_settings={"allow_interspersed_args": False})
@target_option
@image_option
@click.option("--runs", type=PATH, default=Path("runs"), show_default=True, help="As /runs.")
@click.option("--cache", type=PATH, help="As /cache/hf.  [default: $HF_HOME]")
@click.option("--data", type=FOLDER, help="Benchmarks' data, read-only, as $REELPROOF_DATA.")
@click.option("--model", type=FOLDER, help="A checkpoint, read-only, as /model.")
@click.option("--gpus", metavar="all|none|0,1", help="[default: all, none for the cpu target]")
@click.option("--user", metavar="UID:GID", help="[default: you]")
@click.option("--offline", is_flag=True, help="No network, and the hub's offline mode.")
@click.option("--shm", default="16g", show_default=True, help="Size of /dev/shm.")
@click.option("--ipc", type=click.Choice(["private", "host"]), default="private", show_default=True)
@click.option("--writable", is_flag=True, help="The image's own files may be written.")
@click.option("--env", "env", multiple=True, metavar="NAME", help="Pass a variable on; repeatable.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    target: str, image: str | None, runs: Path, cache: Path | None, data: Path | None,
    model: Path | None, gpus: str | None, user: str | None, offline: bool, shm: str, ipc: str,
    writable: bool, env: tuple[str, ...], command: tuple[str, ...],
) -> None:  # fmt: skip
    """Run a repro command in a container; its exit code is passed on.

    Ctrl-C stops the container, which saves a checkpoint first.

    \b
    Examples:
      repro container run -- reproduce ktr
      repro container run --target eval --model DIR -- eval --benchmark mmvu --model /model
    """
    import os

    from repro.container import Setting
    from repro.container import image as named
    from repro.container import run as start

    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    setting = Setting(
        image or named(target), command, runs=runs, cache=cache or home, data=data, model=model,
        gpus=gpus or ("none" if target == "cpu" else "all"), user=user or "", offline=offline,
        shm=shm, ipc="host" if ipc == "host" else "private", writable=writable, env=env,
    )  # fmt: skip
    code = start(setting)
    if code:
        raise click.exceptions.Exit(code)


@container.command()
@target_option
@image_option
@click.option("--gpus", metavar="all|none|0,1", default="none", show_default=True)
@json_option
def smoke(target: str, image: str | None, gpus: str, as_json: bool) -> None:
    """Prove an image: help, doctor, an oracle, training (eval: a model); foreign users, no network,
    read-only.

    Exit code 6 if a rung fails.

    \b
    Example:
      repro container smoke --target eval --gpus all
    """
    from repro.container import image as named
    from repro.image import climb

    found = []
    for rung in climb(image or named(target), target, gpus):
        found.append(rung)
        if not as_json:
            click.echo(f"{'ok' if rung.ok else 'FAILED':7}{rung.name:22}{rung.seconds:6.1f} s")
        if rung.said:
            click.echo(rung.said, err=True)
    if as_json:
        show_json([asdict(rung) for rung in found])
    if not all(rung.ok for rung in found):
        raise click.exceptions.Exit(exits.REGRESSION)


@container.command()
@click.option("--file", "path", type=FILE, help="[default: docker/bases.lock]")
@json_option
def lock(path: Path | None, as_json: bool) -> None:
    """Ask the registry for the digests of the base images and write docker/bases.lock.

    \b
    Example:
      repro container lock
    """
    from repro.container import BASES
    from repro.container import lock as pin

    found = pin(path or BASES)
    if as_json:
        show_json([asdict(base) for base in found])
    else:
        table(("argument", "tag", "digest"), [(b.argument, b.tag, b.digest) for b in found])
