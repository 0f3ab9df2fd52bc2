"""What a process runs that drives: the worker, and the tasks beside it. Begun once, closed in reverse.

gate       what limits that all workers share allow         worker    drives runs
deliverer  posts what was announced to webhooks             batcher   hands in model calls that wait for a batch
alarm      starts what schedules say                    keeper    reads what idle and waiting sessions have in a provider's cache, before it lapses
watcher    tells when budgets cross a line, and when far more than usual is spent
rememberer looks what is to be remembered of runs that have ended
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import ConfigError, Conflict
from stanchion.core.state import State
from stanchion.engine.batcher import Batcher, BatcherSettings
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.courses import Courses
from stanchion.engine.deliver import Deliverer, WebhookSettings
from stanchion.engine.gate import Gate
from stanchion.engine.keeper import Keeper
from stanchion.engine.live import Live
from stanchion.engine.load import Loader
from stanchion.engine.policing import Policing
from stanchion.engine.port import MakeEngine
from stanchion.engine.remember import Rememberer
from stanchion.engine.worker import Worker, WorkerSettings
from stanchion.guard.redact import Redactor
from stanchion.journal.quota import Quota
from stanchion.journal.record import Identity
from stanchion.journal.schedule import Schedule
from stanchion.journal.store import RunRow, Store
from stanchion.model.batch import BatchClient
from stanchion.runtime.desks.alarm import Alarm
from stanchion.runtime.desks.scheduling import Scheduling
from stanchion.runtime.money.watching import Watcher
from stanchion.runtime.name import new_id
from stanchion.runtime.opening.policies import PolicyFiles

SHARED_LEASE_S = 2.5
"""Where others may take over: long enough for a worker that stalls two seconds, short enough for who waits."""
_LOOK_MOST_S = 20.0
_TICK_MOST_S = 2.0

StartScheduled = Callable[[Schedule, str], Awaitable[str]]
"""Starts the run of a schedule under a key, and returns its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveSettings:
    """How a process drives. Counts, and seconds."""

    adopt: bool = True
    """Take up whatever is runnable and start what schedules say; else only runs of the agents served here."""
    max_active: int = 0
    """Runs at once; 0: the worker's default."""
    quotas: tuple[Quota, ...] = ()
    engine: MakeEngine | None = None
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    batches: Mapping[str, BatchClient] = field(default_factory=dict[str, BatchClient])
    """Clients of batch APIs, by provider."""
    redactor: Redactor = field(default_factory=Redactor)
    batch_gather_s: float = 30.0
    policing: Policing | None = None
    policy_files: PolicyFiles | None = None
    """What is watched for changes of the policies; None: there are no policies here."""


class Driving:
    """The worker of a process, and what serves it."""

    def __init__(
        self,
        store: Store,
        agents: Mapping[str, BoundAgent],
        clock: Clock,
        live: Live,
        loader: Loader,
        settings: DriveSettings,
        *,
        shared: bool,
        courses: Courses | None = None,
    ) -> None:
        self._store = store
        self._agents = agents
        self._clock = clock
        self._settings = settings
        self._stack = AsyncExitStack()
        self._how = _worker_settings(settings, shared=shared)
        self._gate = Gate(store.quotas, self._how.name, clock, settings=settings.quotas)
        self.worker = Worker(
            store=store,
            cipher=Identity(),
            find_agent=agents.get,
            clock=clock,
            live=live,
            loader=loader,
            settings=self._how,
            served={name: agent.digest for name, agent in agents.items()},
            version=version("stanchion"),
            gate=self._gate,
            engine=settings.engine(store, clock) if settings.engine else None,
            policing=settings.policing,
            courses=courses,
        )
        self.keeper = Keeper(store, self.worker.start, clock, self.worker.habits, agents.get, new_id)
        self.watcher = Watcher(store, clock)
        self.rememberer = Rememberer(store, self.worker.start, loader, clock, agents.get, tuple(agents), new_id)
        self.worker.ended = self._ended
        self.worker.waits, self.worker.works = self.keeper.waits, self.keeper.works
        self.worker.refreshed_ms = self.keeper.goes_on

    def _ended(self, state: State) -> None:
        self.keeper.ended(state)
        self.watcher.ended(state)
        self.rememberer.ended(state)

    async def open(self, start: StartScheduled, schedules: Scheduling) -> None:
        """Take the driver's seat and begin. Raises `ConfigError`."""
        if not await self._store.seize(self._how.name):
            raise ConfigError(
                "another process drives the runs of this store, and a data file has one driver: send that one requests "
                "(--url), put `stanchion api` beside it, stop it first, or share a database (--data postgresql://..)"
            )
        for agent in self._agents.values():
            await self._stack.enter_async_context(agent.registry)
        if self._settings.adopt:
            await self._revive_served()
        await self.worker.habits.read(self._store)
        await self._gate.open()
        await self.worker.open()
        await self._open_beside(start, schedules)

    async def drain(self, grace_s: float) -> None:
        """Let go of all runs within the grace (seconds)."""
        await self.keeper.aclose()
        await self.rememberer.aclose()
        await self.worker.drain(grace_s)

    async def aclose(self) -> None:
        """End the tasks beside the worker, and the tools."""
        await self._stack.aclose()

    async def _open_beside(self, start: StartScheduled, schedules: Scheduling) -> None:
        settings = self._settings
        if settings.policy_files is not None:
            settings.policy_files.open()
            self._stack.push_async_callback(settings.policy_files.aclose)
        deliverer = Deliverer(self._store, self._clock, settings.webhooks)
        deliverer.open()
        self.keeper.open()
        self.rememberer.open()
        self._stack.push_async_callback(self.rememberer.aclose)
        self._stack.push_async_callback(self.keeper.aclose)
        self._stack.push_async_callback(deliverer.aclose)
        if settings.adopt:
            alarm = Alarm(self._store, self._clock, start, self._agents.__contains__)
            schedules.told = alarm.wake
            alarm.open()
            self._stack.push_async_callback(alarm.aclose)
            self.watcher.open()
            self._stack.push_async_callback(self.watcher.aclose)
        how = _batcher_settings(settings.batch_gather_s)
        batcher = Batcher(self._store, settings.batches, how, settings.redactor)
        await batcher.open()
        self._stack.push_async_callback(batcher.aclose)

    async def _revive_served(self) -> None:
        """Set runs going again that were parked because nobody served their agent, now that somebody does."""
        before = ("", "")
        while rows := await self._store.parked(before=before, limit=200):
            for row in rows:
                if row.agent in self._agents and await self._was_missing(row):
                    await self._revive(row)
            before = (rows[-1].tenant, rows[-1].run)

    async def _revive(self, row: RunRow) -> None:
        with contextlib.suppress(Conflict):  # another worker that starts was faster
            await self._store.post(row.tenant, row.run, "revive", msgspec.json.encode(ev.RunRevived(by="runtime")))

    async def _was_missing(self, row: RunRow) -> bool:
        if row.outcome:
            return row.outcome == "agent_missing"
        last = await self._store.read(row.tenant, row.run, after=row.seq - 1)
        return bool(last) and isinstance(last[-1].event, ev.RunParked) and last[-1].event.reason == "agent_missing"


def _worker_settings(settings: DriveSettings, *, shared: bool) -> WorkerSettings:
    how = WorkerSettings(new_id("worker_"), adopt=settings.adopt)
    if settings.max_active:
        how = replace(how, max_active=settings.max_active)
    return replace(how, lease_s=SHARED_LEASE_S, shared=True) if shared else how


def _batcher_settings(gather_s: float) -> BatcherSettings:
    return BatcherSettings(
        new_id("batcher_"),
        gather_s=gather_s,
        look_s=min(_LOOK_MOST_S, gather_s),
        tick_s=min(_TICK_MOST_S, gather_s / 2),
    )
