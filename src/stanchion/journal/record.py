"""Events to records and back: the envelope that is hashed, and the contents that lie apart from it.

A `Recorder` is one run's: it knows the content key and the last hash, and gives each event its place. The content of a
part goes through the cipher port and is found again by (key, commitment). Nothing here awaits.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from stanchion.core import chain
from stanchion.core.errors import BrokenChain, UnknownEvent
from stanchion.core.event import Compacted, Entry, Event, SummaryWritten
from stanchion.core.message import Erased, Label, Media, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from stanchion.core.upcast import decode_event, version_of
from stanchion.journal.store import Content, Key, RawRecord, Record


class Cipher(Protocol):
    """How content is kept from those without the key."""

    def seal(self, key: Key, content: bytes) -> bytes:
        """Make what is stored."""
        ...

    def open(self, key: Key, blob: bytes) -> bytes:
        """Read what was stored."""
        ...


class Identity:
    """No encryption: content lies in the store as it is, and goes when its key is destroyed."""

    def seal(self, key: Key, content: bytes) -> bytes:
        """Return the content."""
        return content

    def open(self, key: Key, blob: bytes) -> bytes:
        """Return the content."""
        return blob


_KINDS: dict[str, type[Any]] = {
    "text": Text,
    "rich_text": Text,
    "thinking": Thinking,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
    "media": Media,
    "opaque": Opaque,
}
"""Text is stored as it is; text that has a provider's fields with it is "rich_text"."""
_TAGS: dict[type[Any], str] = {cls: tag for tag, cls in _KINDS.items() if tag != "rich_text"}
_FIELDS: dict[type[Any], tuple[str, ...]] = {
    cls: tuple(name for name in cls.__struct_fields__ if name != "label") for cls in _TAGS
}
_REQUIRED: dict[type[Any], dict[str, str]] = {
    cls: {field.name: "" for field in msgspec.structs.fields(cls) if field.required and field.name != "label"}
    for cls in _TAGS
}
"""All of them are strings: an empty one is not stored."""
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode
_decode_envelope = msgspec.json.Decoder(chain.Envelope).decode


def kind_of(part: Part) -> str:
    """Name the form in which a part's content is stored."""
    if isinstance(part, Erased):
        raise ValueError("an erased part has no content to store")
    if isinstance(part, Text) and (part.wire or part.data):
        return "rich_text"
    return _TAGS[type(part)]


def pack(part: Part) -> bytes:
    """Encode a part's content without its label: text as it is, anything else as a JSON object."""
    if kind_of(part) == "text":
        return part.text.encode()  # type: ignore[union-attr]
    return _encode_json({name: value for name in _FIELDS[type(part)] if (value := getattr(part, name))})


def unpack(kind: str, label: Label, content: bytes) -> Part:
    """Decode a part's content."""
    if kind == "text":
        return Text(content.decode(), label)
    cls, stored = _KINDS[kind], _decode_json(content)
    known = {name: stored[name] for name in _FIELDS[cls] if name in stored}
    if "media" in known:
        known["media"] = msgspec.convert(known["media"], tuple[Media, ...])
    return cls(label=label, **(_REQUIRED[cls] | known))


class Recorder:
    """Gives a run's events their places in its chain.

    `seq` and `hash` are those of the last event. They move with `record`; after an append that failed the recorder is
    to be thrown away with the state that it belonged to.
    """

    def __init__(
        self, key: Key, cipher: Cipher, *, seq: int, hash: bytes, at_ms: int, memory: Key | None = None
    ) -> None:
        """`memory`: the key under which lies what was recalled, and what was derived of it; None: it lies under that of the rest."""
        self.key = key
        self.memory = memory or key
        self.cipher = cipher
        self.seq = seq
        self.hash = hash
        self.at_ms = at_ms

    def record(self, events: Iterable[Event], *, now_ms: int, epoch: int) -> tuple[list[Entry], list[Record]]:
        """Place events after the last one. Event time is the clock's, but never before the previous event's."""
        entries: list[Entry] = []
        records: list[Record] = []
        self.at_ms = max(self.at_ms, now_ms)
        for event in events:
            self.seq += 1
            derived = isinstance(event, SummaryWritten | Compacted)  # of what was recalled, among the rest
            contents = tuple(self._content(part, derived=derived) for part in event.parts)
            refs = tuple(
                chain.PartRef(kind_of(part), part.label, stored.key, _text(stored.commit), size)
                for part, (stored, size) in zip(event.parts, contents, strict=True)
            )
            tag = str(event.__struct_config__.tag)
            body = msgspec.Raw(chain.encode_event(event))
            envelope = _encode_json(chain.Envelope(self.seq, self.at_ms, epoch, body, refs, version_of(tag)))
            self.hash = chain.link(self.hash, envelope)
            entries.append(Entry(self.seq, self.at_ms, epoch, event, self.hash))
            records.append(Record(self.seq, envelope, self.hash, tuple(stored for stored, _ in contents)))
        return entries, records

    def _content(self, part: Part, *, derived: bool) -> tuple[Content, int]:
        content = pack(part)
        key = self.memory if derived or part.label.source == "memory" else self.key
        commit = chain.commitment(key.salt, content)
        return Content(key.id, commit, self.cipher.seal(key, content)), len(content)


def read_envelope(envelope: bytes) -> chain.Envelope:
    """Decode a stored envelope. Raises `BrokenChain` on what is none."""
    try:
        return _decode_envelope(envelope)
    except (msgspec.MsgspecError, ValueError) as error:  # a ValueError: not UTF-8
        raise BrokenChain(f"an envelope cannot be read: {error}") from error


def content_ids(envelope: chain.Envelope) -> list[tuple[str, bytes]]:
    """List the (key, commitment) of an envelope's contents, in order."""
    return [(ref.key, commit_bytes(ref.commit)) for ref in envelope.parts]


def read_entry(raw: RawRecord) -> Entry:
    """Decode a record. Contents that were erased come as `Erased` parts. Raises `BrokenChain`, `UnknownEvent`.

    Both name the event. One record alone does not tell a type that was damaged from one that is newer: `verify` does.
    """
    try:
        envelope = _decode_envelope(raw.envelope)
        event = decode_event(envelope.event, envelope.v)
        if envelope.parts:
            event = msgspec.structs.replace(event, parts=_parts(envelope.parts, raw.contents))
    except UnknownEvent as error:
        error.seq = raw.seq
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
        raise BrokenChain(f"event {raw.seq} cannot be read: {error}", seq=raw.seq) from error
    return Entry(envelope.seq, envelope.at_ms, envelope.epoch, event, raw.hash)


def read_outline(seq: int, stored: bytes) -> chain.Outline:
    """Decode an envelope for what it says without its content. Raises `BrokenChain`, `UnknownEvent`, which name the event."""
    try:
        envelope = _decode_envelope(stored)
        event = decode_event(envelope.event, envelope.v)
    except UnknownEvent as error:
        error.seq = seq
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
        raise BrokenChain(f"event {seq} cannot be read: {error}", seq=seq) from error
    return chain.Outline(envelope.seq, envelope.at_ms, event, envelope.parts)


def _parts(refs: Sequence[chain.PartRef], contents: Sequence[bytes | None]) -> tuple[Part, ...]:
    for ref in refs:
        if ref.kind not in _KINDS:
            raise UnknownEvent(f"a part of kind {ref.kind!r} was written by a newer Stanchion; upgrade to read it")
    return tuple(
        Erased(ref.kind, ref.label) if content is None else unpack(ref.kind, ref.label, content)
        for ref, content in zip(refs, contents, strict=True)
    )


class Verified(msgspec.Struct, frozen=True):
    """What a check of a chain found: all in order, with so many events, and so many parts erased."""

    events: int
    erased: int
    head: bytes


def verify(tenant: str, run: str, records: Sequence[RawRecord], salts: dict[str, bytes]) -> Verified:
    """Check a run's records from the first on: hashes, gapless seqs, times, commitments. `salts`: of the keys that exist.

    Raises `BrokenChain` with the seq of the first bad event.
    """
    previous, at_ms, erased = chain.genesis(tenant, run), 0, 0
    for place, record in enumerate(records, start=1):
        problem, at_ms, gone = _check(record, place, previous, at_ms, salts)
        if problem:
            raise BrokenChain(f"event {place} of {run}: {problem}", run=run, seq=place)
        previous, erased = record.hash, erased + gone
    return Verified(len(records), erased, previous)


def _check(record: RawRecord, place: int, previous: bytes, at_ms: int, salts: dict[str, bytes]) -> tuple[str, int, int]:
    if chain.link(previous, record.envelope) != record.hash:
        return "its content or its place is not what was written (the hash differs)", at_ms, 0
    try:
        envelope = read_envelope(record.envelope)
    except BrokenChain as error:
        return str(error), at_ms, 0
    if envelope.seq != place or record.seq != place:
        return f"it says that it is event {envelope.seq}", at_ms, 0
    if envelope.at_ms < at_ms:
        return "its time is before the event before it", at_ms, 0
    if len(envelope.parts) != len(record.contents):
        return f"it has {len(record.contents)} content parts of {len(envelope.parts)}", at_ms, 0
    gone = 0
    for number, (ref, content) in enumerate(zip(envelope.parts, record.contents, strict=True)):
        if content is None:
            gone += 1
            if ref.key in salts:
                return f"content part {number} is missing though its key was not destroyed", at_ms, gone
        elif ref.key not in salts:
            return f"content part {number} is there though its key was destroyed", at_ms, gone
        elif _text(chain.commitment(salts[ref.key], content)) != ref.commit:
            return f"content part {number} is not what was written", at_ms, gone
    return "", envelope.at_ms, gone


def _text(commit: bytes) -> str:
    return base64.urlsafe_b64encode(commit).decode()


def commit_bytes(text: str) -> bytes:
    """Commitment from its text form."""
    return base64.urlsafe_b64decode(text)
