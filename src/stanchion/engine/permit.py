"""Permits for what a shared limit allows: who waits for one, in which order, and what of them is in this process's hands.

    Ticket   a call that wants permits                 waiting -> granted -> used -> closed
    Hold     a block that was taken from the store: what of it is still to be handed out, and by when it must be used
    Lane     the calls that pass the same limits (a provider's key and model, or a tool): a fair queue, and its holds

The order in a lane is by class (interactive before batch), then start-time fair queueing between tenants (Goyal, Vin and
Cheng, 1996): a ticket's tag is where its tenant's last one ended, or the lane's virtual time if that is later; its length
is the part of the limit that it takes, divided by the tenant's weight. Nothing here awaits, and time comes in.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stanchion.journal.quota import Block, Changed, Taken, Wish

Kind = Literal["sent", "ended", "slot"]
"""Counted in a window from when it is sent; in a window that begins when the call ended; as long as the call lasts."""
SLOT_LEASE_MS = 5_000
"""A worker that is not heard of for so long loses its slots."""
SLOT_REUSE_S = 1.0
"""For how long a slot passes from call to call in one process before it goes back, so that others get one too."""
SLOT_TELL_S = 0.02
"""How soon a slot goes back that nobody here wants."""
MAX_HOLD_MS = 1_000
_USABLE = 0.5
"""The part of a permit's time in which the request must leave; the rest is its way to the provider."""
_LONGEST_WAY_S = 1.0
"""A request is at the provider when its answer has come, and is taken to be after so long in any case."""
_ASKED = 256
"""Tickets of a lane that are summed up for one ask."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a call takes of one limit."""

    limit: str
    kind: Kind
    amount: int
    most: int
    window_ms: int = 0

    @property
    def hold_ms(self) -> int:
        """How soon it must be used after it was taken: a twentieth of the window, at most a second."""
        return max(min(MAX_HOLD_MS, self.window_ms // 20), 1)

    @property
    def for_ms(self) -> int:
        """How long it counts after it was taken."""
        return SLOT_LEASE_MS if self.kind == "slot" else self.window_ms + self.hold_ms


@dataclass(slots=True, eq=False)
class Hold:
    """A block in our hands."""

    id: int
    need: Need
    amount: int
    """As the store counts it, or will when it hears of it."""
    left: int
    """Not handed out."""
    use_by_s: float
    began_s: float
    """When it was asked for: the store counts it from no earlier on."""
    renewed_s: float
    out: int = 0
    """Handed out to calls that have not ended."""
    late_s: float = 0.0
    """When the last of its calls may have arrived, where that was after its time; 0: none did."""
    dirty: bool = False
    prolong: bool = False

    def put_back(self, amount: int, now_s: float) -> None:
        """Take back what was handed out and not used."""
        self.out -= amount
        if now_s < self.use_by_s:
            self.left += amount
        else:
            self.amount -= amount
            self.dirty = True

    def expire(self, now_s: float) -> None:
        """Give up what was not handed out in time."""
        if self.left and now_s >= self.use_by_s:
            self.amount -= self.left
            self.left = 0
            self.dirty = True

    def settle(self, amount: int, used: int, now_s: float) -> None:
        """Book what a call really used of the `amount` that it was handed."""
        if self.need.kind == "slot":
            self.put_back(amount, now_s)
            return
        self.out -= amount
        if self.need.kind == "ended":
            self.prolong = self.dirty = True
        if used != amount:
            self.amount += used - amount
            self.dirty = True

    def renew(self, now_s: float) -> None:
        """Have it prolonged where it must outlast what it was taken for."""
        if self.need.kind == "sent" or not (self.out or (self.need.kind == "slot" and self.left)):
            return
        if now_s - self.renewed_s >= self.need.for_ms / 4_000:
            self.dirty = self.prolong = True

    @property
    def over(self) -> bool:
        """Whether nothing about it can change any more."""
        return not (self.left or self.out or self.dirty)

    def arrived(self, by_s: float) -> None:
        """Note when a call was at the provider at the latest: one that was late counts from then on."""
        if self.need.kind == "sent" and by_s > self.began_s + self.need.hold_ms / 1000:
            self.late_s = max(self.late_s, by_s)
            self.dirty = True

    def changed(self, now_s: float) -> Changed:
        """Say to the store what it is now."""
        for_ms = 0
        if self.late_s:
            for_ms = max(int((self.late_s - now_s) * 1000) + self.need.window_ms, 1)
            self.late_s = 0.0
        if self.prolong and self.amount > 0:
            for_ms = SLOT_LEASE_MS if self.need.kind == "slot" else self.need.window_ms
            self.renewed_s = now_s
        self.dirty = self.prolong = False
        return Changed(self.id, max(self.amount, 0), for_ms)


State = Literal["waiting", "granted", "used", "closed"]


@dataclass(slots=True, eq=False)
class Ticket:
    """A call that wants permits. `wake` is called when it has them, or when it must ask anew ("closed")."""

    lane: Lane
    tenant: str
    rank: int
    needs: tuple[Need, ...]
    wake: Callable[[], None]
    size: tuple[int, int] = (0, 0)
    """Tokens (in, out) that it was asked for."""
    state: State = "waiting"
    start: float = 0.0
    number: int = 0
    parts: list[tuple[Hold, int]] = field(default_factory=list[tuple[Hold, int]])
    left_s: float = 0.0

    def __lt__(self, other: Ticket) -> bool:
        return (self.rank, self.start, self.number) < (other.rank, other.start, other.number)

    @property
    def cost(self) -> float:
        """The largest part that it takes of a limit."""
        return max((need.amount / need.most for need in self.needs if need.most), default=1.0)

    def fresh(self, now_s: float) -> bool:
        """Whether its permits may still be used."""
        return all(hold.need.kind != "sent" or now_s < hold.use_by_s for hold, _ in self.parts)


class FairQueue:
    """Tickets that wait, in the order in which they are served."""

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._heap: list[Ticket] = []
        self._ends: dict[tuple[int, str], float] = {}
        self._now: dict[int, float] = {}
        self._number = 0
        self.waiting = 0

    def push(self, ticket: Ticket) -> None:
        """Put a ticket behind those of its tenant."""
        at = (ticket.rank, ticket.tenant)
        now = self._now.get(ticket.rank, 0.0)
        ticket.start = max(now, self._ends.get(at, 0.0))
        weight = max(self._weight_of(ticket.tenant), 1e-6)
        self._ends[at] = ticket.start + ticket.cost / weight
        self._number += 1
        ticket.number = self._number
        self.again(ticket)
        if len(self._ends) > 10_000:  # tenants that were served long ago are as good as new ones
            self._ends = {key: end for key, end in self._ends.items() if end > self._now.get(key[0], 0.0)}

    def again(self, ticket: Ticket) -> None:
        """Put a ticket back in its place."""
        ticket.state = "waiting"
        heapq.heappush(self._heap, ticket)
        self.waiting += 1

    def first(self) -> Ticket | None:
        """Find the next to be served."""
        while self._heap and self._heap[0].state != "waiting":
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def pop(self) -> Ticket:
        """Take the next; what comes later begins where it began."""
        ticket = heapq.heappop(self._heap)
        self._now[ticket.rank] = max(self._now.get(ticket.rank, 0.0), ticket.start)
        self.waiting -= 1
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Let a waiting ticket go."""
        if ticket.state == "waiting":
            ticket.state = "closed"
            self.waiting -= 1
            if len(self._heap) > 2 * self.waiting + 64:
                self._heap = [other for other in self._heap if other.state == "waiting"]
                heapq.heapify(self._heap)

    def head(self, count: int) -> Sequence[Ticket]:
        """List the next tickets."""
        waiting = (ticket for ticket in self._heap if ticket.state == "waiting")
        return heapq.nsmallest(count, waiting)


Pool = tuple[str, Kind]


class Lane:
    """The calls that pass the same limits."""

    def __init__(self, name: str, weight_of: Callable[[str], float]) -> None:
        self.name = name
        self.queue = FairQueue(weight_of)
        self.holds: dict[int, Hold] = {}
        self.paused_until_s = 0.0
        self.next_ask_s = 0.0
        self.asked_s = 0.0
        self.short = False
        """The last ask was not given all that it wanted."""
        self.calls = self.waits = self.asks = 0
        self.dirty_s = 0.0
        """Since when there is something to tell the store; 0: there is nothing."""
        self.tell_gap_s = 1.0
        """For how long it may be kept back, so that much is told at once."""
        self._pools: dict[Pool, deque[Hold]] = {}
        self._spent: dict[Pool, int] = {}
        """What was handed out since the last ask."""

    def grant(self, ticket: Ticket, now_s: float) -> bool:
        """Hand a ticket its permits, if they are all here."""
        if now_s < self.paused_until_s or any(self._free(_pool(need), now_s) < need.amount for need in ticket.needs):
            return False
        for need in ticket.needs:
            self._hand_out(ticket, need)
        ticket.state = "granted"
        self.calls += 1
        return True

    def serve(self, now_s: float) -> None:
        """Hand out what is here, in order."""
        while (ticket := self.queue.first()) is not None and self.grant(ticket, now_s):
            self.queue.pop()
            ticket.wake()

    def wishes(self, now_s: float) -> list[tuple[Need, Wish]]:
        """Sum up what the next tickets lack, and what a second will bring if all goes on as it did."""
        totals: dict[Pool, int] = {}
        needs: dict[Pool, Need] = {}
        for ticket in self.queue.head(_ASKED):
            for need in ticket.needs:
                totals[_pool(need)] = totals.get(_pool(need), 0) + need.amount
                needs.setdefault(_pool(need), need)
        found: list[tuple[Need, Wish]] = []
        for pool, need in needs.items():
            free = self._free(pool, now_s)
            amount = totals[pool] + self._forecast(pool, need, now_s) - free
            least = max(need.amount - free, 0)
            if amount > 0:
                found.append((need, Wish(need.limit, min(amount, need.most), least, need.most, need.for_ms)))
        return found

    def _forecast(self, pool: Pool, need: Need, now_s: float) -> int:
        """What calls that are still to come will want while the block is good."""
        if self.short or need.kind == "slot":
            return 0
        good_s = need.hold_ms / 1000 * _USABLE
        calls = self._spent.get(pool, 0) / need.amount * good_s / max(now_s - self.asked_s, good_s)
        return int(calls + math.sqrt(calls)) * need.amount

    def take_in(self, wishes: Sequence[tuple[Need, Wish]], taken: Taken, asked_s: float) -> None:
        """Note what an ask gave. `asked_s` is from before it: the blocks are no older."""
        self.asks += 1
        self.asked_s = asked_s
        self._spent.clear()
        for (need, _), block in zip(wishes, taken.blocks, strict=False):
            self._add(need, block, asked_s)
        given = sum(block.amount for block in taken.blocks)
        self.short = given < sum(wish.amount for _, wish in wishes)

    def _add(self, need: Need, block: Block, asked_s: float) -> None:
        if block.amount <= 0:
            return
        reuse_s = SLOT_REUSE_S if need.kind == "slot" else need.hold_ms / 1000 * _USABLE
        hold = Hold(block.id, need, block.amount, block.amount, asked_s + reuse_s, asked_s, asked_s)
        self.holds[block.id] = hold
        self.tell_gap_s = min(self.tell_gap_s, SLOT_TELL_S if need.kind == "slot" else need.hold_ms / 2_000)
        self._pools.setdefault(_pool(need), deque()).append(hold)

    def used(self, ticket: Ticket, now_s: float) -> None:
        """Say that a ticket's call leaves."""
        ticket.state = "used"
        ticket.left_s = now_s

    def close(self, ticket: Ticket, now_s: float, *, sent: int | None = None, ended: int | None = None) -> None:
        """Say that a ticket is done with: what it used in truth where that is known; what it did not use is free again."""
        if ticket.state == "waiting":
            self.queue.drop(ticket)
        elif ticket.state == "granted":
            for hold, amount in ticket.parts:
                hold.put_back(amount, now_s)
        elif ticket.state == "used":
            self._settle(ticket, {"sent": sent, "ended": ended}, now_s)
        if any(hold.dirty for hold, _ in ticket.parts):
            self._note(now_s)
        ticket.state = "closed"
        ticket.parts = []

    def _settle(self, ticket: Ticket, used: dict[str, int | None], now_s: float) -> None:
        for hold, _ in ticket.parts:
            hold.arrived(min(now_s, ticket.left_s + _LONGEST_WAY_S))
        for limit, kind in {(hold.need.limit, hold.need.kind) for hold, _ in ticket.parts}:
            left = used.get(kind) if _in_tokens(limit) else None
            for hold, amount in ticket.parts:
                if (hold.need.limit, hold.need.kind) == (limit, kind):
                    part = amount if left is None else min(amount, left)
                    left = None if left is None else left - part
                    hold.settle(amount, part, now_s)
            if left:  # more than was thought: it is counted where it was taken last
                last = next(hold for hold, _ in reversed(ticket.parts) if hold.need.limit == limit)
                last.amount += left
                last.dirty = True

    def requeue(self, ticket: Ticket, now_s: float) -> None:
        """Have a ticket wait again, before those that came after it: its permits were not used in time."""
        for hold, amount in ticket.parts:
            hold.put_back(amount, now_s)
        self._note(now_s)
        ticket.parts = []
        self.queue.again(ticket)

    def tidy(self, now_s: float) -> None:
        """Expire and renew holds; forget those that are over."""
        for hold in self.holds.values():
            hold.expire(now_s)
            hold.renew(now_s)
            if hold.dirty:
                self._note(now_s)
        for hold in [hold for hold in self.holds.values() if hold.over]:
            del self.holds[hold.id]
        for pool in self._pools.values():
            while pool and (not pool[0].left) and (pool[0].over or now_s >= pool[0].use_by_s):
                pool.popleft()

    def next_tidy_s(self, now_s: float) -> float:
        """When the next hold is to be told of, expires or is to be renewed."""
        found = math.inf
        if self.dirty_s:
            found = self.dirty_s + self.tell_gap_s
        for hold in self.holds.values():
            if hold.left:
                found = min(found, hold.use_by_s)
            if hold.need.kind != "sent" and hold.out:
                found = min(found, hold.renewed_s + hold.need.for_ms / 4_000)
        return max(found, now_s + 0.005)

    def tells(self, now_s: float) -> bool:
        """Whether it is time to tell the store."""
        return bool(self.dirty_s) and now_s >= self.dirty_s + self.tell_gap_s

    def _note(self, now_s: float) -> None:
        if not self.dirty_s:
            self.dirty_s = now_s

    def _free(self, pool: Pool, now_s: float) -> int:
        return sum(hold.left for hold in self._pools.get(pool, ()) if now_s < hold.use_by_s)

    def _hand_out(self, ticket: Ticket, need: Need) -> None:
        amount = need.amount
        self._spent[_pool(need)] = self._spent.get(_pool(need), 0) + amount
        for hold in self._pools.get(_pool(need), ()):
            part = min(hold.left, amount)
            if part:
                hold.left -= part
                hold.out += part
                amount -= part
                ticket.parts.append((hold, part))


def _pool(need: Need) -> Pool:
    return need.limit, need.kind


def _in_tokens(limit: str) -> bool:
    """Whether a limit counts tokens, of which a call may use less than it took; a request is a request."""
    return limit.rpartition("/")[2] in ("tpm", "itpm", "otpm")
