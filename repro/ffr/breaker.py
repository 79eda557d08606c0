"""A circuit breaker: after repeated failures nobody is asked for a while, then one caller tries."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed, then open after `after` failures in a row, for `pause` seconds; then half open: one
    call is let through, and it closes or opens for twice as long, up to `longest` seconds."""

    def __init__(
        self, after: int, pause: float, longest: float, clock: Callable[[], float] = time.monotonic
    ):
        self.after, self.pause, self.longest, self._clock = after, pause, longest, clock
        self.failures = self.openings = 0
        self._until, self._length, self._trying = 0.0, pause, False
        self.open = False

    def admits(self) -> bool:
        """Whether a call may be made now; a call made must be reported."""
        if not self.open:
            return True
        if self._trying or self._clock() < self._until:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """The server answered, whatever it said."""
        self.failures, self.open, self._trying, self._length = 0, False, False, self.pause

    def failed(self) -> bool:
        """The server did not answer. True if this opened the circuit (again)."""
        self.failures += 1
        if self.open and not self._trying:
            return False  # called before it opened
        if not self.open and self.failures < self.after:
            return False
        if self.open:
            self._length = min(2 * self._length, self.longest)
        self.open, self._trying = True, False
        self._until = self._clock() + self._length
        self.openings += 1
        return True

    def abandoned(self) -> None:
        """A call ended without saying whether the server can be used."""
        self._trying = False

    @property
    def left(self) -> float:
        """Seconds until somebody may try again."""
        return max(0.0, self._until - self._clock()) if self.open else 0.0
