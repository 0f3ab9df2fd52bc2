"""The port of a model call, and what it takes to make one.

A client makes one attempt and never retries: retries and fallback are the loop's and stand in the journal. It returns
a whole `ModelResponse` or raises `ModelError` with a code, and with what had come until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from stanchion.core.bundle import Timeouts
from stanchion.core.message import Delta, ModelRequest, ModelResponse

OnDeltas = Callable[[Sequence[Delta]], None]


class Endpoint(msgspec.Struct, frozen=True):
    """Where a provider is reached. Never journaled: it holds the key."""

    base_url: str
    api_key: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, api_key={'***' if self.api_key else ''!r})"


class ModelClient(Protocol):
    """One attempt at a model call."""

    def encode(self, request: ModelRequest) -> bytes:
        """The body that `call` would send: pure, the same bytes for the same request. Raises `ModelError` (unsupported)."""
        ...

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        """Make the call, streaming. `on_deltas` is called with what has come, coalesced, as it comes."""
        ...

    async def aclose(self) -> None:
        """Give back the connections."""
        ...
