"""A response in the making: the parts so far and the deltas not yet handed on. Every wire's decoder builds on one.

A part gets its index when its first piece comes, so that an empty block takes none and the index of a delta is that of
the part in the finished response. Pieces of one part that come together leave as one delta. Nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from stanchion.core.message import MODEL, Delta, Opaque, Part, Text, Thinking, ToolCall

DeltaKind = Literal["text", "thinking", "tool_call"]

encode_json = msgspec.json.encode


def json_text(value: Any) -> str:
    """The value as JSON text."""
    return encode_json(value).decode()


def argument_text(value: Any) -> str:
    """Tool arguments as the JSON text they should have come as: some servers send an object, or nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else json_text(value)


class PartDraft:
    """One part in the making."""

    __slots__ = ("data", "id", "index", "kind", "name", "pieces", "signature")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.index = -1
        self.pieces: list[str] = []
        self.id = ""
        self.name = ""
        self.signature = ""
        self.data: dict[str, Any] | str = ""

    @property
    def text(self) -> str:
        """What has come of it."""
        return "".join(self.pieces)


class Draft:
    """The parts and the pending deltas of one response."""

    __slots__ = ("_kind", "_listening", "_open", "_pending", "_pieces", "parts", "wire")

    def __init__(self, wire: str, *, listening: bool = True) -> None:
        self.wire = wire
        self.parts: list[PartDraft] = []
        self._listening = listening
        self._pending: list[Delta] = []
        self._open: PartDraft | None = None
        self._kind: DeltaKind = "text"
        self._pieces: list[str] = []

    def write(self, part: PartDraft, kind: DeltaKind, piece: str) -> None:
        """Append a piece to a part, which takes its place if it has none."""
        if part.index < 0:
            self.place(part)
        part.pieces.append(piece)
        if not self._listening:
            return
        if self._open is not part:
            self._flush()
            self._open = part
            self._kind = kind
        self._pieces.append(piece)

    def place(self, part: PartDraft) -> None:
        """Give the part its index."""
        part.index = len(self.parts)
        self.parts.append(part)

    def begin_call(self, part: PartDraft) -> None:
        """Place a tool call and announce its name."""
        self.place(part)
        if self._listening:
            self._flush()
            self._pending.append(Delta("tool_call", part.index, "", part.name))

    def take_deltas(self) -> list[Delta]:
        """What has come since the last time."""
        self._flush()
        deltas, self._pending = self._pending, []
        return deltas

    def _flush(self) -> None:
        if self._open is not None:
            if self._pieces:
                self._pending.append(Delta(self._kind, self._open.index, "".join(self._pieces)))
                self._pieces = []
            self._open = None

    def finished(self) -> tuple[Part, ...]:
        """The parts, in order."""
        return tuple(finish_part(part, self.wire) for part in self.parts)


def finish_part(part: PartDraft, wire: str) -> Part:
    """The part of a draft."""
    data = part.data if isinstance(part.data, str) else (json_text(part.data) if part.data else "")
    match part.kind:
        case "text":
            return Text(part.text, MODEL, wire=wire if data else "", data=data)
        case "thinking":
            return Thinking(part.text, MODEL, signature=part.signature, wire=wire, data=data)
        case "tool_call":
            return ToolCall(part.id, part.name, part.text, MODEL, wire=wire if data else "", data=data)
        case _:
            return Opaque(wire, part.kind, data, MODEL)


def tokens(fields: Mapping[str, Any] | None, *path: str) -> int:
    """A count of tokens in a usage object, 0 where it is absent or no number."""
    value: Any = fields
    for key in path:
        if not isinstance(value, dict):
            return 0
        value = cast("dict[str, Any]", value).get(key)
    return max(0, int(value)) if isinstance(value, int | float) and not isinstance(value, bool) else 0
