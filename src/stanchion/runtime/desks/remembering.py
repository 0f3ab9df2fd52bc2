"""What is remembered of users, for people: list it, correct it, take it along, and have it forgotten.

Forgetting is an erasure: versions of facts, their vectors, what journals hold of recalled memory and of the runs that looked for facts. What
the user said in conversations stays, until the user's content is erased (`Runtime.erase`), which forgets as well.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence

import msgspec

from stanchion.core.cosine import packed
from stanchion.core.errors import Conflict, InputError, ModelError, NotFound
from stanchion.core.fact import MAX_NAME_CHARS, MAX_VALUE_CHARS, Fact, Kind, Operation, Owner
from stanchion.core.remembered import search
from stanchion.engine import embed
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.memory import beside
from stanchion.engine.remember import Rememberer
from stanchion.guard.redact import Redactor
from stanchion.journal.memory import ALL, MOST, Change, recalled_subject, subject_of
from stanchion.journal.store import Store
from stanchion.loop.remember import embedded, named
from stanchion.model.embedding import Embedder
from stanchion.runtime.name import checked

log = logging.getLogger("stanchion.runtime")

KINDS: tuple[Kind, ...] = ("fact", "note", "episode", "procedure")


class FactView(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a fact, as it is shown. Times are milliseconds since 1970 UTC; an end of 0 is open."""

    id: str
    user: str
    space: str
    kind: Kind
    subject: str
    attribute: str
    value: str
    confidence: float
    trust: str
    """ "trusted", "user" or "untrusted": that of the text in which it stands."""
    source: str
    name: str
    secrecy: str
    run: str
    """The run in which it was said; "" where a person wrote it."""
    place: str
    valid_from_ms: int
    valid_to_ms: int
    recorded_ms: int
    ended_ms: int
    """When it was not believed any more; 0: it is."""
    why: str
    """What ended it: "superseded", "ended", "edited", "retracted", "counted"."""
    replaced_by: str
    count: int


class RememberedView(msgspec.Struct, frozen=True):
    """That there is something of a user, in one space."""

    user: str
    space: str
    facts: int
    updated_ms: int


class Forgotten(msgspec.Struct, frozen=True):
    """What forgetting took."""

    versions: int
    journals: bool
    """Whether journals held recalled memory, which is erased as well."""


class Remembering:
    """What is remembered in one store."""

    def __init__(
        self,
        store: Store,
        agents: Mapping[str, BoundAgent],
        clock: Clock,
        redactor: Redactor,
        erased: Callable[[], None],
    ) -> None:
        """`erased` is told when content was erased."""
        self._store = store
        self._clock = clock
        self._redactor = redactor
        self._erased = erased
        self._agents = agents
        self.rememberer: Rememberer | None = None
        """What learns here; None: this process drives nothing."""

    async def users(self, *, tenant: str = "default", after: str = "", limit: int = 50) -> Sequence[RememberedView]:
        """List who is remembered, by name, from behind a user on."""
        rows = await self._store.memories.users(tenant, after=after, limit=limit)
        return [RememberedView(row.user, row.space, row.facts, row.updated_ms) for row in rows]

    async def ls(
        self,
        user: str,
        *,
        tenant: str = "default",
        space: str = "",
        kind: str = "",
        query: str = "",
        as_of_ms: int = 0,
        known_at_ms: int = 0,
        history: bool = False,
        limit: int = 1_000,
    ) -> Sequence[FactView]:
        """List what is remembered of a user: what holds and is believed now, newest last; or what answers a `query`, best first.

        `as_of_ms`: what held then. `known_at_ms`: what was believed then. `history`: all versions. Raises `InputError`.
        """
        if kind and kind not in KINDS:
            raise InputError(f"must be one of {', '.join(KINDS)}, not {kind!r}", field="kind")
        owner = Owner(tenant, _user(user), checked(space, "space"))
        kinds = (kind,) if kind else ()
        most = max(MOST, limit)
        found = await self._store.memories.facts(
            owner, recorded_ms=known_at_ms, history=history, kinds=kinds, limit=most
        )
        at_ms = as_of_ms or self._clock.now_ms()
        facts = [fact for fact in found if history or fact.holds(at_ms)]
        if query:
            vector = await self._vector(query, facts)
            facts = await beside(len(facts), search, facts, query, vector, at_ms)
        return [_view(fact, user) for fact in (facts[:limit] if query else facts[-limit:])]

    async def show(self, id: str, *, user: str, tenant: str = "default") -> Sequence[FactView]:
        """Show a version and all others about the same, oldest first. Raises `NotFound`."""
        facts = await self._versions(user, tenant)
        one = next((fact for fact in facts if fact.id == id), None)
        if one is None:
            raise _unknown(id)
        return [_view(fact, user) for fact in facts if fact.space == one.space and fact.about == one.about]

    async def add(
        self,
        attribute: str,
        value: str,
        *,
        user: str,
        space: str,
        subject: str = "user",
        from_ms: int = 0,
        to_ms: int = 0,
        by: str = "",
        tenant: str = "default",
    ) -> FactView:
        """Write down a fact by hand: it is trusted, and replaces what was known of the attribute. Raises `InputError`."""
        if not checked(space, "space"):
            raise InputError(
                "is missing; it is the name of an agent, or the space that its Memory names", field="space"
            )
        now_ms = self._clock.now_ms()
        if to_ms and to_ms <= (from_ms or now_ms):
            raise InputError("must lie behind from_ms (now, if that is left out)", field="to_ms")
        op = Operation(
            subject=_name(subject, "subject"), attribute=_name(attribute, "attribute"), value=self._value(value),
            trust="trusted", source="reviewer", name=by, from_ms=from_ms or now_ms, to_ms=to_ms,
        )  # fmt: skip
        owner, key = Owner(tenant, _user(user), space), f"hand/{secrets.token_urlsafe(12)}"
        await self._apply(owner, key, op)
        facts = await self._store.memories.facts(owner)
        same = [f for f in facts if (f.attribute, f.subject, f.value) == (op.attribute, op.subject, op.value)]
        return _view(next((fact for fact in same if fact.by.startswith(key)), same[-1]), user)

    async def edit(self, id: str, value: str, *, user: str, by: str = "", tenant: str = "default") -> FactView:
        """Give a fact that was wrong its right value; the old one stays as what was believed. Raises `NotFound`, `Conflict`."""
        old = await self._believed(id, user, tenant)
        key = f"hand/{secrets.token_urlsafe(12)}"
        op = Operation(
            do="correct", target=id, value=self._value(value), trust="trusted", source="reviewer", name=by,
            subject=old.subject, attribute=old.attribute,
        )  # fmt: skip
        await self._apply(Owner(tenant, user, old.space), key, op)
        facts = await self._store.memories.facts(Owner(tenant, user, ""))
        return _view(next((fact for fact in facts if fact.by.startswith(key)), old), user)

    async def retract(self, id: str, *, user: str, tenant: str = "default") -> None:
        """Believe a fact no more; it stays on record as what was believed. Raises `NotFound`, `Conflict`."""
        await self._believed(id, user, tenant)
        op = Operation(do="retract", target=id, trust="trusted", source="reviewer")
        await self._apply(Owner(tenant, user, ""), f"hand/{secrets.token_urlsafe(12)}", op)

    async def export(self, user: str, *, tenant: str = "default") -> Sequence[FactView]:
        """Give all that is stored of a user's memory, with all versions, oldest first."""
        return [_view(fact, user) for fact in await self._versions(user, tenant)]

    async def forget(self, user: str, *, id: str = "", tenant: str = "default") -> Forgotten:
        """Erase what is remembered of a user for ever; with an `id` all versions about the same only.

        What journals hold of recalled memory is erased in both cases: it may hold what is to be forgotten. Raises `NotFound`.
        """
        user = _user(user)
        if id and not any(fact.id == id for fact in await self._versions(user, tenant)):
            raise _unknown(id)
        journals = await self._store.destroy_key(tenant, recalled_subject(user))
        if not id:  # (the key first: what is written at this moment opens no more)
            await self._store.destroy_key(tenant, subject_of(user))
        versions = await self._store.memories.forget(tenant, user, ids=(id,) if id else ())
        self._erased()
        return Forgotten(versions, journals)

    async def learn(self) -> None:
        """Wait until all is learned from runs that have ended. A process that drives learns by itself; nothing has to wait for it."""
        if self.rememberer is not None:
            await self.rememberer.settle()

    async def _apply(self, owner: Owner, key: str, op: Operation) -> None:
        op = await self._embedded(op, owner.space)
        change = Change(owner=owner, key=key, at_ms=self._clock.now_ms(), operations=(op,))
        await self._store.memories.apply(change)

    async def _versions(self, user: str, tenant: str) -> Sequence[Fact]:
        """All there are, in all spaces, oldest first."""
        return await self._store.memories.facts(Owner(tenant, _user(user), ""), history=True, limit=ALL)

    async def _believed(self, id: str, user: str, tenant: str) -> Fact:
        one = next((fact for fact in await self._versions(user, tenant) if fact.id == id), None)
        if one is None:
            raise _unknown(id)
        if one.ended_ms:
            now = f"; {one.replaced_by} stands in its place" if one.replaced_by else ""
            raise Conflict(f"this version of the fact is not believed any more ({one.why}){now}", field="id")
        return one

    async def _vector(self, query: str, facts: Sequence[Fact]) -> Sequence[float]:
        embedder = self._embedder("") if any(fact.vector for fact in facts) else None
        if embedder is None:
            return ()
        return await _vector(embedder, query)

    async def _embedded(self, op: Operation, space: str) -> Operation:
        embedder, text = self._embedder(space), embedded(op)
        vector = await _vector(embedder, text) if embedder is not None and text else ()
        return msgspec.structs.replace(op, vector=packed(vector)) if vector else op

    def _embedder(self, space: str) -> Embedder | None:
        """Find the embedder of the agents that remember in a space (of any, where none is named), if it costs nothing: what is asked for by
        hand belongs to no run whose budget could pay."""
        for agent in self._agents.values():
            rules = agent.bundle.memory
            if rules is None or rules.embeddings is None or not rules.embeddings.is_free:
                continue
            if space in ("", rules.space) and agent.embedder is not None:
                return agent.embedder
        return None

    def _value(self, value: str) -> str:
        text = self._redactor.text(value).strip()
        if not text:
            raise InputError("is empty; retract the fact, or forget it, if nothing is right", field="value")
        if len(text) > MAX_VALUE_CHARS:
            raise InputError(f"is longer than {MAX_VALUE_CHARS:,} characters", field="value")
        if "\0" in text:
            raise InputError("holds a NUL character", field="value")
        return text


async def _vector(embedder: Embedder, text: str) -> Sequence[float]:
    """Embed a text; empty where that cannot be done: words still find what they wrote."""
    try:
        return (await embed.embedded(embedder, [text], embed.TOOL_S)).vectors[0]
    except ModelError as error:
        log.warning("memory goes by words alone: %s", error)
        return ()


def _user(user: str) -> str:
    if not checked(user, "user"):
        raise InputError("is missing; say whose memory is meant", field="user")
    return user


def _name(text: str, field: str) -> str:
    name = named(text)
    if not name:
        raise InputError(f"use at most five plain words and {MAX_NAME_CHARS} characters, as in: home city", field=field)
    return name


def _unknown(id: str) -> NotFound:
    return NotFound(
        f"nothing is remembered of this user as {id!r}; `stanchion memory ls --user ..` lists it", field="id"
    )


def _view(fact: Fact, user: str) -> FactView:
    told = {name: getattr(fact, name) for name in FactView.__struct_fields__ if name != "user"}
    return FactView(user=user, **told)
