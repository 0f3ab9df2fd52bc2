"""Prepare a run to be driven: fold it, find its agent and its key, or park it and say why it cannot go on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.bundle import decode_bundle
from stanchion.core.errors import JournalError
from stanchion.core.fold import evolve
from stanchion.core.message import RUNTIME, Text
from stanchion.core.state import State
from stanchion.engine import memory
from stanchion.engine.announce import parked_by_claim
from stanchion.engine.bound import BoundAgent, bind, misfits
from stanchion.engine.clock import Clock
from stanchion.engine.courses import Courses
from stanchion.engine.drive import Drive
from stanchion.engine.gate import Gate
from stanchion.engine.habits import Habits
from stanchion.engine.live import Live
from stanchion.engine.load import Loader, went_on_from
from stanchion.engine.policing import InForce, Policing
from stanchion.journal.memory import recalled_subject
from stanchion.journal.record import Cipher, Recorder
from stanchion.journal.store import Append, Claim, Start, Store
from stanchion.toolbox.registry import Registry

log = logging.getLogger("stanchion.engine")

_start_decoder = msgspec.json.Decoder(ev.RunStarted)


class Preparer:
    """Makes the drives of one worker."""

    def __init__(
        self,
        *,
        store: Store,
        loader: Loader,
        cipher: Cipher,
        clock: Clock,
        live: Live,
        gate: Gate | None,
        find_agent: Callable[[str], BoundAgent | None],
        lease_s: float,
        max_attempts: int,
        policing: Policing | None = None,
        habits: Habits | None = None,
        courses: Courses | None = None,
    ) -> None:
        self._habits = habits
        self._courses = courses
        self._store = store
        self._loader = loader
        self._cipher = cipher
        self._clock = clock
        self._live = live
        self._gate = gate
        self._find_agent = find_agent
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._policing = policing

    async def start(self, start: Start, first: ev.RunStarted, agent: BoundAgent) -> Drive:
        """Make the drive of a run that is started here."""
        state = await self._loader.base(start.tenant, went_on_from(first), anew=first.refreshes is not None)
        recorder = await self._recorder(start.tenant, start.run, _subject(first), State(), agent, start.user)
        in_force = await self._policies(start.tenant, state)
        await memory.expect(self._store, agent.bundle, first)
        drive = self._drive(agent, state, recorder, 1, first, start.priority, in_force)
        await self._recall(drive, agent, state, first)
        return drive

    async def claimed(self, claim: Claim) -> Drive | None:
        """Fold a claimed run and find its agent; a run that cannot go on is parked and says why."""
        tenant, run = claim.tenant, claim.run
        row = await self._store.run(tenant, run)
        if row is None:
            return None
        state = await self._loader.load(tenant, run)
        first = None
        if not state.seq:
            first = await self._queued_start(tenant, run, row.session)
            state = await self._loader.base(tenant, went_on_from(first))
        agent = self._find_agent(row.agent)
        subject = recalled_subject(row.user) if state.remembers else row.user or row.session
        recorder = await self._recorder(tenant, run, subject, state, agent, row.user)
        parked = await self._unfit(claim, state, row.agent, row.bundle, agent)
        if agent is None or isinstance(parked, ev.RunParked):
            agent = await self._to_cancel(claim, state.bundle or row.bundle)
            if agent is None:
                why = parked if isinstance(parked, ev.RunParked) else _missing(row.agent)
                await self._park(claim, recorder, first, why)
                return None
            parked = None
        in_force = await self._policies(tenant, state)
        drive = self._drive(agent, state, recorder, claim.epoch, first, row.priority, in_force)
        if isinstance(parked, ev.BundleChanged):
            drive.tell(parked, ev.PrefixReset(reason="bundle"))
        if not state.totals.turns and (began := first or await self._first(tenant, run)) is not None:
            await memory.expect(self._store, agent.bundle, began)
        if not state.seq or state.recalling:
            await self._recall(drive, agent, state, first)
        return drive

    async def _first(self, tenant: str, run: str) -> ev.RunStarted | None:
        entries = await self._store.read(tenant, run, limit=1)
        event = entries[0].event if entries else None
        return event if isinstance(event, ev.RunStarted) else None

    async def _recall(self, drive: Drive, agent: BoundAgent, state: State, first: ev.RunStarted | None) -> None:
        """Have a run told first what is remembered, if that is how it begins."""
        if first is not None and not (first.recalls and first.base is None):
            return
        asked = state if first is None else evolve(state, ev.Entry(1, state.at_ms, 0, first, b""))
        drive.tell(await memory.recalled(self._store, agent.bundle, asked, self._clock.now_ms()))

    async def _policies(self, tenant: str, state: State) -> InForce | None:
        return await self._policing.of(tenant, state) if self._policing is not None else None

    async def _queued_start(self, tenant: str, run: str, session: str) -> ev.RunStarted:
        """Make the first event of a run that waited for its session."""
        for item in await self._store.inbox(tenant, run):
            if item.kind == "start":
                found = await self._store.session(tenant, session)
                return msgspec.structs.replace(_start_decoder.decode(item.body), base=found.head if found else None)
        raise JournalError(f"run {run} has neither events nor a request; the store is damaged: run stanchion verify")

    async def _unfit(
        self, claim: Claim, state: State, name: str, bundle: str, agent: BoundAgent | None
    ) -> ev.RunParked | ev.BundleChanged | None:
        """Say why a run cannot go on as it is, or that its agent changed in a way that does not matter."""
        if claim.attempts > self._max_attempts:
            text = (
                f"claimed {claim.attempts - 1} times without progress: something in it keeps stopping the process. "
                "Look at the last events (`stanchion dlq show`), then replay or drop it."
            )
            return ev.RunParked(reason="dead_letter", parts=(Text(text, RUNTIME),))
        if agent is None:
            return _missing(name)
        current = state.bundle or bundle
        if current == agent.digest:
            return None
        old = await self._store.bundle(claim.tenant, current)
        if old is None:
            return None
        called = {call.tool or call.part.name for call in state.calls}
        why = misfits(decode_bundle(old), agent.bundle, called)
        if not why:
            return ev.BundleChanged(bundle=agent.digest)
        text = f"the agent {name!r} changed so that this run cannot go on: {why}. Bring the old one back, or cancel the run."
        return ev.RunParked(reason="bundle_changed", parts=(Text(text, RUNTIME),))

    async def _to_cancel(self, claim: Claim, digest: str) -> BoundAgent | None:
        """Make an agent without code for a run that only has to be wound down, because somebody cancelled it."""
        kinds = {item.kind for item in await self._store.inbox(claim.tenant, claim.run)}
        body = await self._store.bundle(claim.tenant, digest) if "cancel" in kinds else None
        return None if body is None else bind(decode_bundle(body), Registry(), ())

    async def _park(self, claim: Claim, recorder: Recorder, first: ev.RunStarted | None, parked: ev.RunParked) -> None:
        events = [parked] if first is None else [first, parked]
        seq = recorder.seq
        entries, records = recorder.record(events, now_ms=self._clock.now_ms(), epoch=claim.epoch)
        inbox = await self._store.inbox(claim.tenant, claim.run)
        answered = tuple(item.id for item in inbox if item.kind in ("revive", "start"))
        await self._store.append(
            Append(
                tenant=claim.tenant,
                run=claim.run,
                expected_seq=seq,
                epoch=claim.epoch,
                records=tuple(records),
                status="parked",
                release=True,
                outcome=parked.reason,
                inbox_done=answered,
                announce=parked_by_claim(await self._store.run(claim.tenant, claim.run), entries),
            )
        )
        self._live.publish(claim.tenant, claim.run, entries)
        log.error("run %s is parked: %s", claim.run, parked.reason, extra={"tenant": claim.tenant})

    async def _recorder(
        self, tenant: str, run: str, subject: str, state: State, agent: BoundAgent | None, user: str
    ) -> Recorder:
        key = await self._store.key_for(tenant, subject)
        own = None if agent is None else await memory.key_of_recalled(self._store, agent.bundle, tenant, user)
        before = state.hash or chain.genesis(tenant, run)
        return Recorder(key, self._cipher, seq=state.seq, hash=before, at_ms=state.at_ms, memory=own)

    def _drive(
        self,
        agent: BoundAgent,
        state: State,
        recorder: Recorder,
        epoch: int,
        first: ev.RunStarted | None,
        priority: int,
        in_force: InForce | None,
    ) -> Drive:
        return Drive(
            store=self._store,
            agent=agent,
            state=state,
            recorder=recorder,
            epoch=epoch,
            clock=self._clock,
            live=self._live,
            first=first,
            lease_s=self._lease_s,
            gate=self._gate,
            rank=-priority,
            in_force=in_force,
            habits=self._habits,
            courses=self._courses,
        )


def _subject(first: ev.RunStarted) -> str:
    """Name the subject whose content key a run's content lies under."""
    return recalled_subject(first.user) if first.remembers is not None else first.user or first.session


def _missing(name: str) -> ev.RunParked:
    text = f"no agent named {name!r} is served here. Serve it (its runs go on by themselves), or cancel the run."
    return ev.RunParked(reason="agent_missing", parts=(Text(text, RUNTIME),))
