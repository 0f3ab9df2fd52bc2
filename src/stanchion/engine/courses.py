"""The courses of an agent's past runs, and what they tell of one that is under way. Read from the store, kept in memory, bounded.

Of a tenant's own runs alone: what others pay is nobody's business. What is kept is as the store had it when it was read, and may be lost at any time:
what was decided by it stands in the journal.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from weakref import WeakValueDictionary

import msgspec

from stanchion.context.forecast import Fitted, Forecast, fit
from stanchion.core.errors import BrokenChain, UnknownEvent
from stanchion.core.progress import Course, Progress, course_of
from stanchion.engine.clock import Clock
from stanchion.journal.store import RunRow, Store

MOST_RUNS = 128
"""Past runs that are gone by, the newest."""
ENOUGH = 20
"""If so many of them were driven under the bundle of the newest one, the others are left aside."""
FRESH_MS = 60_000
"""For so long it is not looked whether there are more."""
ENOUGH_MORE = 1 / 16
"""Fewer runs more, of those that are known, change nothing: to learn takes some 40 ms for each number of turns."""
MOST_AGENTS = 256
"""Whose past is kept, of all tenants together."""
MOST_EVENTS = 20_000
"""That are read of them; older runs are left out."""
_EVENTS = 5_000
"""That are read at once."""


class _Past:
    """Past runs of an agent of a tenant."""

    def __init__(self) -> None:
        self.read_ms = 0
        self.newest = ""
        self.courses: tuple[Course, ...] = ()
        self.fits: dict[int, Fitted | None] = {}


class Courses:
    """What the past runs of agents tell."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._past: OrderedDict[tuple[str, str], _Past] = OrderedDict()
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def learn(self, tenant: str, agent: str, turns: int) -> None:
        """Read the past of an agent, if that was not done of late, and learn from it about runs after so many turns."""
        place = (tenant, agent)
        async with self._turns.setdefault(place, asyncio.Lock()):
            past = self._past.get(place) or _Past()
            if not past.read_ms or self._clock.now_ms() - past.read_ms >= FRESH_MS:
                await self._read(tenant, agent, past)
            if turns not in past.fits:
                past.fits[turns] = await asyncio.to_thread(fit, past.courses, turns)
            self._past[place] = past
            self._past.move_to_end(place)
            while len(self._past) > MOST_AGENTS:
                self._past.popitem(last=False)

    def forecast(self, tenant: str, agent: str, progress: Progress) -> Forecast | None:
        """Say what a run that is so far will cost, by what was learnt. None: nothing was. It takes some microseconds."""
        past = self._past.get((tenant, agent))
        fitted = past.fits.get(progress.turns) if past is not None else None
        return fitted.forecast(progress) if fitted is not None else None

    async def told(self, tenant: str, agent: str, progress: Progress) -> Forecast | None:
        """Learn, and say."""
        await self.learn(tenant, agent, progress.turns)
        return self.forecast(tenant, agent, progress)

    async def _read(self, tenant: str, agent: str, past: _Past) -> None:
        ended = await self._store.runs(tenant, agent=agent, status="ended", limit=MOST_RUNS)
        events = accumulate(row.seq for row in ended)
        rows = [row for row, until in zip(ended, events, strict=True) if until <= MOST_EVENTS and row.seq]
        newest = rows[0].run if rows else ""
        more = next((place for place, row in enumerate(rows) if row.run == past.newest), len(rows))
        if more > len(past.courses) * ENOUGH_MORE:
            same = [row for row in rows if row.bundle == rows[0].bundle]
            courses = [
                course
                for parcel in _parcels(same if len(same) >= ENOUGH else rows)
                for course in await self._courses(tenant, parcel)
            ]
            past.newest, past.courses, past.fits = newest, tuple(courses), {}
        past.read_ms = self._clock.now_ms()

    async def _courses(self, tenant: str, rows: Sequence[RunRow]) -> Sequence[Course]:
        try:
            read = await self._store.outlines(tenant, [row.run for row in rows])
        except (UnknownEvent, BrokenChain, msgspec.ValidationError):  # one of them is a newer program's
            return []
        made = await asyncio.to_thread(lambda: [course_of(outlines) for outlines in read.values()])
        return [course for course in made if course is not None]


def _parcels(rows: Sequence[RunRow]) -> Iterator[list[RunRow]]:
    parcel: list[RunRow] = []
    for row in rows:
        if parcel and sum(each.seq for each in parcel) + row.seq > _EVENTS:
            yield parcel
            parcel = []
        parcel.append(row)
    if parcel:
        yield parcel
