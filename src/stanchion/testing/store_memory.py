"""Checks of memory: two times, once for each key, whole or not at all, and gone when it is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

from stanchion.core.fact import Fact, Operation, Owner
from stanchion.journal.memory import ALL, Change, Due, subject_of
from stanchion.journal.store import Store
from stanchion.testing.store_driver import TENANT, Driver, finished, same, true

ANN = Owner(TENANT, "ann", "desk")


def _city(value: str, from_ms: int, **fields: Any) -> Operation:
    asked: dict[str, Any] = {"subject": "user", "attribute": "city", "trust": "user", "source": "user", **fields}
    return Operation(value=value, from_ms=from_ms, **asked)


def _change(key: str, at_ms: int, *operations: Operation, owner: Owner = ANN, due: str = "") -> Change:
    return Change(owner=owner, key=key, at_ms=at_ms, operations=operations, due=due)


def _told(facts: Any) -> list[tuple[str, int, int]]:
    found: list[Fact] = list(facts)
    return sorted((fact.value, fact.valid_from_ms, fact.valid_to_ms) for fact in found)


async def a_fact_comes_back(store: Store) -> None:
    """As it was put, under its tenant, user and space only."""
    op = _city(
        "Paris", 5, confidence=0.5, name="crm", secrecy="internal", run="r1", place="3", to_ms=9, vector=b"\0\0\x80?"
    )
    same(await store.memories.apply(_change("k1", 100, op)), 1, "written")
    (fact,) = await store.memories.facts(ANN)
    said = (fact.subject, fact.attribute, fact.value, fact.confidence, fact.trust, fact.source, fact.name, fact.secrecy)
    same(said, ("user", "city", "Paris", 0.5, "user", "user", "crm", "internal"), "what it says")
    same((fact.run, fact.place, fact.recorded_ms, fact.vector), ("r1", "3", 100, b"\0\0\x80?"), "where it is from")
    same((fact.valid_from_ms, fact.valid_to_ms, fact.ended_ms), (5, 9, 0), "when it holds")
    same(list(await store.memories.facts(Owner(TENANT, "ann", ""))), [fact], "of all spaces")
    for other in (Owner(TENANT, "bob", "desk"), Owner("other", "ann", "desk"), Owner(TENANT, "ann", "lobby")):
        same(list(await store.memories.facts(other)), [], f"of {other}")
    same(list(await store.memories.facts(ANN, kinds=("note",))), [], "of another kind")
    same([(row.user, row.space, row.facts, row.updated_ms) for row in await store.memories.users(TENANT)],
         [("ann", "desk", 1, 100)], "who is remembered")  # fmt: skip
    same(list(await store.memories.users(TENANT, after="ann")), [], "from behind a user")


async def a_contradiction_ends_what_was_known(store: Store) -> None:
    """In both times: what was believed before can still be read, and what holds is never told twice."""
    for key, at_ms, op in (
        ("k1", 100, _city("Paris", 10)),
        ("k2", 200, _city("Rome", 60)),
        ("k3", 300, _city("Lyon", 30)),
    ):
        await store.memories.apply(_change(key, at_ms, op))
    now = [("Lyon", 30, 60), ("Paris", 10, 30), ("Rome", 60, 0)]
    same(_told(await store.memories.facts(ANN)), now, "believed now")
    same(
        _told(await store.memories.facts(ANN, recorded_ms=250)), [("Paris", 10, 60), ("Rome", 60, 0)], "believed at 250"
    )
    same(_told(await store.memories.facts(ANN, recorded_ms=150)), [("Paris", 10, 0)], "believed at 150")
    same(_told(await store.memories.facts(ANN, recorded_ms=99)), [], "believed at 99")
    everything = await store.memories.facts(ANN, history=True)
    same(len(everything), 5, "versions")
    whys = {fact.why for fact in everything}
    same(whys, {"", "superseded"}, "why they ended")


async def a_change_happens_once(store: Store) -> None:
    """Under its key, also where many try at once; and the fact that is known already is not written again."""
    changes = (store.memories.apply(_change("k1", 100, _city("Paris", 10))) for _ in range(6))
    same(sorted(await asyncio.gather(*changes), key=str), [1, None, None, None, None, None], "applied once")
    await store.memories.apply(_change("k2", 200, _city("Rome", 60)))
    same(await store.memories.apply(_change("k1", 300, _city("Paris", 10))), None, "again, later")
    same(await store.memories.apply(_change("k3", 300, _city("Rome", 70))), 0, "what is known")
    same(_told(await store.memories.facts(ANN)), [("Paris", 10, 60), ("Rome", 60, 0)], "believed")


async def many_at_once_leave_one_truth(store: Store) -> None:
    """Changes of one attribute by many at once: one value holds at any time."""
    changes = (store.memories.apply(_change(f"k{n}", 100 + n, _city(f"c{n}", 10 + n))) for n in range(12))
    await asyncio.gather(*changes)
    facts = await store.memories.facts(ANN)
    for moment in range(10, 30):
        held = [fact.value for fact in facts if fact.holds(moment)]
        same(held, [f"c{min(moment - 10, 11)}"], f"at {moment}")


async def less_trust_never_ends_more(store: Store) -> None:
    """What a page said stands beside what the user said."""
    await store.memories.apply(_change("k1", 100, _city("Paris", 10)))
    page = _city("Rome", 20, trust="untrusted", source="tool", name="read_page")
    end = Operation(do="end", subject="user", attribute="city", from_ms=30)
    await store.memories.apply(_change("k2", 200, page, end))
    found = sorted((fact.value, fact.trust, fact.valid_to_ms) for fact in await store.memories.facts(ANN))
    same(found, [("Paris", "user", 0), ("Rome", "untrusted", 30)], "believed")


async def a_version_is_corrected_or_retracted(store: Store) -> None:
    """By its id, and by nobody under another user."""
    await store.memories.apply(_change("k1", 100, _city("Paris", 10)))
    (fact,) = await store.memories.facts(ANN)
    right = Operation(do="correct", target=fact.id, value="Parma", trust="trusted", source="reviewer", name="eve")
    bob = Owner(TENANT, "bob", "desk")
    same(await store.memories.apply(_change("k2", 200, right, owner=bob)), 0, "of another user")
    same(await store.memories.apply(_change("k3", 200, right)), 2, "corrected")
    (fact,) = await store.memories.facts(ANN)
    same((fact.value, fact.valid_from_ms, fact.source, fact.name), ("Parma", 10, "reviewer", "eve"), "the right one")
    same(_told(await store.memories.facts(ANN, recorded_ms=150)), [("Paris", 10, 0)], "what was believed")
    gone = Operation(do="retract", target=fact.id, trust="trusted")
    same(await store.memories.apply(_change("k4", 300, gone)), 1, "retracted")
    same(list(await store.memories.facts(ANN)), [], "believed")


async def forgetting_takes_all_versions(store: Store) -> None:
    """Of what is about the same, or all of a user; and nothing of others."""
    bob = Owner(TENANT, "bob", "desk")
    await store.memories.apply(_change("k1", 100, _city("Paris", 10), _city("tea", 10, attribute="drink")))
    await store.memories.apply(_change("k2", 200, _city("Rome", 60)))
    await store.memories.apply(_change("k3", 100, _city("Oslo", 10), owner=bob))
    rome = next(fact for fact in await store.memories.facts(ANN) if fact.value == "Rome")
    same(await store.memories.forget(TENANT, "bob", ids=(rome.id,)), 0, "of another user")
    same(await store.memories.forget(TENANT, "ann", ids=(rome.id,)), 3, "forgotten")
    same([f.value for f in await store.memories.facts(ANN, history=True)], ["tea"], "left of hers")
    same(await store.memories.forget(TENANT, "ann"), 1, "the rest")
    same(list(await store.memories.facts(ANN, history=True)), [], "left of hers")
    same([f.value for f in await store.memories.facts(bob)], ["Oslo"], "his")
    await store.memories.apply(_change("k9", 400, _city("Bern", 10)))
    same(_told(await store.memories.facts(ANN)), [("Bern", 10, 0)], "she may be remembered again")


async def what_lies_under_a_destroyed_key_is_gone(store: Store) -> None:
    """The content key of a user's memory opens its bodies."""
    await store.memories.apply(_change("k1", 100, _city("Paris", 10)))
    true(await store.destroy_key(TENANT, subject_of("ann")), "destroyed")
    same(list(await store.memories.facts(ANN, history=True)), [], "left")


async def what_is_to_be_learned_is_due_when_its_run_ends(store: Store) -> None:
    """Not before, for the agents asked about only; learned once, or not at all."""
    memories, due = store.memories, Due(TENANT, "r1", "support", "ann", 0)
    await memories.expect(due)
    await memories.expect(due)
    driver = await Driver.driving(store, "r1")
    same(list(await memories.due(["support"])), [], "while it runs")
    await driver.append(finished(), status="ended", release=True)
    same(list(await memories.due(["other"])), [], "of other agents")
    same(list(await memories.due(["other", "support"])), [due], "when it has ended")
    await memories.later(TENANT, "r1", in_ms=60_000)
    same(list(await memories.due(["support"])), [], "put off")
    await memories.later(TENANT, "r1", in_ms=0)
    (again,) = await memories.due(["support"])
    same(again.tries, 2, "tries")
    changes = (memories.apply(_change("k1", 100, _city("Paris", 10), due="r1")) for _ in range(4))
    same(sorted(await asyncio.gather(*changes), key=str), [1, None, None, None], "learned once")
    same(list(await memories.due(["support"])), [], "not due any more")
    same(await memories.apply(_change("k2", 100, _city("Rome", 20), due="r1")), None, "learned again")
    await memories.expect(Due(TENANT, "r2", "support", "ann", 0))
    await memories.forget(TENANT, "ann")
    same(await memories.apply(_change("k3", 100, _city("Rome", 20), due="r2")), None, "after it was forgotten")
    await memories.expect(due)
    await memories.drop(TENANT, "r1")
    same(list(await memories.due(["support"])), [], "dropped")


async def of_many_the_newest_are_listed(store: Store) -> None:
    """In the order in which they were written; a limit counts those of the kinds that are asked for."""
    ops = [
        Operation(
            do="add", kind="note" if n % 4 else "fact", attribute=f"a{n}", value=f"v{n}", trust="user", from_ms=10
        )
        for n in range(240)
    ]
    await store.memories.apply(_change("k1", 100, *ops))

    async def values(**asked: Any) -> list[str]:
        return [fact.value for fact in await store.memories.facts(ANN, **asked)]

    same(await values(), [f"v{n}" for n in range(240)], "all")
    same(await values(limit=3), ["v237", "v238", "v239"], "the newest")
    same(await values(kinds=("fact",), limit=2), ["v232", "v236"], "the newest facts")
    same(len(await values(kinds=("fact", "note"), limit=ALL)), 240, "of two kinds")
    same(len(await values(kinds=("fact",), history=True)), 60, "of one, with all versions")


CHECKS = (
    of_many_the_newest_are_listed,
    a_fact_comes_back,
    a_contradiction_ends_what_was_known,
    a_change_happens_once,
    many_at_once_leave_one_truth,
    less_trust_never_ends_more,
    a_version_is_corrected_or_retracted,
    forgetting_takes_all_versions,
    what_lies_under_a_destroyed_key_is_gone,
    what_is_to_be_learned_is_due_when_its_run_ends,
)
