"""What is remembered of users, in the in-memory store."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import Conflict
from stanchion.core.fact import Fact, Owner
from stanchion.journal.memory import (
    DANGLING_MS,
    MOST,
    Change,
    Due,
    FactRow,
    MovedMemory,
    Remembered,
    TakenMemory,
    about,
    intake,
    operation_key,
    pack,
    planned,
    still_here,
    subject_of,
    unpacked,
)
from stanchion.journal.record import Cipher, Identity
from stanchion.journal.store import Key

if TYPE_CHECKING:
    from stanchion.testing.memory import MemoryStore
    from stanchion.testing.memory_tables import Tables

_replace = msgspec.structs.replace


@dataclass(slots=True)
class Expected:
    """A run of which is to be learned."""

    due: Due
    added_ms: int
    next_ms: int = 0


@dataclass(slots=True)
class FactTables:
    """The rows."""

    rows: list[tuple[Owner, FactRow]] = field(default_factory=list[tuple[Owner, FactRow]])
    due: dict[tuple[str, str], Expected] = field(default_factory=dict[tuple[str, str], Expected])
    forgotten: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])


class MemoryMemories:
    """`Memories` over the tables of a `MemoryStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._cipher: Cipher = Identity()

    async def apply(self, change: Change) -> int | None:
        return await self._store.write(lambda tables, _: self._apply(tables, change))

    async def facts(
        self,
        owner: Owner,
        *,
        recorded_ms: int = 0,
        history: bool = False,
        kinds: Collection[str] = (),
        limit: int = MOST,
    ) -> Sequence[Fact]:
        def find(tables: Tables) -> Sequence[Fact]:
            at_ms = recorded_ms or 1 << 62
            found = [
                row
                for its, row in tables.facts.rows
                if (its.tenant, its.user) == (owner.tenant, owner.user)
                and owner.space in ("", its.space)
                and (not kinds or row.kind in kinds)
                and (history or (row.recorded_ms <= at_ms and (not row.ended_ms or at_ms < row.ended_ms)))
            ]
            return unpacked(found[-limit:], tables.known_key(owner.tenant, subject_of(owner.user)), self._cipher)

        return await self._store.read_rows(find)

    async def users(self, tenant: str, *, after: str = "", limit: int = 50) -> Sequence[Remembered]:
        def find(rows: list[tuple[Owner, FactRow]]) -> Sequence[Remembered]:
            places = sorted({(its.user, its.space) for its, row in rows if its.tenant == tenant and not row.ended_ms})
            return [
                Remembered(user, space, len(its), max(its))
                for user, space in places
                if user > after
                and (its := [r.recorded_ms for o, r in rows if o == Owner(tenant, user, space) and not r.ended_ms])
            ][:limit]

        return await self._store.read_rows(lambda tables: find(tables.facts.rows))

    async def forget(self, tenant: str, user: str, *, ids: Collection[str] = ()) -> int:
        def change(facts: FactTables) -> int:
            mine = [(its, row) for its, row in facts.rows if (its.tenant, its.user) == (tenant, user)]
            if ids:
                abouts = {(its.space, row.about) for its, row in mine if row.id in ids}
                mine = [(its, row) for its, row in mine if (its.space, row.about) in abouts]
            else:
                facts.due = {
                    place: one for place, one in facts.due.items() if (one.due.tenant, one.due.user) != (tenant, user)
                }
            gone = {row.id for _, row in mine}
            facts.forgotten |= dict.fromkeys((tenant, each) for each in gone)
            facts.rows = [(its, row) for its, row in facts.rows if its.tenant != tenant or row.id not in gone]
            return len(gone)

        return await self._store.write(lambda tables, _: change(tables.facts))

    async def expect(self, due: Due) -> None:
        await self._store.write(
            lambda tables, now_ms: tables.facts.due.setdefault((due.tenant, due.run), Expected(due, now_ms))
        )

    async def due(self, agents: Collection[str], *, limit: int = 20) -> Sequence[Due]:
        def find(tables: Tables, now_ms: int) -> Sequence[Due]:
            found: list[Due] = []
            for place, one in list(tables.facts.due.items()):
                run = tables.runs.get(place)
                if run is None and one.added_ms < now_ms - DANGLING_MS:
                    del tables.facts.due[place]
                if run is not None and run.status == "ended" and one.next_ms <= now_ms and one.due.agent in agents:
                    found.append(one.due)
            return found[:limit]

        return await self._store.write(find)

    async def later(self, tenant: str, run: str, *, in_ms: int) -> None:
        def change(due: dict[tuple[str, str], Expected], now_ms: int) -> None:
            one = due.get((tenant, run))
            if one is not None:
                one.due, one.next_ms = _replace(one.due, tries=one.due.tries + 1), now_ms + in_ms

        await self._store.write(lambda tables, now_ms: change(tables.facts.due, now_ms))

    async def drop(self, tenant: str, run: str) -> None:
        await self._store.write(lambda tables, _: tables.facts.due.pop((tenant, run), None))

    async def dues(self, tenant: str) -> Sequence[Due]:
        return await self._store.read_rows(
            lambda tables: [one.due for (owner, _), one in tables.facts.due.items() if owner == tenant]
        )

    async def everyone(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        def find(rows: list[tuple[Owner, FactRow]]) -> Sequence[str]:
            return sorted({its.user for its, _ in rows if its.tenant == tenant and its.user > after})[:limit]

        return await self._store.read_rows(lambda tables: find(tables.facts.rows))

    async def lift(self, tenant: str, user: str) -> MovedMemory | None:
        def find(tables: Tables) -> MovedMemory | None:
            key = tables.known_key(tenant, subject_of(user))
            facts = self._versions(tables, tenant, user)
            return MovedMemory(tenant, user, key.id, key.salt, tuple(facts)) if key and facts else None

        return await self._store.read_rows(find)

    async def take_in(self, moved: MovedMemory) -> TakenMemory:
        return await self._store.write(lambda tables, _: self._take_in(tables, moved))

    async def forgotten(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        return await self._store.read_rows(
            lambda tables: sorted(each for owner, each in tables.facts.forgotten if owner == tenant and each > after)[
                :limit
            ]
        )

    async def take_forgotten(self, tenant: str, ids: Sequence[str]) -> None:
        def change(facts: FactTables) -> None:
            for its, row in facts.rows:
                if its.tenant == tenant and row.id in ids:
                    raise still_here(its.user, row.id)
            facts.forgotten |= dict.fromkeys((tenant, each) for each in ids)

        await self._store.write(lambda tables, _: change(tables.facts))

    def _versions(self, tables: Tables, tenant: str, user: str) -> list[Fact]:
        rows = [row for its, row in tables.facts.rows if (its.tenant, its.user) == (tenant, user)]
        return unpacked(rows, tables.known_key(tenant, subject_of(user)), self._cipher)

    def _take_in(self, tables: Tables, moved: MovedMemory) -> TakenMemory:
        tenant, user, facts = moved.tenant, moved.user, tables.facts
        if (tenant, moved.key) in tables.destroyed:
            return "forgotten"
        gone = {each for owner, each in facts.forgotten if owner == tenant}
        planned = intake(moved, self._versions(tables, tenant, user), gone)
        if planned.taken not in ("added", "grown"):
            return planned.taken
        known = next((key for key in tables.keys(tenant) if key.id == moved.key), None)
        if known is not None and known.salt != moved.salt:
            raise Conflict(f"the content key {moved.key} of {user!r} is another here")
        if known is None:
            tables.add_key(tenant, subject_of(user), Key(moved.key, moved.salt, secrets.token_bytes(32)))
        key = tables.key_for(tenant, subject_of(user))
        for fact in planned.add:
            owner = Owner(tenant, user, fact.space)
            facts.rows.append((owner, _ended(pack(fact, owner, key, self._cipher), fact)))
        ends = {fact.id: fact for fact in planned.end}
        facts.rows = [
            (its, _ended(row, ends[row.id]) if its.tenant == tenant and row.id in ends else row)
            for its, row in facts.rows
        ]
        return planned.taken

    def _apply(self, tables: Tables, change: Change) -> int | None:
        owner, facts, moved = change.owner, tables.facts, 0
        if change.due and facts.due.pop((owner.tenant, change.due), None) is None:
            return None
        keys = {operation_key(change, number) for number in range(len(change.operations))}
        if any(its.tenant == owner.tenant and row.by in keys for its, row in facts.rows):
            return None
        key = tables.key_for(owner.tenant, subject_of(owner.user))
        for number, op in enumerate(change.operations):
            place = about(key, op.kind, op.subject, op.attribute)
            known = [
                row
                for its, row in facts.rows
                if (its.tenant, its.user) == (owner.tenant, owner.user)
                and not row.ended_ms
                and (row.id == op.target if op.target else its == owner and row.about == place)
            ]
            revision = planned(change, number, known, key, self._cipher)
            added = [pack(fact, owner, key, self._cipher) for fact in revision.added]
            facts.rows += [(_replace(owner, space=row.space), row) for row in added]
            ended_ms = max((change.at_ms, *(fact.recorded_ms for fact in revision.added)))
            gone = {ended.id: ended for ended in revision.ended}
            facts.rows = [
                (its, _replace(row, ended_ms=ended_ms, why=e.why, replaced_by=e.replaced_by))
                if its.tenant == owner.tenant and (e := gone.get(row.id))
                else (its, row)
                for its, row in facts.rows
            ]
            moved += len(revision.added) + len(revision.ended)
        return moved


def _ended(row: FactRow, fact: Fact) -> FactRow:
    return _replace(row, ended_ms=fact.ended_ms, why=fact.why, replaced_by=fact.replaced_by)
