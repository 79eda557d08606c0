"""Making an image and proving it: `repro container build` and `smoke`.

| rung   | what runs in the container                      | as, and how             |
|--------|-------------------------------------------------|-------------------------|
| help   | `repro --help`                                  | the image's user        |
| doctor | `repro doctor`                                  | the image's user        |
| oracle | an oracle's evaluation: 100 %                   | 12345:0 and 12345:12345 |
| model  | the student's evaluation (only target eval)     | the caller, no network  |
| train  | `repro smoke`: two training steps among others  | the caller, no network  |
|        | (not target eval, which cannot train)           |                         |
| gpu    | torch and vllm import and a GPU is seen         | the caller              |

Every rung runs with a read-only root, no capability and no new privileges.
"""

from __future__ import annotations

import functools
import os
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from evals.errors import BadInput, EnvironmentFault
from repro import container, machine
from repro.container import Base, Setting
from repro.exits import StageFailed

#: pip's settings that say where packages come from; passed on to a build where they are set.
PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_CERT")


def build(
    target: str,
    *,
    tag: str = "",
    release: bool = False,
    network: str = "default",
    pip_conf: Path | None = None,
    base: Mapping[str, str] | None = None,
    say: Callable[[str], object] = print,
) -> str:
    """Build a target with the docker client; the image's name.

    base: other bases than the lock's, by argument. Raises BadInput for a release with an unresolved
    base or local changes, and for settings that would leave a password in the image's history.
    """
    pinned = [b for b in container.bases() if b.argument not in (base or {})]
    commit = machine.git()
    _fit(target, pinned, commit, release, say)
    revision = f"{commit['commit'] or 'unknown'}{'-dirty' if commit['dirty'] else ''}"
    settings = {
        **{b.argument: b.reference for b in pinned},
        **(base or {}),
        "REVISION": revision,
        "CREATED": machine.committed_at(),  # not now: the same tree is the same image
        "SOURCE": machine.origin(),
    }
    name = tag or container.image(target)
    with sources(dict(os.environ)) as (pip, local):
        argv = ["docker", "build", "--target", target, "--tag", name,
                "--network", "host" if local else network]  # fmt: skip
        for key, value in {**settings, **pip}.items():
            argv += ["--build-arg", f"{key}={value}"]
        if pip_conf is not None:
            argv += ["--secret", f"id=pip.conf,src={pip_conf.absolute()}"]
        classic = "0" if target == "cpu" and pip_conf is None else "1"
        _client([*argv, str(machine.ROOT)], os.environ.get("DOCKER_BUILDKIT", classic))
    return name


def _fit(
    target: str,
    pinned: list[Base],
    commit: Mapping[str, object],
    release: bool,
    say: Callable[[str], object],
) -> None:
    """Whether this may be built. A target needs only its own bases."""
    own = {"cpu": ("CPU_BASE",), "eval": ("EVAL_BASE", "TRAIN_BASE"), "train": ("TRAIN_BASE",)}
    loose = [b for b in pinned if b.argument in own[target] and b.digest == container.UNRESOLVED]
    names = ", ".join(b.tag for b in loose)
    if loose and release:
        raise BadInput(f"no release on a base without a digest ({names}): repro container lock")
    if release and (commit["commit"] is None or commit["dirty"]):
        raise BadInput("no release from a tree with local changes: commit them first")
    if loose:
        say(f"warning: no digest is known for {names}; repro container lock asks the registry")


@contextmanager
def sources(environ: Mapping[str, str]) -> Iterator[tuple[dict[str, str], bool]]:
    """pip's settings for the build, and whether one needs this machine's own network.

    A folder of wheels is out of a build's sight: it is served on the loopback meanwhile.
    """
    found = {key: environ[key] for key in PIP if environ.get(key)}
    for key, value in found.items():
        if any(urlsplit(part).password for part in value.split()):
            raise BadInput(
                f"{key} holds a password, and build arguments stay in an image's history: put it "
                "into a pip.conf and name that with --pip-conf"
            )
    folder = Path(found.get("PIP_FIND_LINKS", "").removeprefix("file://") or "\0")
    if "\0" in str(folder) or not folder.is_dir():
        yield found, False
        return
    with _serving(folder) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield {**found, "PIP_FIND_LINKS": f"http://127.0.0.1:{server.server_port}/"}, True
        server.shutdown()


def _serving(folder: Path) -> ThreadingHTTPServer:
    """On the same port each time, if it is free: the address is part of a build's cache key."""
    handler = functools.partial(_Quiet, directory=str(folder))
    port = 49152 + zlib.crc32(str(folder).encode()) % 16384
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError:
        return ThreadingHTTPServer(("127.0.0.1", 0), handler)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The build shows what it fetches."""


def _client(argv: list[str], buildkit: str) -> None:
    try:
        done = subprocess.run(argv, env={**os.environ, "DOCKER_BUILDKIT": buildkit}, check=False)
    except FileNotFoundError:
        raise EnvironmentFault(
            "the docker client is missing: install docker (docker.io, docker-ce-cli)"
        ) from None
    if done.returncode:
        raise StageFailed("docker build stopped; its last lines say why", 4)


# --- proving ------------------------------------------------------------------------------------


_GPU = "import torch, vllm; assert torch.cuda.is_available(), 'torch sees no GPU'"


@dataclass(frozen=True)
class Rung:
    """One step of the ladder and how it ended. said: what it printed, where it failed."""

    name: str
    ok: bool
    seconds: float
    said: str = ""


def rungs(name: str, target: str = "cpu", gpus: str = "none") -> tuple[tuple[str, Setting], ...]:
    """The ladder for an image of a target."""
    ask = ("eval", "--benchmark", "microworld", "--model", "oracle", "--limit", "40")
    student = ("eval", "--benchmark", "microworld", "--limit", "8", "--out", "/runs/m",
               "--model", "/opt/reelproof/repro/tiny/ktr")  # fmt: skip
    inner = "65532:65532"  # the image's own
    ladder = [
        ("help", Setting(name, ("--help",), user=inner)),
        ("doctor", Setting(name, ("doctor",), user=inner)),
        ("oracle, 12345:0", Setting(name, (*ask, "--out", "/runs/o"), user="12345:0")),
        ("oracle, 12345:12345", Setting(name, (*ask, "--out", "/runs/o"), user="12345:12345")),
        ("model, no network", Setting(name, student, offline=True))
        if target == "eval"
        else ("train, no network", Setting(name, ("smoke",), offline=True)),
    ]
    if gpus != "none":
        ladder.append(
            ("gpu", Setting(name, ("-c", _GPU), gpus=gpus, entrypoint=("/opt/venv/bin/python",)))
        )
    return tuple(ladder)


def climb(name: str, target: str = "cpu", gpus: str = "none") -> Iterator[Rung]:
    """Run the ladder, all of it."""
    for title, setting in rungs(name, target, gpus):
        printed: list[bytes] = []
        began = time.monotonic()
        code = container.run(setting, out=printed.append, err=printed.append)
        took = time.monotonic() - began
        text = b"".join(printed).decode(errors="replace")
        right = code == 0 and (not title.startswith("oracle") or "100" in text)
        yield Rung(title, right, took, "" if right else f"exit code {code}\n{text}")
