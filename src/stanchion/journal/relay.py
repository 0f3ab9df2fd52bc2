"""The relay's port: short messages between the processes of one store, kept nowhere.

What is only of use now (the text of a model call in the making) goes this way. A message may be lost, but then both
ends are told: `send` answers False, and a listener hears None. Messages of one process arrive in the order in which
they were sent. A store whose runs are all driven by one process needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec


class Letter(msgspec.Struct, frozen=True):
    """A message, and for whom: the name of a process, or "" for all."""

    to: str
    text: str
    """At most `Wire.limit_bytes` as UTF-8, without NUL."""


Overheard: TypeAlias = Callable[[str | None], None]
"""Told a message, in the event loop; None: some may have been lost."""


class Wire(Protocol):
    """A process's end of the relay. What it sends to all it hears as well."""

    @property
    def name(self) -> str:
        """Name of this process, unlike any other's."""
        ...

    @property
    def limit_bytes(self) -> int:
        """How long a message may be."""
        ...

    async def send(self, letters: Sequence[Letter]) -> bool:
        """Send, in order; returns when they are on their way. False: some may not have left."""
        ...
