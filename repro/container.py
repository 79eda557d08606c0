"""Images and containers: build through the docker client, everything else through its SDK.

| in the container | from here                             | mode                          |
|------------------|---------------------------------------|-------------------------------|
| /runs            | `--runs`, by default ./runs           | writable; files are yours     |
| /cache/hf        | `--cache`, by default $HF_HOME        | writable                      |
| /cache           | a volume that goes with the container | writable                      |
| /data, /model    | `--data`, `--model`, where given      | read-only                     |
| everything else  | the image                             | read-only, /tmp lies in memory |

No capability, no new privileges; the user is the caller, so that results belong to them.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evals.errors import BadInput, EnvironmentFault
from repro.machine import ROOT
from repro.strict import read_yaml

BASES = ROOT / "docker" / "bases.lock"
PATIENCE = 1200  # seconds for one answer of the engine: vfs copies an image per container (chosen)
GRACE = 120  # seconds between SIGTERM and the end, for a checkpoint (chosen)
UNRESOLVED = "unresolved"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def image(target: str) -> str:
    """The name of a target's image."""
    return f"reelproof:{target}"


# --- the bases ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A base image: the Dockerfile's argument, its tag, and `sha256:...` or "unresolved"."""

    argument: str
    tag: str
    digest: str

    @property
    def reference(self) -> str:
        """What FROM takes: with the digest where it is known."""
        return self.tag if self.digest == UNRESOLVED else f"{self.tag}@{self.digest}"


def bases(path: Path = BASES) -> tuple[Base, ...]:
    """Every base of the lock. Raises BadInput for one without a tag, or with a broken digest."""
    found = []
    for argument, entry in read_yaml(path).items():
        if not isinstance(entry, dict) or set(entry) != {"tag", "digest"}:
            raise BadInput(f"{path}: {argument} needs tag and digest, and nothing else")
        base = Base(argument, str(entry["tag"]), str(entry["digest"]))
        if base.digest != UNRESOLVED and not _DIGEST.fullmatch(base.digest):
            raise BadInput(f"{path}: {argument}: {base.digest!r} is no sha256 digest")
        found.append(base)
    return tuple(found)


def lock(path: Path = BASES) -> tuple[Base, ...]:
    """Ask the registry for each tag's digest and write the lock; all of them or none.

    Raises EnvironmentFault without an engine, or where it cannot reach the registry.
    """
    found = []
    with engine() as client:
        for base in bases(path):
            digest = client.images.get_registry_data(base.tag).id
            found.append(Base(base.argument, base.tag, digest))
    text = path.read_text(encoding="utf-8")
    for base in found:
        text = re.sub(
            rf"(?m)^({base.argument}:\n  tag: .*\n  digest: ).*$", rf"\g<1>{base.digest}", text
        )
    path.write_text(text, encoding="utf-8")
    return tuple(found)


# --- the engine ---------------------------------------------------------------------------------


@contextmanager
def engine(patience: float = PATIENCE) -> Iterator[Any]:
    """A client of the Docker engine; its errors leave as one sentence each."""
    try:
        import docker
        from docker.errors import DockerException
        from requests.exceptions import Timeout
    except ImportError:
        raise EnvironmentFault(
            "the Docker SDK is missing: pip install 'reelproof[container]'"
        ) from None
    try:
        client = docker.from_env(timeout=patience)
        try:
            yield client
        finally:
            client.close()
    except Timeout as error:
        raise EnvironmentFault(
            f"the Docker engine gave no answer within {patience:g} s: see what it is busy with "
            "(docker events), or restart it"
        ) from error
    except DockerException as error:
        raise EnvironmentFault(explain(error)) from error


def explain(error: Exception) -> str:
    """What the engine's complaint means and what to do; its own words where we know no better."""
    said = " ".join(str(getattr(error, "explanation", None) or error).split())
    for pattern, sentence in _MEANINGS:
        if re.search(pattern, said):
            return sentence.format(said=said)
    return f"the Docker engine says: {said}"


TOOLKIT = (
    "install nvidia-container-toolkit, then sudo nvidia-ctk runtime configure --runtime=docker && "
    "sudo systemctl restart docker"
)
_START = "start it (sudo systemctl start docker), or set DOCKER_HOST"
_MEANINGS = (
    (r"PermissionError|permission denied while trying to connect|Permission denied.*docker\.sock",
     "you may not use the Docker engine: sudo usermod -aG docker $USER, then log in again"),
    (r"Error while fetching server API version|Connection aborted|ConnectionError"
     r"|Connection refused",
     f"no Docker engine answers: {_START}"),
    (r"(?i)unsatisfied condition: cuda",
     "the NVIDIA driver is too old for the image's CUDA 13: install driver 580 or newer"),
    (r"could not select device driver|nvidia-container-runtime|unknown or invalid runtime"
     r"|no known GPU vendor|(?i:nvidia-container-cli)",
     f"the engine has no NVIDIA runtime: {TOOLKIT}"),
    (r"no space left on device",
     "the engine's disk is full: docker system df shows what for, docker system prune frees some"),
    (r"No such image|pull access denied|manifest unknown",
     "the image is not here ({said}): repro container build cpu (or eval, train) makes it"),
    (r"dial tcp|i/o timeout|no such host|TLS handshake|context deadline exceeded",
     "the engine cannot reach the registry ({said}); run this where it can"),
)  # fmt: skip


# --- running ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """How a container runs; see the table above.

    gpus: "all", "none" or numbers like "0,1". user: uid:gid, the caller's by default. shm: size of
    /dev/shm, as Docker writes it. env: names of variables to pass on, never their values.
    """

    image: str
    command: tuple[str, ...]
    runs: Path | None = None
    cache: Path | None = None
    data: Path | None = None
    model: Path | None = None
    gpus: str = "none"
    user: str = ""
    offline: bool = False
    shm: str = "16g"
    ipc: Literal["private", "host"] = "private"
    writable: bool = False
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = field(default=())


def options(setting: Setting, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the SDK's `containers.create` takes. Raises BadInput for a variable that is not set."""
    found: dict[str, Any] = {
        "image": setting.image,
        "command": list(setting.command),
        "user": setting.user or f"{os.getuid()}:{os.getgid()}",
        "mounts": _mounts(setting),
        "environment": _environment(setting, environ),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": not setting.writable,
        # exec: Triton compiles its launchers there.
        "tmpfs": {} if setting.writable else {"/tmp": "exec,mode=1777"},
    }
    if setting.entrypoint:
        found["entrypoint"] = list(setting.entrypoint)
    if setting.offline:
        found["network_mode"] = "none"
    if setting.ipc == "host":
        found["ipc_mode"] = "host"
    else:
        found["shm_size"] = setting.shm
    if setting.gpus != "none":
        found["device_requests"] = [_gpus(setting.gpus)]
    return found


def _gpus(wanted: str) -> dict[str, Any]:
    """The engine's DeviceRequest for "all" or "0,1"."""
    asked: dict[str, Any] = {"Driver": "nvidia", "Capabilities": [["gpu"]]}
    if wanted == "all":
        return {**asked, "Count": -1}
    return {**asked, "DeviceIDs": wanted.split(",")}


def _mounts(setting: Setting) -> list[dict[str, Any]]:
    """The engine's Mounts; folders of this machine only."""
    places = (("/runs", setting.runs, False), ("/cache/hf", setting.cache, False),
              ("/data", setting.data, True), ("/model", setting.model, True))  # fmt: skip
    return [
        {"Type": "bind", "Source": str(here.absolute()), "Target": there, "ReadOnly": fixed}
        for there, here, fixed in places
        if here is not None
    ]


def _environment(setting: Setting, environ: Mapping[str, str]) -> dict[str, str]:
    found = {"HF_HUB_OFFLINE": "1"} if setting.offline else {}
    if setting.data is not None:
        found["REELPROOF_DATA"] = "/data"
    for name in setting.env:
        if not _NAME.fullmatch(name):
            raise BadInput(
                "--env takes only the name of a variable: a value would stand in the process list"
            )
        if name not in environ:
            raise BadInput(f"--env {name}: this variable is not set")
        found[name] = environ[name]
    return found


def run(
    setting: Setting,
    *,
    out: Callable[[bytes], object] | None = None,
    err: Callable[[bytes], object] | None = None,
) -> int:
    """Run to the end, streaming what it prints; the container's exit code.

    Ctrl-C and SIGTERM stop the container (it gets GRACE seconds to save) before they are raised
    again; it is removed in any case. Raises EnvironmentFault and BadInput with one sentence each.
    """
    wanted = options(setting)
    for folder in (setting.runs, setting.cache):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    with engine() as client:
        wanted["environment"]["REPRO_IMAGE"] = client.images.get(setting.image).id
        container = client.containers.create(**wanted)
        try:
            _stream(container, out or _writer(sys.stdout), err or _writer(sys.stderr))
            state = container.wait()
            container.reload()
            if container.attrs["State"].get("OOMKilled"):
                raise EnvironmentFault("the container was killed for want of memory")
            return int(state["StatusCode"])
        finally:
            container.remove(force=True, v=True)


def _stream(container: Any, out: Callable[[bytes], object], err: Callable[[bytes], object]) -> None:
    """Start, and pass on what it prints until it ends or this process is told to stop."""
    lines = container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)

    def pass_on() -> None:
        for ours, theirs in lines:
            if ours:
                out(ours)
            if theirs:
                err(theirs)

    # A thread, so that a signal reaches this one at once and not with the next line.
    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    try:
        container.start()
        while reader.is_alive():
            reader.join(0.2)
    except KeyboardInterrupt as stop:
        container.stop(timeout=GRACE)
        reader.join(5)
        stop.add_note("the container has saved and ended; run the same command again to continue")
        raise


def _writer(sink: Any) -> Callable[[bytes], object]:
    def write(data: bytes) -> None:
        sink.buffer.write(data)
        sink.flush()

    return write
