"""A process with a store: what it opens and knows, whether it drives runs, what it begins by itself, and how it closes.

`Runtime` is one, and adds what may be done with runs. What is no run's has a desk of its own, an attribute: `schedules`,
`webhooks`, `shares`, `quotas`, `keys`, `connections`, `memory`, `costs`, `forecasting`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from stanchion.agent import Agent
from stanchion.core.errors import Conflict
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock, SystemClock
from stanchion.engine.courses import Courses
from stanchion.engine.deliver import WebhookSettings
from stanchion.engine.live import Live
from stanchion.engine.load import Loader
from stanchion.engine.policing import Policing
from stanchion.engine.port import MakeEngine
from stanchion.engine.relay import Relay
from stanchion.guard.redact import Redactor
from stanchion.journal.quota import Quota
from stanchion.journal.schedule import Schedule
from stanchion.journal.store import Change, Store
from stanchion.model.client import ModelClient
from stanchion.runtime.desks.connecting import Connecting
from stanchion.runtime.desks.keys import Keys
from stanchion.runtime.desks.quotas import Limiting, read_quotas
from stanchion.runtime.desks.remembering import Remembering
from stanchion.runtime.desks.scheduling import Scheduling, request_of
from stanchion.runtime.desks.sharing import Sharing
from stanchion.runtime.desks.webhooks import Webhooks, webhook_settings
from stanchion.runtime.driving import DriveSettings, Driving
from stanchion.runtime.money.costs import Costs
from stanchion.runtime.money.forecasting import Forecasting
from stanchion.runtime.opening.binding import batch_clients, bind_agents, closers
from stanchion.runtime.opening.policies import Places, PolicyFiles, places_of, put_in_force, read_policies, recorded
from stanchion.runtime.opening.secrecy import Redacting, known_secrets
from stanchion.runtime.opening.store import open_store
from stanchion.runtime.runs.accepting import Accepting, StartRequest
from stanchion.runtime.runs.deciding import Desk
from stanchion.runtime.runs.explaining import Explaining
from stanchion.runtime.runs.following import Draining, Follower
from stanchion.runtime.runs.granting import Granting
from stanchion.runtime.runs.reviewing import Reviewing
from stanchion.runtime.runs.starting import Starter
from stanchion.runtime.runs.telling import Telling
from stanchion.runtime.shape import Started


class Process:
    """One process's store, agents and desks, opened, perhaps driving, and closed."""

    def __init__(
        self,
        store: Store,
        agents: Mapping[str, BoundAgent],
        named: Mapping[str, Agent],
        clock: Clock,
        *,
        drive: bool,
        webhooks: WebhookSettings = WebhookSettings(),  # noqa: B008  (it does not change)
        environment: Mapping[str, str] | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self.redactor = redactor or Redactor()
        """What takes secrets out of whatever comes in; of an agent's runs, the agent's own."""
        self.secrets = self.redactor.secrets
        self._log_filter = Redacting(self.redactor)
        self._log_filter.open()
        self.store = store
        self.agents = named
        self._expires_s = {agent.name: agent.session_expires_s for agent in named.values()}
        self._bound = agents
        self._clock = clock
        self._live = Live()
        self._loader = Loader(store)
        self._shared = store.listen(self._heard)
        self._relay = Relay.of(store, self._live)
        self._follower = Follower(store, self._live, driving=drive, shared=self._shared)
        self._driving: Driving | None = None
        self._accepts = bool(agents)
        self._draining = False
        self.webhooks = Webhooks(store, webhooks, self.secrets)
        starter = Starter(store, None, clock, self._expires_s)
        self._accepting = Accepting(agents, named, clock, self.secrets, starter, self.webhooks.callback)
        self._telling = Telling(store, agents, self.redactor, self._hint)
        self.schedules = Scheduling(store, tuple(named), self.redactor)
        self.shares = Sharing(store)
        self.quotas = Limiting(store)
        self.keys = Keys(store, clock)
        self.costs = Costs(store)
        self._courses = Courses(store, clock)
        self.forecasting = Forecasting(store, self._courses, agents)
        self.memory = Remembering(store, agents, clock, self.redactor, self._content_erased)
        self.connections = Connecting(
            store, agents.values(), clock, environment or {}, partial(self.secrets.add, minted=True)
        )
        self._policing = Policing(store, read_policies)
        self._policy_files: PolicyFiles | None = None
        self.explaining = Explaining(store, self._loader, partial(recorded, self._policing))
        self._reviewing = Reviewing(store, self.explaining)
        self._desk = Desk(store, agents, clock, self._reviewing.ungrounded, self.redactor)
        self._granting = Granting(store, self._loader, clock)

    @classmethod
    async def open(
        cls,
        *agents: Agent,
        data: str | Path = "stanchion.db",
        clients: Mapping[str, ModelClient] | None = None,
        environment: Mapping[str, str] | None = None,
        drive: bool = True,
        adopt: bool = True,
        clock: Clock | None = None,
        store: Store | None = None,
        max_active: int = 0,
        batch_gather_s: float = 30.0,
        quotas: Sequence[str | Quota] = (),
        webhooks: WebhookSettings | None = None,
        engine: MakeEngine | None = None,
        policies: Places = (),
        secrets: Mapping[str, str] | None = None,
    ) -> Self:
        """Open a store, bind the agents, and drive what is runnable; with `adopt=False` only runs of these agents.

        `clients` replaces the model clients: by "provider:model", by provider, or "*" for all. Calls that may wait for a
        provider's batch API do so for `batch_gather_s` before their batch is handed in. `quotas` are limits that all workers
        share ("anthropic rpm=50 tpm=40000"); they go before those of the store. `engine` makes another engine than the one
        that needs nothing but the store. `policies` are files or folders of Cedar policies (else `STANCHION_POLICIES`), which are
        read again when they change. `secrets` (name: value) are taken out of all that comes in, as are those of the variables
        STANCHION_SECRET_<NAME> and the providers' keys. `max_active` runs are driven here at once (0: 4,000), a tenth of it kept free of
        batch runs; others wait their turn. Raises `ConfigError`.
        """
        environment = os.environ if environment is None else environment
        redactor = Redactor(known_secrets(secrets or {}, environment, data))
        bound = bind_agents(agents, clients or {}, environment, drive=drive, secrets=redactor.secrets)
        if store is None:
            store, clock = await open_store(data, clock)
        clock = clock or SystemClock()
        delivery = webhook_settings(environment) if webhooks is None else webhooks
        named = {agent.name: agent for agent in agents}
        made = cls(
            store, bound, named, clock, drive=drive, webhooks=delivery, environment=environment, redactor=redactor
        )
        try:
            if drive:
                await made._open_policies(places_of(policies, environment))
                await made._drive(
                    DriveSettings(
                        adopt=adopt,
                        max_active=max_active,
                        quotas=read_quotas(quotas, environment),
                        engine=engine,
                        webhooks=delivery,
                        batches=batch_clients(bound.values(), environment),
                        batch_gather_s=batch_gather_s,
                        redactor=redactor,
                        policing=made._policing,
                        policy_files=made._policy_files,
                    )
                )
        except BaseException:
            await made.aclose(grace_s=0)
            raise
        return made

    def _heard(self, changes: Sequence[Change] | None) -> None:
        """Another process wrote: have the readers look."""
        if changes is None:
            self._live.nudge()
        for change in changes or ():
            self._live.look(change.tenant, change.run)

    async def _open_policies(self, places: Sequence[Path]) -> None:
        """Put the policies of some files in force. Raises `ConfigError`."""
        bundles = [agent.bundle for agent in self._bound.values()]
        self._policy_files = await put_in_force(places, bundles, self._policing)

    async def reload_policies(self) -> str:
        """Read the policies' files now; give the digest in force, "" without policies. Raises `ConfigError`: the set before stays."""
        return await self._policy_files.reload() if self._policy_files is not None else ""

    async def _drive(self, settings: DriveSettings) -> None:
        """Take the driver's seat and begin. Raises `ConfigError`."""
        parts = (self.store, self._bound, self._clock, self._live, self._loader)
        self._driving = Driving(*parts, settings, shared=self._shared, courses=self._courses)
        self._accepting.starter = Starter(self.store, self._driving.worker, self._clock, self._expires_s)
        self._accepting.starter.spent = self._driving.watcher.spent
        self._accepting.refreshed_ms = self._driving.keeper.refreshed_ms
        self.memory.rememberer = self._driving.rememberer
        await self._driving.open(self._start_scheduled, self.schedules)
        self._relay.drives()

    async def _start_scheduled(self, schedule: Schedule, key: str) -> str:
        """Start the run of a schedule, once under a key; return its id."""
        return (await self._start(request_of(schedule, key))).run

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def ready(self) -> bool:
        """Whether runs can be started here."""
        return (self._driving is not None or self._accepts) and not self._draining

    @property
    def active(self) -> int:
        """How many runs are driven now."""
        return self._driving.worker.active if self._driving else 0

    def begin_drain(self) -> None:
        """Start nothing new, and end the streams with their reason. `aclose` does the rest."""
        self._draining = True
        self._live.stop("draining")

    async def aclose(self, *, grace_s: float = 10.0) -> None:
        """Let go of all runs and close: what is in flight may finish within the grace (seconds), the rest is journaled."""
        self.begin_drain()
        async with AsyncExitStack() as closing:  # in reverse, and all of it, whatever fails on the way
            closing.callback(self._log_filter.close)
            closing.push_async_callback(self.store.aclose)
            closing.push_async_callback(self._relay.aclose)
            closing.push_async_callback(self.connections.aclose)
            if self._driving is not None:
                closing.push_async_callback(self._driving.aclose)
            for closer in closers(self._bound.values()):
                closing.push_async_callback(closer)
            if self._driving is not None:
                await self._driving.drain(grace_s)

    async def refresh_caches(self) -> list[str]:
        """Begin now what refreshes are due of sessions that are idle or wait for a person; give their runs. A process that drives does so by itself."""
        return await self._driving.keeper.look() if self._driving is not None else []

    async def look_at_budgets(self) -> int:
        """Tell now what there is to tell of budgets and spikes; say how much it was. A process that drives does so by itself."""
        return await self._driving.watcher.look() if self._driving is not None else 0

    async def _start(self, asked: StartRequest) -> Started:
        if self._draining:
            raise Draining
        if self._driving is None and not self._accepts:
            raise Conflict("this process knows no agents and drives no runs", code="not_driving")
        return await self._accepting.start(asked)

    def _hint(self, tenant: str, run: str) -> None:
        if self._driving is not None:
            self._driving.worker.hint(tenant, run)

    def _content_erased(self) -> None:
        self._loader.clear()
        self._reviewing.clear()
