"""What a tool may be handed besides its arguments: a credential for one attempt. Data only.

    async def find(name: str, token: Annotated[Credential, Needs("crm", scopes=("contacts.read",))]) -> str: ...

The value is in no event, no argument and no message, and no text of it shows it: print, format and repr say who made it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import msgspec


class Needs(msgspec.Struct, frozen=True, omit_defaults=True):
    """Says which credential a parameter takes: its name among the agent's `credentials`, and what it must allow."""

    name: str
    scopes: tuple[str, ...] = ()
    """No more than these are asked for; every one must be granted."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that was made for one attempt at one call. It goes to the service that it is for, and nowhere else."""

    value: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    expires_ms: int = 0
    """When it ends, in milliseconds since 1970; 0: not known."""

    @property
    def bearer(self) -> str:
        """The value of an `Authorization` header (RFC 6750)."""
        return f"Bearer {self.value}"

    def __str__(self) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied into another process or a file."""
        raise TypeError("a Credential is for one attempt in this process; it is not pickled")


class Sealed(msgspec.Struct, frozen=True):
    """A user's connection as a store keeps it: encrypted, with what it takes to replace it once."""

    body: bytes
    version: int
    """Raised by each change."""
    busy_until_ms: int = 0
    """Until then somebody else renews it."""
