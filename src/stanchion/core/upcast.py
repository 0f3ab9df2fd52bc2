"""Events of older versions, brought up to date on reading (invariant I11).

Stored events are never rewritten. `VERSIONS` names the current version of every type that has had more than one;
`UPCASTS[type, v]` turns the plain form of version v into v + 1. Golden journals in `tests/golden` hold it to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from stanchion.core.errors import UnknownEvent
from stanchion.core.event import Event

VERSIONS: Mapping[str, int] = {}
UPCASTS: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}

_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Event))


def version_of(tag: str) -> int:
    """Current version of an event type."""
    return VERSIONS.get(tag, 1)


def decode_event(body: bytes | msgspec.Raw, v: int = 1) -> Event:
    """Decode a stored event (without its parts) of version `v`.

    Raises `msgspec.ValidationError` on what it is not, and `UnknownEvent` if a newer program wrote it.
    """
    if v == 1 and not VERSIONS:
        try:
            return _events.decode(body)
        except msgspec.ValidationError:
            _check_known(msgspec.json.decode(body), v)
            raise
    plain = msgspec.json.decode(body)
    tag = _check_known(plain, v)
    for step in range(v, version_of(tag)):
        plain = UPCASTS[tag, step](plain)
    return msgspec.convert(plain, Event)


def _check_known(plain: Any, v: int) -> str:
    """Give the type of an event's plain form. Raises `UnknownEvent` if it, or its version, is not known here."""
    tag = plain["type"]
    if tag not in _TYPES:
        raise UnknownEvent(f"an event of type {tag!r} was written by a newer Stanchion; upgrade to read it")
    if v > version_of(tag):
        raise UnknownEvent(f"{tag!r} is of version {v}, which a newer Stanchion wrote; upgrade to read it")
    return tag
