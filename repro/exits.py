"""Exit codes: which failure ends the command line how, in one sentence and without a traceback.

0 ok · 1 internal error (with traceback) · 2 usage or bad input · 3 not comparable
4 environment · 5 inconclusive, or `above` · 6 regression, or `below`
130 Ctrl-C · 143 SIGTERM; both can be continued
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from evals.errors import Failure

OK, INTERNAL, BAD_INPUT, NOT_COMPARABLE, ENVIRONMENT, INCONCLUSIVE, REGRESSION = range(7)

CONTINUE = "run the same command again to continue"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


class Interrupted(KeyboardInterrupt):
    """SIGTERM; a KeyboardInterrupt, so that nothing that catches Exception swallows it."""


class StageFailed(Failure):
    """A child process of a longer run failed; ends the run with the child's exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def explain(error: BaseException) -> tuple[int, str] | None:
    """(exit code, sentence) for what a user can act on; None for everything else."""
    if isinstance(error, StageFailed):
        return error.code, str(error)
    if isinstance(error, Failure):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        code = 128 + (signal.SIGTERM if isinstance(error, Interrupted) else signal.SIGINT)
        return code, "; ".join(["interrupted", *getattr(error, "__notes__", ())])
    if _is_full(error):
        where = getattr(error, "filename", None) or "the output folder"
        onward = "; ".join(getattr(error, "__notes__", ())) or CONTINUE
        return ENVIRONMENT, (
            f"no space left on the disk of {where}: free some, then {onward}; "
            "what was written stays valid"
        )
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename:
        return BAD_INPUT, f"{error.filename}: {error.strerror}; choose a path you may use"
    return None


def speaks(error: BaseException) -> bool:
    """Whether this process prints the failure: of what every process of a distributed run has been
    told (`agreed`), the first one speaks."""
    return not getattr(error, "agreed", False) or os.environ.get("RANK", "0") == "0"


def _is_full(error: BaseException) -> bool:
    """Libraries written in Rust or C++ (safetensors, Arrow) report errno 28 in their own types."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return "No space left on device" in str(error)


@contextmanager
def continues(how: str = CONTINUE) -> Iterator[None]:
    """Says how to go on, should the block be interrupted or the disk be full."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as stop:
        if isinstance(stop, KeyboardInterrupt) or _is_full(stop):
            stop.add_note(how)
        raise


def resuming(resume: bool) -> str:
    """How a command with a --resume switch goes on; `resume`: whether it was given."""
    return CONTINUE if resume else "add --resume to the same command to continue"


def _terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted


def listen() -> None:
    """From now on SIGTERM and a closed terminal raise Interrupted, Ctrl-C KeyboardInterrupt.

    SIGINT is set too: a process started in the background by a shell inherits it ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup stays nohup
        signal.signal(signal.SIGHUP, _terminated)
