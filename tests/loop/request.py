"""What must hold of every request of a run: sides take turns, each call has its one result, and the parts only grow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from stanchion.core.message import ModelRequest, ToolCall, ToolResult


def flat(request: ModelRequest) -> list[Any]:
    """The sequence that must only grow: tools, system, parts."""
    return [*request.tools, *request.system, *((m.role, part) for m in request.messages for part in m.parts)]


def well_formed(request: ModelRequest) -> None:
    """Assert that sides take turns, and that each call has its one result, in call order, before anything else is said."""
    roles = [m.role for m in request.messages]
    assert all(a != b for a, b in pairwise(roles)), "two messages of one side in a row"
    for place, message in enumerate(request.messages):
        assert message.parts, "an empty message"
        calls = [p for p in message.parts if isinstance(p, ToolCall)]
        after = request.messages[place + 1].parts if calls and place + 1 < len(request.messages) else ()
        results = after[: len(calls)]
        assert [(c.id, c.name) for c in calls] == [(r.id, r.name) for r in results if isinstance(r, ToolResult)]
        if message.role == "user":
            answered = request.messages[place - 1].parts if place else ()
            asked = sum(isinstance(p, ToolCall) for p in answered)
            assert sum(isinstance(p, ToolResult) for p in message.parts) == asked
