"""What an exception of a tool means: definite, in doubt, worth another try."""

from __future__ import annotations

import pytest

from stanchion.core.errors import NotDone, ToolError, ToolTimeout
from stanchion.toolbox.answer import (
    Failure,
)
from stanchion.toolbox.function import tool
from tests.toolbox.calling import call, failed


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


RAISED: list[tuple[BaseException, Failure]] = [
    (ToolError("sold out"), Failure("tool_failed", "sold out")),
    (ToolError("sold out", code="sold_out"), Failure("sold_out", "sold out")),
    (ToolError("later", retryable=True), Failure("tool_failed", "later", retryable=True)),
    (NotDone("locked", retry_after_s=3), Failure("tool_unavailable", "locked", False, True, 3)),
    (ToolTimeout("bank is silent"), Failure("tool_timeout", "bank is silent", True, True)),
    (ExceptionGroup("g", [NotDone("locked")]), Failure("tool_unavailable", "locked", False, True)),
    (
        ExceptionGroup("g", [NotDone("a"), NotDone("b")]),
        Failure("tool_crashed", "ExceptionGroup: g (2 sub-exceptions)", True),
    ),
    (ValueError("bad"), Failure("tool_crashed", "ValueError: bad", True)),
    (KeyError(), Failure("tool_crashed", "KeyError: KeyError", True)),
    (Mute(), Failure("tool_crashed", "Mute: Mute", True)),
    (SystemExit(3), Failure("tool_crashed", "SystemExit: 3", True)),
    (KeyboardInterrupt(), Failure("tool_crashed", "KeyboardInterrupt: KeyboardInterrupt", True)),
    (StopIteration(), Failure("tool_crashed", "RuntimeError: coroutine raised StopIteration", True)),
    (ConnectionResetError("reset"), Failure("tool_cut", "ConnectionResetError: reset", True, True)),
    (TimeoutError("read"), Failure("tool_cut", "TimeoutError: read", True, True)),
    (ConnectionRefusedError("refused"), Failure("tool_unreachable", "ConnectionRefusedError: refused", True)),
    (RecursionError("deep"), Failure("tool_crashed", "RecursionError: deep", True)),
]


@pytest.mark.parametrize(("error", "want"), RAISED, ids=lambda found: type(found).__name__)
async def test_what_an_exception_of_an_effect_means(error: BaseException, want: Failure):
    """Definite, in doubt, worth another try: as the table in `tool/failure.py`; from a thread and from the loop alike."""

    @tool(effect="write")
    def in_thread() -> str:
        raise error

    @tool(effect="write")
    async def on_loop() -> str:
        raise error

    assert await call(in_thread) == want
    assert await call(on_loop) == want


@pytest.mark.parametrize(("error", "want"), RAISED, ids=lambda found: type(found).__name__)
async def test_a_read_is_never_in_doubt(error: BaseException, want: Failure):
    """A read may be made again whatever happened to it."""

    @tool(effect="read")
    def look() -> str:
        raise error

    outcome = failed(await call(look))
    assert outcome.in_doubt is False
    assert (outcome.code, outcome.text) == (want.code, want.text)
    assert outcome.retryable is (want.retryable or want.code == "tool_unreachable")


async def test_a_keyed_call_may_be_made_again_where_nothing_was_sent():
    """Without a key a foreign exception does not know what the function did before it; the key makes that harmless."""

    @tool(effect="write")
    async def put(*, key: str) -> str:
        raise ConnectionRefusedError("refused")

    assert failed(await call(put)).retryable is True
