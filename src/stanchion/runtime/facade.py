"""`Runtime`: start runs, watch them, decide about them. What HTTP and CLI do, they do through this.

With `drive=False` it looks and posts only, and may stand beside a process that drives the same store. If it knows
agents it accepts their runs too, and leaves them to whoever drives. What is more than a few lines is done next door:
`opening`, `driving`, `starting`, `following`, `deciding`, `proof`, `moving`. What is no run's has a desk of its own:
`schedules`, `webhooks`, `shares`, `quotas`, `keys`, `costs`, `forecasting`, `memory`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec

from stanchion.agent import Agent, Limits, narrow
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, decode_bundle
from stanchion.core.conversation import history
from stanchion.core.errors import Conflict, InputError, NotFound
from stanchion.core.fold import fold
from stanchion.core.message import RUNTIME, Message, Part, Text, text_of
from stanchion.core.money import Amount, parse_usd
from stanchion.core.state import State
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock, SystemClock
from stanchion.engine.courses import Courses
from stanchion.engine.deliver import WebhookSettings
from stanchion.engine.live import Live, LiveDelta
from stanchion.engine.load import Loader
from stanchion.engine.policing import Policing
from stanchion.engine.port import MakeEngine
from stanchion.engine.relay import Relay
from stanchion.guard.redact import Redactor
from stanchion.journal.alert import Alert
from stanchion.journal.quota import Quota
from stanchion.journal.schedule import Schedule
from stanchion.journal.store import Change, Ledger, RunRow, SessionRow, Store
from stanchion.model.client import ModelClient
from stanchion.runtime.capabilities import Reviewer, read_grants, written
from stanchion.runtime.desks.connecting import Connecting
from stanchion.runtime.desks.keys import Keys
from stanchion.runtime.desks.quotas import Limiting, read_quotas
from stanchion.runtime.desks.remembering import Remembering
from stanchion.runtime.desks.scheduling import Scheduling, limits_of, priority_of
from stanchion.runtime.desks.sharing import Sharing
from stanchion.runtime.desks.webhooks import Callback, Webhooks, webhook_settings
from stanchion.runtime.driving import DriveSettings, Driving
from stanchion.runtime.money.costs import Costs
from stanchion.runtime.money.forecasting import Forecasting
from stanchion.runtime.money.watching import lines_told
from stanchion.runtime.name import checked, checked_ledger, checked_step, new_id
from stanchion.runtime.opening.binding import batch_clients, bind_agents
from stanchion.runtime.opening.policies import Places, PolicyFiles, places_of, read_policies, recorded
from stanchion.runtime.opening.secrecy import Redacting, check_names, known_secrets
from stanchion.runtime.opening.store import open_store
from stanchion.runtime.operating import moving, proof
from stanchion.runtime.operating.letters import Letter, LetterView, letter, letters
from stanchion.runtime.operating.moving import Exported, Exporting, Progress, Restored, Selection, no_progress
from stanchion.runtime.runs.admission import class_of
from stanchion.runtime.runs.deciding import MOST_DECISIONS, Decision, Desk
from stanchion.runtime.runs.explaining import Explaining, Explanation
from stanchion.runtime.runs.following import Draining, Follower, row_of
from stanchion.runtime.runs.granting import Granting
from stanchion.runtime.runs.reviewing import Reviewing, Wanted
from stanchion.runtime.runs.starting import IfBusy, Starter, check_input, digest_of_request, input_parts
from stanchion.runtime.shape import Approval, GrantView, Queue, RunView, Started, VerifiedRun, view_of


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
        self._starter = Starter(store, None, clock, self._expires_s)
        self._accepts = bool(agents)
        self._draining = False
        self.webhooks = Webhooks(store, webhooks, self.secrets)
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
    ) -> Runtime:
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
        runtime = cls(
            store, bound, named, clock, drive=drive, webhooks=delivery, environment=environment, redactor=redactor
        )
        try:
            if drive:
                files = await runtime._open_policies(places_of(policies, environment))
                await runtime._drive(
                    DriveSettings(
                        adopt=adopt,
                        max_active=max_active,
                        quotas=read_quotas(quotas, environment),
                        engine=engine,
                        webhooks=delivery,
                        batches=batch_clients(bound.values(), environment),
                        batch_gather_s=batch_gather_s,
                        redactor=redactor,
                        policing=runtime._policing,
                        policy_files=files,
                    )
                )
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

    async def _open_policies(self, places: Sequence[Path]) -> PolicyFiles | None:
        """Put the policies of some files in force. Raises `ConfigError`."""
        if places:
            files = PolicyFiles(places, [agent.bundle for agent in self._bound.values()], self._policing)
            await files.reload()
            self._policy_files = files
        return self._policy_files

    async def reload_policies(self) -> str:
        """Read the policies' files now; give the digest in force, "" without policies. Raises `ConfigError`: the set before stays."""
        return await self._policy_files.reload() if self._policy_files is not None else ""

    async def _drive(self, settings: DriveSettings) -> None:
        """Take the driver's seat and begin. Raises `ConfigError`."""
        parts = (self.store, self._bound, self._clock, self._live, self._loader)
        self._driving = Driving(*parts, settings, shared=self._shared, courses=self._courses)
        self._starter = Starter(self.store, self._driving.worker, self._clock, self._expires_s)
        self._starter.spent = self._driving.watcher.spent
        self.memory.rememberer = self._driving.rememberer
        await self._driving.open(self._start_scheduled, self.schedules)
        self._relay.drives()

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

    async def __aenter__(self) -> Runtime:
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
            for agent in self._bound.values():
                embedders = () if agent.embedder is None else (agent.embedder,)
                for client in (*agent.clients, *agent.classifiers.values(), *embedders):
                    closing.push_async_callback(client.aclose)
            if self._driving is not None:
                await self._driving.drain(grace_s)

    async def refresh_caches(self) -> list[str]:
        """Begin now what refreshes are due of idle sessions; give their runs. A process that drives does so by itself."""
        return await self._driving.keeper.look() if self._driving is not None else []

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
        grants: Any = None,
        task: str = "",
        step: str = "",
    ) -> Started:
        """Start a run. Returns when it is durable; where this process drives nothing, any worker takes it up.

        With `batch_api` its model calls go through the provider's batch API where there is one and a day is left: half the
        price, and answers within a day. Under an `idempotency_key` the same request is one run; `idempotency_digest` may stand for the request's body.
        `priority` ("interactive" or "batch") is the agent's own where it is "": who goes first when runs wait for a slot.
        `grants` (as JSON, or parsed) narrow what the run may do; policies may go by its `task`, routing by `step`, the type of its turns.
        Raises `NotFound` (agent), `InputError` (with the field), `QueueFull`, and `Conflict` with code "session_busy",
        "idempotency_mismatch", "budget_exhausted", "draining" or "not_driving".
        """
        self._check_open(if_busy)
        bound = self._agent(agent)
        rank = class_of(priority or self.agents[agent].priority)
        parts = input_parts(input)
        check_input(bound.view, parts)
        if idempotency_key and not idempotency_digest:
            asked = (agent, parts, session, user, limits and limits.caps(), dry_run, deadline_ms)
            narrowing = ("narrowed", grants, task) if grants is not None or task else ()
            more = (each for each in ("batch_api" * batch_api, priority, webhook, step and f"step:{step}") if each)
            idempotency_digest = digest_of_request(*asked, *more, *narrowing)
        named = checked(session, "session")
        narrowed = () if grants is None else (Text(written(read_grants(grants, field="grants")), RUNTIME),)
        names = {"session": session, "user": user, "task": task, "step": step, "grants": text_of(narrowed)}
        check_names(self.secrets, **names, idempotency_key=idempotency_key)
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
            task=checked(task, "task"),
            step=checked_step(step, bound.bundle.routing.table),
            narrowed=bool(narrowed),
            mark=bound.bundle.guard.mark,
            checked=bound.view.checked,
            quarantine=bound.bundle.guard.quarantine,
            recalls=bool(user) and bound.bundle.memory is not None,
            refreshed_ms=self._driving.keeper.refreshed_ms(tenant, session) if self._driving else 0,
            parts=(*bound.redactor.parts(parts), *narrowed),
        )
        callback = await self.webhooks.callback(webhook, first.run, tenant=tenant) if webhook else None
        key = (idempotency_key, idempotency_digest)
        return await self._starter.start(first, bound, *key, if_busy, fresh=not named, priority=rank, callback=callback)

    def _check_open(self, if_busy: str) -> None:
        if self._draining:
            raise Draining
        if self._driving is None and not self._accepts:
            raise Conflict("this process knows no agents and drives no runs", code="not_driving")
        if if_busy not in ("reject", "queue"):
            raise InputError(f'must be "reject" or "queue", not {if_busy!r}', field="if_busy")

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
        waiting = await self._reviewing.waiting(row, state, entries, bundle)
        queue, forecast = await self._queue_of(row), await self.forecasting.during(state, bundle)
        return msgspec.structs.replace(view_of(row, state, bundle, waiting), queue=queue, forecast=forecast)

    async def approvals(
        self,
        *,
        tenant: str = "default",
        session: str = "",
        agent: str = "",
        user: str = "",
        tool: str = "",
        tier: str = "",
        kind: str = "",
        before: str = "",
        limit: int = 50,
    ) -> tuple[Sequence[Approval], str]:
        """List calls that wait for a person, of the newest run first; and the run to go on from, "" if there are no more."""
        wanted = Wanted(session, agent, user, tool, tier, kind)
        return await self._reviewing.page(tenant, wanted, before=before, limit=limit)

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

    async def explain(self, run: str, call: str, *, tenant: str = "default") -> Explanation:
        """Say why a call was allowed, asked about or denied, value by value. Raises `NotFound` (run, call)."""
        return await self.explaining.explain(tenant, run, call)

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
        """Show a session's conversation, whole: what was compacted since, too. Raises `NotFound`."""
        row = await self.session(session, tenant=tenant)
        state = await self._loader.load(tenant, row.live) if row.live else State()
        if not state.seq:
            state = await self._loader.base(tenant, row.head)
        return history(state)

    async def _bundle(self, tenant: str, digest: str) -> Bundle | None:
        body = await self.store.bundle(tenant, digest)
        return None if body is None else decode_bundle(body)

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
        parts = input_parts(text)
        row = await self.store.run(tenant, run)
        bound = self._bound.get(row.agent) if row is not None else None
        if bound is not None:
            check_input(bound.view, parts)
        message = ev.MessageAdded(by=by, parts=parts)
        digest = digest_of_request("message", run, message) if idempotency_key else ""
        if bound is not None:
            message = bound.redactor.event(message)
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
        policy: str | None = None,
        allow: str = "",
        reviewer: Reviewer | None = None,
    ) -> None:
        """Decide about a call that waits: approve, edit (`arguments`), reject; in doubt: retry, record (`result`), fail.

        `revision`, `attempt` and `policy` are those that were shown: a decision that comes late does not answer the next
        question. `allow` lets what nobody trusted named pass from now on in this session: the "destination", or all values of the
        call ("session"). `reviewer` is who decides and what he may approve; without one, `by` says it.
        Raises `NotFound` (no such call), `Conflict` (decided already, expired, another revision or attempt, no such choice),
        `Unauthorized` (beyond what the reviewer may approve), `InputError`.
        """
        asked = Decision(call, decision, revision, arguments, result, reason, by, attempt, policy, allow)
        await self.decide_all(run, [asked], tenant=tenant, reviewer=reviewer)

    async def decide_all(
        self, run: str, decisions: Sequence[Decision], *, tenant: str = "default", reviewer: Reviewer | None = None
    ) -> None:
        """Decide about several calls of a run that wait: all of it or nothing. Raises as `decide`, naming the decision."""
        if not 0 < len(decisions) <= MOST_DECISIONS:
            raise InputError(f"must be 1 to {MOST_DECISIONS} decisions, not {len(decisions)}", field="decisions")
        row = await row_of(self.store, tenant, run)
        await self._desk.decide(tenant, run, row.agent, decisions, reviewer)
        self._hint(tenant, run)

    async def grants(self, session: str, *, tenant: str = "default") -> Sequence[GrantView]:
        """List what people allowed in a session and did not take back. Raises `NotFound`."""
        return await self._granting.list(tenant, await self.session(session, tenant=tenant))

    async def revoke_grant(self, session: str, grant: str, *, by: str = "", tenant: str = "default") -> None:
        """Take back what was allowed in a session: calls that are judged from now on have no such ground. Raises `NotFound`."""
        run = await self._granting.revoke(tenant, session, grant, by=by or "caller")
        self._hint(tenant, run)

    async def _post(self, tenant: str, run: str, kind: str, event: ev.Event, key: str = "", digest: str = "") -> None:
        check_names(self.secrets, idempotency_key=key)
        body = msgspec.json.encode(self.redactor.event(event))
        await self.store.post(tenant, run, kind, body, key=key, digest=digest)
        self._hint(tenant, run)

    def _hint(self, tenant: str, run: str) -> None:
        if self._driving is not None:
            self._driving.worker.hint(tenant, run)

    # --- proof, money, moving --------------------------------------------------------------------------------------------

    async def verify(self, run: str = "", *, tenant: str = "default") -> AsyncGenerator[VerifiedRun]:
        """Check the chain of a run; or of all of the tenant's, and that no run of a session is gone."""
        if run:
            yield await proof.verify_run(self.store, tenant, run)
            return
        async for verified in proof.verify_all(self.store, tenant):
            yield verified

    async def set_budget(self, ledger: str, usd: Amount | None, *, tenant: str = "default") -> Ledger:
        """Set a shared budget's limit, or take it away (None). Runs that start from now on fall under it."""
        limit = -1 if usd is None else parse_usd(usd, field="usd")
        said = await self.store.set_limit(tenant, checked_ledger(ledger), limit)
        self._starter.limits_changed()
        return said

    async def alerts(self, *, tenant: str = "default") -> Sequence[Alert]:
        """List what was told of a tenant's money and of that of all, the newest first: lines of budgets, and spikes."""
        return [*await self.store.alerts.told(tenant), *await self.store.alerts.told("")]

    async def told(self, *, tenant: str = "default") -> Callable[[Ledger], list[int]]:
        """Give what says which lines of a budget's limit were crossed and told (per cent)."""
        return lines_told(await self.alerts(tenant=tenant))

    async def look_at_budgets(self) -> int:
        """Tell now what there is to tell of budgets and spikes; say how much it was. A process that drives does so by itself."""
        return await self._driving.watcher.look() if self._driving is not None else 0

    async def budgets(self, *, tenant: str = "default") -> Sequence[Ledger]:
        """List shared budgets: the tenant's, then those of all tenants together."""
        return [*await self.store.ledgers(tenant), *await self.store.ledgers("")]

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
        forgotten = await self.memory.forget(subject, tenant=tenant) if checked(subject, "subject") else None
        self._content_erased()
        return done or (forgotten is not None and bool(forgotten.versions or forgotten.journals))

    def _content_erased(self) -> None:
        self._loader.clear()
        self._reviewing.clear()
