"""The simulated database: group commit, a disk that loses what was not synced, and a network between it and the workers.

A write waits in the group until the next sync and only then happens, so readers see nothing that could still be lost. A
crash keeps a seeded prefix of the waiting group (it was synced, its answer was lost) and loses the rest; either way its
callers do not know. The database's clock is its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from stanchion.core.errors import CommitUnknown, JournalError, StanchionError, StoreFull
from stanchion.journal.record import Identity
from stanchion.journal.relay import Letter, Overheard, Wire
from stanchion.journal.share import TENANT
from stanchion.journal.store import (
    Append,
    Change,
    Claim,
    Heard,
    Key,
    Refused,
    Start,
    Started,
)
from stanchion.testing.memory import MemoryStore
from stanchion.testing.memory_tables import Run, Tables
from tests.simulation.audit import Audit
from tests.simulation.loop import DOMAIN, Domain, SimLoop
from tests.simulation.sources import START_MS

T = TypeVar("T")
_Job = tuple[Callable[[Tables, int], Any], "asyncio.Future[Any]", str, "Connection"]


class AuditedTables(Tables):
    """Tables that show the audit every write of a journal. `broken` names a rule that they forget."""

    def __init__(self, audit: Audit, make_key: Callable[[], Key], broken: str) -> None:
        super().__init__(Identity(), make_key)
        self.touched: dict[tuple[str, str], None] = {}
        """Runs that the last write changed."""
        self.moment = 0.0
        """How good a moment it is to strike who made the last write: after a claim or an intent, a very good one."""
        self._audit = audit
        self._broken = broken

    def post(self, tenant: str, run: str, kind: str, body: bytes, now_ms: int) -> int:
        item = super().post(tenant, run, kind, body, now_ms)
        self.touched[tenant, run] = None
        return item

    def start(self, start: Start, now_ms: int) -> Any:
        said = super().start(start, now_ms)
        if isinstance(said, Started) and not said.existing:
            self._check_caps(start.tenant)
            self.touched[start.tenant, start.run] = None
            self._audit.started(start, self)
        return said

    def append(self, append: Append, now_ms: int) -> Refused | None:
        refused = super().append(append, now_ms)
        if refused is None:
            self.touched[append.tenant, append.run] = None
            intent = any(b'"tool_call_started"' in record.envelope for record in append.records)
            self.moment = 4.0 if intent else 0.5
            self._audit.appended(append, self)
        return refused

    def check(self, append: Append, run: Run) -> None:
        if self._broken == "no_epoch_check":
            run.epoch = max(run.epoch, append.epoch)
            epoch, run.epoch = run.epoch, append.epoch
            try:
                super().check(append, run)
            finally:
                run.epoch = epoch
            return
        super().check(append, run)

    def claim(self, tenant: str, run: str, worker: str, lease_ms: int, now_ms: int) -> Claim | None:
        found = self.runs.get((tenant, run))
        if self._broken == "no_epoch_raised" and found is not None:
            found.epoch -= found.epoch > 0
        claim = super().claim(tenant, run, worker, lease_ms, now_ms)
        if claim is not None:
            self._check_caps(tenant)
            self.moment = 4.0
            self._audit.claimed(claim)
        return claim

    def _check_caps(self, tenant: str) -> None:
        """No more runs of a tenant are driven than may be."""
        cap = self.sharing.rows.get(("", TENANT))
        driven = sum(run.start.tenant == tenant and bool(run.worker) for run in self.runs.values())
        if cap is not None and driven > cap.max_running:
            self._audit.break_rule(f"{driven} runs of {tenant} are driven, and {cap.max_running} may be")


class Database:
    """The one database of a deployment."""

    def __init__(self, loop: SimLoop, rng: Random, tables: AuditedTables, faults: Any) -> None:
        self.tables = tables
        self.up = True
        self.listens = faults.plan.listens
        self.skew_ms = rng.choice((0, 0, -45_000, 45_000))
        self._loop = loop
        self._rng = rng
        self._faults = faults
        self.listeners: list[Connection] = []
        self.aimed: Callable[[Domain], None] = lambda _: None
        """Called where a process has just written something and does not know it yet."""
        self._group: list[_Job] = []
        self._syncing = False
        self._names = 0

    def now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000) + self.skew_ms

    def crash(self) -> None:
        """Stop, keeping of the waiting group only what a sync had reached."""
        self.up = False
        group, self._group = self._group, []
        kept = self._rng.randint(0, len(group))
        for number, (call, future, _, writer) in enumerate(group):
            if number < kept:
                self._apply(call, writer)
            self._answer(future, CommitUnknown("the database went away"))
        for listener in self.listeners:
            listener.tell(None, self._faults.latency())
            listener.hand(None, self._faults.latency())

    def named(self) -> int:
        """Count those that connect: each start of a process has a name of its own."""
        self._names += 1
        return self._names

    async def send(self, letters: Sequence[Letter]) -> bool:
        """Take letters, and hand them on."""
        await asyncio.sleep(self._faults.latency())
        if not self.up or self._faults.strikes(self._faults.plan.read_fault):
            return False
        for listener in self.listeners:
            mine = [letter.text for letter in letters if letter.to in ("", listener.name)]
            if mine and self._faults.strikes(self._faults.plan.hint_fault):
                mine = [*mine[: self._rng.randint(0, len(mine))], None]
            for text in mine:
                listener.hand(text, self._faults.latency())
        return True

    def write(self, call: Callable[[Tables, int], Any], future: asyncio.Future[Any], writer: Connection) -> None:
        """A write leaves its worker."""
        fault = self._faults.of_write()
        if fault == "error":
            self._loop.after(self._faults.latency(), self._answer, future, JournalError("connection reset"))
        elif fault == "full":
            self._loop.after(self._faults.latency(), self._answer, future, StoreFull())
        else:
            self._loop.after(self._faults.latency(), self._arrive, (call, future, fault, writer))

    def read(self, call: Callable[[Tables], Any], future: asyncio.Future[Any]) -> None:
        """A read leaves its worker."""
        failed = self._faults.of_read()
        self._loop.after(self._faults.latency(), self._read, call, future, failed)

    def _read(self, call: Callable[[Tables], Any], future: asyncio.Future[Any], failed: bool) -> None:
        if failed or not self.up:
            self._answer(future, JournalError("the database does not answer"))
            return
        self._answer(future, call(self.tables))

    def _arrive(self, job: _Job) -> None:
        if not self.up:
            self._answer(job[1], JournalError("the database does not answer"))
            return
        self._group.append(job)
        if not self._syncing:
            self._syncing = True
            self._loop.after(self._faults.sync(), self._sync)

    def _sync(self) -> None:
        self._syncing = False
        group, self._group = self._group, []
        for call, future, fault, writer in group:
            said = CommitUnknown("it was not said") if fault == "unknown_lost" else self._apply(call, writer)
            if fault == "unknown_made":
                said = CommitUnknown("it was not said")
            self._answer(future, said)

    def _apply(self, call: Callable[[Tables, int], Any], writer: Connection) -> Any:
        try:
            self.tables.writes += 1
            said = call(self.tables, self.now_ms())
        except StanchionError as error:
            return error
        touched, self.tables.touched = self.tables.touched, {}
        moment, self.tables.moment = self.tables.moment, 0.0
        if self._faults.strikes(self._faults.plan.aim * moment):
            self.aimed(writer.domain)
        if touched and self.listeners:
            changes = [self._change(*place) for place in touched]
            for listener in self.listeners:
                if listener is not writer and not self._faults.strikes(self._faults.plan.hint_fault):
                    listener.tell(changes, self._faults.latency())
        return said

    def _change(self, tenant: str, run: str) -> Change:
        row = self.tables.runs[tenant, run]
        return Change(tenant, run, row.seq, row.status == "runnable" and row.lease_until_ms <= self.now_ms())

    def _answer(self, future: asyncio.Future[Any], said: Any) -> None:
        if future.done():
            return
        if isinstance(said, BaseException):
            future.set_exception(said)
            future.exception()  # nobody may be left to ask
        else:
            future.set_result(said)


class Connection(MemoryStore):
    """The store as one worker has it."""

    def __init__(self, database: Database, loop: SimLoop) -> None:
        super().__init__(database.tables, clock=database.now_ms)
        self._database = database
        self._loop = loop
        self.domain = DOMAIN.get()
        self._heard: list[Heard] = []
        self._overheard: Overheard | None = None
        self._letter_at_s = 0.0
        self.name = f"{self.domain.name}/{database.named()}"

    limit_bytes = 300
    """Short, so that much is cut."""

    def listen(self, heard: Heard) -> bool:
        if not self._database.listens:
            return False
        if not self._heard:
            self._database.listeners.append(self)
        self._heard.append(heard)
        return True

    def relay(self, overheard: Overheard) -> Wire | None:
        if not self._database.listens:
            return None
        self._overheard = overheard
        return self

    async def send(self, letters: Sequence[Letter]) -> bool:
        """Send letters; some may be lost on the way, with the line of who should have heard them, or with ours."""
        return await self._database.send(letters)

    def hand(self, text: str | None, after_s: float) -> None:
        """Hand a letter to the worker, behind those that are under way; None: its line was lost."""
        self._letter_at_s = max(self._letter_at_s, self._loop.time() + after_s)
        self._loop.call_at(self._letter_at_s, self._handed, text, context=self.domain.context.copy())

    def _handed(self, text: str | None) -> None:
        if self._overheard is not None:
            self._overheard(text)

    async def aclose(self) -> None:
        self._heard.clear()
        self._overheard = None
        if self in self._database.listeners:
            self._database.listeners.remove(self)

    def tell(self, changes: Sequence[Change] | None, after_s: float) -> None:
        """Tell the worker what others wrote."""
        self._loop.call_at(self._loop.time() + after_s, self._told, changes, context=self.domain.context.copy())

    def _told(self, changes: Sequence[Change] | None) -> None:
        for heard in list(self._heard):
            heard(changes)

    async def write(self, call: Callable[[Tables, int], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()

        def mine(tables: Tables, now_ms: int) -> T:
            self._own += 1
            return call(tables, now_ms)

        self._database.write(mine, future, self)
        return await future

    async def read_rows(self, call: Callable[[Tables], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._database.read(call, future)
        return await future
