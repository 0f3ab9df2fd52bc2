"""The port of memory: what is remembered of users, and of which runs it is still to be learned. Part of the store's (`Store.memories`).

A version of a fact is a row with its times and a body. Bodies are content: sealed under a key of their own (`subject_of`). What
journals hold of recalled memory lies under another (`recalled_subject`), so that forgetting takes both and leaves what the user said. What an operation does
to the rows is `core.fact`; a store applies all operations of a change at once, or none, and once under each key.

A user's memory moves between stores whole (`MovedMemory`). Ids of versions that were forgotten are kept, and nothing else of them, so that none comes back
with an older file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from stanchion.core.chain import commitment
from stanchion.core.errors import Conflict
from stanchion.core.fact import Fact, Operation, Owner, Revision, key_of, revise
from stanchion.journal.record import Cipher
from stanchion.journal.store import Key

MOST = 10_000
"""Versions that one reading gives, the newest."""
ALL = 1 << 62
"""As a limit: none."""
DANGLING_MS = 24 * 3_600_000
"""A run that is expected and did not begin within so long is not waited for."""
_with = msgspec.structs.replace


def subject_of(user: str) -> str:
    """Name the subject of the content key under which a user's memory lies. No user has a slash in the name."""
    return f"{user}/memory"


def recalled_subject(user: str) -> str:
    """Name the subject of the content key under which journals hold what was recalled of a user, or looked for."""
    return f"{user}/recalled"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Operations that are applied together, once. `due`: the run that they were learned from; it is not due any more then."""

    owner: Owner
    key: str
    at_ms: int
    """When it is believed from."""
    operations: tuple[Operation, ...]
    due: str = ""


class Due(msgspec.Struct, frozen=True):
    """A run that has ended and of which is to be learned."""

    tenant: str
    run: str
    agent: str
    user: str
    tries: int


class Remembered(msgspec.Struct, frozen=True):
    """That there is something of a user."""

    user: str
    space: str
    facts: int
    """Versions that are believed."""
    updated_ms: int


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A version as it is read: its body, which never changes, and what is not in it."""

    body: bytes
    key: str
    space: str
    ended_ms: int = 0
    why: str = ""
    replaced_by: str = ""


class FactRow(Stored, frozen=True, kw_only=True):
    """A version as it lies there."""

    id: str
    kind: str
    about: bytes
    recorded_ms: int
    by: str


class MovedMemory(msgspec.Struct, frozen=True):
    """All that is remembered of a user, as it moves between stores: opened, since the store that takes it in seals it anew."""

    tenant: str
    user: str
    key: str
    """Id of the content key that it lay under: where that was destroyed, none of it is taken in."""
    salt: bytes
    facts: tuple[Fact, ...] = ()
    """All versions, in the order in which they were written."""


TakenMemory: TypeAlias = Literal["added", "grown", "known", "forgotten"]
"""There was none of the user; there was, and has more now; all of it was there; all of it was forgotten here, and stays so."""


class Memories(Protocol):
    """Where memory is kept. Every method may raise `JournalError`."""

    async def apply(self, change: Change) -> int | None:
        """Apply a change; give how many versions it wrote or ended.

        None: its key was applied before, or the run that it is due for is not due (any more).
        """
        ...

    async def facts(
        self,
        owner: Owner,
        *,
        recorded_ms: int = 0,
        history: bool = False,
        kinds: Collection[str] = (),
        limit: int = MOST,
    ) -> Sequence[Fact]:
        """List what is believed of a user (or was, at `recorded_ms`), oldest first; with `history` all versions.

        Space "" is all spaces, `limit` the newest so many of the kinds that are asked for.
        """
        ...

    async def users(self, tenant: str, *, after: str = "", limit: int = 50) -> Sequence[Remembered]:
        """List who is remembered, by name, from behind a user on."""
        ...

    async def forget(self, tenant: str, user: str, *, ids: Collection[str] = ()) -> int:
        """Erase versions for ever; give how many. With `ids`: those, and all others about the same. Without: all, and what is due."""
        ...

    async def expect(self, due: Due) -> None:
        """Note before a run begins that there is to be learned from it."""
        ...

    async def due(self, agents: Collection[str], *, limit: int = 20) -> Sequence[Due]:
        """List expected runs of these agents that have ended, the longest waiting first. Drops those that never began."""
        ...

    async def later(self, tenant: str, run: str, *, in_ms: int) -> None:
        """Put a run off, as one more try."""
        ...

    async def drop(self, tenant: str, run: str) -> None:
        """Learn nothing (more) from a run."""
        ...

    async def dues(self, tenant: str) -> Sequence[Due]:
        """List the runs of which is to be learned, whether they have ended or not."""
        ...

    async def everyone(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        """List users of whom there is any version, by name, from behind one on."""
        ...

    async def lift(self, tenant: str, user: str) -> MovedMemory | None:
        """Read all of a user for moving, as it is at one moment. None: there is nothing that can be read."""
        ...

    async def take_in(self, moved: MovedMemory) -> TakenMemory:
        """Write all of a user, or what is missing of it, as `intake` says: whole, or not at all.

        Raises `Conflict` for what is here with another history, or has gone on here.
        """
        ...

    async def forgotten(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        """List ids of versions that were forgotten, in their order, from behind one on."""
        ...

    async def take_forgotten(self, tenant: str, ids: Sequence[str]) -> None:
        """Note ids that were forgotten in another store. Raises `Conflict` where one of them is still here; then none is noted."""
        ...


def about(key: Key, kind: str, subject: str, attribute: str) -> bytes:
    """What a row is about, so that only who has the key's salt can tell."""
    return commitment(key.salt, key_of(kind, subject, attribute).encode())


def pack(fact: Fact, owner: Owner, key: Key, cipher: Cipher) -> FactRow:
    """Make the row of a new version."""
    bare = _with(fact, ended_ms=0, why="", replaced_by="", space="")
    return FactRow(
        body=cipher.seal(key, msgspec.msgpack.encode(bare)),
        key=key.id,
        space=fact.space or owner.space,
        id=fact.id,
        kind=fact.kind,
        about=about(key, fact.kind, fact.subject, fact.attribute),
        recorded_ms=fact.recorded_ms,
        by=fact.by,
    )


_decode = msgspec.msgpack.Decoder(Fact).decode


def unpack(row: Stored, key: Key, cipher: Cipher) -> Fact:
    """Read a row."""
    fact = _decode(cipher.open(key, row.body))
    msgspec.structs.force_setattr(fact, "space", row.space)  # (it is nobody else's yet)
    if row.ended_ms:
        msgspec.structs.force_setattr(fact, "ended_ms", row.ended_ms)
        msgspec.structs.force_setattr(fact, "why", row.why)
        msgspec.structs.force_setattr(fact, "replaced_by", row.replaced_by)
    return fact


def unpacked(rows: Iterable[Stored], key: Key | None, cipher: Cipher) -> list[Fact]:
    """Read the rows that lie under a key. What lies under one that was destroyed is nobody's any more."""
    return [] if key is None else [unpack(row, key, cipher) for row in rows if row.key == key.id]


def operation_key(change: Change, number: int) -> str:
    """Name an operation of a change."""
    return f"{change.key}#{number}"


def planned(change: Change, number: int, known: Iterable[Stored], key: Key, cipher: Cipher) -> Revision:
    """Say what an operation of a change does to the rows that are believed."""
    op = change.operations[number]
    return revise(
        unpacked(known, key, cipher), op, key=operation_key(change, number), now_ms=change.at_ms
    )  # fmt: skip


class Intake(msgspec.Struct, frozen=True):
    """What taking in a user's memory comes to: versions to add, and versions that are here and have ended since."""

    taken: TakenMemory
    add: tuple[Fact, ...] = ()
    end: tuple[Fact, ...] = ()


def intake(moved: MovedMemory, here: Iterable[Fact], gone: Collection[str]) -> Intake:
    """Compare what is to be taken in with what is here. `gone`: ids that were forgotten here. Raises `Conflict`.

    What is here may be behind the file or further on than it. Where both went on there is no telling what is so, and which was said first.
    """
    known = {fact.id: fact for fact in here}
    add = tuple(fact for fact in moved.facts if fact.id not in known and fact.id not in gone)
    end: list[Fact] = []
    behind = len(known.keys() - {fact.id for fact in moved.facts}) > 0
    for fact in moved.facts:
        mine = known.get(fact.id)
        if mine is None:
            continue
        if _open(mine) != _open(fact) or (mine.ended_ms and fact.ended_ms and mine != fact):
            raise Conflict(
                f"the fact {fact.id} of user {moved.user!r} is another in this store; import into a store without it"
            )
        if fact.ended_ms and not mine.ended_ms:
            end.append(fact)
        behind = behind or (mine.ended_ms > 0 and not fact.ended_ms)
    if behind and (add or end):
        raise Conflict(
            f"what is remembered of user {moved.user!r} is in this store already and has gone on here; "
            "import into a store without it, or go on here"
        )
    if add or end:
        return Intake("grown" if known else "added", add, tuple(end))
    return Intake("known" if known or not moved.facts else "forgotten")


def still_here(user: str, id: str) -> Conflict:
    """Say that a version was forgotten in the store that a file comes from, and not in this one."""
    return Conflict(
        f"the fact {id} of user {user!r} was forgotten where the file comes from, and is still here; forget it here first "
        f"(`stanchion memory forget --user {user} --id {id}`), then import again"
    )


def _open(fact: Fact) -> Fact:
    """A version as it was written, before anything ended it."""
    return _with(fact, ended_ms=0, why="", replaced_by="")
