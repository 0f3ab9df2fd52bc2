"""What an append announces, written in the transaction of the append."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.journal.alert import Alert
from stanchion.journal.outbox import Announcement, Endpoint, Secrets
from stanchion.journal.queries import named
from stanchion.journal.sqlite.connection import Connection
from stanchion.journal.store import Append

_SQL = named("sqlite/outbox.sql")


def announce(connection: Connection, append: Append, now_ms: int) -> None:
    """Add a delivery for each endpoint that wants to hear of what an append announces."""
    rows: list[Any] = connection.execute(_SQL["wanting"], (append.tenant, append.run)).fetchall()
    for endpoint in map(endpoint_of, rows):
        for said in append.announce:
            if endpoint.wants(append.run, said):
                add_delivery(connection, endpoint, append.run, said, now_ms)


def alert(connection: Connection, told: Alert, said: Announcement, now_ms: int) -> None:
    """Add a delivery of an alert for each endpoint of its tenant that wants to hear of it."""
    rows: list[Any] = connection.execute(_SQL["wanting"], (told.tenant, "")).fetchall()
    for endpoint in map(endpoint_of, rows):
        if endpoint.wants("", said):
            add_delivery(connection, endpoint, "", said, now_ms, told.delivery(endpoint.id, said.kind))


def add_delivery(
    connection: Connection, endpoint: Endpoint, run: str, said: Announcement, now_ms: int, name: str = ""
) -> str:
    """Add one delivery; return its id."""
    name = name or said.delivery(endpoint.tenant, endpoint.id, run)
    place = (endpoint.tenant, name, endpoint.id, endpoint.lane)
    connection.execute(_SQL["insert_delivery"], (*place, said.kind, run, said.seq, said.body, now_ms))
    return name


def add_endpoint(connection: Connection, endpoint: Endpoint, now_ms: int) -> bool:
    """Add an endpoint. False: there is one of its id."""
    e = endpoint
    lists = (_json(e.events), _json(e.agents), _json(e.include))
    secrets = (e.secrets.current, e.secrets.previous, e.secrets.previous_until_ms)
    values = (e.tenant, e.id, e.url, e.lane, *lists, *secrets, int(e.enabled), e.note, e.run, now_ms)
    connection.execute(_SQL["insert_endpoint"], values)
    return connection.changes() > 0


def endpoint_of(row: Any) -> Endpoint:
    """Make an endpoint of its row."""
    tenant, name, url, lane, events, agents, include, secret, previous, until_ms, enabled, note, run, made_ms = row
    return Endpoint(
        tenant=tenant, id=name, url=url, lane=lane,
        events=tuple(msgspec.json.decode(events)), agents=tuple(msgspec.json.decode(agents)),
        include=tuple(msgspec.json.decode(include)), secrets=Secrets(secret, previous, until_ms),
        enabled=bool(enabled), note=note, run=run, created_ms=made_ms,
    )  # fmt: skip


def _json(names: tuple[str, ...]) -> str:
    return msgspec.json.encode(names).decode()
