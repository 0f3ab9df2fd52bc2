"""How a conversation grows: at its end alone (invariant I8), and not in the middle of a step. Part of the fold: pure and total."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from stanchion.core.message import Media, Message, Part, ToolResult, is_own
from stanchion.core.state import State

_with = msgspec.structs.replace
_encode = msgspec.json.Encoder().encode


def history(state: State) -> tuple[Message, ...]:
    """Give the session's conversation from its beginning, as it was said, whatever was compacted since."""
    return state.past + state.messages[state.seam :] if state.past else state.messages


def count_said(state: State) -> int:
    """Count the messages of the session's conversation. It never falls, so that it tells what came before what."""
    return len(state.past) + len(state.messages) - state.seam


def said_message(state: State, index: int) -> Message:
    """Give a message of the session's conversation by its place in it."""
    past = len(state.past)
    return state.past[index] if index < past else state.messages[index - past + state.seam]


def say(state: State, parts: tuple[Part, ...]) -> State:
    """Put parts at the tail of the conversation, or keep them until the step under way is over."""
    if not parts:
        return state
    if state.calls or state.model is not None or state.trial is not None:
        return _with(state, tail=state.tail + parts)
    return add(state, "user", parts)


def add(state: State, role: Literal["user", "assistant"], parts: tuple[Part, ...]) -> State:
    """Add parts to the conversation: to the last message if it is of the same side, for providers want them in turn."""
    prefix, size, weight, unbounded, reasoners = state.prefix, 0, 0, state.unbounded, state.reasoners
    for part in parts:
        if is_own(part) and part.label.source == "model" and part.label.name not in reasoners:
            reasoners = (*reasoners, part.label.name)
        encoded = _encode((role, part))
        prefix = hashlib.sha256(prefix + encoded).digest()
        size += len(encoded)
        weight += len(encoded)
        for media in _media(part):
            weight += media.max_input_tokens - len(media.data)
            unbounded = unbounded or ("" if media.max_input_tokens else media.mime)
    messages = state.messages
    if messages and messages[-1].role == role:
        messages = messages[:-1] + (Message(role, messages[-1].parts + parts),)  # noqa: RUF005 - half the copying
    else:
        messages = messages + (Message(role, parts),)  # noqa: RUF005
    return _with(
        state,
        messages=messages,
        more=role == "user" or state.more,
        prefix=prefix,
        content_bytes=state.content_bytes + size,
        weight=state.weight + weight,
        weight_since=state.weight_since + weight,
        unbounded=unbounded,
        reasoners=reasoners,
    )


def count_parts(state: State) -> int:
    """Count the parts of the session's conversation, whole."""
    return sum(len(message.parts) for message in history(state))


def _media(part: Part) -> tuple[Media, ...]:
    match part:
        case Media():
            return (part,)
        case ToolResult():
            return part.media
        case _:
            return ()


def flush(state: State) -> State:
    """Let what was said during the step follow it."""
    tail = state.tail
    return add(_with(state, tail=()), "user", tail) if tail else state
