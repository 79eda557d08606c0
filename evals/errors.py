"""What can stop a run, by name: each message is one sentence that says what to do next.

| failure            | exit code | who can mend it                                      |
|--------------------|-----------|------------------------------------------------------|
| `BadInput`         | 2         | the user: a wrong key, file, name or folder          |
| `NotComparable`    | 3         | nobody: two numbers that do not measure the same     |
| `EnvironmentFault` | 4         | the machine's owner: missing package, full disk, GPU |

What can go wrong with one sample (`Undecodable`, `TimedOut`) is an outcome with a name while
evaluating; anywhere else it is bad input.
"""

from __future__ import annotations

from typing import ClassVar


class Failure(Exception):
    """A failure the user can act on; the command line prints it without a traceback."""

    exit_code: ClassVar[int] = 1


class BadInput(Failure):
    """The user's input is wrong: a recipe key, a name, a file, an output folder."""

    exit_code = 2


class NotComparable(Failure):
    """Two numbers were to be compared that do not measure the same thing."""

    exit_code = 3


class EnvironmentFault(Failure):
    """This machine cannot do it: a package, a device, memory or disk space is missing."""

    exit_code = 4


class Undecodable(BadInput):
    """One clip or image cannot be read."""


class TimedOut(BadInput):
    """Decoding or generating for one sample took longer than its limit."""


class BlindForward(Failure):
    """The model would run without seeing its video: vision pads and features disagree."""


def for_want_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch says so in four ways, and only on CUDA by its type."""
    told = (
        "out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"
    )  # fmt: skip
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)
