"""Many queued and many waiting runs: what they cost who starts, lists, looks for work, and wakes one. Flat, or not.

Each store is measured (nearly) empty and full: 10,000 runs of one tenant that wait to begin (a cap of four lets them) and 100,000
that wait for a person. `pick` is a worker's look for what goes next, `first` a newcomer's start until its model is called,
`wake` a message to one of the waiting until its model is called, `idle` the CPU of a worker whose four slots think.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.cost import Spec, cpu_s
from stanchion import Agent, Runtime
from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.message import USER, ModelRequest, ModelResponse, Text
from stanchion.journal.record import Identity, Recorder
from stanchion.journal.store import Append, Start, Store
from stanchion.runtime.opening.store import open_store
from stanchion.testing import ScriptedModel

if TYPE_CHECKING:
    from bench.measure import Size

_AT_ONCE = 500
_CAP = 4
QUEUED, WAITING = "queued", "waiting"
"""The tenants."""


class Thinker(ScriptedModel):
    """A model that thinks for ever about what is queued, and answers the rest at once; it tells when it was called."""

    def __init__(self) -> None:
        super().__init__(lambda _: "Done.")
        self.called: dict[str, asyncio.Event] = {}

    async def call(self, request: ModelRequest, **more: Any) -> ModelResponse:
        users = (message for message in request.messages if message.role == "user")
        text = [part.text for message in users for part in message.parts if isinstance(part, Text)][-1]
        if text == QUEUED:
            await asyncio.Event().wait()
        self.called.setdefault(text, asyncio.Event()).set()
        return await super().call(request, **more)


def _agent() -> Agent:
    return Agent(name="desk", identity="Help.", model="openai:gpt-5.2")


async def fill(spec: Spec) -> dict[str, Any]:
    """Add runs to a store: so many that wait to begin, and so many that wait for a person."""
    store, _ = await open_store(spec["data"], None)
    looking = await Runtime.open(_agent(), data=spec["data"], drive=False, environment={})
    bundle = (await looking.start("desk", "first", tenant="other")).run  # (it keeps the agent's bundle)
    row = await looking.store.run("other", bundle)
    assert row is not None
    await looking.cancel(bundle, tenant="other")
    body = await looking.store.bundle("other", row.bundle)
    await looking.aclose()
    for tenant, status, count in ((WAITING, "waiting", spec["waiting"]), (QUEUED, "runnable", spec["queued"])):
        await store.put_bundle(tenant, row.bundle, body or b"")
        for begin in range(0, count, _AT_ONCE):
            numbers = range(begin, min(begin + _AT_ONCE, count))
            await asyncio.gather(*(_add(store, tenant, number, row.bundle, status) for number in numbers))
    await store.aclose()
    return {}


async def _add(store: Store, tenant: str, number: int, bundle: str, status: Any) -> None:
    run = f"run_{number:07}"
    key = await store.key_for(tenant, "ann")
    recorder = Recorder(key, Identity(), seq=0, hash=chain.genesis(tenant, run), at_ms=0)
    first = ev.RunStarted(
        run=run,
        tenant=tenant,
        session=f"ses_{run}",
        agent="desk",
        bundle=bundle,
        user="ann",
        parts=(Text(tenant, USER),),
    )
    _, records = recorder.record([first], now_ms=time.time_ns() // 1_000_000, epoch=0)
    waits = status == "waiting"  # it was driven to there, and let go
    append = Append(
        tenant=tenant, run=run, expected_seq=0, epoch=int(waits), records=tuple(records), status=status, release=waits
    )
    start = Start(
        tenant=tenant, run=run, session=first.session, agent="desk", bundle=bundle, user="ann", first=append,
        worker="w" if waits else "", lease_ms=1_000 if waits else 0,
    )  # fmt: skip
    await store.start(start)


async def beside(spec: Spec) -> dict[str, Any]:
    """Open a worker on a store and measure what its runs cost it."""
    model, server = Thinker(), spec.get("server", 0)
    at, cpu = time.monotonic(), cpu_s()
    runtime = await Runtime.open(_agent(), data=spec["data"], clients={"*": model}, environment={})
    await runtime.shares.set(tenant=QUEUED, max_running=_CAP)
    opened = {"open_ms": _ms(at), "open_cpu_ms": round((cpu_s() - cpu) * 1e3, 1)}
    for _ in range(0 if spec["queued"] else 2 * _CAP):  # in the empty store: a few, for the same work
        await runtime.start("desk", QUEUED, tenant=QUEUED)
    while runtime.active < _CAP:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)
    last = (await runtime.runs(tenant=QUEUED, limit=1))[0].run
    result = {
        **opened,
        "list_ms": await _median(lambda _: runtime.runs(tenant=QUEUED, limit=50)),
        "list_waiting_ms": await _median(lambda _: runtime.runs(tenant=WAITING, status="waiting", limit=50)),
        "pick_ms": await _median(lambda _: runtime.store.runnable(limit=100)),
        "next_wake_ms": await _median(lambda _: runtime.store.next_wake_ms()),
        "place_ms": await _median(lambda _: runtime.store.sharing.place(QUEUED, last)),
        "first_ms": await _median(lambda number: _first(runtime, model, number)),
        "wake_ms": await _median(lambda number: _wake(runtime, model, number)),
    }
    await asyncio.sleep(1.0)
    at, cpu, of_server = time.monotonic(), cpu_s(), _cpu_of(server)
    await asyncio.sleep(spec["idle_s"])
    wall_s = time.monotonic() - at
    result["idle_cpu_percent"] = round((cpu_s() - cpu) / wall_s * 100, 2)
    result["idle_server_cpu_percent"] = round((_cpu_of(server) - of_server) / wall_s * 100, 2)
    await runtime.aclose(grace_s=0.2)
    return result


async def _first(runtime: Runtime, model: Thinker, number: int) -> None:
    text = f"first {number}"
    called = model.called.setdefault(text, asyncio.Event())
    await runtime.start("desk", text, tenant="other")
    await called.wait()


async def _wake(runtime: Runtime, model: Thinker, number: int) -> None:
    text = f"wake {number}"
    called = model.called.setdefault(text, asyncio.Event())
    await runtime.send(f"run_{number * 7:07}", text, tenant=WAITING)
    await called.wait()


def _ms(since_s: float) -> float:
    return round((time.monotonic() - since_s) * 1e3, 2)


async def _median(call: Callable[[int], Awaitable[Any]], times: int = 15) -> float:
    took: list[float] = []
    for number in range(times):
        at = time.monotonic()
        await call(number)
        took.append(_ms(at))
    return round(statistics.median(took), 2)


def _cpu_of(pid: int) -> float:
    """CPU seconds of a server and its processes."""
    if not pid:
        return 0.0
    used, first = 0.0, psutil.Process(pid)
    for process in (first, *first.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found = process.cpu_times()
            used += found.user + found.system
    return used


async def queued(size: Size, folder: Path) -> dict[str, Any]:
    """Measure both stores, empty and full."""
    from bench.measure import subject
    from stanchion.testing.postgres import NoPostgres, PostgresServer

    full = {"queued": size.stored_runs // 10, "waiting": size.stored_runs}
    few = {"queued": 0, "waiting": 120}
    result: dict[str, Any] = dict(full)
    for name, runs in (("sqlite_empty", few), ("sqlite_full", full)):
        data = str(folder / f"{name}.db")
        await subject("fill", data=data, **runs)
        result[name] = await subject("beside", data=data, idle_s=size.idle_s, **runs)
    try:
        server = PostgresServer(durable=True)
    except NoPostgres:
        return result
    with server:
        for name, runs in (("postgres_empty", few), ("postgres_full", full)):
            data = f"{server.dsn()}?schema={name}"
            await subject("fill", data=data, **runs)
            result[name] = await subject("beside", data=data, idle_s=size.idle_s, server=server.pid, **runs)
    return result
