"""Dependencies: every form they may have, and what their failures mean for a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest

from stanchion.core.errors import ConfigError
from stanchion.toolbox.answer import Answer, Failure, Inject, ToolContext
from stanchion.toolbox.function import Tool, tool
from stanchion.toolbox.registry import Registry

CONTEXT = ToolContext(run="run_1", tenant="acme", call="c1", key="k1")


class Db:
    def __init__(self, name: str = "db") -> None:
        self.name = name


async def call(made: Tool[..., Any], arguments: bytes = b"{}", deps: dict[type, Any] | None = None) -> Answer | Failure:
    """Run one tool in a registry of its own."""
    async with Registry([made], deps) as registry:
        return await registry.run(made.name, arguments, CONTEXT)


def failed(outcome: Answer | Failure) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


async def test_every_form_of_dependency():
    """A value, a manager for the process, factories per call: sync, async, with the context, and held during the call."""
    seen: list[str] = []

    class Pool(Db): ...

    class Tenant(Db): ...

    class Later(Db): ...

    class Session(Db): ...

    class Made(Db): ...

    class Sync(Db): ...

    @asynccontextmanager
    async def pool() -> AsyncIterator[Pool]:
        seen.append("pool opened")
        yield Pool("pool")
        seen.append("pool closed")

    async def later() -> Later:
        return Later("later")

    @asynccontextmanager
    async def session(context: ToolContext) -> AsyncIterator[Session]:
        seen.append(f"session of {context.call} opened")
        yield Session("session")
        seen.append("session closed")

    @contextmanager
    def sync() -> Iterator[Sync]:
        yield Sync("sync")

    @tool(effect="read")
    async def look(
        a: Inject[Db], b: Inject[Pool], c: Tenant, d: Later, e: Session | None, f: Made, g: Inject[Sync]
    ) -> str:
        assert e is not None
        seen.append("called")
        return " ".join(found.name for found in (a, b, c, d, e, f, g))

    deps: dict[type, Any] = {
        Db: Db(),
        Pool: pool(),
        Tenant: lambda context: Tenant(context.tenant),
        Later: later,
        Session: session,
        Made: Made,
        Sync: sync(),
    }
    registry = Registry([look], deps)
    assert registry.specs[0].parameters["properties"] == {}
    async with registry:
        assert await registry.run("look", b"{}", CONTEXT) == Answer("db pool acme later session db sync")
    assert seen == ["pool opened", "session of c1 opened", "called", "session closed", "pool closed"]


async def test_a_dependency_that_fails_leaves_nothing_in_doubt():
    """The function was never called, so nothing was done, and it may be tried again."""

    def broken() -> Db:
        raise OSError("no such host")

    @tool(effect="irreversible")
    async def pay(db: Inject[Db]) -> str:
        raise AssertionError("must not run")

    outcome = failed(await call(pay, deps={Db: broken}))
    assert (outcome.code, outcome.in_doubt, outcome.retryable) == ("dependency_failed", False, True)
    assert "What pay needs could not be had: OSError: no such host" in outcome.text


async def test_a_transaction_that_fails_at_its_end_is_in_doubt():
    """The function returned, but what it did may not have been kept."""

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Db]:
        yield Db()
        raise OSError("commit failed")

    @tool(effect="write")
    async def put(db: Inject[Db]) -> str:
        return "written"

    outcome = failed(await call(put, deps={Db: transaction}))
    assert (outcome.code, outcome.in_doubt) == ("tool_crashed", True)


async def test_a_dependency_that_swallows_is_in_doubt():
    """A manager that hides the tool's exception leaves no answer."""

    @asynccontextmanager
    async def quiet() -> AsyncIterator[Db]:
        try:
            yield Db()
        except ZeroDivisionError:
            return

    @tool(effect="write")
    async def put(db: Inject[Db]) -> float:
        return 1 / 0

    outcome = failed(await call(put, deps={Db: quiet}))
    assert (outcome.code, outcome.in_doubt) == ("tool_crashed", True)


async def test_a_manager_that_does_not_open_says_which():
    """The error at start-up names the dependency."""

    @asynccontextmanager
    async def broken() -> AsyncIterator[Db]:
        raise OSError("refused")
        yield Db()

    @tool(effect="read")
    async def look(db: Inject[Db]) -> str:
        return ""

    with pytest.raises(OSError, match="refused") as caught:
        await call(look, deps={Db: broken()})
    assert "while opening the dependency Db" in caught.value.__notes__[0]


async def test_a_registry_that_is_not_open_says_so():
    """A call outside `async with` is a definite failure."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Db]:
        yield Db()

    @tool(effect="write")
    async def put(db: Inject[Db]) -> str:
        return ""

    outcome = failed(await Registry([put], {Db: opened()}).run("put", b"{}", CONTEXT))
    assert "use the registry in `async with`" in outcome.text
    assert outcome.in_doubt is False


async def test_a_registry_may_be_opened_again():
    """Closing lets threads end; a second life starts its own."""

    @tool(effect="read")
    def look() -> str:
        return "seen"

    registry = Registry([look])
    for _ in range(3):
        async with registry:
            assert await registry.run("look", b"{}", CONTEXT) == Answer("seen")


@pytest.mark.parametrize(
    ("deps", "message"),
    [
        ({"Db": 1}, r"deps: 'Db' is not a class; the keys of `deps` are the types that tools ask for"),
        (
            {Db: lambda a, b: None},
            r"deps: .* which makes Db, must take nothing, or the ToolContext alone; it takes a, b",
        ),
    ],
)
def test_wrong_deps_are_refused(deps: Any, message: str):
    """Mistakes in `deps` are found before the first call."""
    with pytest.raises(ConfigError, match=message):
        Registry([], cast("dict[type, Any]", deps))


async def test_a_double_stands_in_for_a_dependency():
    """A test may give anything in place of the real thing."""

    class Double:
        name = "double"

    @tool(effect="read")
    async def look(db: Inject[Db]) -> str:
        return db.name

    assert await call(look, deps={Db: Double()}) == Answer("double")
