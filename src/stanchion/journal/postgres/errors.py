"""PostgreSQL's errors in our words, and which of them mean that the group may simply be done again."""

from __future__ import annotations

import asyncpg

from stanchion.core.errors import ConfigError, InputError, JournalError, StanchionError, StoreFull

LOST = (
    OSError,  # (TimeoutError is one of them)
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""The connection is gone, or not to be trusted any more."""
AGAIN = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
)
"""Another transaction came first; the group was rolled back and is decided again on what is there now."""
WHOLE = (
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresIOError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InsufficientPrivilegeError,
)
"""Failures that no single write of a group is the cause of."""


def translate(error: BaseException, where: str) -> StanchionError:
    """Say a failure of the database as a `JournalError`. Our own errors pass as they are."""
    if isinstance(error, StanchionError):
        return error
    translated = _said(error, where)
    translated.__cause__ = error
    return translated


def _said(error: BaseException, where: str) -> StanchionError:
    match error:
        case asyncpg.DiskFullError():
            return StoreFull(f"{where}: the database's disk takes no more data; free space, and the runs go on")
        case asyncpg.TooManyConnectionsError():
            text = f"{where} has no connection left; raise max_connections or run fewer processes"
            return JournalError(text, code="journal_busy", retryable=True)
        case asyncpg.QueryCanceledError() | asyncpg.LockNotAvailableError() | asyncpg.DeadlockDetectedError():
            text = f"{where}: a statement waited too long ({error}); look at pg_stat_activity for what holds it up"
            return JournalError(text, code="journal_busy", retryable=True)
        case asyncpg.ReadOnlySQLTransactionError():
            text = f"{where} takes no writes (a standby?); name the primary, or target_session_attrs=primary"
            return JournalError(text, code="journal_io", retryable=True)
        case asyncpg.DataCorruptedError() | asyncpg.IndexCorruptedError():
            text = f"{where} is damaged ({error}); find what is whole with `stanchion verify`, and restore a backup"
            return JournalError(text, code="journal_corrupt")
        case asyncpg.UndefinedTableError() | asyncpg.UndefinedFunctionError():
            return JournalError(f"{where}: the schema is gone or changed ({error}); restart to make it again")
        case asyncpg.CharacterNotInRepertoireError() | asyncpg.UntranslatableCharacterError():
            return InputError("a name (tenant, session, user, agent, key) may not hold the character NUL")
        case _ if isinstance(error, LOST):
            text = f"{where} was lost ({_brief(error)}); see whether it runs and can be reached"
            return JournalError(text, code="journal_io", retryable=True)
        case _:
            return JournalError(f"{where}: the store failed ({type(error).__name__}: {error})")


def refused(error: BaseException, where: str) -> StanchionError:
    """Say why a database cannot be opened: a `ConfigError`, unless the store itself failed."""
    match error:
        case StanchionError():
            return error
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            text = f"{where} refuses the user or the password; check the URL (or PGPASSWORD)"
        case asyncpg.InvalidCatalogNameError():
            text = f"{where}: there is no such database; make it with `createdb`"
        case asyncpg.InsufficientPrivilegeError():
            text = f"{where}: the user may not do this ({error}); let it create a schema, or make one that it owns"
        case asyncpg.ClientConfigurationError() | ValueError():
            text = f"{where}: the URL cannot be read ({error}); write postgresql://user:password@host:port/database"
        case asyncpg.UndefinedObjectError() | asyncpg.InvalidParameterValueError():
            text = f"{where}: PostgreSQL does not know what the URL sets ({error}); after the `?` only its own settings, and schema="
        case asyncpg.TooManyConnectionsError():
            return translate(error, where)
        case _ if isinstance(error, LOST):
            text = f"{where} cannot be reached ({_brief(error)}); start it, or correct the host and port"
        case _:
            return translate(error, where)
    said = ConfigError(text)
    said.__cause__ = error
    return said


def _brief(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
