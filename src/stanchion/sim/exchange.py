"""What the three wires have in common: a request as the sim reads it (`Ask`), and its answer (`Answer`).

A wire module turns bytes into an `Ask` or raises `Refusal`, and an `Answer` into bytes. Ids are derived from the
request's bytes, so the same request gets the same answer, whoever sends it and however often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from stanchion.core.block import bare
from stanchion.sim.tokens import Piece, count_text, total

WireName = Literal["anthropic", "openai_chat", "openai_responses"]
Finish = Literal["stop", "tool_calls", "length", "refusal"]


class Refusal(Exception):
    """A request the provider would not take, with what its error body says. `param` names the offending field."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "invalid_request_error", param: str = "", code: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code


class AskedCall(msgspec.Struct, frozen=True):
    """A tool call in the history of a request."""

    id: str
    name: str
    arguments: str


class Turn(msgspec.Struct, frozen=True):
    """One side's turn in the history of a request; a tool's result is a turn of its own."""

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    calls: tuple[AskedCall, ...] = ()
    call_id: str = ""


class AskedTool(msgspec.Struct, frozen=True):
    """A tool that a request declares."""

    name: str
    schema: Mapping[str, Any] = {}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request, read and found valid."""

    wire: WireName
    model: str
    stream: bool
    system: str
    turns: tuple[Turn, ...]
    pieces: tuple[Piece, ...]
    tools: tuple[AskedTool, ...] = ()
    tool_choice: str = "auto"
    """"auto", "required", "none" or a tool's name."""
    max_tokens: int | None = None
    thinking: bool = False
    """The request lets the model think, so a reply's thinking is shown."""
    summary: bool = True
    """The readable form of the thinking is asked for."""
    encrypted: bool = False
    """The sealed form of the thinking is asked for (Responses)."""
    usage_in_stream: bool = True
    output_schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    """Texts that end the answer before them."""
    names: tuple[str, ...] = ()
    """Values of the body's user fields, which may name a conversation."""
    body: Mapping[str, Any] = {}
    """The body as sent, for the fields a response echoes."""
    digest: str = ""

    @property
    def input_tokens(self) -> int:
        """All input of the request."""
        return total(self.pieces)

    @property
    def turn(self) -> int:
        """How many times the assistant has spoken already."""
        return count_assistant(self.turns)

    @property
    def last_user(self) -> str:
        """The last thing the user said."""
        return next((t.text for t in reversed(self.turns) if t.role == "user"), "")

    @property
    def last_tool(self) -> str:
        """The last tool result, out of the block in which Stanchion shows what others wrote."""
        return bare(next((t.text for t in reversed(self.turns) if t.role == "tool"), ""))

    @property
    def after(self) -> str:
        """Whose turn came last: "user", "tool", or "assistant" for a prefill."""
        return self.turns[-1].role if self.turns else "user"

    def tool_of(self, call_id: str) -> str:
        """Name the tool that a call id belongs to, the latest call first."""
        for turn in reversed(self.turns):
            for call in turn.calls:
                if call.id == call_id:
                    return call.name
        return ""


class Usage(msgspec.Struct, frozen=True):
    """The tokens of one response; the kinds of input are disjoint."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0


class Call(msgspec.Struct, frozen=True):
    """A tool call of a reply; `arguments` is JSON text as the model would write it, well formed or not."""

    name: str
    arguments: str
    id: str = ""


class Said(msgspec.Struct, frozen=True):
    """What the simulated model says: settled, no templates left."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    finish: Finish = "stop"
    stopped_by: str = ""
    """The stop sequence that ended it, if one did."""


class Answer(msgspec.Struct, frozen=True):
    """A reply with everything a wire needs to encode it."""

    ask: Ask
    said: Said
    usage: Usage
    seed: str
    """Hex digits that every id of the response is made of."""
    created: int
    """Seconds since 1970, derived from the request too."""
    events: int | None = None
    """How many deltas a stream has; None: one for each simulated token."""


class Stream(msgspec.Struct, frozen=True):
    """A response as a stream: sent at once, then one beat per interval, then the ending that makes it complete."""

    head: bytes
    beats: tuple[tuple[bytes, int], ...]
    """Bytes, and the output tokens generated when they are sent."""
    tail: bytes


def count_assistant(turns: tuple[Turn, ...]) -> int:
    """Count assistant turns; neighbours without anything between them are one."""
    before = ("", *(t.role for t in turns))
    return sum(1 for was, turn in zip(before, turns, strict=False) if turn.role == "assistant" and was != "assistant")


def digest_of(path: str, body: bytes) -> str:
    """Derive the digits that the ids of the answer to a request are made of."""
    return hashlib.blake2b(body, digest_size=12, person=path[-16:].encode()).hexdigest()


def created_of(digest: str) -> int:
    """Derive a creation time from a request, so that the same request gets the same bytes."""
    return 1_750_000_000 + int(digest[:6], 16)


def output_tokens(said: Said) -> tuple[int, int]:
    """Count a reply: all output, and how much of it is reasoning."""
    thinking = count_text(said.thinking)
    calls = sum(count_text(c.name) + count_text(c.arguments) for c in said.calls)
    return thinking + count_text(said.text) + calls, thinking


def stop_at(said: Said, stops: tuple[str, ...]) -> Said:
    """End a reply before the first stop sequence in its text."""
    found = [(said.text.find(stop), stop) for stop in stops if stop and stop in said.text]
    if not found:
        return said
    at, stop = min(found)
    return Said(said.text[:at], said.thinking, finish="stop", stopped_by=stop)


def shorten(said: Said, max_tokens: int | None) -> Said:
    """Cut a reply where the request's output limit ends it; a call that does not fit whole is left out."""
    if max_tokens is None or output_tokens(said)[0] <= max_tokens:
        return said
    thinking, left = _take(said.thinking, max_tokens)
    text, left = _take(said.text, left)
    calls: list[Call] = []
    for call in said.calls:
        left -= count_text(call.name) + count_text(call.arguments)
        if left < 0:
            break
        calls.append(call)
    return Said(text=text, thinking=thinking, calls=tuple(calls), finish="length")


def _take(text: str, tokens: int) -> tuple[str, int]:
    taken = text.encode()[: 4 * max(tokens, 0)].decode(errors="ignore")
    return taken, tokens - count_text(taken)


def pieces_of(said: Said, events: int | None) -> list[list[str]]:
    """Split thinking, text and each call's arguments into deltas, `events` in all where there is enough to split.

    Without `events` a delta is one simulated token (4 characters). Each part that is not empty gets at least one.
    """
    parts = [said.thinking, said.text, *(call.arguments for call in said.calls)]
    length = sum(map(len, parts))
    if events is None or length == 0:
        return [_split(part, -(-len(part) // 4)) for part in parts]
    spread: list[list[str]] = []
    done = used = 0
    for part in parts:
        done += len(part)
        upto = round(events * done / length)
        spread.append(_split(part, upto - used))
        used = upto
    return spread


def _split(text: str, n: int) -> list[str]:
    if not text:
        return []
    n = max(1, min(n, len(text)))
    return [text[len(text) * i // n : len(text) * (i + 1) // n] for i in range(n)]
