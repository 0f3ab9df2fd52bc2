"""`Runtime`: start runs, watch them, decide about them. What HTTP and CLI do, they do through this.

With `drive=False` it looks and posts only, and may stand beside a process that drives the same store. If it knows
agents it accepts their runs too, and leaves them to whoever drives. Here is what one may do, in a few lines each;
it is done in the rooms, `runs` first. How a runtime is opened and closed, and its desks for what is no run's: `process`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from stanchion.agent import Limits
from stanchion.core import event as ev
from stanchion.core.conversation import history
from stanchion.core.errors import InputError
from stanchion.core.fold import fold
from stanchion.core.message import Message, Part
from stanchion.core.money import Amount, parse_usd
from stanchion.engine.live import LiveDelta
from stanchion.journal.alert import Alert
from stanchion.journal.store import Ledger, RunRow, SessionRow
from stanchion.runtime.capabilities import Reviewer
from stanchion.runtime.money.watching import lines_told
from stanchion.runtime.name import checked, checked_ledger
from stanchion.runtime.operating import moving, proof
from stanchion.runtime.operating.letters import Letter, LetterView, letter, letters
from stanchion.runtime.operating.moving import Exported, Exporting, Progress, Restored, Selection, no_progress
from stanchion.runtime.process import Process
from stanchion.runtime.runs.accepting import Callback, StartRequest
from stanchion.runtime.runs.deciding import MOST_DECISIONS, Decision
from stanchion.runtime.runs.explaining import Explanation
from stanchion.runtime.runs.finding import bundle_of, row_of, session_of, standing_of
from stanchion.runtime.runs.reviewing import Wanted
from stanchion.runtime.runs.starting import IfBusy
from stanchion.runtime.shape import Approval, GrantView, RunView, Started, VerifiedRun, view_of


class Runtime(Process):
    """The runs of one store, and the agents of this process."""

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
        how = (idempotency_key, idempotency_digest, if_busy, dry_run, deadline_ms, batch_api, priority, webhook)
        return await self._start(StartRequest(agent, input, tenant, session, user, limits, *how, grants, task, step))

    # --- watching ----------------------------------------------------------------------------------------------------

    async def view(self, run: str, *, tenant: str = "default") -> RunView:
        """Show a run as it stands. Raises `NotFound`."""
        row = await row_of(self.store, tenant, run)
        entries = await self.store.read(tenant, run)
        state = fold(entries)
        bundle = await bundle_of(self.store, tenant, state.bundle or row.bundle)
        waiting = await self._reviewing.waiting(row, state, entries, bundle)
        queue = await self._accepting.starter.admission.queue(row)
        forecast = await self.forecasting.during(state, bundle)
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
        return await session_of(self.store, tenant, session)

    def is_expired(self, row: SessionRow) -> bool:
        """Say whether a session was idle for longer than its agent, if it is known here, allows."""
        return self._accepting.starter.is_expired(row)

    async def sessions(self, *, tenant: str = "default", before: str = "", limit: int = 50) -> Sequence[SessionRow]:
        """List sessions, newest first."""
        return await self.store.sessions(tenant, before=before, limit=limit)

    async def messages(self, session: str, *, tenant: str = "default") -> Sequence[Message]:
        """Show a session's conversation, whole: what was compacted since, too. Raises `NotFound`."""
        return history(await standing_of(self._loader, await self.session(session, tenant=tenant)))

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
        await self._telling.send(tenant, run, text, by=by, key=idempotency_key)

    async def cancel(self, run: str, *, by: str = "", reason: str = "", tenant: str = "default") -> None:
        """Stop a run: nothing new begins, effects under way are awaited. Raises `NotFound`, `Conflict` if it is over."""
        await self._telling.cancel(tenant, run, by=by or "caller", reason=reason)

    async def revive(self, run: str, *, by: str = "", tenant: str = "default") -> None:
        """Set a parked run going again. Raises `NotFound`, `Conflict`."""
        await self._telling.revive(tenant, run, by=by or "caller")

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
        self._accepting.starter.limits_changed()
        return said

    async def alerts(self, *, tenant: str = "default") -> Sequence[Alert]:
        """List what was told of a tenant's money and of that of all, the newest first: lines of budgets, and spikes."""
        return [*await self.store.alerts.told(tenant), *await self.store.alerts.told("")]

    async def told(self, *, tenant: str = "default") -> Callable[[Ledger], list[int]]:
        """Give what says which lines of a budget's limit were crossed and told (per cent)."""
        return lines_told(await self.alerts(tenant=tenant))

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
        memory: bool = False,
        force: bool = False,
        progress: Progress = no_progress,
    ) -> Exported:
        """Write sessions into a file or a stream that `restore` takes into any store, chains and all.

        `live`: also what is not over, which is then parked here for ever. `memory`: also what is remembered of the sessions' users,
        or of all where everything is exported. Raises `NotFound`, `Conflict`, `InputError` (file).
        """
        how = Exporting(live=live, budgets=budgets, memory=memory, force=force)
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
        if self._driving is not None:
            self._driving.keeper.forget(tenant, subject)
        return done or (forgotten is not None and bool(forgotten.versions or forgotten.journals))
