"""What a compaction does to a state. Part of the fold: pure and total.

    messages   what the model is shown: `head`, which stands for the beginning; then the rest, where long results may be left out
    past       what was said until then, whole. With what came since it is `conversation.history`

The parts are shared, not copied. A call and its result are left out together or not at all; reasoning of what stays is left out, for
its provider takes it back only behind what it was thought about.
"""

from __future__ import annotations

import re
from typing import assert_never

import msgspec

from stanchion.core import event as ev
from stanchion.core.block import bare
from stanchion.core.conversation import add, history
from stanchion.core.dispatch import unwrapped
from stanchion.core.message import MODEL, Erased, Message, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from stanchion.core.state import Compacting, State

LONG = 400
"""A result of fewer characters is not left out: the line in its place would be as long."""
ARGUMENTS = 160
"""Characters of a call's arguments in such a line."""
_OURS = ("lost", "cancelled")
_HELD = re.compile(r'\n\[\d+ more characters\. Read on with read_result\(result="(\d+)", offset=(\d+)\)\.\]$')
_OPENAI = "openai_responses"
_with = msgspec.structs.replace

CompactionEvent = ev.CompactionStarted | ev.CompactionFailed | ev.SummaryWritten | ev.Compacted


def evolve(state: State, event: CompactionEvent, epoch: int) -> State:
    """Give the state after one more event of a compaction."""
    match event:
        case ev.CompactionStarted():
            return _started(state, event, epoch)
        case ev.CompactionFailed():
            return _failed(state, event)
        case ev.SummaryWritten():
            return _written(state, event)
        case ev.Compacted():
            return _compacted(state, event)
        case _:
            assert_never(event)


def counted(state: State, input_tokens: int) -> State:
    """Note what a model call of the conversation counted, and by how much it was more than the first of its kind."""
    state = _with(state, counted_tokens=input_tokens, counted_weight=state.weight)
    if not state.base_tokens:
        return _with(state, base_tokens=input_tokens)
    return _with(state, carried_tokens=state.carried_tokens + max(input_tokens - state.base_tokens, 0))


def may_begin_with(message: Message) -> bool:
    """Whether a conversation may go on from a head with this message: no result in it is of a call before it."""
    return message.role == "assistant" or not any(_is_result(part) for part in message.parts)


def _is_result(part: Part) -> bool:
    return isinstance(part, ToolResult) or (isinstance(part, Erased) and part.kind == "tool_result")


def _started(state: State, event: ev.CompactionStarted, epoch: int) -> State:
    before = state.compacting
    now = Compacting(
        reason=event.reason,
        covers=event.covers,
        attempt=event.attempt,
        tries=before.tries + 1 if before is not None else 1,
        in_flight=True,
        epoch=epoch,
        deadline_ms=event.deadline_ms,
        reserved=event.reserved,
        ledgers=event.ledgers,
        bound_tokens=event.bound_tokens,
    )
    return _with(state, compacting=now, refused=None)


def _failed(state: State, event: ev.CompactionFailed) -> State:
    before = state.compacting
    state = _billed(state, event)
    if before is None:
        return state
    now = _with(
        before,
        in_flight=False,
        tries=before.tries - (event.code in _OURS),
        reserved=0,
        code=event.code,
        retryable=event.retryable,
        retry_at_ms=event.retry_at_ms,
    )
    return _with(state, compacting=now)


def _written(state: State, event: ev.SummaryWritten) -> State:
    before = state.compacting
    state = _billed(state, event)
    if before is None:
        return state
    return _with(state, compacting=_with(before, in_flight=False, reserved=0, summary=event.parts))


def _billed(state: State, event: ev.CompactionFailed | ev.SummaryWritten) -> State:
    """Count what an attempt cost; one that was billed without a count is taken to have used its bound."""
    usage = event.usage
    bound = state.compacting.bound_tokens if state.compacting is not None and event.cost else 0
    totals = _with(
        state.totals,
        cost=state.totals.cost + event.cost,
        input_tokens=state.totals.input_tokens + (usage.total_input_tokens if usage else bound),
        output_tokens=state.totals.output_tokens + (usage.output_tokens if usage else 0),
    )
    return _with(state, totals=totals)


def _compacted(state: State, event: ev.Compacted) -> State:
    state = _with(state, compacting=None, refused=None, squeezed=state.squeezed + 1)
    if (
        state.model is not None and event.reason == "overflow"
    ):  # the call that was too long is made again, and this was no try of it
        model = _with(state.model, retryable=True, retry_at_ms=0, code="compacted", tries=max(state.model.tries - 1, 0))
        state = _with(state, model=model)
    whole = history(state)
    last = len(whole) - 1
    if last < 2 or whole[last].role != "user":
        return state
    covers, trimmed = min(max(event.covers, 0), last - 1), min(event.trimmed, last)
    head = state.head
    if event.parts:
        fresh, rest = event.parts[: event.declared], event.parts[event.declared :]
        declared = state.declared + fresh
        head = rest[:1] + declared + rest[1:]
        state = _with(state, declared=declared, summary=rest[-1:] if event.summed else state.summary)
    if covers and not (head and may_begin_with(whole[covers])):
        return state
    return _rebuilt(_with(state, head=head, covers=covers, trimmed=trimmed), whole)


def _rebuilt(state: State, whole: tuple[Message, ...]) -> State:
    """Put the conversation together anew: the head, and what it does not stand for."""
    more, last, size = state.more, len(whole) - 1, state.hidden_bytes + state.content_bytes
    state = _with(
        state, messages=(), past=(), seam=0, prefix=b"", content_bytes=0, weight=0, unbounded="", reasoners=()
    )  # fmt: skip
    if state.covers:
        state = add(state, "user", state.head)
    for index in range(state.covers, last + 1):
        message = whole[index]
        parts = message.parts
        if message.role == "assistant":
            parts = _without_reasoning(parts)
        elif index < min(state.trimmed, last):
            state, parts = _left_out(state, whole[index - 1].parts if index else (), parts)
        state = add(state, message.role, parts)
    return _with(
        state,
        past=whole[:-1],
        seam=len(state.messages) - 1,
        hidden_bytes=max(size - state.content_bytes, 0),
        more=more,
        exact_tokens=0,
        weight_since=0,
        base_tokens=0,
        carried_tokens=0,
        kept_parts=0,
        kept_void=True,
        rewritten=True,
    )


def _without_reasoning(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Leave out reasoning; and, where OpenAI has items hang together with it, their ids."""
    if not any(isinstance(part, Thinking) for part in parts):
        return parts
    said = (part for part in parts if not isinstance(part, Thinking))
    said = (part for part in said if not (isinstance(part, Opaque) and part.wire == _OPENAI))
    kept = tuple(
        _with(part, data="") if isinstance(part, Text | ToolCall) and part.wire == _OPENAI else part for part in said
    )
    return kept or (Text("(thought)", MODEL),)


def _left_out(state: State, asked: tuple[Part, ...], parts: tuple[Part, ...]) -> tuple[State, tuple[Part, ...]]:
    """Give a line for each long result of a tool, and hold the result, to be read by its number."""
    calls = [
        part for part in asked if isinstance(part, ToolCall) or (isinstance(part, Erased) and part.kind == "tool_call")
    ]
    made: list[Part] = []
    for place, part in enumerate(parts):
        if isinstance(part, ToolResult) and part.label.source == "tool" and len(part.text) > LONG:
            call = calls[place] if place < len(calls) else None
            state, part = _line(state, call if isinstance(call, ToolCall) else None, part)
        made.append(part)
    return state, tuple(made)


def _line(state: State, call: ToolCall | None, result: ToolResult) -> tuple[State, ToolResult]:
    text, number = bare(result.text), 0
    cut = _HELD.search(text)
    if cut and int(cut[1]) <= len(state.held) and state.held[int(cut[1]) - 1].startswith(text[: int(cut[2])]):
        number = int(cut[1])  # it was too long to be shown whole, and is held already
    elif text in state.held:
        number = state.held.index(text) + 1
    if not number:
        state = _with(state, held=(*state.held, text))
        number = len(state.held)
    meant = (unwrapped(call) or call) if call is not None else None
    name, arguments = (meant.name, meant.arguments) if meant is not None else (result.name, "")
    shown = arguments if len(arguments) <= ARGUMENTS else f"{arguments[:ARGUMENTS]}.."
    size = len(state.held[number - 1])
    line = (
        f"[The result of {name}({shown}), {size:,} characters, was left out to save room. "
        f'Read it with read_result(result="{number}", offset=0).]'
    )
    return state, _with(result, text=line, media=())
