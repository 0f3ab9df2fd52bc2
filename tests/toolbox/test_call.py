"""One attempt at a call: what it is filled in with, and when it is not made."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from stanchion.toolbox.answer import (
    Answer,
    Checked,
    ToolContext,
)
from stanchion.toolbox.function import tool
from stanchion.toolbox.registry import Registry
from tests.toolbox.calling import CONTEXT, Line, Row, call, failed


async def test_context_key_and_arguments_are_filled_in():
    """The runtime's parameters come from the call, the others from the model."""

    @tool(effect="write")
    async def put(a: str, who: ToolContext, b: int = 2, *, key: str) -> str:
        return f"{a} {b} {who.run} {who.tenant} {who.attempt} {key}"

    assert await call(put, b'{"a":"x"}') == Answer("x 2 run_1 acme 2 k1")


async def test_a_plain_function_runs_in_a_thread_with_the_callers_context_variables():
    """A blocking tool does not hold the event loop, and sees the trace it belongs to."""
    span: ContextVar[str] = ContextVar("span")
    span.set("here")

    @tool(effect="read")
    def look() -> str:
        return f"{span.get()} {threading.current_thread() is threading.main_thread()}"

    assert await call(look) == Answer("here False")


async def test_a_changed_tool_refuses_old_arguments():
    """Arguments checked by an older version of the code are checked again before the call."""

    @tool(effect="irreversible")
    async def pay(cents: int) -> str:
        raise AssertionError("must not run")

    outcome = failed(await call(pay, b'{"amount":5}'))
    assert (outcome.code, outcome.in_doubt) == ("invalid_arguments", False)
    assert "cents: is missing" in outcome.text


async def test_a_keyed_tool_never_runs_without_its_key():
    """An empty key would make all calls one call."""

    @tool(effect="write")
    async def put(*, key: str) -> str:
        raise AssertionError("must not run")

    async with Registry([put]) as registry:
        outcome = failed(await registry.run("put", b"{}", ToolContext()))
    assert (outcome.code, outcome.in_doubt, outcome.retryable) == ("no_key", False, False)


async def test_an_unknown_tool_is_a_failure():
    """A tool that is gone since the journal was written."""
    async with Registry() as registry:
        assert failed(await registry.run("gone", b"{}", CONTEXT)).code == "unknown_tool"
        assert failed(await registry.dry_run("gone", b"{}", CONTEXT)).code == "unknown_tool"
        assert (await registry.reconcile("gone", b"{}", CONTEXT)).answer == "unknown"


async def test_what_is_checked_is_what_is_called_with():
    """Check and run read the same values."""
    got: list[Any] = []

    @tool(effect="write")
    async def put(row: Row, lines: list[Line], tags: list[str] = []) -> None:  # noqa: B006
        tags.append("mine")
        got.append((row, lines, tags))

    async with Registry([put]) as registry:
        found = registry.check("put", '{"row":{"a":"1"},"lines":[{"sku":"x"}]}')
        assert isinstance(found, Checked)
        assert await registry.run("put", found.arguments, CONTEXT) == Answer("ok")
        assert await registry.run("put", found.arguments, CONTEXT) == Answer("ok")
        assert await registry.run("put", b'{"row":{"a":1},"lines":[]}', CONTEXT) == Answer("ok")
    assert got[0] == got[1] == (Row(1), [Line("x")], ["mine"])
    assert got[2] == (Row(1), [], ["mine"]), "a default is not shared between calls"
