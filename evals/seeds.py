"""Seeds from names: every random draw has a seed of its own, whatever is drawn beside it."""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """A seed in 0 .. 2^63 - 1 from, say, (run's seed, step, place); the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
