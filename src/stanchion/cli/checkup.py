"""What `stanchion doctor` finds about runs and about a database: whether it can be used, and whether anybody drives.

A schema that is older than this program's is not touched: it is brought forward by whoever serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from stanchion.runtime.operating.probing import DatabaseFacts
    from stanchion.runtime.operating.survey import Survey

Level = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """What a check found, and how to mend it."""

    check: str
    level: Level
    found: str
    mend: str = ""


def database(url: str) -> list[Finding]:
    """Try a PostgreSQL database: reach it, its schema, how it commits, what a durable write costs, how many may connect."""
    from stanchion.core.errors import StanchionError
    from stanchion.runtime.operating.probing import probe_database

    try:
        facts = asyncio.run(probe_database(url))
    except StanchionError as error:
        return [Finding("database", "fail", str(error), "check --data, and that the server runs and lets this user in")]
    return [_server(facts), _schema(facts), _commits(facts), _connections(facts)]


def _server(facts: DatabaseFacts) -> Finding:
    found = f"{facts.name}, PostgreSQL {facts.version}, {facts.round_trip_ms:.1f} ms there and back"
    if facts.major < 14:
        return Finding("database", "fail", found, "use PostgreSQL 14 or later")
    if facts.round_trip_ms > 10:
        return Finding(
            "database", "warn", found, "every step of a run takes four of these: put workers near the database"
        )
    return Finding("database", "ok", found)


def _schema(facts: DatabaseFacts) -> Finding:
    if not facts.schema:
        return Finding("schema", "ok", "there is none yet; it is made on first use")
    said = f"version {facts.schema}, of programs from {facts.usable_from} on; this one knows {facts.known}"
    if facts.usable_from > facts.known:
        return Finding("schema", "fail", said, "upgrade Stanchion")
    if facts.schema < facts.known:
        return Finding("schema", "warn", said, "it is brought forward at the next start; read the upgrade page first")
    return Finding("schema", "ok", said)


def _commits(facts: DatabaseFacts) -> Finding:
    found = ", ".join(f"{name}={value}" for name, value in facts.settings.items())
    if "off" in (facts.settings["fsync"], facts.settings["full_page_writes"]):
        return Finding(
            "durability", "fail", found, "turn both on: a crash of the server may lose or break what was written"
        )
    return Finding("durability", "ok", found)


def _connections(facts: DatabaseFacts) -> Finding:
    found = f"{facts.connections} of {facts.max_connections}; each process of ours uses up to 6"
    if facts.max_connections - facts.connections < 12:
        return Finding("connections", "warn", found, "raise max_connections, or run fewer processes")
    return Finding("connections", "ok", found)


def runs(data: str) -> list[Finding]:
    """Look for runs that nobody drives, that stand, and that can never wake."""
    from stanchion.core.errors import StanchionError
    from stanchion.runtime.opening.store import is_database
    from stanchion.runtime.operating.probing import is_file_of_this_version, probe_database
    from stanchion.runtime.operating.survey import survey

    if is_database(data):
        try:
            facts = asyncio.run(probe_database(data))
        except StanchionError:
            return []
        untouched = facts.schema >= facts.known >= facts.usable_from
    else:
        untouched = is_file_of_this_version(Path(data.removeprefix("sqlite:///")))
    if not untouched:
        return []  # (to look at its runs would bring the schema forward; another check says what there is to say)
    return judged(asyncio.run(survey(data)), shared=is_database(data))


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
        text = "more is asked than is driven" + (": add workers" if shared else "") + "; or a cap: stanchion shares ls"
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
