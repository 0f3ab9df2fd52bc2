"""Events of older versions, brought up to date on reading (invariant I11).

Stored events are never rewritten. `VERSIONS` names the current version of every type that has had more than one;
`UPCASTS[type, v]` turns the plain form of version v into v + 1. Golden journals in `tests/golden` hold it to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stanchion.core.event import Event

VERSIONS: Mapping[str, int] = {}
UPCASTS: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}

_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def version_of(tag: str) -> int:
    """Current version of an event type."""
    return VERSIONS.get(tag, 1)


def decode_event(body: bytes | msgspec.Raw, v: int = 1) -> Event:
    """Decode a stored event (without its parts) of version `v`. Raises `msgspec.ValidationError` on what it is not."""
    if v == 1 and not VERSIONS:
        return _events.decode(body)
    plain = msgspec.json.decode(body)
    tag = plain["type"]
    if v > version_of(tag):
        raise msgspec.ValidationError(f"{tag!r} is of version {v}, which a newer Stanchion wrote; upgrade to read it")
    for step in range(v, version_of(tag)):
        plain = UPCASTS[tag, step](plain)
    return msgspec.convert(plain, Event)
