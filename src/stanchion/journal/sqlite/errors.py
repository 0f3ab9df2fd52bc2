"""SQLite's errors in our words: what happened, where, and what to do."""

from __future__ import annotations

import apsw

from stanchion.core.errors import JournalError, StanchionError, StoreFull


def translate(error: BaseException, path: str) -> StanchionError:
    """Say a failure of SQLite as a `JournalError`. Our own errors pass as they are."""
    if isinstance(error, StanchionError):
        return error
    translated = _said(error, path)
    translated.__cause__ = error
    return translated


def _said(error: BaseException, path: str) -> JournalError:
    match error:
        case apsw.FullError():
            return StoreFull(f"{path}: the disk takes no more data; free space on it, and the runs go on by themselves")
        case apsw.CorruptError() | apsw.NotADBError():
            return JournalError(
                f"{path} is damaged ({error}); stop the server, find what is whole with `stanchion verify`, and restore "
                "the file with its -wal from a backup",
                code="journal_corrupt",
            )
        case apsw.BusyError() | apsw.LockedError():
            return JournalError(
                f"{path}: another process has been writing for too long; find it (`fuser {path}`) and try again",
                code="journal_busy",
                retryable=True,
            )
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.CantOpenError():
            return JournalError(f"{path} cannot be written ({error}); check its owner, its mode and its disk")
        case apsw.IOError():
            return JournalError(
                f"{path}: its disk failed ({error}); see the system's log, then run `stanchion doctor`",
                code="journal_io",
                retryable=True,
            )
        case _:
            return JournalError(f"{path}: the store failed ({type(error).__name__}: {error})")
