"""The port of users' connections: tokens that act for a person, sealed before they come here. Part of the store's.

A row is replaced by compare and set on its version, which rises with each change and does not come back when the row is made
anew. `claim` keeps two workers from renewing at once. Erasing a user's content (`Store.destroy_key`) takes the rows as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from stanchion.core.credential import Sealed


class Connection(msgspec.Struct, frozen=True):
    """That a user has connected something."""

    user: str
    name: str
    created_ms: int
    updated_ms: int


class Connections(Protocol):
    """Where connections are kept. Every method may raise `JournalError`."""

    async def get(self, tenant: str, user: str, name: str) -> Sealed | None:
        """Read a connection."""
        ...

    async def put(self, tenant: str, user: str, name: str, body: bytes, *, over: int) -> int:
        """Write in place of version `over` (0: there is none); return the new version, or 0 if another was faster."""
        ...

    async def claim(self, tenant: str, user: str, name: str, *, version: int, for_ms: int) -> bool:
        """Say that this version is being renewed, for so long by the store's clock; with 0, that it is no more.

        False: it is another version, or somebody else renews it.
        """
        ...

    async def remove(self, tenant: str, user: str, name: str, *, version: int = 0) -> bool:
        """Remove a connection, of this version only if one is given. False: there is none."""
        ...

    async def listed(self, tenant: str, user: str = "") -> Sequence[Connection]:
        """List a tenant's connections by user and name, or a user's."""
        ...
