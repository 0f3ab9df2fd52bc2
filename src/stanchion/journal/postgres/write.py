"""What a lane is asked to write, and what it needs of each: its place, its append, its columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from stanchion.journal.head import Head
from stanchion.journal.queries import named
from stanchion.journal.store import Append, Start

SQL = named("postgres/journal.sql")
RunPlace: TypeAlias = tuple[str, str]
"""Tenant and run."""


class WriteAppend(msgspec.Struct, frozen=True):
    """An append, with its envelopes as they will lie in the database."""

    append: Append
    envelopes: tuple[bytes, ...]


class WriteStart(msgspec.Struct, frozen=True):
    """A start, with the envelopes of its first append."""

    start: Start
    envelopes: tuple[bytes, ...]


class WriteClaim(msgspec.Struct, frozen=True):
    """A claim."""

    tenant: str
    run: str
    worker: str
    lease_ms: int


class WritePost(msgspec.Struct, frozen=True):
    """A row for an inbox."""

    tenant: str
    run: str
    kind: str
    body: bytes
    key: str = ""
    digest: str = ""


Write: TypeAlias = WriteAppend | WriteStart | WriteClaim | WritePost


class Posted:
    """The id of a post, once it is written."""

    __slots__ = ("body", "head", "id", "kind")

    def __init__(self, head: Head, kind: str, body: bytes) -> None:
        self.head = head
        self.kind = kind
        self.body = body
        self.id = 0


def append_of(write: Write) -> Append | None:
    """Find what a write appends."""
    match write:
        case WriteAppend():
            return write.append
        case WriteStart():
            return write.start.first
        case _:
            return None


def place_of(write: Write) -> RunPlace:
    """Name the run of a write."""
    match write:
        case WriteAppend():
            return write.append.tenant, write.append.run
        case WriteStart():
            return write.start.tenant, write.start.run
        case _:
            return write.tenant, write.run


def columns_of(rows: Iterable[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    """Turn rows into columns."""
    return list(zip(*rows, strict=True)) or [()] * width
