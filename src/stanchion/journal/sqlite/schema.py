"""Opening the file: its mode, its settings, its schema and the way from an older schema to this one."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, cast

import apsw

from stanchion.core.errors import ConfigError
from stanchion.journal import queries
from stanchion.journal.sqlite.connection import Connection
from stanchion.journal.sqlite.errors import translate

log = logging.getLogger("stanchion.journal")

MIGRATIONS = queries.migrations("sqlite")
VERSION = max(MIGRATIONS)
APPLICATION_ID = 0x5354_4E43
"""Marks the file as ours ("STNC"), so that another program's database is not written into."""
BUSY_TIMEOUT_MS = 10_000
"""How long a write waits for another process's. Writes take milliseconds."""
CHECKPOINT_PAGES = 4_000
"""Of the WAL (16 MB): pages written often are then copied once for many commits."""


def prepare(path: Path) -> None:
    """Make the file (readable by its owner only) and its folder where they are missing. Raises `ConfigError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file in it, such as {path / 'stanchion.db'}")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(
            f"the store {path} cannot be opened: {error.strerror}; check the path and its permissions"
        ) from error


def connect(path: Path, *, vfs: str | None = None) -> Connection:
    """Open a connection with our settings."""
    connection = cast(Connection, apsw.Connection(str(path), vfs=vfs, statementcachesize=128))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cache_size = -16000")
    return connection


def connect_reader(path: Path, *, vfs: str | None = None) -> Connection:
    """Open a connection that only reads."""
    connection = connect(path, vfs=vfs)
    connection.execute("PRAGMA cache_size = -4000")
    connection.execute("PRAGMA query_only = ON")
    return connection


def connect_writer(path: Path, *, vfs: str | None = None) -> Connection:
    """Open the writing connection and bring the file to this schema. Raises `ConfigError`, `JournalError`."""
    end = time.monotonic() + BUSY_TIMEOUT_MS / 1_000
    while True:
        try:
            return _connect_writer(path, vfs)
        except apsw.NotADBError as error:
            raise ConfigError(f"{path} is not a SQLite database; name another file") from error
        except apsw.Error as error:
            # SQLite does not wait for another process that makes the file or its WAL at this moment.
            if not isinstance(error, apsw.BusyError) or time.monotonic() > end:
                raise translate(error, str(path)) from error
        time.sleep(0.01)


def _connect_writer(path: Path, vfs: str | None) -> Connection:
    connection = connect(path, vfs=vfs)
    try:
        _set_up(connection, path)
    except BaseException:
        connection.close(True)
        raise
    return connection


def _set_up(connection: Connection, path: Path) -> None:
    _check_owner(connection, path)
    if connection.pragma("journal_mode", "wal") != "wal":
        raise ConfigError(f"{path}: its file system has no shared memory for SQLite's WAL; put it on a local disk")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
    _migrate(connection, path)


def _check_owner(connection: Connection, path: Path) -> None:
    connection.execute("BEGIN")  # both are read from one snapshot: another process may be making the file
    application = connection.pragma("application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    connection.execute("COMMIT")
    if application != APPLICATION_ID and (application or tables):
        raise ConfigError(f"{path} is another program's database; name another file")


def _migrate(connection: Connection, path: Path) -> None:
    found = int(connection.pragma("user_version"))
    if found == VERSION:
        return
    if found > VERSION:
        _check_compatible(connection, path, found)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = int(connection.pragma("user_version"))
        if found > VERSION:  # another process was faster, and is newer
            connection.execute("ROLLBACK")
            _check_compatible(connection, path, found)
            return
        for version, statements in MIGRATIONS.items():
            if version > found:
                connection.execute(statements)
        if found == 0:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        marks = (VERSION, queries.compatible_from(MIGRATIONS))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema_version', ?), ('compatible_from', ?)", marks)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_compatible(connection: Connection, path: Path, found: int) -> None:
    """Refuse a newer schema unless it says that programs of this version may use it. Raises `ConfigError`."""
    row: Any = connection.execute("SELECT value FROM meta WHERE name = 'compatible_from'").fetchone()
    needed = int(row[0]) if row else found
    if needed > VERSION:
        raise ConfigError(
            f"{path} was brought to schema {found} by a newer Stanchion, which programs from schema {needed} on can use; "
            f"this one knows {VERSION}: upgrade Stanchion, or go back to the copy made before the upgrade"
        )
    log.warning("%s is of a newer schema (%d) than this program (%d); it works on it", path, found, VERSION)
