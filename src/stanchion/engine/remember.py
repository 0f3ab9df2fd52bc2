"""Learn from runs that have ended: a model looks for facts in each, in a run of its own, and what holds of its answer is written down.

    run begins   -> a row says that it is to be learned from      (journal/memory.py, `expect`)
    run ends     -> a run of the same agent looks for facts       (`RunStarted.remembers`, loop/remember.py), once by its key,
                    and has them embedded                         (loop/embed.py)
    that ends    -> its facts, and the row, in one transaction    (`Memories.apply`)

So a crash anywhere loses nothing and doubles nothing: whoever looks next finds the row, and the run that was begun by its key. Any
process that serves the agent may do any of it; many at once do what one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection

from stanchion.core import event as ev
from stanchion.core.bundle import Caps
from stanchion.core.errors import JournalError, StanchionError
from stanchion.core.fact import Operation, Owner
from stanchion.core.state import State
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.load import Loader
from stanchion.journal.memory import Change, Due
from stanchion.journal.share import BATCH
from stanchion.journal.store import Append, IdempotencyMismatch, Refused, Start, Started, StartSaid, Store
from stanchion.loop.remember import embedded, found, happened, with_vectors

log = logging.getLogger("stanchion.engine")

POLL_S = 20.0
"""How often what other processes left is looked for."""
SETTLE_S = 1.0
AGAIN_MS = 60_000
"""After a look that came to nothing; twice as long after each."""
TRIES = 5
"""Runs that look for facts in one run, before it is given up."""
AT_ONCE = 16
"""Looked at in one go."""

Begin = Callable[[Start, ev.RunStarted, BoundAgent], Awaitable[StartSaid]]


class Rememberer:
    """What learns in one process."""

    def __init__(
        self,
        store: Store,
        begin: Begin,
        loader: Loader,
        clock: Clock,
        find_agent: Callable[[str], BoundAgent | None],
        served: Collection[str],
        new_id: Callable[[str], str],
    ) -> None:
        self._store = store
        self._begin = begin
        self._loader = loader
        self._clock = clock
        self._find_agent = find_agent
        self._served = tuple(name for name in served if _remembers(find_agent(name)))
        self._new_id = new_id
        self._under_way: dict[tuple[str, str], str] = {}
        """Run that is learned from -> the run that looks."""
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._busy = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look, if any agent here remembers."""
        if self._served:
            self._task = asyncio.create_task(self._run(), name="stanchion-rememberer")

    async def aclose(self) -> None:
        """Begin no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ended(self, state: State) -> None:
        """Take a run's end: there may be something to learn, or what was learned to be written."""
        if state.remembers:
            self._under_way.pop((state.tenant, state.remembers), None)
        if state.user and state.agent in self._served:
            self._changed.set()
            self._ended.set()

    async def settle(self) -> None:
        """Learn all that is due, and wait until it is learned. What has to be tried again later is not waited for."""
        while True:
            self._ended.clear()
            await self._forget_ended()
            if not await self.look() and not self._under_way:
                return
            with contextlib.suppress(TimeoutError):  # (another process may have ended it)
                async with asyncio.timeout(SETTLE_S):
                    await self._ended.wait()

    async def look(self) -> list[str]:
        """Learn what is due; give the runs that were begun to look for facts. Raises `JournalError`."""
        begun: list[str] = []
        async with self._busy:
            for due in await self._store.memories.due(self._served, limit=AT_ONCE + len(self._under_way)):
                if (due.tenant, due.run) in self._under_way or len(begun) == AT_ONCE:
                    continue
                try:
                    run = await self._learn(due)
                except StanchionError as error:
                    log.warning("run %s was not learned from: %s", due.run, error, extra={"tenant": due.tenant})
                    continue
                except Exception:  # (one that cannot be learned from must not keep the others from it)
                    log.exception("run %s was not learned from", due.run, extra={"tenant": due.tenant})
                    await self._later(due)
                    continue
                begun += [run] if run else []
        return begun

    async def _learn(self, due: Due) -> str:
        """Go on with a run: begin to look for facts, or write down what was found. Gives the run that was begun, or ""."""
        agent = self._find_agent(due.agent)
        rules = agent.bundle.memory if agent is not None else None
        ended = await self._loader.load(due.tenant, due.run)
        if agent is None or rules is None or not ended.ended:
            await self._store.memories.drop(due.tenant, due.run)
            return ""
        done = happened(ended, agent.bundle)
        if not rules.extract and (rules.embeddings is None or not any(map(embedded, done))):
            await self._write(due, agent, done)
            return ""
        first = self._first(due, ended, agent)
        said = await self._begin(_start_of(first, due), first, agent)
        match said:
            case Started(existing=False):
                self._under_way[due.tenant, due.run] = said.run
                return said.run
            case Started():
                await self._take(due, agent, done, said.run)
            case IdempotencyMismatch():
                await self._store.memories.drop(due.tenant, due.run)
            case Refused() if not rules.extract:
                log.warning(
                    "what run %s was is kept without embeddings: no budget", due.run, extra={"tenant": due.tenant}
                )
                await self._write(due, agent, done)
            case _:
                await self._later(due)
        return ""

    async def _take(self, due: Due, agent: BoundAgent, done: tuple[Operation, ...], run: str) -> None:
        """Write down what a run found, if it is over; after one that found nothing usable another looks later. `done`: without it."""
        row = await self._store.run(due.tenant, run)
        if row is not None and row.status not in ("ended", "parked"):
            self._under_way[due.tenant, due.run] = run
            return
        looked = await self._loader.load(due.tenant, run)
        ops = (
            found(looked, agent.bundle)
            if looked.outcome == "done"
            else f"it ended as {looked.outcome} ({looked.reason})"
        )
        if isinstance(ops, str):
            if due.tries + 1 < TRIES:
                await self._later(due)
                return
            log.warning("nothing is learned from run %s: %s", due.run, ops, extra={"tenant": due.tenant})
            ops = done
        vectors = looked.embedding.vectors if looked.embedding is not None else None
        await self._write(due, agent, with_vectors(ops, vectors or ()))

    async def _write(self, due: Due, agent: BoundAgent, ops: tuple[Operation, ...]) -> None:
        rules = agent.bundle.memory
        space = rules.space if rules is not None else due.agent
        now_ms, owner = self._clock.now_ms(), Owner(due.tenant, due.user, space)
        await self._store.memories.apply(
            Change(owner=owner, key=f"learned/{due.run}", at_ms=now_ms, operations=ops, due=due.run)
        )

    async def _later(self, due: Due) -> None:
        await self._store.memories.later(due.tenant, due.run, in_ms=AGAIN_MS << min(due.tries, 10))

    def _first(self, due: Due, ended: State, agent: BoundAgent) -> ev.RunStarted:
        return ev.RunStarted(
            run=self._new_id("run_"),
            tenant=due.tenant,
            session=self._new_id("remember_"),
            agent=due.agent,
            bundle=agent.digest,
            user=due.user,
            caps=Caps(turns=1),
            ledgers=ended.ledgers,
            recalls=agent.bundle.memory is not None and agent.bundle.memory.extract,
            remembers=ev.Base(ended.run, ended.seq, ended.hash.hex()),
            said_ms=ended.at_ms,
        )

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._forget_ended()
                if await self.look():
                    continue
            except JournalError as error:
                log.warning("nothing was learned: %s", error)
            except Exception:  # (it takes nothing with it that is needed)
                log.exception("nothing was learned")
            try:
                async with asyncio.timeout(POLL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _forget_ended(self) -> None:
        """Let go of what another process ended, or took over."""
        for place, run in list(self._under_way.items()):
            row = await self._store.run(place[0], run)
            if row is None or row.status in ("ended", "parked"):
                self._under_way.pop(place, None)


def _remembers(agent: BoundAgent | None) -> bool:
    return agent is not None and agent.bundle.memory is not None


def _start_of(first: ev.RunStarted, due: Due) -> Start:
    return Start(
        tenant=first.tenant,
        run=first.run,
        session=first.session,
        agent=first.agent,
        bundle=first.bundle,
        user=first.user,
        priority=BATCH,
        first=Append(tenant=first.tenant, run=first.run, expected_seq=0, epoch=0),
        idempotency_key=f"remember/{due.run}/{due.tries}",
        idempotency_digest="remember",
    )
