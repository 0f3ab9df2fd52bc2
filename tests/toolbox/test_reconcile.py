"""Calls that are asked about instead of made: the reconciler after a doubt, and the dry run."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.core.errors import NotDone, ToolError
from stanchion.toolbox.answer import (
    Answer,
    Done,
    Inject,
    Reconciled,
    ToolContext,
    Undone,
    Unknown,
)
from stanchion.toolbox.function import tool
from stanchion.toolbox.registry import Registry
from tests.toolbox.calling import CONTEXT, Db, Refund, failed


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
