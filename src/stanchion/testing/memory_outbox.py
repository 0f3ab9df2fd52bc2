"""The outbox of the in-memory store: its tables, of which no method awaits, and the port over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.journal.alert import Alert
from stanchion.journal.outbox import Announcement, Claimed, Delivery, Endpoint, Secrets, Settled
from stanchion.journal.store import Append

if TYPE_CHECKING:
    from stanchion.testing.memory import MemoryStore

_edit = msgspec.structs.replace


class OutboxTables:
    """Endpoints, deliveries in the order they were made, and the secrets of tenants."""

    def __init__(self) -> None:
        self.endpoints: dict[tuple[str, str], Endpoint] = {}
        self.deliveries: dict[tuple[str, str], Delivery] = {}
        self.pending: dict[str, dict[tuple[str, str], None]] = {}
        """Of each lane, in the order they were made."""
        self.secrets: dict[str, Secrets] = {}

    def announced(self, append: Append, now_ms: int) -> None:
        """Add the deliveries of an append."""
        for announcement in append.announce:
            for endpoint in list(self.endpoints.values()):
                if endpoint.tenant == append.tenant and endpoint.wants(append.run, announcement):
                    self.add_delivery(endpoint, append.run, announcement, now_ms)

    def alerted(self, alert: Alert, said: Announcement, now_ms: int) -> None:
        """Add the deliveries of an alert."""
        for endpoint in list(self.endpoints.values()):
            if endpoint.tenant == alert.tenant and endpoint.wants("", said):
                self.add_delivery(endpoint, "", said, now_ms, alert.delivery(endpoint.id, said.kind))

    def add_delivery(self, endpoint: Endpoint, run: str, said: Announcement, now_ms: int, name: str = "") -> str:
        name = name or said.delivery(endpoint.tenant, endpoint.id, run)
        self._put(
            Delivery(
                tenant=endpoint.tenant, id=name, endpoint=endpoint.id, kind=said.kind, run=run, seq=said.seq,
                body=said.body, standing="pending", attempts=0, next_ms=now_ms, status=0, note="", created_ms=now_ms,
                settled_ms=0,
            )
        )  # fmt: skip
        return name

    def add(self, endpoint: Endpoint, now_ms: int) -> bool:
        place = (endpoint.tenant, endpoint.id)
        if place in self.endpoints:
            return False
        self.endpoints[place] = _edit(endpoint, created_ms=now_ms)
        return True

    def enable(self, tenant: str, id: str, enabled: bool, note: str, now_ms: int) -> bool:
        endpoint = self.endpoints.get((tenant, id))
        if endpoint is None:
            return False
        self.endpoints[tenant, id] = _edit(endpoint, enabled=enabled, note=note)
        for row in [] if enabled else list(self._of(tenant, id, "pending")):
            self._put(_edit(row, standing="dead", note=note, settled_ms=now_ms))
        return True

    def remove(self, tenant: str, id: str) -> bool:
        for row in list(self._of(tenant, id)):
            self._drop(row)
        return self.endpoints.pop((tenant, id), None) is not None

    def set_secrets(self, tenant: str, id: str, secrets: Secrets, was: str) -> bool:
        if not id:
            found = self.secrets.get(tenant, Secrets(""))
            if found.current == was:
                self.secrets[tenant] = secrets
            return found.current == was
        endpoint = self.endpoints.get((tenant, id))
        if endpoint is None or endpoint.secrets.current != was:
            return False
        self.endpoints[tenant, id] = _edit(endpoint, secrets=secrets)
        return True

    def claim(self, lane: str, lease_ms: int, limit: int, now_ms: int) -> Sequence[Claimed]:
        seen: set[tuple[str, str, str]] = set()
        free: list[Delivery] = []
        for place in self.pending.get(lane, {}):
            row = self.deliveries[place]
            first = not row.run or (row.tenant, row.endpoint, row.run) not in seen
            seen.add((row.tenant, row.endpoint, row.run))
            if first and row.next_ms <= now_ms:
                free.append(row)
        free.sort(key=lambda row: row.next_ms)
        return [self._claimed(row, now_ms + lease_ms) for row in free[:limit]]

    def _claimed(self, row: Delivery, until_ms: int) -> Claimed:
        row = _edit(row, attempts=row.attempts + 1, next_ms=until_ms)
        self._put(row)
        endpoint = self.endpoints[row.tenant, row.endpoint]
        secrets = self.secrets.get(row.tenant, Secrets("")) if endpoint.run else endpoint.secrets
        return Claimed(row, endpoint, secrets)

    def settle(self, said: Settled, now_ms: int) -> None:
        row = self.deliveries.get((said.tenant, said.id))
        if row is None or row.standing == "done":
            return
        if said.standing == "done":
            self._put(_edit(row, standing="done", status=said.status, note="", settled_ms=now_ms))
        elif row.standing != "pending" or row.attempts != said.attempt:
            return
        elif said.standing == "dead":
            self._put(_edit(row, standing="dead", status=said.status, note=said.note, settled_ms=now_ms))
        else:
            self._put(_edit(row, next_ms=said.retry_ms, status=said.status, note=said.note))
            for other in list(self._of(row.tenant, row.endpoint, "pending")):
                if row.run and other.run == row.run and other.next_ms < said.retry_ms:
                    self._put(_edit(other, next_ms=said.retry_ms))

    def lanes(self, limit: int, now_ms: int) -> Sequence[str]:
        lanes = sorted(lane for lane, places in self.pending.items() if any(self._due(places, now_ms)))
        return lanes[:limit]

    def _due(self, places: dict[tuple[str, str], None], now_ms: int) -> Iterator[bool]:
        return (self.deliveries[place].next_ms <= now_ms for place in places)

    def next_due_ms(self) -> int:
        pending = (self.deliveries[place].next_ms for places in self.pending.values() for place in places)
        return min(pending, default=0)

    def listed(
        self, tenant: str, endpoint: str, run: str, standing: str, before: str, limit: int
    ) -> Sequence[Delivery]:
        rows: list[Delivery] = []
        found = before == "" or (tenant, before) not in self.deliveries
        for row in reversed(self.deliveries.values()):
            wanted = ((endpoint, row.endpoint), (run, row.run), (standing, row.standing), (tenant, row.tenant))
            if found and all(asked in ("", has) for asked, has in wanted) and len(rows) < limit:
                rows.append(row)
            found = found or row.id == before
        return rows

    def redeliver(self, tenant: str, id: str, endpoint: str, now_ms: int) -> int:
        one = self.deliveries.get((tenant, id))
        rows = list(self._of(tenant, endpoint, "dead")) if endpoint else [one] if one else []
        rows = [row for row in rows if row.standing != "pending"]
        for row in rows:
            self._put(_edit(row, standing="pending", attempts=0, next_ms=now_ms, settled_ms=0))
            lane = self.pending[self.endpoints[tenant, row.endpoint].lane]
            self.pending[self.endpoints[tenant, row.endpoint].lane] = {
                place: None for place in self.deliveries if place in lane
            }  # as they were made
        return len(rows)

    def prune(self, done_before_ms: int, dead_before_ms: int, limit: int) -> int:
        bounds = {"done": done_before_ms, "dead": dead_before_ms, "pending": 0}
        old = [row for row in self.deliveries.values() if row.settled_ms < bounds[row.standing]][:limit]
        for row in old:
            self._drop(row)
        return len(old)

    def _of(self, tenant: str, endpoint: str, standing: str = "") -> Iterator[Delivery]:
        return (
            row
            for row in self.deliveries.values()
            if (row.tenant, row.endpoint) == (tenant, endpoint) and standing in ("", row.standing)
        )

    def _put(self, row: Delivery) -> None:
        place = (row.tenant, row.id)
        self.deliveries[place] = row
        lane = self.pending.setdefault(self.endpoints[row.tenant, row.endpoint].lane, {})
        if row.standing == "pending":
            lane.setdefault(place)
        else:
            lane.pop(place, None)

    def _drop(self, row: Delivery) -> None:
        del self.deliveries[row.tenant, row.id]
        self.pending.get(self.endpoints[row.tenant, row.endpoint].lane, {}).pop((row.tenant, row.id), None)


class MemoryOutbox:
    """`Outbox` over the tables of a `MemoryStore`."""

    def __init__(self, store: MemoryStore, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._heard: list[Callable[[], None]] = []

    def listen(self, heard: Callable[[], None]) -> None:
        self._heard.append(heard)

    def ring(self) -> None:
        """Say that something may be delivered."""
        for heard in self._heard:
            heard()

    async def add(self, endpoint: Endpoint) -> bool:
        return await self._store.write(lambda tables, now_ms: tables.outbox.add(endpoint, now_ms))

    async def endpoint(self, tenant: str, id: str) -> Endpoint | None:
        return await self._store.read_rows(lambda tables: tables.outbox.endpoints.get((tenant, id)))

    async def endpoints(self, tenant: str) -> Sequence[Endpoint]:
        return await self._store.read_rows(
            lambda tables: [row for row in tables.outbox.endpoints.values() if row.tenant == tenant and not row.run]
        )

    async def enable(self, tenant: str, id: str, *, enabled: bool, note: str = "") -> bool:
        return await self._store.write(lambda tables, now_ms: tables.outbox.enable(tenant, id, enabled, note, now_ms))

    async def remove(self, tenant: str, id: str) -> bool:
        return await self._store.write(lambda tables, _: tables.outbox.remove(tenant, id))

    async def secrets(self, tenant: str) -> Secrets | None:
        return await self._store.read_rows(lambda tables: tables.outbox.secrets.get(tenant))

    async def set_secrets(self, tenant: str, id: str, secrets: Secrets, *, was: str) -> bool:
        return await self._store.write(lambda tables, _: tables.outbox.set_secrets(tenant, id, secrets, was))

    async def tell(self, tenant: str, id: str, announcement: Announcement) -> str | None:
        def add(outbox: OutboxTables, now_ms: int) -> str | None:
            endpoint = outbox.endpoints.get((tenant, id))
            return endpoint and outbox.add_delivery(endpoint, "", announcement, now_ms)

        told = await self._store.write(lambda tables, now_ms: add(tables.outbox, now_ms))
        self.ring()
        return told

    async def lanes(self, *, limit: int) -> Sequence[str]:
        return await self._store.read_rows(lambda tables: tables.outbox.lanes(limit, self._clock()))

    async def next_due_ms(self) -> int:
        return await self._store.read_rows(lambda tables: tables.outbox.next_due_ms())

    async def claim(self, lane: str, *, lease_ms: int, limit: int) -> Sequence[Claimed]:
        return await self._store.write(lambda tables, now_ms: tables.outbox.claim(lane, lease_ms, limit, now_ms))

    async def settle(self, settled: Sequence[Settled]) -> None:
        def change(outbox: OutboxTables, now_ms: int) -> None:
            for said in settled:
                outbox.settle(said, now_ms)

        await self._store.write(lambda tables, now_ms: change(tables.outbox, now_ms))

    async def delivery(self, tenant: str, id: str) -> Delivery | None:
        return await self._store.read_rows(lambda tables: tables.outbox.deliveries.get((tenant, id)))

    async def deliveries(
        self, tenant: str, *, endpoint: str = "", run: str = "", standing: str = "", before: str = "", limit: int = 50
    ) -> Sequence[Delivery]:
        return await self._store.read_rows(
            lambda tables: tables.outbox.listed(tenant, endpoint, run, standing, before, limit)
        )

    async def redeliver(self, tenant: str, *, id: str = "", endpoint: str = "") -> int:
        done = await self._store.write(lambda tables, now_ms: tables.outbox.redeliver(tenant, id, endpoint, now_ms))
        self.ring()
        return done

    async def prune(self, *, done_before_ms: int, dead_before_ms: int, limit: int = 2_000) -> int:
        return await self._store.write(lambda tables, _: tables.outbox.prune(done_before_ms, dead_before_ms, limit))
