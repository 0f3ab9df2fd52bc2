"""The gate: what a limit that all workers share allows, handed out to the calls of this process. One for a process.

A call that passes no limit does not notice it. One that does gets a `Ticket`, and is held back, before it is decided, until
the ticket has its permits: nothing is journaled and no money is reserved while it waits, and the wait counts as the run's
own time. Permits are taken from the store in blocks: for all that wait at once, and for what about a second will
bring, so that a worker asks about once a second and not once a call. What is not used goes back.

    drive --model/tool--> Ticket --(has_permits)--> decided, journaled, sent --(done)--> settled or given back
                             ^ wake
    loop: signals (settings, pauses, breakers) every second; asks where somebody waits; tells the store what was used
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from stanchion.core.errors import JournalError
from stanchion.core.message import Usage
from stanchion.engine.breaker import Breakers
from stanchion.engine.clock import Clock
from stanchion.engine.permit import Lane, Need, Ticket
from stanchion.journal.quota import Quota, Quotas, Taken
from stanchion.toolbox.options import ToolLimits

log = logging.getLogger("stanchion.engine")

SIGNALS_S = 1.0
IDLE_SIGNALS_S = 5.0
"""How often settings, pauses and breakers are read, while runs go through here and while none does."""
SLOT_ASK_S = 0.1
"""How often slots are asked for where all are taken."""
FAILED_S = 0.5
CLOSE_S = 1.0


class Gate:
    """The shared limits of one process."""

    def __init__(
        self,
        quotas: Quotas,
        worker: str,
        clock: Clock,
        *,
        settings: Sequence[Quota] = (),
        weight_of: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        self.breakers = Breakers(quotas, worker)
        self._now_s = asyncio.get_running_loop().time  # (a drive may be closed when its loop does not run any more)
        self._quotas = quotas
        self._worker = worker
        self._clock = clock
        self._own = {quota.name: quota for quota in settings}
        self._settings = dict(self._own)
        self._pauses: dict[str, float] = {}
        self.weight_of = weight_of
        """A tenant's weight against others. (It must not lead to runs: an attempt that will not end holds its gate.)"""
        self._lanes: dict[str, Lane] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._signals_s = 0.0
        self._used_s = 0.0

    @property
    def lanes(self) -> Sequence[Lane]:
        """What is waited for and counted here."""
        return list(self._lanes.values())

    async def open(self) -> None:
        """Read the settings and begin."""
        with contextlib.suppress(JournalError):  # (the loop reads them as soon as the store answers)
            await self._hear()
        self._task = asyncio.create_task(self._run(), name="stanchion-gate")

    async def aclose(self) -> None:
        """Give back what is in our hands."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        lanes = list(self._lanes.values())
        for lane in lanes:
            for hold in lane.holds.values():
                hold.use_by_s = 0.0
            lane.tidy(self._now_s())
        with contextlib.suppress(JournalError, TimeoutError):  # (what is not given back counts until its time)
            async with asyncio.timeout(CLOSE_S):
                await self._tell(lanes, self._now_s())

    # --- tickets -----------------------------------------------------------------------------------------------------

    def model(
        self, account: str, model: str, tokens: tuple[int, int], *, tenant: str, rank: int, wake: Callable[[], None]
    ) -> Ticket | None:
        """Ask for a model call of so many tokens (in, out) at most. None: nothing limits it."""
        self._used_s = now_s = self._now_s()
        name = f"{account}:{model}"
        if not self._settings and self._pauses.get(name, 0.0) <= now_s:
            return None
        needs = tuple(self._model_needs(account, model, *tokens))
        if not needs and self._pauses.get(name, 0.0) <= now_s:
            return None
        return self._ticket(name, needs, tenant, rank, wake, tokens)

    def tool(self, limits: ToolLimits, tool: str, *, tenant: str, rank: int, wake: Callable[[], None]) -> Ticket | None:
        """Ask for a tool call. None: nothing limits it."""
        self._used_s = self._now_s()
        needs: list[Need] = []
        if limits.concurrency:
            needs.append(Need(f"tool:{tool}/concurrency", "slot", 1, limits.concurrency))
        if limits.rate:
            needs.append(Need(f"tool:{tool}/rate", "sent", 1, limits.rate, int(limits.rate_s * 1000)))
        return self._ticket(f"tool:{tool}", tuple(needs), tenant, rank, wake) if needs else None

    def has_permits(self, ticket: Ticket) -> bool:
        """Whether a call may leave now; permits that were not used in time are asked for again."""
        if ticket.state != "granted":
            return False
        now_s = self._now_s()
        if ticket.fresh(now_s):
            return True
        ticket.lane.requeue(ticket, now_s)
        self._serve(ticket.lane, now_s)
        return ticket.state == "granted"

    async def leave(self, ticket: Ticket, until_ms: int) -> bool:
        """Say that a call leaves. Waits for new permits where the old ones ran out; False: none were had in time."""
        while not self.has_permits(ticket):
            left_s = (until_ms - self._clock.now_ms()) / 1000
            if ticket.state == "closed" or left_s <= 0:
                return False
            woken = asyncio.Event()
            ticket.wake = woken.set
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await woken.wait()
        ticket.lane.used(ticket, self._now_s())
        return True

    def close(self, ticket: Ticket, usage: Usage | None = None, *, unsent: bool = False) -> None:
        """Say that a ticket is done with; without `usage` a call that left is counted as what it took."""
        now_s = self._now_s()
        if unsent and ticket.state == "used":
            ticket.state = "granted"
        tokens = (usage.total_input_tokens, usage.output_tokens) if usage else (None, None)
        ticket.lane.close(ticket, now_s, sent=tokens[0], ended=tokens[1])
        self._serve(ticket.lane, now_s)

    async def pause(self, account: str, model: str, for_s: float) -> None:
        """Close a model of a key for all workers: its provider said so."""
        name = f"{account}:{model}"
        self._paused(name, self._now_s() + for_s)
        with contextlib.suppress(JournalError):  # (who does not hear of it is told by the provider)
            await self._quotas.pause(name, int(for_s * 1000))

    def _model_needs(self, account: str, model: str, sent: int, ended: int) -> list[Need]:
        """List what a model call takes of the limits of its provider and of its model."""
        provider = account.partition("#")[0]
        needs: list[Need] = []
        for name, prefix in ((provider, account), (f"{provider}:{model}", f"{account}:{model}")):
            quota = self._settings.get(name)
            if quota is None:
                continue
            window_ms = int(quota.window_s * 1000)
            if quota.rpm:
                needs.append(Need(f"{prefix}/rpm", "sent", 1, quota.rpm, window_ms))
            if quota.tpm:  # a call larger than the whole limit takes all of it
                most_out = min(ended, quota.tpm - 1)
                needs.append(Need(f"{prefix}/tpm", "sent", min(sent, quota.tpm - most_out), quota.tpm, window_ms))
                needs.append(Need(f"{prefix}/tpm", "ended", most_out, quota.tpm, window_ms))
            if quota.itpm:
                needs.append(Need(f"{prefix}/itpm", "sent", min(sent, quota.itpm), quota.itpm, window_ms))
            if quota.otpm:
                needs.append(Need(f"{prefix}/otpm", "ended", min(ended, quota.otpm), quota.otpm, window_ms))
        return needs

    def _ticket(
        self,
        name: str,
        needs: tuple[Need, ...],
        tenant: str,
        rank: int,
        wake: Callable[[], None],
        size: tuple[int, int] = (0, 0),
    ) -> Ticket:
        lane = self._lane(name)
        ticket = Ticket(lane, tenant, rank, needs, wake, size)
        lane.queue.push(ticket)
        self._serve(lane, self._now_s())
        if ticket.state == "waiting":
            lane.waits += 1
        return ticket

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, self.weight_of)
            lane.paused_until_s = self._pauses.get(name, 0.0)
        return lane

    def _serve(self, lane: Lane, now_s: float) -> None:
        lane.serve(now_s)
        if lane.queue.waiting or lane.dirty_s:
            self._wanted.set()

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                now_s = self._now_s()
                if now_s >= self._signals_s:
                    await self._hear()
                lanes = list(self._lanes.values())
                for lane in lanes:
                    lane.tidy(self._now_s())
                    lane.serve(self._now_s())
                now_s = self._now_s()
                await self._tell([lane for lane in lanes if self._asks(lane, now_s) or lane.tells(now_s)], now_s)
                for lane in lanes:
                    if self._asks(lane, self._now_s()):
                        await self._ask(lane)
                wait_s = self._wait_s(self._now_s())
            except JournalError as error:
                log.warning("the shared limits could not be read or told: %s", error)
                wait_s = FAILED_S
            except Exception:  # without it every call under a limit would wait for ever
                log.exception("the gate failed; it goes on")
                wait_s = FAILED_S
            if wait_s > 0:
                await self._sleep(wait_s)

    async def _sleep(self, wait_s: float) -> None:
        """Wait; somebody who begins to wait ends it, if a lane may be asked for already."""
        end_s = self._now_s() + wait_s
        while (left_s := end_s - self._now_s()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wanted.wait()
            self._wanted.clear()
            end_s = min(end_s, self._now_s() + self._wait_s(self._now_s()))

    def _wait_s(self, now_s: float) -> float:
        """How long until there is something to do."""
        ends = [self._signals_s]
        for lane in self._lanes.values():
            if lane.queue.waiting:
                ends.append(max(lane.next_ask_s, lane.paused_until_s))
            if lane.holds:
                ends.append(lane.next_tidy_s(now_s))
        return max(min(ends) - now_s, 0.0)

    def _asks(self, lane: Lane, now_s: float) -> bool:
        return bool(lane.queue.waiting) and now_s >= max(lane.next_ask_s, lane.paused_until_s)

    async def _ask(self, lane: Lane) -> None:
        """Ask for what a lane's calls lack."""
        now_s = self._now_s()
        wishes = lane.wishes(now_s)
        if not wishes:
            lane.serve(now_s)
            lane.next_ask_s = now_s + SLOT_ASK_S
            return
        lane.next_ask_s = now_s + FAILED_S  # should it fail
        taken = await self._quotas.take(self._worker, [wish for _, wish in wishes], closed_by=lane.name)
        lane.take_in(wishes, taken, now_s)
        now_s = self._now_s()
        lane.serve(now_s)
        lane.next_ask_s = now_s + self._gap_s(lane, taken, [need for need, _ in wishes])

    def _gap_s(self, lane: Lane, taken: Taken, needs: Sequence[Need]) -> float:
        """How long until the next ask of a lane: not at all often where there is nothing to be had."""
        hold_s = max((need.hold_ms / 1000 for need in needs if need.kind != "slot"), default=SLOT_ASK_S * 2)
        if taken.left:
            return hold_s / 10
        draw = 0.75 + self._clock.draw() / 2  # so that workers do not ask at one moment
        if taken.blocks or any(need.kind == "slot" for need in needs):
            return hold_s / 2 * draw
        return min(max(taken.retry_ms / 1000 + 0.002, hold_s / 4), 2 * hold_s) + hold_s / 8 * draw

    async def _tell(self, lanes: Sequence[Lane], now_s: float) -> None:
        """Tell the store what was used and what goes back."""
        dirty = [hold for lane in lanes for hold in lane.holds.values() if hold.dirty]
        if not dirty:
            return
        late = [hold.late_s for hold in dirty]
        changes = [hold.changed(now_s) for hold in dirty]
        for lane in lanes:
            lane.dirty_s = 0.0
        try:
            await self._quotas.change(changes)
        except BaseException:
            for hold, change, late_s in zip(dirty, changes, late, strict=True):
                hold.dirty, hold.late_s = True, max(hold.late_s, late_s)
                hold.prolong = hold.prolong or (bool(change.for_ms) and hold.need.kind != "sent")
            raise
        for lane in lanes:  # there may be room now
            lane.next_ask_s = min(lane.next_ask_s, lane.asked_s + lane.tell_gap_s / 2)

    async def _hear(self) -> None:
        """Read settings, pauses and breakers."""
        now_s = self._now_s()
        busy = now_s - self._used_s < 10.0
        self._signals_s = now_s + (SIGNALS_S if busy else IDLE_SIGNALS_S)
        signals = await self._quotas.signals()
        for pause in signals.pauses:
            self._paused(pause.name, now_s + pause.for_ms / 1000)
        self._pauses = {name: end for name, end in self._pauses.items() if end > now_s}
        self.breakers.hear(signals.breakers, now_s)
        settings = {quota.name: quota for quota in signals.quotas} | self._own
        if settings != self._settings:
            self._settings = settings
            self._ask_anew()

    def _paused(self, name: str, until_s: float) -> None:
        self._pauses[name] = max(self._pauses.get(name, 0.0), until_s)
        if name in self._lanes:
            self._lanes[name].paused_until_s = self._pauses[name]

    def _ask_anew(self) -> None:
        """Limits were changed: whoever waits asks again, under the new ones."""
        for lane in self._lanes.values():
            if not lane.name.startswith("tool:"):
                for ticket in lane.queue.head(lane.queue.waiting):
                    lane.queue.drop(ticket)
                    ticket.wake()
