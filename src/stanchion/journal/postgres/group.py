"""A group of writes in one transaction: lock and read what they need, decide in memory, write it all at once.

Each write checks everything before it changes anything: one that is refused leaves no trace and the others go on. Locks
are taken in one order (content keys, runs, sessions, the sessions' queued runs, ledgers). What two transactions add at
the same time (a session, an idempotency key, a ledger) fails the later one by its unique index; the lane then does the
group again, on what is there by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from stanchion.core.errors import Conflict, NotFound, UnreadInbox
from stanchion.core.event import Base
from stanchion.journal.head import Head, check_append, check_post, is_known
from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.announce import add_endpoint, announce
from stanchion.journal.postgres.money import Money
from stanchion.journal.postgres.places import Places
from stanchion.journal.postgres.schema import lock_number
from stanchion.journal.postgres.write import (
    SQL,
    Posted,
    RunPlace,
    Write,
    WriteAppend,
    WriteClaim,
    WritePost,
    WriteStart,
    append_of,
    columns_of,
    place_of,
)
from stanchion.journal.queries import named
from stanchion.journal.share import NoPlace
from stanchion.journal.store import (
    Append,
    Change,
    Claim,
    IdempotencyMismatch,
    Refused,
    SessionBusy,
    SessionMoved,
    Start,
    Started,
)
from stanchion.journal.tray import TrayItem

_HAND_IN = named("postgres/tray.sql")["insert"]


class _Session:
    __slots__ = ("changed", "exists", "head", "live", "queue", "runs", "start")

    def __init__(self, live: str = "", head: Base | None = None, runs: int = 0, *, exists: bool = False) -> None:
        self.live = live
        self.head = head
        self.runs = runs
        self.exists = exists
        self.changed = False
        self.start: Start | None = None
        """The start that makes it."""
        self.queue: list[tuple[str, Head]] = []


class Group:
    """The transaction's state: what was read, what is to be written."""

    def __init__(self, money: Money, places: Places) -> None:
        self.now_ms = 0
        self._money = money
        self._places = places
        self._moved: set[RunPlace] = set()
        self._heads: dict[RunPlace, Head] = {}
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._idempotency: dict[tuple[str, str], tuple[str, str]] = {}
        self._unread: dict[int, dict[int, str]] = {}
        """Kinds of what lies in an inbox, by run and id."""
        self._touched: dict[int, Head] = {}
        self._new_runs: list[tuple[Start, Head]] = []
        self._new_keys: list[tuple[str, str, str, str]] = []
        self._events: list[tuple[Head, int, bytes, bytes]] = []
        self._contents: dict[tuple[str, str, bytes], bytes] = {}
        self._posts: list[Posted] = []
        self._vain: list[tuple[int, int, str]] = []
        """Claims that came to nothing: run, epoch, worker."""
        self._read: list[tuple[Head, int]] = []
        self._handed_in: list[TrayItem] = []
        self._announcing: list[Append] = []

    # --- reading -----------------------------------------------------------------------------------------------------

    async def load(self, connection: Connection, writes: Sequence[Write]) -> None:
        """Lock and read all that the writes need."""
        await self._load_heads(connection, writes)
        driven = [write.start for write in writes if isinstance(write, WriteStart) and _is_driven(write.start)]
        claims = {place_of(write) for write in writes if isinstance(write, WriteClaim)}
        await self._places.load(connection, claims, {(start.tenant, start.agent, start.user) for start in driven})
        await self._load_sessions(connection, writes)
        await self._load_unread(connection, writes)
        await self._money.load(connection, [append for write in writes if (append := append_of(write))])

    async def _load_heads(self, connection: Connection, writes: Sequence[Write]) -> None:
        places = {place_of(write) for write in writes}
        keys = {
            f"{append.tenant}/{content.key}"
            for write in writes
            if (append := append_of(write))
            for record in append.records
            for content in record.contents
        }
        rows = await connection.fetch(SQL["lock_heads"], sorted(map(lock_number, keys)), *columns_of(places, 2))
        self.now_ms = rows[0]["seq"]
        for row in rows[1:]:
            self._heads[row[0], row[1]] = Head(*row[2:])

    async def _load_sessions(self, connection: Connection, writes: Sequence[Write]) -> None:
        starts = [write.start for write in writes if isinstance(write, WriteStart)]
        ending: set[tuple[str, str]] = set()
        for write in writes:
            append = append_of(write)
            if append is not None and append.status == "ended":
                head = self._heads.get((append.tenant, append.run))
                session = head.session if head else write.start.session if isinstance(write, WriteStart) else ""
                ending |= {(append.tenant, session)} if session else set()
        names = ending | {(start.tenant, start.session) for start in starts if start.session}
        if names:
            for row in await connection.fetch(SQL["lock_sessions"], *columns_of(names, 2)):
                head = Base(row[3], row[4], row[5]) if row[3] else None
                self._sessions[row[0], row[1]] = _Session(row[2], head, row[6], exists=True)
        if ending:
            for row in await connection.fetch(SQL["lock_queued"], *columns_of(ending, 2)):
                head = self._heads.setdefault((row[0], row[1]), Head(*row[2:]))
                self._session(row[0], head.session).queue.append((row[1], head))
        keys = {(start.tenant, start.idempotency_key) for start in starts if start.idempotency_key}
        keys |= {(write.tenant, write.key) for write in writes if isinstance(write, WritePost) and write.key}
        if keys:
            for row in await connection.fetch(SQL["idempotency"], *columns_of(keys, 2)):
                self._idempotency[row[0], row[1]] = (row[2], row[3])

    async def _load_unread(self, connection: Connection, writes: Sequence[Write]) -> None:
        waiting: set[int] = set()
        for write in writes:
            if isinstance(write, WriteAppend) and write.append.status in ("waiting", "ended"):
                head = self._heads.get((write.append.tenant, write.append.run))
                waiting |= {head.no} if head else set()
        if waiting:
            for row in await connection.fetch(SQL["unread"], sorted(waiting)):
                self._unread.setdefault(row[0], {})[row[1]] = row[2]

    # --- deciding ----------------------------------------------------------------------------------------------------

    def apply(self, write: Write) -> Any:
        """Do a write in memory. Raises `NotFound`, `Conflict`, `StaleAppend`."""
        match write:
            case WriteAppend():
                return self._append(write)
            case WriteStart():
                return self._start(write)
            case WriteClaim():
                return self._claim(write)
            case WritePost():
                return self._post(write)
            case _:
                assert_never(write)

    def _append(self, write: WriteAppend) -> Refused | None:
        append = write.append
        head = self._head(append.tenant, append.run)
        check_append(append, head)
        if append.status == "ended" and self._unread_kinds(head, append.inbox_done) - {"start"}:
            raise UnreadInbox
        refused = self._money.move(append)
        if refused is not None:
            return refused
        self._record(head, append, write.envelopes)
        self._read += [(head, item) for item in append.inbox_done]
        for item in append.inbox_done:
            self._unread.get(head.no, {}).pop(item, None)
        self._settle_status(append, head)
        return None

    def _claim(self, write: WriteClaim) -> Claim | None:
        head = self._heads.get((write.tenant, write.run))
        if head is None or head.status not in ("runnable", "waiting"):
            return None
        if head.lease_until_ms > self.now_ms and head.worker != write.worker:
            return None
        if not head.worker and not self._places.taken(write.tenant, write.run):
            return None
        if head.attempts:
            self._vain.append((head.no, head.epoch, head.worker))
        head.epoch += 1
        head.attempts += 1
        head.put("runnable")
        head.lease(write.worker, self.now_ms + write.lease_ms)
        self._touch(head)
        return Claim(write.tenant, write.run, head.epoch, head.seq, head.attempts)

    def _post(self, write: WritePost) -> Posted | int:
        head = self._head(write.tenant, write.run)
        if write.key and is_known(self._idempotency.get((write.tenant, write.key)), write.digest):
            return 0
        check_post(write.run, head.status, head.outcome)
        if write.key:
            self._idempotency[write.tenant, write.key] = (write.digest, write.run)
            self._new_keys.append((write.tenant, write.key, write.digest, write.run))
        posted = Posted(head, write.kind, write.body)
        self._posts.append(posted)
        if head.status == "waiting":
            head.put("runnable")
            self._touch(head)
        elif head.status == "runnable" and not head.epoch and write.kind == "cancel":
            head.epoch = 1  # it does not wait its turn: it has begun, and ends
            self._touch(head)
        elif head.status == "parked" and write.kind in ("revive", "cancel"):
            head.put("runnable")
            head.attempts, head.outcome = 0, ""
            self._touch(head)
        self._moved.add((write.tenant, write.run))
        return posted

    def _start(
        self, write: WriteStart
    ) -> Started | Refused | SessionBusy | SessionMoved | IdempotencyMismatch | NoPlace:
        start = write.start
        known = self._known(start)
        if known is not None:
            return known
        if start.known_only:
            return NoPlace("queue", 0)
        if (start.tenant, start.run) in self._heads:
            raise Conflict(f"there is a run {start.run!r} already; give the new one another id")
        session = self._session(start.tenant, start.session) if start.session else None
        live = session.live if session else ""
        if live and not start.queued:
            return SessionBusy(live)
        if session and not start.queued and session.head != start.base:
            return SessionMoved(session.head)
        subject = (start.tenant, start.agent, start.user)
        if _is_driven(start) and (met := self._places.met(subject)):
            return met
        refused = self._money.move(start.first)
        if refused is not None:
            return refused
        head = self._add_run(start, session, queued=bool(live))
        self._record(head, start.first, write.envelopes)
        if not live:
            self._settle_status(start.first, head)
        return Started(start.run)

    def _known(self, start: Start) -> Started | IdempotencyMismatch | None:
        found = self._idempotency.get((start.tenant, start.idempotency_key)) if start.idempotency_key else None
        if found is None:
            return None
        digest, run = found
        return Started(run, existing=True) if digest == start.idempotency_digest else IdempotencyMismatch(run)

    def _add_run(self, start: Start, session: _Session | None, *, queued: bool) -> Head:
        head = Head(0, 0, b"", 0, "queued" if queued else "runnable", "", 0, 0, "", 0, 0, start.session)
        self._heads[start.tenant, start.run] = head
        self._new_runs.append((start, head))
        if start.queued:
            self._posts.append(Posted(head, "start", start.request))
        if start.idempotency_key:
            self._idempotency[start.tenant, start.idempotency_key] = (start.idempotency_digest, start.run)
            self._new_keys.append((start.tenant, start.idempotency_key, start.idempotency_digest, start.run))
        if session:
            if not session.exists and session.start is None:
                session.start = start
            session.live = session.live or start.run
            session.runs += 1
            session.changed = True
            if queued:
                session.queue.append((start.run, head))
        if _is_driven(start):
            self._places.take((start.tenant, start.agent, start.user))
            head.epoch = head.attempts = 1
            head.lease(start.worker, self.now_ms + start.lease_ms)
        return head

    def _record(self, head: Head, append: Append, envelopes: tuple[bytes, ...]) -> None:
        for record, envelope in zip(append.records, envelopes, strict=True):
            self._events.append((head, record.seq, record.hash, envelope))
            for content in record.contents:
                self._contents[append.tenant, content.key, content.commit] = content.blob
        if append.records:
            last = append.records[-1]
            head.seq, head.hash = last.seq, last.hash
        if append.progress:
            head.attempts = 0
        elif append.unclaim:
            head.attempts = max(head.attempts - 1, 0)
        head.cost = max(head.cost, append.cost)
        self._handed_in += append.hand_in
        self._announcing += [append] if append.announce else []
        self._touch(head)
        self._moved.add((append.tenant, append.run))

    def _settle_status(self, append: Append, head: Head) -> None:
        status, wake_at_ms = append.status, append.wake_at_ms if append.status == "waiting" else 0
        if status == "waiting" and self._unread_kinds(head):
            status, wake_at_ms = "runnable", 0
        head.put(status, wake_at_ms)
        if append.release or status == "ended":
            head.lease("", 0)
        if status in ("ended", "parked"):
            head.outcome = append.outcome
        if status == "ended":
            if head.session:
                self._end(append.tenant, append.run, head)

    def _unread_kinds(self, head: Head, read: tuple[int, ...] = ()) -> set[str]:
        stored = {kind for item, kind in self._unread.get(head.no, {}).items() if item not in read}
        return stored | {posted.kind for posted in self._posts if posted.head is head}

    def _end(self, tenant: str, run: str, head: Head) -> None:
        """Move the session on: its head to this run, and its next queued run to work."""
        session = self._session(tenant, head.session)
        if head.seq:
            session.head = Base(run, head.seq, head.hash.hex())
            session.changed = True
        if session.live != run:
            return
        session.live = ""
        session.changed = True
        for name, following in session.queue:
            if following.status == "queued":
                following.put("runnable")
                self._touch(following)
                session.live = name
                self._moved.add((tenant, name))
                return

    def _head(self, tenant: str, run: str) -> Head:
        head = self._heads.get((tenant, run))
        if head is None:
            raise NotFound(f"there is no run {run!r}; list them with `stanchion runs ls`")
        return head

    def _session(self, tenant: str, session: str) -> _Session:
        return self._sessions.setdefault((tenant, session), _Session())

    def _touch(self, head: Head) -> None:
        self._touched[id(head)] = head

    # --- writing -----------------------------------------------------------------------------------------------------

    @property
    def moved(self) -> dict[RunPlace, Change]:
        """Runs that others are to be told of."""
        heads = ((place, self._heads[place]) for place in self._moved)
        return {place: Change(*place, head.seq, head.status == "runnable" and not head.worker) for place, head in heads}

    @property
    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._touched or self._posts)

    async def flush(self, connection: Connection) -> None:
        """Write what was decided."""
        if self._new_runs:
            await self._flush_runs(connection)
        await self._flush_sessions(connection)
        if self._new_keys:
            await connection.execute(SQL["insert_idempotency"], *columns_of(self._new_keys, 4))
        if self._vain:
            await connection.execute(SQL["insert_claims"], *columns_of(self._vain, 3), self.now_ms)
        if self._posts:
            rows = [(post.head.no, post.kind, post.body) for post in self._posts]
            ids = await connection.fetch(SQL["insert_inbox"], *columns_of(rows, 3), self.now_ms)
            for posted, item in zip(self._posts, sorted(row[0] for row in ids), strict=True):
                posted.id = item
        if self._handed_in:
            rows = [(item.tenant, item.run, item.seq, item.lane) for item in self._handed_in]
            await connection.execute(_HAND_IN, *columns_of(rows, 4), self.now_ms)
        if self._touched:
            await self._flush_heads(connection)
        if self._announcing:
            await announce(connection, self._announcing, self.now_ms)

    async def _flush_runs(self, connection: Connection) -> None:
        rows = [
            (s.tenant, s.run, s.session, s.agent, s.bundle, s.user, head.status, s.priority, s.parent, s.root)
            for s, head in self._new_runs
        ]
        for start, _ in self._new_runs:
            if start.callback is not None:
                await add_endpoint(connection, start.callback)
        found = await connection.fetch(SQL["insert_runs"], *columns_of(rows, 10), self.now_ms)
        for (_, head), no in zip(self._new_runs, sorted(row[0] for row in found), strict=True):
            head.no = no

    async def _flush_heads(self, connection: Connection) -> None:
        events = [(head.no, seq, digest, envelope) for head, seq, digest, envelope in self._events]
        contents = [(*place, self._contents[place]) for place in sorted(self._contents)]
        heads = [
            (
                h.no, h.seq, h.hash, h.cost, h.attempts, h.status, h.outcome, h.epoch, h.wake_at_ms, h.lease_until_ms, h.worker
            )
            for h in self._touched.values()
        ]  # fmt: skip
        heads.sort()
        read = [(head.no, item) for head, item in self._read]
        columns = (*columns_of(events, 4), *columns_of(contents, 4), *columns_of(heads, 11))
        await connection.execute(
            SQL["write"], *columns, self.now_ms, *columns_of(read, 2), *columns_of(self._money.rows(), 9)
        )

    async def _flush_sessions(self, connection: Connection) -> None:
        new: list[tuple[Any, ...]] = []
        old: list[tuple[Any, ...]] = []
        for (tenant, name), session in sorted(self._sessions.items()):
            if not session.changed:
                continue
            base = session.head or Base("", 0, "")
            state = (base.run, base.seq, base.hash, session.live, session.runs)
            if session.exists:
                old.append((tenant, name, *state))
            elif session.start is not None:
                new.append((tenant, name, session.start.agent, session.start.user, *state))
        if new:
            await connection.execute(SQL["insert_sessions"], *columns_of(new, 9), self.now_ms)
        if old:
            await connection.execute(SQL["update_sessions"], *columns_of(old, 7), self.now_ms)


def _is_driven(start: Start) -> bool:
    """Whether a start's run is driven from the start."""
    return bool(start.worker) and not start.queued
