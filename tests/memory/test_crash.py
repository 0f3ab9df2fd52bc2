"""A process that dies at any write, before it or behind it: what was said is learned, and once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import pytest

from stanchion.core import event as ev
from stanchion.core.errors import JournalError, StanchionError
from stanchion.core.fact import Owner
from stanchion.memory import Memory
from stanchion.testing import FakeClock
from stanchion.testing.memory import MemoryStore
from stanchion.testing.memory_tables import Tables
from tests.engine.rig import events
from tests.memory.rig import Mind, agent, fact, known, opened
from tests.waiting import until

T = TypeVar("T")
SAID = "I live in Lisbon."
LEASE_S = 120


class Mortal(MemoryStore):
    """A store of a process that dies at its n-th write: nothing of it is written any more."""

    def __init__(self, clock: FakeClock, left: int, *, behind: bool) -> None:
        super().__init__(clock=clock.now_ms)
        self.left = left
        self.behind = behind
        """The last write is done, and nobody hears of it."""

    async def write(self, call: Callable[[Tables, int], T]) -> T:
        self.left -= 1
        if self.left == 0 and self.behind:
            await super().write(call)
        if self.left <= 0:
            raise JournalError("the process is dead")
        return await super().write(call)


class Numbers:
    """An embedder of one's own."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [[1.0, float(len(text))] for text in texts]

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("memory", [Memory(), Memory(embeddings=Numbers())], ids=["by words", "by meaning"])
@pytest.mark.parametrize("behind", [False, True], ids=["before the write", "behind the write"])
async def test_a_crash_at_any_write_loses_nothing_and_doubles_nothing(*, behind: bool, memory: Memory) -> None:
    """The fact, the episode and the journals are the same wherever it happens; a run that was accepted is learned from once, and what it
    found has its vectors.
    """
    accepted = reached = 0
    for writes in range(1, 60):
        clock = FakeClock()
        mind = Mind({"I live in": [fact("home city", "Lisbon", "I live in Lisbon")]})
        store = Mortal(clock, writes, behind=behind)
        run = await _live_and_die(mind, memory, store, clock)
        left = MemoryStore(store.tables, clock=clock.now_ms)
        reached += store.left <= 0
        if not run and await left.tenants() == []:
            continue  # it was never accepted, and nobody was told that it was
        accepted += 1
        clock.advance(LEASE_S)
        async with await opened(mind, agent(memory=memory), clock=clock, store=left) as runtime:
            rows = await left.runs("default")
            run = next(row.run for row in rows if row.session.startswith("ses_"))
            await runtime.wait(run, timeout_s=20)

            await until(partial(_is_learned, left, clock))
            assert await known(runtime) == {"home city": "Lisbon"}, writes
            versions = [(view.kind, view.why) for view in await runtime.memory.ls("ann", history=True)]
            assert sorted(versions) == [("episode", ""), ("fact", "")], writes
            looked = [row for row in await left.runs("default") if row.session.startswith("remember_")]
            assert len(looked) == 1, writes
            kept = await left.memories.facts(Owner("default", "ann", "desk"))
            assert all(bool(one.vector) == (memory.embeddings is not None) for one in kept), writes
            (finished,) = await events(runtime, looked[0].run, ev.RunFinished)
            assert finished.outcome == "done"
    assert accepted > 10, "most of the crashes happened behind the start"
    assert reached < 59, "and the last of these lives was lived to its end"


def _is_learned(store: MemoryStore, clock: FakeClock) -> bool:
    clock.advance(1)  # (what is to be tried again is due in a minute)
    return not store.tables.facts.due


async def _live_and_die(mind: Mind, memory: Memory, store: Mortal, clock: FakeClock) -> str:
    """Start a run and learn from it until the store is dead; give the run, if it was accepted."""
    run = ""
    with contextlib.suppress(StanchionError):
        runtime = await opened(mind, agent(memory=memory), clock=clock, store=store)
        try:
            run = (await runtime.start("desk", SAID, user="ann")).run
            with contextlib.suppress(TimeoutError):
                await runtime.wait(run, timeout_s=0.2 if store.left <= 0 else 2)
            with contextlib.suppress(StanchionError):
                if store.left > 0:
                    await runtime.memory.learn()
        finally:
            await runtime.aclose(grace_s=0)
    return run
