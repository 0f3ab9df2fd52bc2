"""`Runtime`: start runs, watch them, decide about them. What HTTP and CLI do, they do through this.

With `drive=False` it looks and posts only, and may stand beside a process that drives the same store. If it knows
agents it accepts their runs too, and leaves them to whoever drives. What is more than a few lines is done next door:
`opening`, `starting`, `following`, `deciding`, `proof`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec

from stanchion.agent import Agent, Limits, narrow
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle
from stanchion.core.errors import ConfigError, Conflict, InputError, NotFound
from stanchion.core.fold import fold
from stanchion.core.message import RUNTIME, Message, Part, Text, text_of
from stanchion.core.money import Amount, parse_usd
from stanchion.core.state import State
from stanchion.engine.batcher import Batcher, BatcherSettings
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock, SystemClock
from stanchion.engine.deliver import Deliverer, WebhookSettings
from stanchion.engine.gate import Gate
from stanchion.engine.live import Live, LiveDelta
from stanchion.engine.load import Loader
from stanchion.engine.port import MakeEngine
from stanchion.engine.relay import Relay
from stanchion.engine.worker import Worker, WorkerSettings
from stanchion.journal.quota import Quota
from stanchion.journal.record import Identity
from stanchion.journal.schedule import Schedule
from stanchion.journal.share import Share, WorkerRow
from stanchion.journal.store import ApiKey, Change, Ledger, RunRow, SessionRow, Store
from stanchion.model.batch import BatchClient
from stanchion.model.client import ModelClient
from stanchion.runtime import moving, proof
from stanchion.runtime.admission import checked_share, class_of
from stanchion.runtime.alarm import Alarm
from stanchion.runtime.deciding import Decision, Desk
from stanchion.runtime.following import Draining, Follower, row_of
from stanchion.runtime.letters import Letter, LetterView, letter, letters
from stanchion.runtime.moving import Exported, Exporting, Progress, Restored, Selection, no_progress
from stanchion.runtime.name import checked, checked_ledger, new_id, new_secret, secret_hash
from stanchion.runtime.opening import batch_clients, bind_agents, open_store
from stanchion.runtime.quotas import QuotasView, checked_quota, parse_quota, quota_name, read_quotas
from stanchion.runtime.scheduling import Scheduling, limits_of, priority_of
from stanchion.runtime.shape import Queue, RunView, Started, VerifiedRun, view_of
from stanchion.runtime.starting import IfBusy, Starter, digest_of_request, input_parts
from stanchion.runtime.webhooks import Callback, Webhooks, webhook_settings

_SHARED_LEASE_S = 2.5
"""Where others may take over: long enough for a worker that stalls two seconds, short enough for who waits."""
_CACHED_S = 1.0
"""For how long API keys are remembered; another process may change them."""


class Runtime:
    """The runs of one store, and the agents of this process."""

    def __init__(
        self,
        store: Store,
        agents: Mapping[str, BoundAgent],
        named: Mapping[str, Agent],
        clock: Clock,
        *,
        drive: bool,
        webhooks: WebhookSettings = WebhookSettings(),  # noqa: B008  (it does not change)
    ) -> None:
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
        self._desk = Desk(store, agents)
        self._stack = AsyncExitStack()
        self._worker: Worker | None = None
        self._starter = Starter(store, None, clock, self._expires_s)
        self._accepts = bool(agents)
        self._tenants: tuple[float, dict[bytes, str]] = (0.0, {})
        self._draining = False
        self._webhook_settings = webhooks
        self.webhooks = Webhooks(store, webhooks)
        self.schedules = Scheduling(store, tuple(named))

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
    ) -> Runtime:
        """Open a store, bind the agents, and drive what is runnable; with `adopt=False` only runs of these agents.

        `clients` replaces the model clients: by "provider:model", by provider, or "*" for all. Calls that may wait for a
        provider's batch API do so for `batch_gather_s` before their batch is handed in. `quotas` are limits that all workers
        share ("anthropic rpm=50 tpm=40000"); they go before those of the store. `engine` makes another engine than the one
        that needs nothing but the store. `max_active` runs are driven here at once (0: 4,000), a tenth of it kept free of
        batch runs; others wait their turn. Raises `ConfigError`.
        """
        environment = os.environ if environment is None else environment
        bound = bind_agents(agents, clients or {}, environment, drive=drive)
        if store is None:
            store, clock = await open_store(data, clock)
        clock = clock or SystemClock()
        delivery = webhook_settings(environment) if webhooks is None else webhooks
        runtime = cls(store, bound, {agent.name: agent for agent in agents}, clock, drive=drive, webhooks=delivery)
        try:
            if drive:
                limits = read_quotas(quotas, environment)
                await runtime._drive(adopt=adopt, max_active=max_active, quotas=limits, engine=engine)
                await runtime._serve_batches(batch_clients(bound.values(), environment), batch_gather_s)
        except BaseException:
            await runtime.aclose(grace_s=0)
            raise
        return runtime

    def _heard(self, changes: Sequence[Change] | None) -> None:
        """Another process wrote: have the readers look."""
        if changes is None:
            self._live.nudge()
        for change in changes or ():
            self._live.look(change.tenant, change.run)

    async def _drive(
        self, *, adopt: bool, max_active: int = 0, quotas: Sequence[Quota] = (), engine: MakeEngine | None = None
    ) -> None:
        """Take the driver's seat and begin."""
        settings = WorkerSettings(new_id("worker_"), adopt=adopt)
        if max_active:
            settings = replace(settings, max_active=max_active)
        if self._shared:
            settings = replace(settings, lease_s=_SHARED_LEASE_S, shared=True)
        if not await self.store.seize(settings.name):
            raise ConfigError(
                "another process drives the runs of this store, and a data file has one driver: send that one requests "
                "(--url), put `stanchion api` beside it, stop it first, or share a database (--data postgresql://..)"
            )
        for agent in self._bound.values():
            await self._stack.enter_async_context(agent.registry)
        gate = Gate(self.store.quotas, settings.name, self._clock, settings=quotas)
        self._worker = Worker(
            store=self.store,
            cipher=Identity(),
            find_agent=self._bound.get,
            clock=self._clock,
            live=self._live,
            loader=self._loader,
            settings=settings,
            served={name: agent.digest for name, agent in self._bound.items()},
            version=version("stanchion"),
            gate=gate,
            engine=engine(self.store, self._clock) if engine else None,
        )
        self._starter = Starter(self.store, self._worker, self._clock, self._expires_s)
        if adopt:
            await self._revive_served()
        self._relay.drives()
        await gate.open()
        await self._worker.open()
        self._deliver(adopt=adopt)

    def _deliver(self, *, adopt: bool) -> None:
        """Begin to tell others what happens and, where this is more than a command's own runs, to start what schedules say."""
        deliverer = Deliverer(self.store, self._clock, self._webhook_settings)
        alarm = Alarm(self.store, self._clock, self._start_scheduled, self._bound.__contains__)
        self.schedules.told = alarm.wake
        for task in (deliverer, alarm) if adopt else (deliverer,):
            task.open()
            self._stack.push_async_callback(task.aclose)

    async def _start_scheduled(self, schedule: Schedule, key: str) -> str:
        """Start the run of a schedule, once under a key; return its id."""
        started = await self.start(
            schedule.agent,
            schedule.input,
            tenant=schedule.tenant,
            session=schedule.session,
            user=schedule.user,
            limits=limits_of(schedule),
            idempotency_key=key,
            idempotency_digest=key,
            if_busy="queue" if schedule.if_busy == "queue" else "reject",
            priority=priority_of(schedule),
        )
        return started.run

    async def _serve_batches(self, clients: Mapping[str, BatchClient], gather_s: float) -> None:
        """Hand in the model calls that wait for a batch, and bring back their answers."""
        settings = BatcherSettings(
            new_id("batcher_"), gather_s=gather_s, look_s=min(20.0, gather_s), tick_s=min(2.0, gather_s / 2)
        )
        batcher = Batcher(self.store, clients, settings)
        await batcher.open()
        self._stack.push_async_callback(batcher.aclose)

    async def _revive_served(self) -> None:
        """Set runs going again that were parked because nobody served their agent, now that somebody does."""
        before = ("", "")
        while rows := await self.store.parked(before=before, limit=200):
            for row in rows:
                if row.agent in self._bound and await self._was_missing(row):
                    with contextlib.suppress(Conflict):  # another worker that starts was faster
                        await self.revive(row.run, by="runtime", tenant=row.tenant)
            before = (rows[-1].tenant, rows[-1].run)

    async def _was_missing(self, row: RunRow) -> bool:
        if row.outcome:
            return row.outcome == "agent_missing"
        last = await self.store.read(row.tenant, row.run, after=row.seq - 1)
        return bool(last) and isinstance(last[-1].event, ev.RunParked) and last[-1].event.reason == "agent_missing"

    async def __aenter__(self) -> Runtime:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def ready(self) -> bool:
        """Whether runs can be started here."""
        return (self._worker is not None or self._accepts) and not self._draining

    @property
    def active(self) -> int:
        """How many runs are driven now."""
        return self._worker.active if self._worker else 0

    def begin_drain(self) -> None:
        """Start nothing new, and end the streams with their reason. `aclose` does the rest."""
        self._draining = True
        self._live.stop("draining")

    async def aclose(self, *, grace_s: float = 10.0) -> None:
        """Let go of all runs and close: what is in flight may finish within the grace (seconds), the rest is journaled."""
        self.begin_drain()
        async with AsyncExitStack() as closing:  # in reverse, and all of it, whatever fails on the way
            closing.push_async_callback(self.store.aclose)
            closing.push_async_callback(self._relay.aclose)
            closing.push_async_callback(self._stack.aclose)
            for agent in self._bound.values():
                for client in agent.clients:
                    closing.push_async_callback(client.aclose)
            if self._worker is not None:
                await self._worker.drain(grace_s)

    # --- starting ----------------------------------------------------------------------------------------------------

    async def start(
        self,
        agent: str,
        input: str | Sequence[Part],
        *,
        tenant: str = "default",
        session: str = "",
        user: str = "",
        limits: Limits | None = None,
        idempotency_key: str = "",
        idempotency_digest: str = "",
        if_busy: IfBusy = "reject",
        dry_run: bool = False,
        deadline_ms: int = 0,
        batch_api: bool = False,
        priority: str = "",
        webhook: Callback | None = None,
    ) -> Started:
        """Start a run. Returns when it is durable; where this process drives nothing, any worker takes it up.

        With `batch_api` its model calls go through the provider's batch API where there is one and a day is left: half the
        price, and answers within a day. Under an `idempotency_key` the same request is one run; `idempotency_digest` may stand for the request's body.
        `priority` ("interactive" or "batch") is the agent's own where it is "": who goes first when runs wait for a slot.
        Raises `NotFound` (agent), `InputError` (with the field), `QueueFull`, and `Conflict` with code "session_busy",
        "idempotency_mismatch", "budget_exhausted", "draining" or "not_driving".
        """
        if self._draining:
            raise Draining
        if self._worker is None and not self._accepts:
            raise Conflict("this process knows no agents and drives no runs", code="not_driving")
        bound = self._agent(agent)
        rank = class_of(priority or self.agents[agent].priority)
        parts = input_parts(input)
        if if_busy not in ("reject", "queue"):
            raise InputError(f'must be "reject" or "queue", not {if_busy!r}', field="if_busy")
        if idempotency_key and not idempotency_digest:
            asked = (agent, parts, session, user, limits and limits.caps(), dry_run, deadline_ms)
            asked += ("batch_api",) if batch_api else ()
            asked += (priority,) if priority else ()
            asked += (webhook,) if webhook else ()
            idempotency_digest = digest_of_request(*asked)
        named = checked(session, "session")
        session = named or new_id("ses_")
        first = ev.RunStarted(
            run=new_id("run_"),
            tenant=tenant,
            session=session,
            agent=agent,
            bundle=bound.digest,
            user=checked(user, "user"),
            caps=narrow(bound.bundle.caps, limits.caps()) if limits else bound.bundle.caps,
            ledgers=await self._starter.ledgers(tenant, user, session),
            dry_run=dry_run,
            deadline_ms=self._deadline(deadline_ms),
            batch_api=batch_api,
            parts=parts,
        )
        callback = await self.webhooks.callback(webhook, first.run, tenant=tenant) if webhook else None
        return await self._starter.start(
            first,
            bound,
            idempotency_key,
            idempotency_digest,
            if_busy,
            fresh=not named,
            priority=rank,
            callback=callback,
        )

    def _agent(self, name: str) -> BoundAgent:
        bound = self._bound.get(name)
        if bound is None:
            raise NotFound(f"there is no agent {name!r}; there are: {', '.join(self._bound) or 'none'}", field="agent")
        return bound

    def _deadline(self, deadline_ms: int) -> int:
        if deadline_ms and deadline_ms <= self._clock.now_ms():
            raise InputError("must lie in the future (milliseconds since 1970 UTC)", field="deadline_ms")
        return deadline_ms

    # --- watching ----------------------------------------------------------------------------------------------------

    async def view(self, run: str, *, tenant: str = "default") -> RunView:
        """Show a run as it stands. Raises `NotFound`."""
        row = await row_of(self.store, tenant, run)
        entries = await self.store.read(tenant, run)
        state = fold(entries)
        bundle = await self._bundle(tenant, state.bundle or row.bundle)
        reasons = {
            entry.event.call: text_of(entry.event.parts)
            for entry in entries
            if isinstance(entry.event, ev.ToolCallJudged) and entry.event.action == "ask"
        }
        return msgspec.structs.replace(view_of(row, state, bundle, reasons), queue=await self._queue_of(row))

    async def _queue_of(self, row: RunRow) -> Queue | None:
        if row.epoch or row.status not in ("queued", "runnable"):
            return None
        if row.status == "runnable":
            return await self._starter.admission.queue(row.tenant, row.run)
        session = await self.store.session(row.tenant, row.session)
        return Queue(None, 0, None, session.live) if session else None

    async def wait(self, run: str, *, tenant: str = "default", timeout_s: float | None = None) -> RunView:
        """Wait until a run is over, parked, or needs a person; or until the time (seconds) is up. Then show it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._follower.until_needed(tenant, run)
        return await self.view(run, tenant=tenant)

    def tail(
        self, run: str, *, tenant: str = "default", after: int = 0, deltas: bool = True
    ) -> AsyncGenerator[ev.Entry | LiveDelta]:
        """Follow a run from behind a seq: every entry, gapless and once, and deltas of the call in the making.

        Ends after `RunFinished`. Raises `NotFound`, `InputError` (`after`), and `Draining` when this process shuts down.
        A reader who is slow gets the deltas he missed as one, and costs the run nothing.
        """
        return self._follower.tail(tenant, run, after=after, deltas=deltas)

    async def runs(
        self,
        *,
        tenant: str = "default",
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        outcome: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """List runs, newest first, by how they ended or why they are parked (`outcome`); `before`: the run to go on from."""
        asked = {"session": session, "agent": agent, "user": user, "status": status, "outcome": outcome}
        return await self.store.runs(tenant, **asked, before=before, limit=limit)

    async def parked(
        self,
        *,
        tenant: str = "default",
        agent: str = "",
        reason: str = "",
        before: tuple[str, str] = ("", ""),
        limit: int = 50,
    ) -> Sequence[Letter]:
        """List runs that stand, newest first: of a tenant, or of all ("", for operators); `before`: tenant and run."""
        return await letters(self.store, tenant=tenant, agent=agent, reason=reason, before=before, limit=limit)

    async def letter(self, run: str, *, tenant: str = "default") -> LetterView:
        """Show a parked run with its whole context. Raises `NotFound`, and `Conflict` if it is not parked."""
        return await letter(self.store, tenant, run)

    async def session(self, session: str, *, tenant: str = "default") -> SessionRow:
        """Show a session. Raises `NotFound`."""
        row = await self.store.session(tenant, session)
        if row is None:
            raise NotFound(f"there is no session {session!r}", field="session")
        return row

    def is_expired(self, row: SessionRow) -> bool:
        """Say whether a session was idle for longer than its agent, if it is known here, allows."""
        return self._starter.is_expired(row)

    async def sessions(self, *, tenant: str = "default", before: str = "", limit: int = 50) -> Sequence[SessionRow]:
        """List sessions, newest first."""
        return await self.store.sessions(tenant, before=before, limit=limit)

    async def messages(self, session: str, *, tenant: str = "default") -> Sequence[Message]:
        """Show a session's conversation as the model was shown it. Raises `NotFound`."""
        row = await self.session(session, tenant=tenant)
        state = await self._loader.load(tenant, row.live) if row.live else State()
        if not state.seq:
            state = await self._loader.base(tenant, row.head)
        return state.messages

    async def _bundle(self, tenant: str, digest: str) -> Bundle | None:
        body = await self.store.bundle(tenant, digest)
        return None if body is None else msgspec.json.decode(body, type=Bundle)

    # --- saying something to a run --------------------------------------------------------------------------------------

    async def send(
        self,
        run: str,
        text: str | Sequence[Part],
        *,
        by: str = "",
        tenant: str = "default",
        idempotency_key: str = "",
    ) -> None:
        """Say something more to a live run; under an `idempotency_key` once, however often it is asked.

        Raises `NotFound`, and `Conflict` if it is over or the key was used for something else.
        """
        message = ev.MessageAdded(by=by, parts=input_parts(text))
        digest = digest_of_request("message", run, message) if idempotency_key else ""
        await self._post(tenant, run, "message", message, idempotency_key, digest)

    async def cancel(self, run: str, *, by: str = "", reason: str = "", tenant: str = "default") -> None:
        """Stop a run: nothing new begins, effects under way are awaited. Raises `NotFound`, `Conflict` if it is over."""
        parts = (Text(reason, RUNTIME),) if reason else ()
        await self._post(tenant, run, "cancel", ev.CancelRequested(by=by or "caller", parts=parts))

    async def revive(self, run: str, *, by: str = "", tenant: str = "default") -> None:
        """Set a parked run going again. Raises `NotFound`, `Conflict`."""
        row = await row_of(self.store, tenant, run)
        if row.status != "parked":
            raise Conflict(f"run {run} is not parked but {row.status}")
        await self._post(tenant, run, "revive", ev.RunRevived(by=by or "caller"))

    async def decide(
        self,
        run: str,
        call: str,
        decision: str,
        *,
        revision: int | None = None,
        arguments: Mapping[str, Any] | None = None,
        result: str | None = None,
        reason: str = "",
        by: str = "",
        tenant: str = "default",
        attempt: int | None = None,
    ) -> None:
        """Decide about a call that waits: approve, edit (`arguments`), reject; in doubt: retry, record (`result`), fail.

        `revision` and `attempt` are those that were shown: a decision that comes late does not answer the next question.
        Raises `NotFound` (no such call), `Conflict` (decided already, another revision or attempt, no such choice),
        `InputError`.
        """
        row = await row_of(self.store, tenant, run)
        asked = Decision(decision, revision, arguments, result, reason, by, attempt)
        await self._desk.decide(tenant, run, row.agent, call, asked)
        self._hint(tenant, run)

    async def _post(self, tenant: str, run: str, kind: str, event: ev.Event, key: str = "", digest: str = "") -> None:
        await self.store.post(tenant, run, kind, msgspec.json.encode(event), key=key, digest=digest)
        self._hint(tenant, run)

    def _hint(self, tenant: str, run: str) -> None:
        if self._worker is not None:
            self._worker.hint(tenant, run)

    # --- proof, money, keys ----------------------------------------------------------------------------------------------

    async def verify(self, run: str = "", *, tenant: str = "default") -> AsyncGenerator[VerifiedRun]:
        """Check the chain of a run; or of all of the tenant's, and that no run of a session is gone."""
        if run:
            yield await proof.verify_run(self.store, tenant, run)
            return
        async for verified in proof.verify_all(self.store, tenant):
            yield verified

    async def set_share(
        self,
        scope: str = "tenant",
        *,
        tenant: str = "",
        weight: int | None = None,
        max_running: int | None = None,
        max_queued: int | None = None,
    ) -> Share:
        """Set what a tenant, agent or user may have of the workers; None takes a value back to its default.

        `scope`: "tenant", "agent:NAME", "user:NAME" or "user:*"; tenant "" is the operator's own, for all tenants.
        Raises `InputError`.
        """
        share = checked_share(scope, tenant, weight, max_running, max_queued)
        await self.store.sharing.set(share)
        return share

    async def shares(self) -> Sequence[Share]:
        """List all shares."""
        return await self.store.sharing.rows()

    async def weight_of(self, tenant: str) -> int:
        """Tell a tenant's weight against others."""
        return (await self.store.sharing.shares()).weight_of(tenant)

    async def workers(self) -> Sequence[WorkerRow]:
        """List the worker processes that were heard of within the last day."""
        return await self.store.sharing.workers()

    async def set_budget(self, ledger: str, usd: Amount | None, *, tenant: str = "default") -> Ledger:
        """Set a shared budget's limit, or take it away (None). Runs that start from now on fall under it."""
        limit = -1 if usd is None else parse_usd(usd, field="usd")
        said = await self.store.set_limit(tenant, checked_ledger(ledger), limit)
        self._starter.limits_changed()
        return said

    async def budgets(self, *, tenant: str = "default") -> Sequence[Ledger]:
        """List shared budgets: the tenant's, then those of all tenants together."""
        return [*await self.store.ledgers(tenant), *await self.store.ledgers("")]

    async def quotas(self) -> QuotasView:
        """Show the shared limits of providers: what is set in the store, what counts now, what is closed and broken."""
        signals, usage = await self.store.quotas.signals(), await self.store.quotas.usage()
        return QuotasView(signals.quotas, tuple(usage), signals.pauses, signals.breakers)

    async def set_quota(self, quota: str | Quota) -> Quota:
        """Keep a shared limit of a provider in the store; all workers hear of it within seconds. Raises `InputError`."""
        found = parse_quota(quota, field="quota") if isinstance(quota, str) else quota
        found = checked_quota(found, "quota")
        await self.store.quotas.set_quota(found)
        return found

    async def drop_quota(self, name: str) -> bool:
        """Forget a shared limit. False: there is none."""
        return await self.store.quotas.drop_quota(quota_name(name))

    async def export(
        self,
        out: str | Path | BinaryIO,
        wanted: Selection,
        *,
        tenant: str = "default",
        live: bool = False,
        budgets: bool = False,
        force: bool = False,
        progress: Progress = no_progress,
    ) -> Exported:
        """Write sessions into a file or a stream that `restore` takes into any store, chains and all.

        `live`: also what is not over, which is then parked here for ever. Raises `NotFound`, `Conflict`, `InputError` (file).
        """
        how = Exporting(live=live, budgets=budgets, force=force)
        return await moving.export(self.store, tenant, out, wanted, how, progress)

    async def restore(
        self, file: str | Path | BinaryIO, *, tenant: str = "", back: bool = False, progress: Progress = no_progress
    ) -> Restored:
        """Take the sessions of an export into this store: verified first, each whole or not at all, nothing twice.

        `back`: drive here again what was let go here. Raises `InputError` (file, tenant), `BrokenChain`, `Conflict`.
        """
        return await moving.restore(self.store, file, tenant=tenant, back=back, progress=progress)

    async def erase(self, subject: str, *, tenant: str = "default") -> bool:
        """Destroy the content of a user (or of a session without one) for ever. The chains still verify."""
        done = await self.store.destroy_key(tenant, subject)
        self._loader.clear()
        return done

    async def add_key(self, tenant: str, name: str) -> tuple[ApiKey, str]:
        """Make an API key. The secret is shown this once."""
        secret = new_secret()
        key = ApiKey(new_id("key_"), checked(tenant, "tenant"), secret_hash(secret), name, self._clock.now_ms())
        await self.store.add_api_key(key)
        self._tenants = (0.0, {})
        return key, secret

    async def keys(self) -> Sequence[ApiKey]:
        """List the API keys."""
        return await self.store.api_keys()

    async def revoke_key(self, id: str) -> bool:
        """Revoke an API key. False: there is none."""
        self._tenants = (0.0, {})
        return await self.store.revoke_api_key(id)

    async def tenant_of(self, secret: str) -> str | None:
        """Find whose key this is. None: nobody's, or it was revoked."""
        read_s, tenants = self._tenants
        if time.monotonic() - read_s > _CACHED_S:
            tenants = {key.hash: key.tenant for key in await self.store.api_keys() if not key.revoked}
            self._tenants = (time.monotonic(), tenants)
        return tenants.get(secret_hash(secret))
