"""Watch the money: tell by webhook, once, when a budget has used 50, 80 and 100 %, and when far more than usual is spent.

Every process that drives looks, and the store takes what each would tell once (`journal.alert`). A line is crossed when so much was *settled*; 100 %
also when the rest was too little for a run, if half was settled. What is usual goes by the hours of the last two days in which an agent, or a tenant, spent at
all, and by what the agent's runs cost. An hour's spending is that of the runs that were accepted in it, and grows until they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from stanchion.core.errors import JournalError
from stanchion.core.money import format_usd, parse_usd
from stanchion.core.state import State
from stanchion.core.usual import Usual, usual
from stanchion.engine.announce import LINES, timestamp
from stanchion.engine.clock import Clock
from stanchion.journal.alert import Alert
from stanchion.journal.ledger import name_of, owner_of
from stanchion.journal.outbox import Announcement, EventKind
from stanchion.journal.store import Ledger, RunRow, Store

log = logging.getLogger("stanchion.runtime")

LOOK_S = 15.0
"""How often budgets are looked at; processes spread their looks."""
SPIKES_S = 300.0
"""How often one of the processes looks for spikes."""
HOURS = 48
"""By so many past hours it goes what an hour usually costs."""
MOST_RUNS, MOST_TENANTS = 5_000, 200
"""Of a tenant, and tenants, that are looked at for spikes at once."""
HOUR_FLOOR = parse_usd("1.00", field="floor")
RUN_FLOOR = parse_usd("0.25", field="floor")
"""What an hour, and a run, cost at least to be a spike."""
_HOUR_MS = 3_600_000
_LATE = timedelta(hours=1)
"""For so long after its end a window is still looked at."""
_PAGE = 500
_KNOWN = 10_000
_HEARD_MS = 60_000
"""A worker that was heard of within this time is there."""


class Watcher:
    """The task that looks at budgets and spending."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._wake = asyncio.Event()
        self._stopped: set[tuple[str, str]] = set()
        """Ledgers that had too little left for a run."""
        self._known: set[Alert] = set()
        """What was told, as far as it is known here."""
        self._next = 0
        """The tenant with which the next look for spikes begins."""
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="stanchion-watcher")

    async def aclose(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ended(self, state: State) -> None:
        """Hear of a run that ended here: a budget may have stopped it."""
        if state.reason.startswith("budget:"):
            self.spent(state.tenant, state.reason.removeprefix("budget:"))

    def spent(self, tenant: str, ledger: str) -> None:
        """Hear of a budget that had too little left for a run: it is used up."""
        self._stopped.add((owner_of(tenant, ledger), ledger))
        self._wake.set()

    async def look(self) -> int:
        """Tell now what there is to tell; say how much it was. Raises `JournalError`."""
        now_ms = await self._store.now_ms()
        return await self._look_at_budgets(now_ms) + await self._look_for_spikes(now_ms)

    async def _run(self) -> None:
        spikes_s = self._soon(SPIKES_S)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S * (0.5 + self._clock.draw())):
                    await self._wake.wait()
            self._wake.clear()
            try:
                now_ms = await self._store.now_ms()
                await self._look_at_budgets(now_ms)
                if asyncio.get_running_loop().time() >= spikes_s:
                    spikes_s = self._soon(SPIKES_S * await self._others(now_ms))
                    await self._look_for_spikes(now_ms)
            except JournalError as error:
                log.error("the budgets could not be looked at: %s", error)
            except Exception:  # without this task nobody would be told of anything
                log.exception("the watch over the budgets failed; it goes on")

    def _soon(self, seconds: float) -> float:
        """Give a time after about so many seconds, by the loop's clock."""
        return asyncio.get_running_loop().time() + seconds * (0.5 + self._clock.draw())

    async def _others(self, now_ms: int) -> int:
        """Count the processes that look, this one included: each does so the more seldom."""
        workers = await self._store.sharing.workers()
        return max(sum(now_ms - worker.seen_ms < _HEARD_MS for worker in workers), 1)

    # --- budgets -----------------------------------------------------------------------------------------------------

    async def _look_at_budgets(self, now_ms: int) -> int:
        stopped, told = set(self._stopped), 0
        for row in await self._store.alerts.used(_windows(now_ms)):
            used_up = row.closed or (row.tenant, row.ledger) in stopped
            for line in LINES:
                if row.settled * 100 >= row.limit * line or (used_up and line == LINES[-1]):
                    told += await self._tell_budget(row, line, now_ms, stopped=(row.tenant, row.ledger) in stopped)
        self._stopped -= stopped
        return told

    async def _tell_budget(self, row: Ledger, line: int, now_ms: int, *, stopped: bool) -> bool:
        data = {
            "ledger": row.ledger, "budget": name_of(row.ledger), "percent": line, "limit_usd": format_usd(row.limit),
            "settled_usd": format_usd(row.settled), "reserved_usd": format_usd(row.reserved), "closed": row.closed,
            "stopped_a_run": stopped,
        }  # fmt: skip
        alert = Alert(row.tenant, row.ledger, str(line), row.limit)
        told = await self._tell(alert, _said("budget.alert", data, now_ms))
        if told:
            text = "the budget %s has come to its line of %d %%: $%s of $%s are spent"
            amounts = (format_usd(row.settled), format_usd(row.limit))
            log.warning(text, row.ledger, line, *amounts, extra={"tenant": row.tenant})
        return told

    async def _tell(self, alert: Alert, said: Announcement) -> bool:
        """Tell something, unless it is known here that it was told."""
        if alert in self._known:
            return False
        told = await self._store.alerts.tell(alert, said)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known.add(alert)
        return told

    # --- spikes ------------------------------------------------------------------------------------------------------

    async def _look_for_spikes(self, now_ms: int) -> int:
        told, hour = 0, now_ms // _HOUR_MS
        tenants = await self._store.tenants()
        begin, self._next = self._next if self._next < len(tenants) else 0, self._next + MOST_TENANTS
        self._next = self._next if self._next < len(tenants) else 0
        for tenant in tenants[begin : begin + MOST_TENANTS]:
            rows = await self._rows(tenant, (hour - HOURS) * _HOUR_MS)
            for alert, data, agent in _spikes(tenant, rows, hour):
                told += await self._tell(alert, _said("spend.spike", data, now_ms, agent))
        return told

    async def _rows(self, tenant: str, since_ms: int) -> Sequence[RunRow]:
        found: list[RunRow] = []
        before = ""
        while rows := await self._store.runs(tenant, before=before, limit=_PAGE):
            found += [row for row in rows if row.created_ms >= since_ms]
            before = rows[-1].run
            if len(rows) < _PAGE or rows[-1].created_ms < since_ms or len(found) >= MOST_RUNS:
                break
        return found


def lines_told(alerts: Sequence[Alert]) -> Callable[[Ledger], list[int]]:
    """Make what says which lines of a ledger's limit were told."""
    lines: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for alert in alerts:
        if alert.line.isdigit():
            lines[alert.tenant, alert.subject, alert.bound].append(int(alert.line))
    return lambda row: sorted(lines.get((row.tenant, row.ledger, row.limit), []))


def _windows(now_ms: int) -> list[str]:
    """Name the windows that are under way, or were of late."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return sorted({at.strftime(form) for at in (now, now - _LATE) for form in ("%Y-%m-%d", "%Y-%m")})


def _spikes(tenant: str, rows: Sequence[RunRow], hour: int) -> Iterator[tuple[Alert, Mapping[str, object], str]]:
    """Find the hours and the runs that cost far more than is usual, among the last hour and this one."""
    spent: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    costs: dict[str, list[tuple[int, RunRow]]] = defaultdict(list)
    for row in rows:
        for subject in ("tenant", f"agent:{row.agent}"):
            spent[subject][row.created_ms // _HOUR_MS] += row.cost
        costs[row.agent].append((row.created_ms // _HOUR_MS, row))
    for subject, hours in sorted(spent.items()):
        for at in (hour - 1, hour):
            past = [cost for before, cost in hours.items() if before < at and cost]
            known = usual(past, floor=HOUR_FLOOR)
            if known is not None and hours.get(at, 0) > known.bound:
                begin = timestamp(at * _HOUR_MS)
                agent = subject.removeprefix("agent:") if subject != "tenant" else ""
                data = {"of": subject, "agent": agent, "run": "", "hour": begin, **_amounts(hours[at], known)}
                yield Alert(tenant, f"{subject} {begin}", "spike", 0), data, agent
    for agent, runs in sorted(costs.items()):
        known = usual([row.cost for at, row in runs if at < hour - 1 and row.cost], floor=RUN_FLOOR)
        for at, row in runs:
            if known is not None and at >= hour - 1 and row.cost > known.bound:
                data = {"of": f"run:{row.run}", "agent": agent, "run": row.run, "hour": timestamp(at * _HOUR_MS)}
                yield Alert(tenant, f"run:{row.run}", "spike", 0), data | _amounts(row.cost, known), agent


def _amounts(amount: int, known: Usual) -> dict[str, object]:
    amounts = {"usd": amount, "usual_usd": known.amount, "bound_usd": known.bound}
    return {name: format_usd(nano) for name, nano in amounts.items()}


def _said(kind: EventKind, data: Mapping[str, object], now_ms: int, agent: str = "") -> Announcement:
    body = {"type": kind, "timestamp": timestamp(now_ms), "data": data}
    return Announcement(kind, 0, agent, msgspec.json.encode(body))
