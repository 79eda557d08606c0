"""A process that reads video files for another one, so that it can be killed when it hangs.

One JSON line in, one JSON line out; `bytes` says how much raw data follows the line.

| request                             | reply                                             |
|-------------------------------------|---------------------------------------------------|
| `digest` path                       | `sha256` of the file                              |
| `probe` path                        | the fields of `evals.video.Probe`                 |
| `decode` path, indices, decoder     | `shape`, `decoder`, `bytes`, then the pixels      |
| `image` path                        | the same                                          |

Instead of a reply, `{"undecodable": why}`. The process ends when its input does; a limit on its
address space and, per request, on its processor time hold even if nobody is left to kill it.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from evals import video
from evals.errors import Undecodable

_BLOCK = 1 << 20
_known: dict[Path, video.Contents] = {}  # of the file probed last


def versions() -> dict[str, str]:
    """Decoder -> its version, as the frame store names it. Starts neither."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"pyav": f"pyav {version('av')}"}
    with suppress(PackageNotFoundError):  # decord has no wheel for every platform
        found["decord"] = f"decord {version('decord')}"
    return found


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], npt.NDArray[np.uint8] | None]:
    """One request's reply and pixels. Raises Undecodable, MemoryError."""
    path = Path(request["path"])
    match request["do"]:
        case "digest":
            return {"sha256": digest(path)}, None
        case "probe":
            _known.clear()
            _known[path] = video.contents(path)
            return asdict(_known[path].probe), None
        case "image":
            pixels, decoder = video.read_image(path), "pillow"
        case _:
            pixels, decoder = _decode(path, tuple(request["indices"]), request["decoder"])
    return {"shape": pixels.shape, "decoder": decoder, "bytes": pixels.nbytes}, pixels


def digest(path: Path) -> str:
    """sha256 of a file, hexadecimal. Raises Undecodable where there is none to read."""
    video.exists(path)
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _decode(
    path: Path, indices: tuple[int, ...], decoder: str
) -> tuple[npt.NDArray[np.uint8], str]:
    known = _known.get(path) or video.contents(path)
    if decoder == "decord":
        frames = video.decode_with_decord(path, indices, known)
        if frames is not None:
            return frames, "decord"
    return video.decode(path, indices, known), "pyav"


def serve(source: IO[bytes], sink: IO[bytes], seconds: float) -> None:
    """Answer until the input ends."""
    for line in source:
        limit_processor(seconds)
        try:
            reply, pixels = answer(json.loads(line))
        except Undecodable as error:
            reply, pixels = {"undecodable": str(error)}, None
        except MemoryError:
            reply, pixels = {"undecodable": "it takes more memory than a decoder may use"}, None
        sink.write(json.dumps(reply).encode() + b"\n")
        if pixels is not None:
            sink.write(np.ascontiguousarray(pixels).data.cast("B"))
        sink.flush()


def limit_processor(seconds: float) -> None:
    """The system ends this process once a request has used twice its share of processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + 2 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    """argv: bytes of address space, seconds per request."""
    memory, seconds = int(sys.argv[1]), float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the replies
    serve(sys.stdin.buffer, sink, seconds)


if __name__ == "__main__":
    main()
