"""The store fails under the engine: full, unknown, stale. Nothing is performed before it is durable, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stanchion import Runtime, tool
from stanchion.core import event as ev
from stanchion.core.errors import CommitUnknown, StaleAppend, StoreFull
from stanchion.engine import drive, worker
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Append, Claim, Refused
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import HeldModel, World, agent, echo, events, kinds, over, unchanged
from tests.waiting import until


class Faulty:
    """A store whose appends and claims fail as the test says: before they are made, or after."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.before: Callable[[Append], None] = lambda _: None
        self.after: Callable[[Append], None] = lambda _: None
        self.on_claim: Callable[[], None] = lambda: None
        self.claims = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, append: Append) -> Refused | None:
        self.before(append)
        said = await self._store.append(append)
        self.after(append)
        return said

    async def claim(self, tenant: str, run: str, *, worker: str, lease_ms: int) -> Claim | None:
        self.claims += 1
        self.on_claim()
        return await self._store.claim(tenant, run, worker=worker, lease_ms=lease_ms)


async def faulty(path: Path, client: Any, world: World) -> tuple[Runtime, Any]:
    store: Any = Faulty(await SqliteStore.open(path / "t.db"))
    runtime = await Runtime.open(agent(world, approvals=[]), clients={"*": client}, store=store)
    return runtime, store


def starts_tool(append: Append) -> bool:
    return any(b"tool_call_started" in record.envelope for record in append.records)


async def test_full_in_the_middle_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is full a run stands still with its tool not begun; with space it goes on by itself."""
    monkeypatch.setattr(drive, "FULL_RETRY_S", 0.02)
    world, refused, space = World(), 0, False

    def full(append: Append) -> None:
        nonlocal refused
        if starts_tool(append) and not space:
            refused += 1
            assert world.done == []
            raise StoreFull

    runtime, store = await faulty(tmp_path, ScriptedModel([call("note", text="x"), "Noted."]), world)
    store.before = full
    run = (await runtime.start("desk", "Note.")).run
    await until(lambda: refused > 3)
    assert world.done == []
    assert await kinds(runtime, run) == ["run_started", "model_call_started"]
    space = True
    assert (await over(runtime, run)).text == "Noted."
    assert world.done == ["note x"]
    await unchanged(runtime)
    await runtime.aclose()


async def test_full_when_a_run_is_to_be_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that the store cannot write is tried again, at leisure."""
    monkeypatch.setattr(worker, "AGAIN_S", 0.05)
    world = World()
    runtime, store = await faulty(tmp_path, ScriptedModel([call("note", text="x"), "Noted."]), world)
    run = (await runtime.start("desk", "Note.")).run
    await over(runtime, run)
    held = HeldModel()
    await runtime.aclose()
    first = await Runtime.open(agent(world), data=tmp_path / "t.db", clients={"*": held})
    run = (await first.start("desk", "More.")).run
    await held.began.wait()
    await first.aclose(grace_s=0)

    full = True

    def claim() -> None:
        if full:
            raise StoreFull

    store = Faulty(await SqliteStore.open(tmp_path / "t.db"))
    store.on_claim = claim
    given: Any = store
    runtime = await Runtime.open(agent(world), clients={"*": echo()}, store=given)
    await until(lambda: store.claims > 2)
    await asyncio.sleep(0.2)
    assert store.claims < 40
    full = False
    assert (await over(runtime, run)).outcome == "done"
    await runtime.aclose()


@pytest.mark.parametrize("made", [True, False])
async def test_commit_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool) -> None:
    """Whether or not the append was made, the run is read again, and its effect is done once or is in doubt, never twice."""
    monkeypatch.setattr(worker, "AGAIN_S", 0.05)
    world, hit = World(), 0

    def unknown(append: Append) -> None:
        nonlocal hit
        if starts_tool(append) and not hit:
            hit += 1
            raise CommitUnknown

    runtime, store = await faulty(tmp_path, ScriptedModel([call("note", text="x"), "Noted."]), world)
    setattr(store, "after" if made else "before", unknown)
    run = (await runtime.start("desk", "Note.")).run
    if made:  # the attempt stands in the journal, and by its own account it may have left
        view = await runtime.wait(run, timeout_s=10)
        assert [waiting.kind for waiting in view.waiting] == ["in_doubt"]
        assert world.done == []
        await runtime.decide(run, view.waiting[0].call, "retry")
    assert (await over(runtime, run)).outcome == "done"
    assert (hit, world.done) == (1, ["note x"])
    await unchanged(runtime)
    await runtime.aclose()


async def test_commit_unknown_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is made although nobody was told runs to its end all the same."""
    monkeypatch.setattr(worker, "AGAIN_S", 0.05)
    world = World()
    runtime, store = await faulty(tmp_path, echo(), world)
    real = store._store.start

    async def start(asked: Any) -> Any:
        await real(asked)
        raise CommitUnknown

    monkeypatch.setattr(store._store, "start", start)
    with pytest.raises(CommitUnknown):
        await runtime.start("desk", "Hello")
    (row,) = await runtime.runs()
    assert (await over(runtime, row.run)).outcome == "done"
    await runtime.aclose()


async def test_another_epoch(tmp_path: Path) -> None:
    """A driver whose run was claimed by another lets go: it writes nothing more and stops its calls."""
    world = World()
    model = ScriptedModel([[call("slow_look", order="A"), call("look", order="A")], "Done."])
    runtime, store = await faulty(tmp_path, model, world)
    run = (await runtime.start("desk", "Look.")).run
    await world.began.wait()
    stale = 0

    def count(append: Append) -> None:
        nonlocal stale
        stale += 1

    store.before = count
    claim = None
    inner = store._store
    await inner._writer.write(lambda unit: unit.void_leases("nobody"))
    claim = await inner.claim("default", run, worker="usurper", lease_ms=60_000)
    assert claim is not None
    before = await kinds(runtime, run)
    await runtime.send(run, "Hello?")
    await until(lambda: runtime.active == 0)
    assert await kinds(runtime, run) == before
    assert world.done == []
    with pytest.raises(StaleAppend):
        await inner.append(Append(tenant="default", run=run, expected_seq=claim.seq, epoch=claim.epoch - 1))
    await runtime.aclose()


async def test_a_bug_in_one_run_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw lets go of its run and of no other."""
    world = World()
    runtime, store = await faulty(tmp_path, echo(), world)
    bad = (await runtime.start("desk", "Bad")).run

    def fail(append: Append) -> None:
        if append.run == bad:
            raise ZeroDivisionError

    store.before = fail
    runs = [(await runtime.start("desk", f"Good {n}")).run for n in range(5)]
    for run in runs:
        assert (await over(runtime, run)).outcome == "done"
    await until(lambda: runtime.active == 0)
    assert (await runtime.view(bad)).status == "runnable"
    await runtime.aclose()


async def test_nothing_is_performed_before_it_is_durable(tmp_path: Path) -> None:
    """Each model call and each tool finds its own intent in the journal."""
    seen: list[str] = []

    @tool(effect="write")
    async def look_back() -> str:
        """Look into the journal."""
        seen.append((await kinds(runtime, run_of["run"]))[-1])
        return "ok"

    run_of: dict[str, str] = {}

    class Watching(ScriptedModel):
        async def call(self, request: Any, **more: Any) -> Any:
            if not run_of:
                run_of["run"] = (await runtime.runs())[0].run
            seen.append((await kinds(runtime, run_of["run"]))[-1])
            return await super().call(request, **more)

    model = Watching([[call("look_back")], "Done."])
    runtime = await Runtime.open(agent(tools=[look_back], approvals=[]), data=tmp_path / "t.db", clients={"*": model})
    run = (await runtime.start("desk", "Go.")).run
    await over(runtime, run)
    assert seen == ["model_call_started", "tool_call_started", "model_call_started"]
    assert len(await events(runtime, run, ev.ModelCallStarted)) == 2
    await runtime.aclose()
