"""Where the database is, and how we connect to it.

    postgresql://user:password@host:port/database?schema=stanchion&sslmode=verify-full

All but `schema` is PostgreSQL's own. Nothing that is shown or logged names the password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from stanchion.core.errors import ConfigError
from stanchion.journal.postgres.errors import LOST, refused

CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_MS = 1_000
"""A writer's statements follow each other at once. One that is frozen between two of them holds the rows of its group, and
nobody could take its runs over: the database ends its transaction well before its leases end."""
COMMAND_TIMEOUT_S = 40.0
"""Above the server's own, so that only a server that does not answer at all runs into it."""
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,50}")
Connection = asyncpg.Connection


@dataclass(frozen=True, slots=True)
class Address:
    """A database, and the schema in it."""

    dsn: str
    """Without the parameter `schema`. Holds the password."""
    schema: str
    name: str
    """For people: without the password."""

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def parse(dsn: str, schema: str = "") -> Address:
    """Read a URL. Raises `ConfigError`."""
    try:
        parts = urlsplit(dsn)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the database's URL cannot be read ({error})") from error
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError(
            f"{parts.scheme}:// is no PostgreSQL URL; write postgresql://user:password@host:port/database"
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = schema or query.pop("schema", "stanchion")
    query.pop("schema", None)
    if not _SCHEMA.fullmatch(schema):
        raise ConfigError(f"schema {schema!r}: use lower-case letters, digits and _ (at most 51)")
    host = parts.hostname or query.get("host", "localhost")
    name = f"postgresql://{host}{f':{port}' if port else ''}{parts.path}"
    name += f" (schema {schema})" if schema != "stanchion" else ""
    return Address(urlunsplit(parts._replace(query=urlencode(query, quote_via=quote, safe="/"))), schema, name)


async def connect(
    address: Address, *, role: str, settings: dict[str, str] | None = None, durable: bool = True
) -> Connection:
    """Open a connection with our settings. Raises what asyncpg raises."""
    connection: Connection = await asyncpg.connect(
        address.dsn,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        server_settings=server_settings(address, role) | (settings or {}),
    )
    try:
        if durable:
            await harden(connection)
    except BaseException:  # (a database that goes away, or whoever waits for it)
        connection.terminate()
        raise
    return connection


async def harden(connection: Connection) -> None:
    """Let no commit return before it is on the disk; a stricter setting (remote_apply) stays."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')"
    )


def server_settings(address: Address, role: str) -> dict[str, str]:
    """Make the settings of a session."""
    return {
        "application_name": f"stanchion {role}",
        "search_path": f'"{address.schema}"',
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
        "jit": "off",
        # Rows are read after their locks were had, by a statement that sees what was committed until then.
        "default_transaction_isolation": "read committed",
    }


async def first_connection(address: Address) -> Connection:
    """Open the connection that shows whether the database can be used. Raises `ConfigError`, `JournalError`."""
    try:
        return await connect(address, role="setup")
    except (*LOST, asyncpg.PostgresError, ValueError) as error:
        raise refused(error, address.name) from error
