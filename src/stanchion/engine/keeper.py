"""Keep what sessions have at their provider's cache while they are idle, or while their run waits for a person or a tool, where that costs
less than writing it again: a read before its life is over.

Such a read is a run like any other, in a session of its own: journaled, reserved on the same budgets, tried once, and only in time. It
asks once more for the last request of the session (`RunStarted.refreshes`), for the shortest answer. How often, at most, is arithmetic
(`context/life.py`). Only the process that drives or drove the session's last run does so, and only while that run is its head, or stands where
it did: what it asked last is then still its last request.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from stanchion.context.life import REFRESH_AT, refreshes
from stanchion.core import event as ev
from stanchion.core.bundle import Caps
from stanchion.core.caching import cache_rules
from stanchion.core.errors import JournalError, UnknownEvent
from stanchion.core.kept import life_ms
from stanchion.core.state import State
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.habits import Habits
from stanchion.journal.share import BATCH
from stanchion.journal.store import Append, Start, StartSaid, Store
from stanchion.journal.store import Started as StoreStarted

log = logging.getLogger("stanchion.engine")

MOST = 4_096
"""Sessions that are kept at once. Of more, those that have been idle longest are let go."""
LOST_MS = 60_000
"""So long after its deadline a refresh is not waited for any more."""
AT_ONCE = 32
"""Refreshes under way at once. The next begins when one has ended."""
SLOW_S = 30.0
"""Where no call of an agent took so long, none is looked at: most do not, and there are many."""
POLL_S = 20.0
"""How often the clock is looked at again: it may be another than the machine's."""
IN_TIME = 0.98
"""A refresh that could not be made until so much of a life is over is not made: it would write all of it again."""

Begin = Callable[[Start, ev.RunStarted, BoundAgent], Awaitable[StartSaid]]
_Place = tuple[str, str]


class _Idle(msgspec.Struct):
    """A session whose prefix is kept. Milliseconds."""

    place: _Place
    """Tenant and session."""
    first: ev.RunStarted
    """Of a refresh, but for its names and its end."""
    waits: bool
    """Its run is not over: it waits for a person or a tool."""
    epoch: int
    """That of its drive, whose calls are under way; 0: nobody drives it."""
    most: int
    """Refreshes, in this pause."""
    life_ms: int
    asked_ms: int
    """When the session asked last."""
    used_ms: int
    """When that was asked again last."""
    made: int = 0
    run: str = ""
    """The refresh under way."""

    @property
    def left(self) -> int:
        """How many more refreshes it may have."""
        return self.most - self.made

    @property
    def refreshed_ms(self) -> int:
        """When it was refreshed last; 0: it was not."""
        return self.used_ms if self.used_ms > self.asked_ms else 0


class Keeper:
    """The idle and the waiting sessions of one process."""

    def __init__(
        self,
        store: Store,
        begin: Begin,
        clock: Clock,
        habits: Habits,
        find_agent: Callable[[str], BoundAgent | None],
        new_id: Callable[[str], str],
    ) -> None:
        self._store = store
        self._begin = begin
        self._clock = clock
        self._habits = habits
        self._find_agent = find_agent
        self._new_id = new_id
        self._idle: OrderedDict[_Place, _Idle] = OrderedDict()
        self._due: list[tuple[int, _Place]] = []
        self._under_way: dict[str, tuple[_Place, int]] = {}
        """By run: its session, and until when it is to have ended."""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look at the clock."""
        self._task = asyncio.create_task(self._run(), name="stanchion-keeper")

    async def aclose(self) -> None:
        """Begin no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def refreshed_ms(self, tenant: str, session: str) -> int:
        """Say when a session that has its next run now was refreshed last, and let it go; 0: it was not."""
        place = (tenant, session)
        idle = self._idle.get(place)
        if idle is None or idle.waits:  # the run would come behind another, whose prefix will be another
            return 0
        del self._idle[place]
        return idle.refreshed_ms

    def goes_on(self, state: State) -> int:
        """Say when the last request of a run that waited for a person was refreshed since; 0: it was not."""
        idle = self._idle.get((state.tenant, state.session))
        return idle.refreshed_ms if idle is not None and idle.waits and idle.asked_ms == state.kept_ms else 0

    def waits(self, state: State) -> None:
        """Take a run that waits for a person."""
        self._take(state)

    def works(self, state: State) -> None:
        """Take a driven run whose calls are under way; let go of one that asks its model again, or is stopped."""
        model = state.model
        if state.cancelled_by or (model is not None and model.in_flight and not model.view):
            self._idle.pop((state.tenant, state.session), None)
        elif any(call.phase == "running" for call in state.calls) and self._may_last(state.agent):
            self._take(state)

    def _may_last(self, agent: str) -> bool:
        gaps = self._habits.of(agent).calls.gaps
        return bool(gaps) and gaps[-1].seconds >= SLOW_S

    def ended(self, state: State) -> None:
        """Take a run's end: its session is idle now, or its refresh is done."""
        if state.refreshing:
            self._refreshed(state)
        elif state.outcome == "cancelled":  # how often sessions go on is measured of those that nobody stopped
            self._idle.pop((state.tenant, state.session), None)
        elif not state.remembers:
            self._take(state)

    def forget(self, tenant: str, subject: str) -> None:
        """Ask no more for what was erased: of a user, or of a session without one."""
        for place, idle in list(self._idle.items()):
            if place[0] == tenant and (idle.first.user or place[1]) == subject:
                del self._idle[place]

    def _take(self, state: State) -> None:
        """Begin to keep what a session asked last, or go on with it, if no model was asked since."""
        place = (state.tenant, state.session)
        known, fresh = self._idle.pop(place, None), self._worth(state)
        if known is not None and known.asked_ms != state.kept_ms:
            known = None
        if (
            known is not None and fresh is None and (known.run or known.refreshed_ms)
        ):  # what was made is still to be known
            fresh = msgspec.structs.replace(known, waits=not state.ended, most=known.made)
        elif known is not None and fresh is not None:
            fresh.used_ms, fresh.made, fresh.run = known.used_ms, known.made, known.run
        if fresh is not None:
            self._keep(fresh)

    def _worth(self, state: State) -> _Idle | None:
        """Say how a session's last request is to be kept; None: it is not."""
        agent = self._find_agent(state.agent)
        if agent is None or agent.digest != state.bundle or state.dry_run or state.prompted != state.bundle:
            return None
        route = agent.bundle.route(state.prompted_route) if state.prompted_route >= 0 else None
        rules = cache_rules(route.provider, route.model) if route is not None else None
        if route is None or rules is None or state.kept_by != f"{route.provider}:{route.model}":
            return None
        most = refreshes(state, route, self._habits.of(state.agent))
        if not most:
            return None
        return _Idle(
            place=(state.tenant, state.session),
            first=_refresh_of(state),
            waits=not state.ended,
            epoch=max((call.epoch for call in state.calls if call.phase == "running"), default=0),
            most=most,
            life_ms=life_ms(rules, long=state.kept_long),
            asked_ms=state.kept_ms,
            used_ms=max(state.kept_ms, state.refreshed_ms),
        )

    def _keep(self, idle: _Idle) -> None:
        self._idle.pop(idle.place, None)
        self._idle[idle.place] = idle
        while len(self._idle) > MOST:
            self._idle.popitem(last=False)
        heapq.heappush(self._due, (_due_ms(idle), idle.place))
        if len(self._due) > 2 * MOST:  # most of it is of sessions that went on
            self._due = sorted((_due_ms(each), place) for place, each in self._idle.items() if not each.run)
        self._changed.set()

    def _refreshed(self, state: State) -> None:
        """Go on with a session whose refresh has ended, if it was made and another is left."""
        self._changed.set()
        place, _ = self._under_way.pop(state.run, (("", ""), 0))
        idle = self._idle.get(place)
        if idle is None or idle.run != state.run:
            return
        idle.run = ""
        idle.made += 1
        if state.outcome != "done":
            idle.most = idle.made
            return
        idle.used_ms = state.kept_ms
        if idle.left > 0:
            self._keep(idle)

    async def look(self) -> list[str]:
        """Begin what is due now; give the runs."""
        begun: list[str] = []
        now_ms = self._clock.now_ms()  # (one that was lost with its lease ends elsewhere)
        self._under_way = {run: (at, until_ms) for run, (at, until_ms) in self._under_way.items() if until_ms > now_ms}
        while self._due and self._due[0][0] <= self._clock.now_ms() and len(self._under_way) < AT_ONCE:
            _, place = heapq.heappop(self._due)
            idle = self._idle.get(place)
            if idle is None or idle.run or idle.left <= 0:
                continue
            if _due_ms(idle) > self._clock.now_ms():
                continue  # (its next time stands further behind)
            if run := await self._refresh(idle):
                begun.append(run)
        return begun

    async def _refresh(self, idle: _Idle) -> str:
        """Begin a refresh, if its session still stands where it did and there is time; give its run, or ""."""
        until_ms = idle.used_ms + int(idle.life_ms * IN_TIME)
        agent = self._find_agent(idle.first.agent)
        if agent is None or self._clock.now_ms() >= until_ms or not await self._stands(idle):
            self._let_go(idle)
            return ""
        if self._idle.get(idle.place) is not idle:  # it moved on just now
            return ""
        run = self._new_id("run_")
        first = msgspec.structs.replace(
            idle.first,
            run=run,
            session=self._new_id("refresh_"),
            deadline_ms=until_ms,
            refreshed_ms=idle.refreshed_ms,
        )
        idle.run = run
        self._under_way[run] = (idle.place, until_ms + LOST_MS)
        said = await self._begin(_start_of(first), first, agent)
        if said == StoreStarted(run):
            return run
        self._under_way.pop(run, None)
        now = self._idle.get(idle.place)
        if now is not None and now.run == run:
            now.run = ""
            self._let_go(now)
        return ""

    def _let_go(self, idle: _Idle) -> None:
        """Refresh a session no more. Of a run that goes on it is still to be known when it was."""
        idle.most = idle.made
        if not idle.waits and self._idle.get(idle.place) is idle:
            del self._idle[idle.place]

    async def _stands(self, idle: _Idle) -> bool:
        """Say whether nothing was said in a session since, and nothing decided."""
        base = idle.first.refreshes
        if base is None:
            return False
        if not idle.waits:
            session = await self._store.session(*idle.place)
            return session is not None and not session.live and session.head == base
        run = await self._store.run(idle.place[0], base.run)
        if run is None or (run.seq, run.hash.hex()) != (base.seq, base.hash):
            return False
        if idle.epoch:
            return run.status == "runnable" and run.epoch == idle.epoch
        return run.status == "waiting" and not 0 < run.wake_at_ms <= self._clock.now_ms()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self.look()
            except (JournalError, UnknownEvent) as error:
                log.warning("idle sessions were not refreshed: %s", error)
            except Exception:  # (it saves money, and nothing depends on it)
                log.exception("idle sessions were not refreshed")
            await self._until(self._due[0][0] if self._due and len(self._under_way) < AT_ONCE else 0)

    async def _until(self, due_ms: int) -> None:
        """Wait for a time, or for another to be set; with nothing to begin, for that alone."""
        if not due_ms:
            await self._changed.wait()
            return
        left_s = (due_ms - self._clock.now_ms()) / 1000
        try:
            async with asyncio.timeout(min(max(left_s, 0.01), POLL_S)):
                await self._changed.wait()
        except TimeoutError:
            return


def _due_ms(idle: _Idle) -> int:
    return idle.used_ms + int(idle.life_ms * REFRESH_AT)


def _refresh_of(state: State) -> ev.RunStarted:
    """Make the first event of a refresh, but for its names and its end."""
    return ev.RunStarted(
        run="",
        tenant=state.tenant,
        session="",
        agent=state.agent,
        bundle=state.bundle,
        user=state.user,
        caps=Caps(turns=1, budget_wait_s=0.0),
        ledgers=state.ledgers,
        refreshes=ev.Base(state.run, state.seq, state.hash.hex()),
    )


def _start_of(first: ev.RunStarted) -> Start:
    return Start(
        tenant=first.tenant,
        run=first.run,
        session=first.session,
        agent=first.agent,
        bundle=first.bundle,
        user=first.user,
        priority=BATCH,
        first=Append(tenant=first.tenant, run=first.run, expected_seq=0, epoch=0),
    )
