"""A process of pass 1: one video per request, so that it can be killed when a decoder hangs.

One JSON line in: path, store, filming, embedder (or null), limit in seconds. One JSON line out:
sha256, seconds of video and cost in processor seconds; or `lost`, a reason, and why; or `stop`,
why no video could be kept.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from evals.decoder_process import digest, limit_processor
from evals.errors import Undecodable
from evals.video import NoPictures
from repro.mvp.synthesis.embed import BUILT_IN, BuiltIn
from repro.mvp.synthesis.films import Filming, pictures
from repro.mvp.synthesis.store import Store


class Costs(Counter[str]):
    """Processor seconds by what they were spent on."""

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self[what] += time.process_time() - began  # type: ignore[assignment]


def see(path: Path, store: Store, embedder: str | None) -> dict[str, Any]:
    """One video into the store. Raises Undecodable."""
    costs = Costs()
    with costs.of("hash"):
        sha256 = digest(path)
    if not store.has(sha256):
        with store.writing(sha256) as writer:
            frames = pictures(path, store.filming)
            while True:
                with costs.of("decode"):
                    found = next(frames, None)
                if found is None:
                    break
                with costs.of("write"):
                    writer.add(*found)
    if embedder == BUILT_IN:
        with costs.of("embed"):
            store.embed(sha256, BuiltIn())
    return {"sha256": sha256, "seconds": store.length(sha256), "cost": dict(costs)}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """One request's reply."""
    path = Path(request["path"])
    store = Store(Path(request["store"]), Filming(**request["filming"]))
    try:
        return see(path, store, request["embedder"])
    except NoPictures as error:
        return {"lost": "no video", "why": str(error)}
    except Undecodable as error:
        return {"lost": "unreadable", "why": str(error)}
    except OSError as error:  # a full disk is no fault of the video's
        return {"stop": str(error)}
    except MemoryError:
        return {"lost": "too large", "why": "it takes more memory than a worker may use"}


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer until the input ends."""
    for line in source:
        request = json.loads(line)
        limit_processor(request["limit"])
        sink.write(json.dumps(answer(request)).encode() + b"\n")
        sink.flush()


def main() -> None:
    """argv: bytes of address space, seconds per request (each request says its own)."""
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the replies
    serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
