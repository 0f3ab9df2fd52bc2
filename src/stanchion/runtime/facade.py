"""`Runtime`: start runs, watch them, decide about them. What HTTP and CLI do, they do through this.

With `drive=False` it looks and posts only, and may stand beside a process that drives the same store.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

from stanchion.agent import Agent, Limits, OutputCheck, narrow
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, encode_bundle
from stanchion.core.errors import BrokenChain, ConfigError, Conflict, InputError, NotFound
from stanchion.core.message import RUNTIME, USER, Media, Message, Part, Text
from stanchion.core.money import Amount, parse_usd
from stanchion.core.prices import load_prices
from stanchion.core.state import State, decisions_for, fold, text_of
from stanchion.engine.bound import BoundAgent, bind
from stanchion.engine.clock import Clock, SystemClock
from stanchion.engine.live import Live, LiveDelta
from stanchion.engine.load import Loader
from stanchion.engine.worker import Worker, WorkerSettings
from stanchion.journal.record import Identity, verify
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import (
    ApiKey,
    Append,
    IdempotencyMismatch,
    Ledger,
    Refused,
    RunRow,
    SessionBusy,
    SessionMoved,
    SessionRow,
    Start,
    Store,
)
from stanchion.journal.store import Started as StoreStarted
from stanchion.model.client import ModelClient
from stanchion.model.providers import open_client, resolve_endpoint
from stanchion.runtime.name import checked, checked_ledger, new_id, new_secret, secret_hash
from stanchion.runtime.shape import RunView, Started, VerifiedRun, view_of
from stanchion.toolbox.answer import Problem

IfBusy = Literal["reject", "queue"]
_LOOK_S = 0.25
"""How often a runtime that does not drive looks for events of others."""
_CACHED_S = 1.0
"""For how long limits and API keys are remembered; another process may change them."""
_MAX_INPUT_BYTES = 4_000_000


class Draining(Conflict):
    """The server is shutting down; the run goes on when it is back. Attach again."""

    code = "draining"
    retryable = True


class Runtime:
    """The runs of one store, and the agents of this process."""

    def __init__(
        self, store: Store, agents: Mapping[str, BoundAgent], named: Mapping[str, Agent], clock: Clock
    ) -> None:
        self.store = store
        self.agents = named
        self._bound = agents
        self._clock = clock
        self._live = Live()
        self._loader = Loader(store)
        self._stack = AsyncExitStack()
        self._worker: Worker | None = None
        self._bundles_put: set[tuple[str, str]] = set()
        self._limits: dict[str, tuple[float, frozenset[str]]] = {}
        self._tenants: tuple[float, dict[bytes, str]] = (0.0, {})
        self._draining = False

    @classmethod
    async def open(
        cls,
        *agents: Agent,
        data: str | Path = "stanchion.db",
        clients: Mapping[str, ModelClient] | None = None,
        environment: Mapping[str, str] | None = None,
        drive: bool = True,
        clock: Clock | None = None,
        store: Store | None = None,
    ) -> Runtime:
        """Open a store, bind the agents, and drive what is runnable.

        `clients` replaces the model clients: by "provider:model", by provider, or "*" for all. Raises `ConfigError`.
        """
        environment = os.environ if environment is None else environment
        bound = {agent.name: _bind(agent, clients or {}, environment, drive=drive) for agent in agents}
        if len(bound) < len(agents):
            raise ConfigError("two agents have the same name; give each its own name=")
        store = store or await SqliteStore.open(_path(data))
        runtime = cls(store, bound, {agent.name: agent for agent in agents}, clock or SystemClock())
        try:
            await runtime._enter(drive)
        except BaseException:
            await runtime.aclose(grace_s=0)
            raise
        return runtime

    async def _enter(self, drive: bool) -> None:
        if not drive:
            return
        name = new_id("worker_")
        if not await self.store.seize(name):
            raise ConfigError(
                "another process drives the runs of this store; send it requests (--url), or stop it first"
            )
        for agent in self._bound.values():
            await self._stack.enter_async_context(agent.registry)
        self._worker = Worker(
            store=self.store,
            cipher=Identity(),
            find_agent=self._bound.get,
            clock=self._clock,
            live=self._live,
            loader=self._loader,
            settings=WorkerSettings(name),
        )
        await self._worker.open()

    async def __aenter__(self) -> Runtime:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def ready(self) -> bool:
        """Whether runs can be started here."""
        return self._worker is not None and not self._draining

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
        if self._worker is not None:
            await self._worker.drain(grace_s)
        for agent in self._bound.values():
            for client in agent.clients:
                await client.aclose()
        await self._stack.aclose()
        await self.store.aclose()

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
    ) -> Started:
        """Start a run. Returns when it is durable.

        Raises `NotFound` (agent), `InputError` (with the field), and `Conflict` with code "session_busy",
        "idempotency_mismatch", "budget_exhausted" or "draining".
        """
        if self._worker is None:
            raise Conflict("this process does not drive runs", code="not_driving")
        if self._draining:
            raise Draining
        bound = self._agent(agent)
        session = checked(session, "session") or new_id("ses_")
        first = ev.RunStarted(
            run=new_id("run_"),
            tenant=tenant,
            session=session,
            agent=agent,
            bundle=bound.digest,
            user=checked(user, "user"),
            caps=narrow(bound.bundle.caps, limits.caps()) if limits else bound.bundle.caps,
            ledgers=await self._ledgers(tenant, user, session),
            dry_run=dry_run,
            deadline_ms=self._deadline(deadline_ms),
            parts=_parts(input),
        )
        await self._put_bundle(tenant, bound)
        return await self._start(first, bound, idempotency_key, idempotency_digest, if_busy)

    async def _start(self, first: ev.RunStarted, bound: BoundAgent, key: str, digest: str, if_busy: IfBusy) -> Started:
        assert self._worker is not None
        for _ in range(8):
            row = await self.store.session(first.tenant, first.session)
            if row is not None and row.agent != first.agent:
                raise Conflict(f"the session belongs to agent {row.agent!r}", field="session", code="session_agent")
            first = msgspec.structs.replace(first, base=row.head if row else None)
            start = _start_of(first, key, digest)
            said = await self._worker.start(start, first, bound)
            if isinstance(said, SessionBusy) and if_busy == "queue":
                said = await self.store.start(_queued(start, first))
            match said:
                case StoreStarted():
                    return Started(said.run, await self._session_of(first, said), said.existing)
                case SessionMoved():
                    continue
                case SessionBusy():
                    raise Conflict(
                        f"the session has a live run, {said.run}; wait for it, send it a message, or say if_busy=queue",
                        code="session_busy",
                    )
                case IdempotencyMismatch():
                    raise Conflict(
                        f"this Idempotency-Key was used with another body, for {said.run}", code="idempotency_mismatch"
                    )
                case Refused():
                    raise Conflict(f"the budget {said.ledger!r} is spent", code="budget_exhausted")
                case _:
                    raise AssertionError(said)
        raise Conflict("the session is being used by others at this moment; try again", code="session_busy")

    async def _session_of(self, first: ev.RunStarted, said: StoreStarted) -> str:
        if said.run == first.run:
            return first.session
        row = await self.store.run(first.tenant, said.run)
        return row.session if row else ""

    def _agent(self, name: str) -> BoundAgent:
        bound = self._bound.get(name)
        if bound is None:
            raise NotFound(f"there is no agent {name!r}; there are: {', '.join(self._bound) or 'none'}", field="agent")
        return bound

    def _deadline(self, deadline_ms: int) -> int:
        if deadline_ms and deadline_ms <= self._clock.now_ms():
            raise InputError("must lie in the future (milliseconds since 1970 UTC)", field="deadline_ms")
        return deadline_ms

    async def _put_bundle(self, tenant: str, bound: BoundAgent) -> None:
        if (tenant, bound.digest) not in self._bundles_put:
            await self.store.put_bundle(tenant, bound.digest, encode_bundle(bound.bundle))
            self._bundles_put.add((tenant, bound.digest))

    async def _ledgers(self, tenant: str, user: str, session: str) -> tuple[str, ...]:
        """Name the budgets with a limit that a run falls under."""
        read_s, limited = self._limits.get(tenant, (0.0, frozenset[str]()))
        if time.monotonic() - read_s > _CACHED_S:
            rows = await self.store.ledgers(tenant)
            limited = frozenset(row.ledger for row in rows if row.limit >= 0 or row.closed)
            self._limits[tenant] = (time.monotonic(), limited)
        scopes = ("all", "tenant", f"user:{user}" if user else "", f"session:{session}")
        names = (f"{scope}{period}" for scope in scopes if scope for period in ("", "/day", "/month"))
        return tuple(name for name in names if name in limited)

    # --- watching ----------------------------------------------------------------------------------------------------

    async def view(self, run: str, *, tenant: str = "default") -> RunView:
        """Show a run as it stands. Raises `NotFound`."""
        row = await self._row(tenant, run)
        entries = await self.store.read(tenant, run)
        state = fold(entries)
        bundle = await self._bundle(tenant, state.bundle or row.bundle)
        reasons = {
            entry.event.call: text_of(entry.event.parts)
            for entry in entries
            if isinstance(entry.event, ev.ToolCallJudged) and entry.event.action == "ask"
        }
        return view_of(row, state, bundle, reasons)

    async def wait(self, run: str, *, tenant: str = "default", timeout_s: float | None = None) -> RunView:
        """Wait until a run is over, parked, or needs a person; or until the time (seconds) is up. Then show it."""
        watch = self._live.watch(tenant, run, deltas=False)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    watch.wake.clear()
                    row = await self._row(tenant, run)
                    if row.status in ("ended", "parked"):
                        break
                    if row.status == "waiting" and (await self.view(run, tenant=tenant)).waiting:
                        break
                    if watch.stopped:
                        raise Draining
                    await self._woken(watch.wake)
        except TimeoutError:
            pass
        finally:
            self._live.unwatch(tenant, run, watch)
        return await self.view(run, tenant=tenant)

    async def _woken(self, wake: asyncio.Event) -> None:
        if self._worker is not None:
            await wake.wait()
            return
        try:
            async with asyncio.timeout(_LOOK_S):
                await wake.wait()
        except TimeoutError:
            pass

    async def tail(
        self, run: str, *, tenant: str = "default", after: int = 0, deltas: bool = True
    ) -> AsyncIterator[ev.Entry | LiveDelta]:
        """Follow a run from behind a seq: every entry, gapless and once, and deltas of the call in the making.

        Ends after `RunFinished`. Raises `NotFound`, and `Draining` when this process shuts down. A reader who is slow
        gets the deltas he missed as one, and costs the run nothing.
        """
        await self._row(tenant, run)
        watch = self._live.watch(tenant, run, deltas=deltas)
        try:
            while True:
                watch.wake.clear()
                watch.look = watch.look or self._worker is None
                entries = watch.entries(after)
                if entries is None:
                    entries = await self.store.read(tenant, run, after=after, limit=256)
                    watch.look = watch.look or len(entries) == 256
                for entry in entries:
                    yield entry
                    after = entry.seq
                    if isinstance(entry.event, ev.RunFinished):
                        return
                if deltas:
                    for delta in watch.deltas(after):
                        yield delta
                if watch.stopped:
                    raise Draining
                if (not entries and not watch.look) or (self._worker is None and not entries):
                    await self._woken(watch.wake)
        finally:
            self._live.unwatch(tenant, run, watch)

    async def runs(
        self,
        *,
        tenant: str = "default",
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """List runs, newest first; `before` is the run to go on from."""
        return await self.store.runs(
            tenant, session=session, agent=agent, user=user, status=status, before=before, limit=limit
        )

    async def session(self, session: str, *, tenant: str = "default") -> SessionRow:
        """Show a session. Raises `NotFound`."""
        row = await self.store.session(tenant, session)
        if row is None:
            raise NotFound(f"there is no session {session!r}", field="session")
        return row

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

    async def _row(self, tenant: str, run: str) -> RunRow:
        row = await self.store.run(tenant, run)
        if row is None:
            raise NotFound(f"there is no run {run!r}; list them with: stanchion runs ls", field="run")
        return row

    async def _bundle(self, tenant: str, digest: str) -> Bundle | None:
        body = await self.store.bundle(tenant, digest)
        return None if body is None else msgspec.json.decode(body, type=Bundle)

    # --- saying something to a run --------------------------------------------------------------------------------------

    async def send(self, run: str, text: str | Sequence[Part], *, by: str = "", tenant: str = "default") -> None:
        """Say something more to a live run. Raises `NotFound`, and `Conflict` if it is over."""
        await self._post(tenant, run, "message", ev.MessageAdded(by=by, parts=_parts(text)))

    async def cancel(self, run: str, *, by: str = "", reason: str = "", tenant: str = "default") -> None:
        """Stop a run: nothing new begins, effects under way are awaited. Raises `NotFound`, `Conflict` if it is over."""
        parts = (Text(reason, RUNTIME),) if reason else ()
        await self._post(tenant, run, "cancel", ev.CancelRequested(by=by or "caller", parts=parts))

    async def revive(self, run: str, *, by: str = "", tenant: str = "default") -> None:
        """Set a parked run going again. Raises `NotFound`, `Conflict`."""
        row = await self._row(tenant, run)
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
    ) -> None:
        """Decide about a call that waits: approve, edit (`arguments`), reject; in doubt: retry, record (`result`), fail.

        Raises `NotFound` (no such call), `Conflict` (decided already, another revision, no such choice), `InputError`.
        """
        row = await self._row(tenant, run)
        state = fold(await self.store.read(tenant, run))
        found = state.call(call)
        if found is None or found.phase != "asking":
            await self._explain_not_waiting(tenant, run, call, state)
        assert found is not None
        choices = decisions_for(found)
        if decision not in choices:
            raise Conflict(f"{decision!r} is not possible here; it is one of {', '.join(choices)}", field="decision")
        if revision is not None and revision != found.revision:
            raise Conflict(f"revision {found.revision} waits, not {revision}; look at it again", field="revision")
        for item in await self.store.inbox(tenant, run):
            if item.kind == "decision" and msgspec.json.decode(item.body).get("call") == call:
                raise Conflict(f"call {call} was decided already", field="call", code="decided")
        parts = self._decision_parts(row.agent, found.tool, decision, arguments, result, reason)
        event = ev.CallDecided(
            call=call,
            revision=found.revision,
            decision=decision,  # type: ignore[arg-type]
            by=by or "caller",
            note=bool(reason),
            parts=parts,
        )
        await self._post(tenant, run, "decision", event)

    async def _explain_not_waiting(self, tenant: str, run: str, call: str, state: State) -> None:
        for entry in await self.store.read(tenant, run):
            if isinstance(entry.event, ev.ToolCallJudged) and entry.event.call == call:
                raise Conflict(f"call {call} does not wait for a person (any more)", field="call", code="decided")
        waiting = ", ".join(c.id for c in state.calls if c.phase == "asking") or "none"
        raise NotFound(f"run {run} has no call {call!r} that waits; waiting: {waiting}", field="call")

    def _decision_parts(
        self, agent: str, tool: str, decision: str, arguments: Mapping[str, Any] | None, result: str | None, reason: str
    ) -> tuple[Part, ...]:
        note = (Text(reason, RUNTIME),) if reason else ()
        if arguments is not None and decision != "edit":
            raise InputError('are given only with decision "edit"', field="arguments")
        if result is not None and decision != "record":
            raise InputError('is given only with decision "record"', field="result")
        if decision == "edit":
            if arguments is None:
                raise InputError("are needed to edit: the whole object", field="arguments")
            text = msgspec.json.encode(arguments).decode()
            bound = self._bound.get(agent)
            wrong = bound.registry.check(tool, text) if bound else None
            if isinstance(wrong, Problem):
                raise InputError(wrong.text, field="arguments")
            return (Text(text, RUNTIME), *note)
        if decision == "record":
            if result is None:
                raise InputError("is needed to record what was done", field="result")
            return (Text(result, RUNTIME), *note)
        return note

    async def _post(self, tenant: str, run: str, kind: str, event: ev.Event) -> None:
        await self.store.post(tenant, run, kind, msgspec.json.encode(event))
        if self._worker is not None:
            self._worker.hint(tenant, run)

    # --- proof, money, keys ----------------------------------------------------------------------------------------------

    async def verify(self, run: str = "", *, tenant: str = "default") -> AsyncIterator[VerifiedRun]:
        """Check the chain of a run, or of all of the tenant's."""
        salts = {key.id: key.salt for key in await self.store.keys(tenant)}
        if run:
            yield await self._verify(await self._row(tenant, run), salts)
            return
        before = ""
        while rows := await self.store.runs(tenant, before=before, limit=200):
            for row in rows:
                yield await self._verify(row, salts)
            before = rows[-1].run

    async def _verify(self, row: RunRow, salts: dict[str, bytes]) -> VerifiedRun:
        records = await self.store.raw(row.tenant, row.run)
        try:
            found = verify(row.tenant, row.run, records, salts)
        except BrokenChain as error:
            return VerifiedRun(row.run, len(records), 0, str(error), error.seq)
        latest = await self._row(row.tenant, row.run)  # it may have grown meanwhile, but not shrunk
        if found.events < row.seq or (found.events == latest.seq and found.head != latest.hash and latest.seq):
            why = f"the journal ends at event {found.events}, but the run's row says {row.seq}: its end was cut off"
            return VerifiedRun(row.run, found.events, found.erased, why, found.events + 1)
        return VerifiedRun(row.run, found.events, found.erased)

    async def set_budget(self, ledger: str, usd: Amount | None, *, tenant: str = "default") -> Ledger:
        """Set a shared budget's limit, or take it away (None). Runs that start from now on fall under it."""
        limit = -1 if usd is None else parse_usd(usd, field="usd")
        self._limits.pop(tenant, None)
        return await self.store.set_limit(tenant, checked_ledger(ledger), limit)

    async def budgets(self, *, tenant: str = "default") -> Sequence[Ledger]:
        """List shared budgets."""
        return await self.store.ledgers(tenant)

    async def erase(self, subject: str, *, tenant: str = "default") -> bool:
        """Destroy the content of a user (or of a session without one) for ever. The chains still verify."""
        self._loader = Loader(self.store)
        return await self.store.destroy_key(tenant, subject)

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


def _path(data: str | Path) -> str | Path:
    if isinstance(data, str) and "://" in data:
        scheme, _, path = data.partition("://")
        if scheme != "sqlite":
            raise ConfigError(f"data {data!r}: only sqlite:///path (or a plain path) is known to this version")
        return path.removeprefix("/") if not path.startswith("//") else path[1:]
    return data


def _bind(
    agent: Agent, clients: Mapping[str, ModelClient], environment: Mapping[str, str], *, drive: bool
) -> BoundAgent:
    registry = agent.registry()
    bundle = agent.bundle(registry, load_prices(), datetime.now(UTC).date().isoformat(), framework=version("stanchion"))
    found = (
        [_client(f"{r.provider}:{r.model}", r.provider, clients, environment) for r in bundle.routes] if drive else []
    )
    check = OutputCheck(agent.output) if agent.output is not None else None
    return bind(bundle, registry, found, check)


def _client(
    model: str, provider: str, clients: Mapping[str, ModelClient], environment: Mapping[str, str]
) -> ModelClient:
    for name in (model, provider, "*"):
        if name in clients:
            return clients[name]
    return open_client(provider, resolve_endpoint(provider, environment))


def _parts(said: str | Sequence[Part]) -> tuple[Part, ...]:
    parts: tuple[Part, ...] = (Text(said, USER),) if isinstance(said, str) else tuple(said)
    if not parts or not any(
        isinstance(part, Media) or (isinstance(part, Text) and part.text.strip()) for part in parts
    ):
        raise InputError("is empty; say something", field="input")
    if any(not isinstance(part, Text | Media) for part in parts):
        raise InputError("may hold text and media only", field="input")
    size = sum(
        len(part.text) if isinstance(part, Text) else len(part.data) for part in parts if isinstance(part, Text | Media)
    )
    if size > _MAX_INPUT_BYTES:
        raise InputError(f"is longer than {_MAX_INPUT_BYTES:,} characters", field="input")
    return parts


def _start_of(first: ev.RunStarted, key: str, digest: str) -> Start:
    return Start(
        tenant=first.tenant,
        run=first.run,
        session=first.session,
        agent=first.agent,
        bundle=first.bundle,
        user=first.user,
        base=first.base,
        first=Append(tenant=first.tenant, run=first.run, expected_seq=0, epoch=0),
        idempotency_key=key,
        idempotency_digest=digest,
    )


def _queued(start: Start, first: ev.RunStarted) -> Start:
    return msgspec.structs.replace(start, queued=True, base=None, request=msgspec.json.encode(first))
