"""One attempt at a call: what it is filled in with, what its outcome means, and that nothing escapes."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from stanchion.core.errors import NotDone, ToolError, ToolTimeout
from stanchion.toolbox.answer import (
    Answer,
    Checked,
    Done,
    Failure,
    Inject,
    Partial,
    Reconciled,
    Result,
    ToolContext,
    Undone,
    Unknown,
)
from stanchion.toolbox.function import Tool, tool
from stanchion.toolbox.registry import Registry

CONTEXT = ToolContext(run="run_1", session="s", user="u", tenant="acme", call="c1", attempt=2, key="k1")


async def call(made: Tool[..., Any], arguments: bytes = b"{}", deps: dict[type, Any] | None = None) -> Answer | Failure:
    """Run one tool in a registry of its own."""
    async with Registry([made], deps) as registry:
        return await registry.run(made.name, arguments, CONTEXT)


def failed(outcome: Answer | Failure) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


# --- results ----------------------------------------------------------------------------------------------------------


class Refund(BaseModel):
    order: str
    cents: int


@dataclass
class Row:
    a: int


class Line(msgspec.Struct):
    sku: str


@pytest.mark.parametrize(
    ("annotation", "returned", "text"),
    [
        (str, "plain é", "plain é"),
        (None, None, "ok"),
        (str | None, None, "ok"),
        (int, 5, "5"),
        (bool, True, "true"),
        (Refund, Refund(order="ü", cents=1), '{"order":"ü","cents":1}'),
        (Refund, {"order": "a", "cents": 1}, '{"order":"a","cents":1}'),
        (list[Row], [Row(1), Row(2)], '[{"a":1},{"a":2}]'),
        (list[Line], [Line("x")], '[{"sku":"x"}]'),
        (Line, Line("x"), '{"sku":"x"}'),
        (dict[str, Any], {"b": 1, "a": [None]}, '{"b":1,"a":[null]}'),
        (Any, Line("x"), '{"sku":"x"}'),
        (Result[int], Result(5), "5"),
        (Partial[int], Partial([1], {"b": "sold out"}), '{"ok":[1],"failed":{"b":"sold out"}}'),
    ],
)
async def test_a_result_becomes_text(annotation: Any, returned: Any, text: str):
    """Text passes as it is, None is "ok", all else is compact JSON."""

    def give():
        return returned

    give.__annotations__["return"] = annotation
    assert await call(tool(effect="read")(give)) == Answer(text)


async def test_an_unannotated_result_is_written_as_it_is():
    """Without an annotation nothing is checked."""

    @tool(effect="read")
    async def give():
        return Result({"a": Row(1)}, cost_usd="0.01")

    assert await call(give) == Answer('{"a":{"a":1}}', cost_nano_usd=10_000_000)


async def test_a_cost_that_is_no_amount_is_noted():
    """The answer counts; the cost is left out, and a person can see why."""

    @tool(effect="write")
    async def give() -> Result[str]:
        return Result("done", cost_usd="-1")

    outcome = await call(give)
    assert isinstance(outcome, Answer)
    assert (outcome.text, outcome.cost_nano_usd) == ("done", 0)
    assert "the cost was not taken: cost_usd" in outcome.note


@pytest.mark.parametrize("returned", [{"order": "a"}, 5, None, object()])
async def test_a_wrong_result_of_a_read_is_an_error(returned: Any):
    """A read that gives what it must not has failed, for certain."""

    @tool(effect="read")
    async def look() -> Refund:
        return returned

    outcome = failed(await call(look))
    assert (outcome.code, outcome.in_doubt, outcome.retryable) == ("result_invalid", False, False)
    assert outcome.text.startswith("look returned what it must not: ")
    assert "pydantic" not in outcome.text


@pytest.mark.parametrize("returned", [{"order": "a"}, object()])
async def test_a_wrong_result_of_an_effect_is_an_answer_with_a_warning(returned: Any):
    """The effect has happened: the model must not do it again."""

    @tool(effect="irreversible")
    async def pay() -> Refund:
        return returned

    outcome = await call(pay)
    assert isinstance(outcome, Answer)
    assert "[warning: pay was carried out, but" in outcome.text
    assert outcome.text.endswith("Do not repeat the call.]")
    assert outcome.note


async def test_a_value_without_json_is_an_error_that_says_so():
    """An arbitrary object has no text."""

    @tool(effect="read")
    async def look():
        return object()

    assert "object has no JSON form; return a dataclass" in failed(await call(look)).text


# --- what is filled in ------------------------------------------------------------------------------------------------


class Db:
    def __init__(self, name: str = "db") -> None:
        self.name = name


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


# --- time and cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("effect", "doubt"), [("read", False), ("write", True), ("destructive", True)])
async def test_a_timeout_is_in_doubt_unless_it_was_a_read(effect: Any, doubt: bool):
    """Nobody knows what a call did that did not answer."""

    @tool(effect=effect, timeout_s=0.02)
    async def slow() -> None:
        await asyncio.Event().wait()

    assert await call(slow) == Failure("tool_timeout", "slow did not answer within 0.02 s.", doubt, True)


async def test_a_late_answer_is_an_answer():
    """A tool that finishes its work when it is cancelled has answered."""

    @tool(effect="write", timeout_s=0.02)
    async def late() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done after all"
        return ""

    assert await call(late) == Answer("done after all")


async def test_an_exception_while_timing_out_is_a_timeout():
    """What a client makes of our cancellation does not hide that the time was over; the tool's own word does."""

    @tool(effect="write", timeout_s=0.02)
    async def wrapped() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise ValueError("interrupted") from error
        return ""

    @tool(effect="write", timeout_s=0.02)
    async def rolled_back() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise NotDone("rolled back") from None
        return ""

    assert failed(await call(wrapped)).code == "tool_timeout"
    assert await call(rolled_back) == Failure("tool_unavailable", "rolled back", retryable=True)


async def test_a_thread_that_times_out_goes_on_and_holds_its_place():
    """A call still waiting for a thread was never made, so it is not in doubt."""
    release, started = threading.Event(), threading.Event()

    @tool(effect="write", timeout_s=0.2)
    def stuck() -> str:
        started.set()
        release.wait(30)
        return "late"

    ran = threading.Event()

    @tool(effect="write", timeout_s=0.4)
    def waiting() -> str:
        ran.set()
        return "ran"

    async with Registry([stuck, waiting], threads=1) as registry:
        first = asyncio.create_task(registry.run("stuck", b"{}", CONTEXT))
        await asyncio.to_thread(started.wait)
        second = await registry.run("waiting", b"{}", CONTEXT)
        assert second == Failure("tool_busy", "waiting could not be started within 0.4 s.", False, True)
        assert failed(await first).in_doubt is True
        release.set()
        assert await registry.run("waiting", b"{}", CONTEXT) == Answer("ran")
    assert ran.is_set()


async def test_many_threads_are_bounded():
    """No more functions run at once than there are threads, and all of them run."""
    lock, most, now = threading.Lock(), 0, 0

    @tool(effect="read")
    def look(n: int) -> int:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return n

    async with Registry([look], threads=3) as registry:
        outcomes = await asyncio.gather(*(registry.run("look", b'{"n":%d}' % n, CONTEXT) for n in range(50)))
    assert outcomes == [Answer(str(n)) for n in range(50)]
    assert 1 <= most <= 3


async def test_at_most_so_many_calls_of_one_tool():
    """`max_concurrency` makes the others wait; one that waits too long was never made."""
    now, most, gate, full = 0, 0, asyncio.Event(), asyncio.Event()

    @tool(effect="write", max_concurrency=2, timeout_s=0.3)
    async def put() -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 2:
            full.set()
        await gate.wait()
        now -= 1
        return "ok"

    async with Registry([put]) as registry:
        calls = [asyncio.create_task(registry.run("put", b"{}", CONTEXT)) for _ in range(5)]
        await full.wait()
        gate.set()
        assert await asyncio.gather(*calls) == [Answer("ok")] * 5
        gate.clear()
        outcomes = await asyncio.gather(*(registry.run("put", b"{}", CONTEXT) for _ in range(3)))
    assert most == 2
    assert sorted(failed(outcome).code for outcome in outcomes) == ["tool_busy", "tool_timeout", "tool_timeout"]
    assert [failed(outcome).in_doubt for outcome in outcomes].count(False) == 1


async def test_cancelling_the_caller_is_the_only_thing_raised():
    """A cancelled run stops its call."""
    started = asyncio.Event()

    @tool(effect="read")
    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    async with Registry([slow]) as registry:
        task = asyncio.create_task(registry.run("slow", b"{}", CONTEXT))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_tools_own_cancelled_task_is_a_failure():
    """A CancelledError that nobody asked for is an exception like any other."""

    @tool(effect="write")
    async def put() -> None:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        inner.cancel()
        await inner

    assert failed(await call(put)) == Failure("tool_crashed", "CancelledError: CancelledError", True, False)


# --- what an exception means ------------------------------------------------------------------------------------------


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


# --- reconcile and dry run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (Done(Refund(order="a", cents=5)), Reconciled("done", '{"order":"a","cents":5}')),
        (Done({"order": "a", "cents": 5}), Reconciled("done", '{"order":"a","cents":5}')),
        (Undone("no such key"), Reconciled("not_done", "no such key")),
        (Unknown("bank is down"), Reconciled("unknown", "bank is down")),
        (NotDone("never came"), Reconciled("not_done", "never came")),
        (ToolError("bank is down"), Reconciled("unknown", "bank is down")),
        (OSError("bank is down"), Reconciled("unknown", "OSError: bank is down")),
        (True, Reconciled("unknown", "the reconciler of refund returned a bool, not Done or Undone")),
    ],
)
async def test_a_reconciler_answers_in_one_of_three_ways(answer: Any, want: Reconciled):
    """Whatever is not clear is unknown, and a person decides."""

    @tool(effect="irreversible")
    async def refund(order: str, cents: int, *, key: str) -> Refund:
        raise AssertionError("must not run")

    @refund.reconciler
    async def _(order: str, db: Inject[Db], *, key: str) -> Any:
        assert (order, db.name, key) == ("a", "db", "k1")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with Registry([refund], {Db: Db()}) as registry:
        assert registry.specs[0].reconciles
        assert await registry.reconcile("refund", b'{"order":"a","cents":5}', CONTEXT) == want


async def test_a_reconciler_in_a_thread_with_bare_parameters():
    """A reconciler's parameters have the types the tool says."""

    @tool(effect="write", reconcile=lambda order, key: Done(f"{order} {key}"))
    async def put(order: str, *, key: str) -> str:
        return ""

    async with Registry([put]) as registry:
        assert await registry.reconcile("put", b'{"order":"a"}', CONTEXT) == Reconciled("done", "a k1")
        assert (await registry.reconcile("put", b'{"no":"a"}', CONTEXT)).answer == "unknown"


async def test_a_dry_run_reads_for_real_and_pretends_effects():
    """Reads run; effects answer through their own dry run, or say that nothing was done."""

    @tool(effect="read")
    async def look() -> str:
        return "seen"

    @tool(effect="destructive")
    async def drop() -> str:
        raise AssertionError("must not run")

    @tool(effect="write")
    async def put(a: str) -> str:
        raise AssertionError("must not run")

    @put.dry_run
    def _(a: str, context: ToolContext) -> str:
        if a == "bad":
            raise OSError("no")
        return f"would put {a} for {context.tenant}"

    async with Registry([look, drop, put]) as registry:
        assert await registry.dry_run("look", b"{}", CONTEXT) == Answer("seen")
        assert await registry.dry_run("put", b'{"a":"x"}', CONTEXT) == Answer("would put x for acme")
        assert failed(await registry.dry_run("put", b'{"a":"bad"}', CONTEXT)).in_doubt is False
        told = await registry.dry_run("drop", b"{}", CONTEXT)
        assert isinstance(told, Answer)
        assert "This is a dry run: drop was not called and nothing was done." in told.text
        assert (await registry.reconcile("drop", b"{}", CONTEXT)).text == "drop has no reconciler."


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
