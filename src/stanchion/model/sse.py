"""Server-sent events from bytes as they come, in any chunking.

Follows the WHATWG event-stream grammar: lines end in LF, CR or CRLF, a blank line ends an event, `:` begins a comment,
several `data` lines are joined by LF, a byte order mark at the start is skipped. `id` and `retry` are not kept: a model
call is never resumed by event id. Nothing here awaits.

Most events of a model stream are one `data:` line between blank lines, and there are 170 in a turn: `feed` splits on
the blank line in C and looks at lines only where an event has more than one.
"""

from __future__ import annotations

from typing import Final

BOM: Final = b"\xef\xbb\xbf"
MAX_EVENT_BYTES: Final = 32 * 1024 * 1024

Event = tuple[bytes, bytes]
"""The event's type (b"" where it is not named) and its data."""


class EventTooLong(ValueError):
    """An event is longer than the bound."""


class SseParser:
    """An incremental parser: `feed` gives the events that were completed, `close` a last one lacking only its blank line."""

    __slots__ = ("_after_cr", "_max_bytes", "_parts", "_size", "_started")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_event_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take a chunk in; the events that it completed. Raises `EventTooLong`."""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        if not chunk:
            return []
        parts = self._parts
        if parts:
            if chunk[0] != 10 and b"\n\n" not in chunk:
                # Not joined before an event ends: a long event in small chunks stays linear.
                self._keep(chunk)
                return []
            parts.append(chunk)
            chunk = b"".join(parts)
            parts.clear()
            self._size = 0
        blocks = chunk.split(b"\n\n")
        rest = blocks.pop()
        if rest:
            self._keep(rest)
        return self._events(blocks) if blocks else []

    def close(self) -> list[Event]:
        """The stream has ended: the event whose blank line alone is missing; a broken line is dropped."""
        rest = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return self._events([rest[:-1]]) if rest.endswith(b"\n") else []

    def _keep(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise EventTooLong(f"an event of more than {self._max_bytes} bytes")

    def _with_lf(self, chunk: bytes) -> bytes:
        """The chunk with LF for CRLF and CR. A CR at the end is a line's end at once; an LF after it belongs to it."""
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return b""
        if chunk:
            self._after_cr = chunk[-1] == 13
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _events(self, blocks: list[bytes]) -> list[Event]:
        if not self._started:
            self._started = True
            if blocks[0].startswith(BOM):
                blocks[0] = blocks[0][3:]
        events: list[Event] = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append((b"", block[6:]))
            elif block and (event := _event(block)) is not None:
                events.append(event)
        return events


def _event(block: bytes) -> Event | None:
    """The event of a block's lines; None if it has no data (comments, a lone `event:`)."""
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[7:] if line[6:7] == b" " else line[6:]
        elif line == b"data":
            data.append(b"")
    return (name, b"\n".join(data)) if data else None
