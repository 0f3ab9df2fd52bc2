"""What `stanchion doctor` finds about runs and about a database: whether it can be used, and whether anybody drives.

A schema that is older than this program's is not touched: it is brought forward by whoever serves.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from stanchion.journal.postgres.address import Address, Connection
    from stanchion.runtime.survey import Survey

Level = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """What a check found, and how to mend it."""

    check: str
    level: Level
    found: str
    mend: str = ""


def database(url: str) -> list[Finding]:
    """Try a PostgreSQL database: reach it, its schema, how it commits, what a durable write costs, how many may connect."""
    return asyncio.run(_database(url))


async def _database(url: str) -> list[Finding]:
    from stanchion.core.errors import StanchionError
    from stanchion.runtime.opening import database_address

    try:
        from stanchion.journal.postgres.address import first_connection

        address = database_address(url)
        connection = await first_connection(address)
    except ImportError:
        return [Finding("database", "fail", "asyncpg is not installed", 'pip install "stanchion[postgres]"')]
    except StanchionError as error:
        return [Finding("database", "fail", str(error), "check --data, and that the server runs and lets this user in")]
    try:
        return [
            await _server(connection, address),
            await _schema(connection, address),
            await _commits(connection),
            await _connections(connection),
        ]
    finally:
        await connection.close()


async def _server(connection: Connection, address: Address) -> Finding:
    version = str(await connection.fetchval("SHOW server_version"))
    took_ms: list[float] = []
    for _ in range(20):
        began = time.perf_counter()
        await connection.fetchval("SELECT 1")
        took_ms.append((time.perf_counter() - began) * 1000)
    found = f"{address.name}, PostgreSQL {version}, {statistics.median(took_ms):.1f} ms there and back"
    if connection.get_server_version().major < 14:
        return Finding("database", "fail", found, "use PostgreSQL 14 or later")
    if statistics.median(took_ms) > 10:
        return Finding(
            "database", "warn", found, "every step of a run takes four of these: put workers near the database"
        )
    return Finding("database", "ok", found)


async def _schema(connection: Connection, address: Address) -> Finding:
    from stanchion.journal.postgres.schema import VERSION, versions

    found, needed = await versions(connection, address)
    if not found:
        return Finding("schema", "ok", f"there is none in {address.schema!r} yet; it is made on first use")
    said = f"version {found}, of programs from {needed} on; this one knows {VERSION}"
    if needed > VERSION:
        return Finding("schema", "fail", said, "upgrade Stanchion")
    if found < VERSION:
        return Finding("schema", "warn", said, "it is brought forward at the next start; read the upgrade page first")
    return Finding("schema", "ok", said)


async def _commits(connection: Connection) -> Finding:
    names = ("fsync", "full_page_writes", "synchronous_commit")
    said = {name: str(await connection.fetchval("SELECT current_setting($1)", name)) for name in names}
    found = ", ".join(f"{name}={value}" for name, value in said.items())
    if "off" in (said["fsync"], said["full_page_writes"]):
        return Finding(
            "durability", "fail", found, "turn both on: a crash of the server may lose or break what was written"
        )
    return Finding("durability", "ok", found)


async def _connections(connection: Connection) -> Finding:
    most = int(await connection.fetchval("SHOW max_connections"))
    used = int(await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"))
    found = f"{used} of {most}; each process of ours uses up to 6"
    if most - used < 12:
        return Finding("connections", "warn", found, "raise max_connections, or run fewer processes")
    return Finding("connections", "ok", found)


def runs(data: str) -> list[Finding]:
    """Look for runs that nobody drives, that stand, and that can never wake."""
    from stanchion.runtime.opening import is_database
    from stanchion.runtime.survey import survey

    if not is_database(data):
        path = Path(data.removeprefix("sqlite:///"))
        if not path.exists() or not path.stat().st_size or _is_of_another_version(path):
            return []  # (the check of the file says what there is to say)
    return judged(asyncio.run(survey(data)), shared=is_database(data))


def _is_of_another_version(path: Path) -> bool:
    import apsw

    from stanchion.journal.sqlite.schema import APPLICATION_ID, VERSION

    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))  # pyright: ignore[reportUnknownMemberType]
        marks = [row[0] for row in rows if row]
        return marks != [APPLICATION_ID, VERSION]
    except apsw.Error:  # no database
        return True
    finally:
        connection.close()


def judged(found: Survey, *, shared: bool) -> list[Finding]:
    """Say what a survey means, and what to do about it."""
    who = f"{found.workers} at work" + (f", serving {', '.join(found.served)}" if found.served else "")
    waits = bool(found.unserved or found.dead_leases)
    start = "stanchion worker" if shared else "stanchion serve"
    findings = [
        Finding("workers", "warn" if waits and not found.workers else "ok", who, f"start one: {start}" if waits else "")
    ]
    if found.unserved:
        text = f"start `{start}` with these agents, or cancel the runs"
        findings.append(Finding("runs without a worker", "warn", _counts(found.unserved), text))
    if found.dead_leases:
        text = f"their workers are gone: start `{start}`, which takes them over"
        findings.append(Finding("runs of lost workers", "warn", _counts(found.dead_leases), text))
    if found.waiting_for_a_slot:
        text = "more is asked than is driven: add workers" if shared else "more is asked than is driven"
        findings.append(Finding("runs that wait their turn", "ok", _counts(found.waiting_for_a_slot), text))
    for name, stuck, text in (
        (
            "queued behind nothing",
            found.stuck_behind,
            "a bug of ours: please report it; cancel them and start them again",
        ),
        ("waiting for nothing", found.never_woken, "a bug of ours: please report it; `stanchion runs send` wakes them"),
        ("not readable here", found.unreadable, "a newer program wrote them: upgrade, or leave them to its workers"),
    ):
        if stuck:
            findings.append(Finding(name, "warn", _examples(stuck), text))
    if found.parked:
        text = "look: stanchion dlq ls --all --all-tenants"
        findings.append(Finding("runs that stand", "warn", _counts(found.parked), text))
    if len(findings) == 1 and not waits:
        text = f"nothing is stuck (looked into {found.looked_at} waiting run{'' if found.looked_at == 1 else 's'})"
        findings.append(Finding("runs", "ok", text))
    return findings


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))


def _examples(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:3])}" + (", .." if len(names) > 3 else "")
