"""The hash chain of a run's journal, and the check of it.

What is chained is the envelope as it is stored, byte for byte: `hash = SHA-256(previous hash || envelope)`. The envelope
holds each content part's label, size, key id and salted commitment, never its text, so the chain still verifies after
content was erased (invariant I13). A run's chain begins with a hash over its tenant and id.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from stanchion.core.event import Event
from stanchion.core.message import Label


class PartRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A content part as the envelope names it."""

    kind: str
    label: Label
    key: str
    """Id of the key under which the content is committed and sealed."""
    commit: str
    """Commitment to the content: HMAC-SHA-256 under the key's salt, first 192 bits, base64url. Salts go with keys."""
    size: int
    """Bytes of the content."""


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as it is stored and hashed: `event` without its parts, and what they were."""

    seq: int
    at_ms: int
    epoch: int
    event: msgspec.Raw
    parts: tuple[PartRef, ...] = ()
    v: int = 1
    """Version of the event's type; older ones are upcast on reading (I11)."""


class Outline(msgspec.Struct, frozen=True):
    """An event in its place without its content: what happened, and of which parts. An erasure takes nothing of it."""

    seq: int
    at_ms: int
    event: Event
    parts: tuple[PartRef, ...] = ()


def genesis(tenant: str, run: str) -> bytes:
    """Hash before a run's first event."""
    return hashlib.sha256(f"stanchion/1\0{tenant}\0{run}".encode()).digest()


def link(previous: bytes, envelope: bytes) -> bytes:
    """Hash of an event, from the hash before it and its stored envelope."""
    return hashlib.sha256(previous + envelope).digest()


def commitment(salt: bytes, content: bytes) -> bytes:
    """Commit to content without telling it: equal content under one salt has one commitment, under two it has two."""
    return hmac.digest(salt, content, "sha256")[:24]


_events = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    """Encode an event without its parts, as the envelope holds it."""
    return _events.encode(msgspec.structs.replace(event, parts=()) if event.parts else event)
