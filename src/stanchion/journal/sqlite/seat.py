"""The driver's seat: of all processes that have the file open, one drives its runs.

The lock lies on a file beside the database and goes with the process that holds it, however that ends. Others (the CLI
beside a server) may read, post and start.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from stanchion.core.errors import JournalError


class Seat:
    """A lock between processes, held until it is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Take the seat. False: another process has it."""
        if self._file is not None:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(
                f"{self._path} cannot be made: {error.strerror}; check its folder's permissions"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def leave(self) -> None:
        """Leave the seat to whoever comes next."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
