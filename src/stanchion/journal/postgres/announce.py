"""What a group's appends announce, written in the transaction of the group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.journal.alert import Alert
from stanchion.journal.outbox import Announcement, Endpoint, Secrets
from stanchion.journal.postgres.address import Connection
from stanchion.journal.queries import named
from stanchion.journal.store import Append

OUTBOX = named("postgres/outbox.sql")


async def add_endpoint(connection: Connection, endpoint: Endpoint) -> bool:
    """Add an endpoint. False: there is one of its id."""
    e = endpoint
    secrets = (e.secrets.current, e.secrets.previous, e.secrets.previous_until_ms)
    values = (e.tenant, e.id, e.url, e.lane, e.events, e.agents, e.include, *secrets, e.enabled, e.note, e.run)
    return bool(await connection.fetch(OUTBOX["insert_endpoint"], *values))


async def announce(connection: Connection, appends: Sequence[Append], now_ms: int) -> None:
    """Add a delivery for each endpoint that wants to hear of what appends announce, in their order."""
    places = sorted({(append.tenant, run) for append in appends for run in ("", append.run)})
    rows = await connection.fetch(OUTBOX["wanting"], *zip(*places, strict=True))
    endpoints = [endpoint_of(row) for row in rows]
    made = [
        (
            e.tenant, said.delivery(e.tenant, e.id, append.run), e.id, e.lane, said.kind, append.run,
            said.seq, said.body,
        )
        for append in appends for said in append.announce for e in endpoints
        if e.tenant == append.tenant and e.wants(append.run, said)
    ]  # fmt: skip
    if made:
        await connection.execute(OUTBOX["insert_deliveries"], *zip(*made, strict=True), now_ms)


async def alert(connection: Connection, told: Alert, said: Announcement, now_ms: int) -> None:
    """Add a delivery of an alert for each endpoint of its tenant that wants to hear of it."""
    endpoints = [endpoint_of(row) for row in await connection.fetch(OUTBOX["wanting"], [told.tenant], [""])]
    made = [
        (e.tenant, told.delivery(e.id, said.kind), e.id, e.lane, said.kind, "", said.seq, said.body)
        for e in endpoints
        if e.wants("", said)
    ]
    if made:
        await connection.execute(OUTBOX["insert_deliveries"], *zip(*made, strict=True), now_ms)


def endpoint_of(row: Any) -> Endpoint:
    """Make an endpoint of its row."""
    tenant, name, url, lane, events, agents, include, secret, previous, until_ms, enabled, note, run, made_ms = row
    return Endpoint(
        tenant=tenant, id=name, url=url, lane=lane, events=tuple(events), agents=tuple(agents), include=tuple(include),
        secrets=Secrets(secret, previous, until_ms), enabled=enabled, note=note, run=run, created_ms=made_ms,
    )  # fmt: skip
