"""Checks of memory that moves: bit for bit, once, whole, and never what was forgotten."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core.errors import Conflict
from stanchion.core.fact import Fact, Operation, Owner
from stanchion.journal.memory import Change, Due, MovedMemory, subject_of
from stanchion.journal.moving import MovedSession, lift
from stanchion.journal.store import Store
from stanchion.testing.memory import MemoryStore
from stanchion.testing.store_driver import TENANT, Driver, finished, raises, same, true

ANN = Owner(TENANT, "ann", "desk")
_edit = msgspec.structs.replace


async def _say(store: Store, key: str, at_ms: int, value: str, *, owner: Owner = ANN, **fields: Any) -> None:
    asked: dict[str, Any] = {"subject": "user", "attribute": "city", "trust": "user", "source": "user", **fields}
    op = Operation(value=value, from_ms=at_ms // 10, **asked)
    await store.memories.apply(Change(owner=owner, key=key, at_ms=at_ms, operations=(op,)))


async def _life(store: Store) -> None:
    """Remember something of every kind, in two spaces: superseded, corrected, counted and retracted."""
    await _say(store, "k1", 100, "Paris", run="r1", place="3", confidence=0.123456789, secrecy="internal")
    await _say(store, "k2", 200, "Rome", vector=b"\0\0\x80?\xff\xfe")
    await _say(store, "k3", 210, "a note \U0001f600", kind="note", do="add", attribute="n", trust="untrusted")
    await _say(store, "k4", 220, "tea", attribute="drink", owner=_edit(ANN, space="lobby"), name="crm")
    for key, at_ms in (("k5", 230), ("k6", 240)):
        await _say(store, key, at_ms, "look, then refund", kind="procedure", attribute="refunds")
    rome = next(fact for fact in await store.memories.facts(ANN) if fact.value == "Rome")
    await _say(store, "k7", 300, "Roma", do="correct", target=rome.id, trust="trusted", source="reviewer", name="eve")
    tea = next(fact for fact in await store.memories.facts(Owner(TENANT, "ann", "")) if fact.value == "tea")
    await _say(store, "k8", 310, "", do="retract", target=tea.id, trust="trusted", owner=_edit(ANN, space=""))


async def _lifted(store: Store, user: str = "ann") -> MovedMemory:
    moved = await store.memories.lift(TENANT, user)
    if moved is None:
        raise AssertionError(f"nothing is remembered of {user}")
    return moved


async def _same_memory(one: Store, other: Store, user: str = "ann") -> None:
    """Fail unless both stores answer alike, at every moment in both times."""
    owner = Owner(TENANT, user, "")
    everything = await one.memories.facts(owner, history=True)
    same(list(await other.memories.facts(owner, history=True)), list(everything), "versions, in their order")
    for at_ms in sorted({fact.recorded_ms for fact in everything} | {fact.ended_ms for fact in everything}):
        for moment in (at_ms - 1, at_ms, at_ms + 1):
            left, right = [await each.memories.facts(owner, recorded_ms=max(moment, 1)) for each in (one, other)]
            same(list(right), list(left), f"believed at {moment}")
    left, right = [await each.memories.facts(ANN, kinds=("fact", "procedure"), limit=2) for each in (one, other)]
    same(list(right), list(left), "the newest of two kinds")
    same(list(await other.memories.users(TENANT)), list(await one.memories.users(TENANT)), "who is remembered")


async def memory_is_taken_in_and_goes_on(store: Store) -> None:
    """What another store remembers is here bit for bit; again changes nothing; what is said next ends what came."""
    source = MemoryStore()
    await _life(source)
    moved = await _lifted(source)
    same(await store.memories.take_in(moved), "added", "taken in")
    await _same_memory(source, store)
    same(await store.memories.take_in(moved), "known", "again")
    await _same_memory(source, store)
    same(await _lifted(store), moved, "what it is lifted as, key and salt and all")
    same(list(await store.memories.everyone(TENANT)), ["ann"], "of whom there is something")
    same(list(await store.memories.everyone(TENANT, after="ann")), [], "from behind her on")
    same(await store.memories.apply(Change(owner=ANN, key="k1", at_ms=900, operations=(Operation(),))), None, "a key")
    for each in (source, store):
        await _say(each, "k9", 400, "Oslo")
    await _same_memory(source, store)
    true("Oslo" in {fact.value for fact in await store.memories.facts(ANN)}, "it goes on")


async def it_leaves_as_it_was(store: Store) -> None:
    """What is remembered here is the same in another store; a user of whom nothing is remembered does not move."""
    await _life(store)
    other = MemoryStore()
    same(await other.memories.take_in(await _lifted(store)), "added", "taken in")
    await _same_memory(store, other)
    same(await store.memories.lift(TENANT, "bob"), None, "of nobody")
    same(await store.memories.lift("other", "ann"), None, "of another tenant")


async def memory_that_grew_is_taken_in_again(store: Store) -> None:
    """What was added elsewhere, and what ended there, comes along; what is here further on stays; both is refused whole."""
    source = MemoryStore()
    await _say(source, "k1", 100, "Paris")
    early = await _lifted(source)
    await store.memories.take_in(early)
    await _say(source, "k2", 200, "Rome")
    late = await _lifted(source)
    same(await store.memories.take_in(late), "grown", "more")
    await _same_memory(source, store)
    same(await store.memories.take_in(early), "known", "less")
    await _same_memory(source, store)
    await _say(store, "k3", 300, "Bern")
    here = await store.memories.facts(ANN, history=True)
    same(await store.memories.take_in(late), "known", "it went on here alone")
    await _say(source, "k4", 310, "Kiel")
    await raises(Conflict, store.memories.take_in(await _lifted(source)), "it went on in both")
    same(list(await store.memories.facts(ANN, history=True)), list(here), "nothing was written")


async def other_facts_of_a_user_are_refused(store: Store) -> None:
    """Who is remembered here is not mixed with who is remembered there, nor a version with another of its id."""
    source = MemoryStore()
    await _say(source, "k1", 100, "Paris")
    await _say(store, "mine", 50, "Kiel")
    moved = await _lifted(source)
    await raises(Conflict, store.memories.take_in(moved), "other facts")
    same([fact.value for fact in await store.memories.facts(ANN, history=True)], ["Kiel"], "what is here")
    bob = _edit(moved, user="bob")
    same(await store.memories.take_in(bob), "added", "of somebody else")
    wrong = _edit(bob, facts=tuple(_edit(fact, value="Rome") for fact in bob.facts))
    await raises(Conflict, store.memories.take_in(wrong), "another version of this id")


async def what_was_forgotten_here_does_not_come_back(store: Store) -> None:
    """Neither one fact, with all its versions, nor a user whose key was destroyed; nor what was learned of him elsewhere since."""
    source = MemoryStore()
    await _life(source)
    moved = await _lifted(source)
    await store.memories.take_in(moved)
    roma = next(fact for fact in await store.memories.facts(ANN) if fact.value == "Roma")
    gone = await store.memories.forget(TENANT, "ann", ids=(roma.id,))
    true(gone > 2, "versions")
    same(len(await store.memories.forgotten(TENANT)), gone, "noted")
    same(await store.memories.take_in(moved), "known", "one fact was forgotten")
    true(not {"Paris", "Rome", "Roma"} & await _values(store), "it stays so")
    await _say(source, "k9", 400, "coffee", attribute="drink")
    same(await store.memories.take_in(await _lifted(source)), "grown", "what was learned since")
    same({"Paris", "Rome", "Roma", "coffee"} & await _values(store), {"coffee"}, "and that alone")
    await store.destroy_key(TENANT, subject_of("ann"))
    await store.memories.forget(TENANT, "ann")
    await _say(source, "k10", 500, "milk", attribute="drink")
    for each in (moved, await _lifted(source)):
        same(await store.memories.take_in(each), "forgotten", "all of her was")
    same(await _values(store), set[str](), "it stays so")


async def who_was_known_here_is_erased_with_what_came(store: Store) -> None:
    """A user with a key here, and nothing remembered, keeps it; the key that came is destroyed with it."""
    source = MemoryStore()
    await _life(source)
    own = await store.key_for(TENANT, subject_of("ann"))
    moved = await _lifted(source)
    same(await store.memories.take_in(moved), "added", "taken in")
    await _same_memory(source, store)
    same(await store.memories.take_in(moved), "known", "again")
    same((await _lifted(store)).key, own.id, "what it lies under")
    await store.destroy_key(TENANT, subject_of("ann"))
    await store.memories.forget(TENANT, "ann")
    same(await store.memories.take_in(moved), "forgotten", "after she was erased")


async def what_was_forgotten_elsewhere_must_be_forgotten_here(store: Store) -> None:
    """A file that says that a fact was forgotten is refused while the fact is here, and none of its ids is noted."""
    await _say(store, "k1", 100, "Paris")
    (fact,) = await store.memories.facts(ANN)
    await raises(Conflict, store.memories.take_forgotten(TENANT, ["fact_x", fact.id]), "it is here")
    same(list(await store.memories.forgotten(TENANT)), [], "noted")
    await store.memories.forget(TENANT, "ann", ids=(fact.id,))
    await store.memories.take_forgotten(TENANT, ["fact_x", fact.id])
    same(list(await store.memories.forgotten(TENANT)), sorted(["fact_x", fact.id]), "noted")
    same(list(await store.memories.forgotten(TENANT, limit=1)), [min("fact_x", fact.id)], "the first")
    same(list(await store.memories.forgotten(TENANT, after=max("fact_x", fact.id))), [], "behind the last")
    same(list(await store.memories.forgotten("other")), [], "of another tenant")


async def what_is_to_be_learned_moves_with_its_run(store: Store) -> None:
    """Once: a run that is here already brings nothing, whether it was learned or not."""
    source = MemoryStore()
    due = Due(TENANT, "r1", "support", "ann", 0)
    await source.memories.expect(due)
    await source.memories.later(TENANT, "r1", in_ms=60_000)
    driver = await Driver.driving(source, "r1", session="s")
    await driver.append(finished(), status="ended", release=True)
    (left,) = await source.memories.dues(TENANT)
    same(left.tries, 1, "tries")
    moved = await _session(source, left)
    same(await store.moving.take_in(moved), "added", "taken in")
    same(list(await store.memories.due(["support"])), [left], "due here")
    await store.memories.drop(TENANT, "r1")
    same(await store.moving.take_in(moved), "known", "again")
    same(list(await store.memories.dues(TENANT)), [], "it was learned")


async def _session(store: Store, due: Due) -> MovedSession:
    rows = list(reversed(await store.runs(TENANT, session="s", limit=10)))
    keys = {key.id: key for key in await store.moving.keys(TENANT)}
    return await lift(store, rows, await store.session(TENANT, "s"), keys, (), (due,))


async def _values(store: Store) -> set[str]:
    facts: list[Fact] = list(await store.memories.facts(Owner(TENANT, "ann", ""), history=True))
    return {fact.value for fact in facts}


CHECKS = (
    memory_is_taken_in_and_goes_on,
    it_leaves_as_it_was,
    memory_that_grew_is_taken_in_again,
    other_facts_of_a_user_are_refused,
    what_was_forgotten_here_does_not_come_back,
    who_was_known_here_is_erased_with_what_came,
    what_was_forgotten_elsewhere_must_be_forgotten_here,
    what_is_to_be_learned_moves_with_its_run,
)
