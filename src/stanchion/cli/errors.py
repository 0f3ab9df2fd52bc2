"""Exit codes, and how a failure is said: one line on stderr and a code, never a traceback.

    0 done          the command, or the run, did what it was asked
    1 failed        the run failed, a chain is broken, a check of `doctor` failed, the store or the server cannot be used
    2 usage         an option, an argument, a file or a name that cannot be used as it stands
    3 halted        a limit or a budget ended the run
    4 waiting       the run waits for a person
    5 cancelled     the run was cancelled
    6 escalated     the run handed over to a person
    70 internal     a bug of ours
    130 interrupted by Ctrl-C

The codes are stable. `STANCHION_DEBUG=1` shows the traceback behind the line.
"""

from __future__ import annotations

import enum
import errno
import os
import sys
import traceback
from pathlib import Path

from stanchion.core.errors import StanchionError


class ExitCode(enum.IntEnum):
    """What the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    HALTED = 3
    WAITING = 4
    CANCELLED = 5
    ESCALATED = 6
    INTERNAL = 70
    INTERRUPTED = 130


OUTCOMES = {
    "done": ExitCode.DONE,
    "failed": ExitCode.FAILED,
    "halted": ExitCode.HALTED,
    "cancelled": ExitCode.CANCELLED,
    "escalated": ExitCode.ESCALATED,
}
"""Outcome of a run -> exit code."""


class Unreachable(StanchionError):
    """The server cannot be reached; check that it runs and that --url is right."""

    code = "unreachable"


def exit_code_of(error: BaseException) -> ExitCode:
    """Say which code an error ends the process with."""
    match error:
        case StanchionError() if error.code == "budget_exhausted":
            return ExitCode.HALTED
        case StanchionError():
            return ExitCode.USAGE if error.fault == "caller" else ExitCode.FAILED
        case OSError():
            return ExitCode.FAILED
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.INTERNAL


def report(error: BaseException) -> ExitCode:
    """Write what went wrong as one line on stderr, and return the exit code."""
    code = exit_code_of(error)
    if os.environ.get("STANCHION_DEBUG"):
        traceback.print_exception(error)
    say_error("interrupted" if code is ExitCode.INTERRUPTED else _words(error, code))
    return code


def say_error(message: str) -> None:
    """Write an error's line."""
    line = "; ".join(piece.strip() for piece in message.splitlines() if piece.strip())
    sys.stderr.write(f"error: {_plain(line)}\n")


def _words(error: BaseException, code: ExitCode) -> str:
    match error:
        case StanchionError():
            return str(error)
        case OSError():
            return _words_of_os(error)
        case _ if code is ExitCode.INTERNAL:
            last = traceback.extract_tb(error.__traceback__)[-1:]
            where = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
            return f"internal: {type(error).__name__}: {error}{where}; this is a bug, STANCHION_DEBUG=1 shows where"
        case _:
            return str(error)


_MEND = {
    errno.ENOSPC: "free some space on that disk",
    errno.EACCES: "check who may read and write there",
    errno.EPERM: "check who may read and write there",
    errno.EROFS: "choose a place that can be written with --data",
    errno.EADDRINUSE: "choose another --port, or stop what listens there",
    errno.EMFILE: "raise the limit of open files (ulimit -n 65536)",
}


def _words_of_os(error: OSError) -> str:
    what = error.strerror or str(error)
    where = f" ({error.filename})" if error.filename else ""
    mend = _MEND.get(error.errno or 0, "")
    return f"{what[:1].lower()}{what[1:]}{where}" + (f"; {mend}" if mend else "")


def _plain(line: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
