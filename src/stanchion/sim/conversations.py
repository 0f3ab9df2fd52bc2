"""Recorded conversations, and how a request says which one it belongs to.

A conversation is a list of messages in OpenAI chat form. A request that holds N assistant turns is answered with the
recording's assistant turn N + 1: nothing is remembered between requests, so a client may die and ask again.

A request names its conversation by the first of:
  1. the header `x-sim-conversation`
  2. a model `sim/<conversation>` (a vendor prefix before it does no harm; the recording must be loaded)
  3. a marker `[sim-conversation: <conversation>]` in the system prompt or in anything the user said
  4. the body's `metadata.user_id`, `safety_identifier` or `user`: `sim-<conversation>`, or the bare name of a loaded one
  5. an API key `sim-<conversation>`
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from stanchion.core.errors import InputError
from stanchion.sim.exchange import Ask, Call, Refusal, Said
from stanchion.sim.script import Played

_MARKER = re.compile(r"\[sim-conversation:\s*([^\]\s]+)\s*\]")
_MODEL = re.compile(r"(?:^|[/:])sim/(.+)$")


class RecordedFunction(msgspec.Struct, frozen=True):
    """A recorded call's function."""

    name: str
    arguments: str


class RecordedCall(msgspec.Struct, frozen=True):
    """A recorded tool call."""

    function: RecordedFunction
    id: str = ""


class RecordedMessage(msgspec.Struct, frozen=True):
    """A recorded message in OpenAI chat form; of tool results and the user only the role matters."""

    role: str
    content: Any = None
    tool_calls: list[RecordedCall] | None = None
    reasoning_content: str | None = None


class Conversation(msgspec.Struct, frozen=True):
    """What the recorded assistant says, turn by turn."""

    turns: tuple[Said, ...]


def load_messages(data: bytes) -> Conversation:
    """Read a conversation from JSON: a list of messages, or an object with `messages` or `traj`; raises `InputError`."""
    try:
        value: Any = msgspec.json.decode(data)
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            value = members.get("messages", members.get("traj"))
        messages = msgspec.convert(value, list[RecordedMessage])
    except msgspec.DecodeError as error:
        raise InputError(f"this is no list of chat messages: {error}", field="messages") from None
    return record(messages)


def record(messages: list[RecordedMessage]) -> Conversation:
    """Keep the assistant's turns; assistant messages with nothing between them are one turn."""
    turns: list[Said] = []
    before = ""
    for message in messages:
        if message.role == "assistant":
            said = _said(message)
            turns = [*turns[:-1], _joined(turns[-1], said)] if before == "assistant" else [*turns, said]
        before = message.role
    if not turns:
        raise InputError("this conversation has no assistant message to play", field="messages")
    return Conversation(tuple(turns))


def _said(message: RecordedMessage) -> Said:
    calls = tuple(Call(c.function.name, c.function.arguments, c.id) for c in message.tool_calls or ())
    return Said(
        _text(message.content), message.reasoning_content or "", calls, finish="tool_calls" if calls else "stop"
    )


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    try:
        return "".join(part["text"] for part in content if part.get("type") == "text")
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"content must be a string or a list of parts, not {content!r:.80}", field="content") from None


def _joined(first: Said, second: Said) -> Said:
    text = "\n".join(filter(None, (first.text, second.text)))
    thinking = "\n".join(filter(None, (first.thinking, second.thinking)))
    calls = first.calls + second.calls
    return Said(text, thinking, calls, finish="tool_calls" if calls else "stop")


class Shelf:
    """The conversations that are loaded."""

    def __init__(self) -> None:
        self._by_id: dict[str, Conversation] = {}

    def put(self, name: str, conversation: Conversation) -> None:
        """Add or replace a conversation."""
        self._by_id[name] = conversation

    def names(self) -> list[str]:
        """List the names."""
        return sorted(self._by_id)

    def get(self, name: str) -> Conversation | None:
        """Find a conversation."""
        return self._by_id.get(name)

    def clear(self) -> None:
        """Forget all."""
        self._by_id.clear()

    def identify(self, ask: Ask, header: str, key: str) -> str:
        """Say which conversation a request belongs to, or ""."""
        named = header or self._by_model(ask) or _by_marker(ask)
        if named:
            return named
        for name in ask.names:
            bare = name.removeprefix("sim-")
            if bare in self._by_id or bare != name:
                return bare
        return key.removeprefix("sim-") if key.startswith("sim-") else ""

    def _by_model(self, ask: Ask) -> str:
        found = _MODEL.search(ask.model)
        if found is None:
            return ""
        if found[1] not in self._by_id:
            raise Refusal(
                f"model: {ask.model} (the simulated provider has no conversation {found[1]!r}; "
                f"PUT /sim/conversations/{found[1]} loads one)",
                status=404,
                param="model",
                code="model_not_found",
            )
        return found[1]


def _by_marker(ask: Ask) -> str:
    for text in (ask.system, *(turn.text for turn in ask.turns if turn.role == "user")):
        found = _MARKER.search(text)
        if found:
            return found[1]
    return ""


def replay(conversation: Conversation, name: str, ask: Ask) -> Played:
    """Answer with the recorded turn that follows as many assistant turns as the request holds."""
    at = ask.turn
    if at >= len(conversation.turns):
        raise Refusal(
            f"the recorded conversation {name!r} has {len(conversation.turns)} assistant turns and the request asks for "
            f"number {at + 1}",
            code="sim_recording_exhausted",
        )
    said = conversation.turns[at]
    if ask.wire == "anthropic":
        said = _fresh_ids(said, ask)
    return Played(said, f"{name}[{at}]")


def _fresh_ids(said: Said, ask: Ask) -> Said:
    """Drop recorded ids that Anthropic's wire would refuse when they come back: repeated ones and odd characters."""
    used = {call.id for turn in ask.turns for call in turn.calls}
    calls: list[Call] = []
    for call in said.calls:
        keep = call.id not in used and re.fullmatch(r"[a-zA-Z0-9_-]+", call.id) is not None
        calls.append(call if keep else Call(call.name, call.arguments))
        used.add(call.id)
    return Said(said.text, said.thinking, tuple(calls), said.finish)
