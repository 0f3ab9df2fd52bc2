"""Facts of one user, or of many, that are made up, the same each time, and what is searched for in them.

Each is a few words of one of 60 topics, with a vector of 256 numbers that lies about its topic's and has a part in common with all, as those of real models
do: two facts of chance have a cosine of about 0.13, those of a topic one of about 0.6.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import msgspec

from bench.catalogue_words import DOMAINS
from stanchion.core.cosine import nearest, packed
from stanchion.core.fact import Fact, Operation, Owner
from stanchion.journal.memory import Change
from stanchion.journal.store import Store

SIZE = 256
OWNER = Owner("default", "u0", "desk")
"""Whose facts are searched."""
NOW_MS = 1_800_000_000_000
_TOPICS = 60
_AT_ONCE = 500
WARM = 2
"""Searches that are made beside those that are measured."""


class Query(msgspec.Struct, frozen=True):
    """What is searched for."""

    text: str
    vector: Sequence[float]


class Made(msgspec.Struct, frozen=True):
    """Facts of users in turn, and searches in those of the first, with the numbers of the ten nearest to each, all by their exact cosine."""

    facts: Sequence[Fact]
    queries: Sequence[Query]
    nearest: Sequence[Sequence[int]]
    users: int = 1

    @property
    def own(self) -> Sequence[Fact]:
        """The facts of the first user."""
        return self.facts[:: self.users]

    def user(self, number: int) -> str:
        """Say whose a fact is."""
        return f"u{number % self.users}"

    def recall(self, found: Sequence[Sequence[int]]) -> float:
        """Say which part of the ten nearest was found."""
        pairs = list(zip(self.nearest, found, strict=True))
        return round(sum(len({*wanted} & {*got}) for wanted, got in pairs) / sum(len(wanted) for wanted, _ in pairs), 4)


def make(count: int, searches: int, users: int = 1) -> Made:
    """Make facts and searches; the same each time."""
    chance = random.Random(11)
    known = sorted(set(re.findall(r"[a-z]{3,}", " ".join(DOMAINS))))
    common = _direction(chance)
    topics = [(_direction(chance), chance.sample(known, 40)) for _ in range(_TOPICS)]

    def near(centre: Sequence[float], noise: float) -> list[float]:
        return [0.5 * a + b + noise * chance.gauss(0, 1) for a, b in zip(common, centre, strict=True)]

    facts: list[Fact] = []
    for number in range(count):
        centre, own = chance.choice(topics)
        said = chance.choices(own, [1 / (rank + 1) for rank in range(len(own))], k=chance.randint(3, 8))
        attribute, value = " ".join(said[:2]), f"{' '.join(said[1:])} {chance.randrange(10_000)}"
        facts.append(
            Fact(
                id=f"fact_{number:020}", subject="user", attribute=attribute, value=value, trust="user", source="user",
                run=f"run_{number:016}", place="3", valid_from_ms=1, recorded_ms=5, by=f"remember/{number:016}",
                vector=packed(near(centre, 0.9)),
            )
        )  # fmt: skip
    queries: list[Query] = []
    for _ in range(searches + WARM):
        centre, own = chance.choice(topics)
        queries.append(Query(f"what is the {' '.join(chance.sample(own[:20], 2))} of the user?", near(centre, 0.7)))
    vectors = [fact.vector for fact in facts[::users]]
    near_to = [[number * users for number in _exact(vectors, query)] for query in queries]
    return Made(facts, queries, near_to, users)


def _exact(vectors: Sequence[bytes], query: Query) -> list[int]:
    near: list[tuple[float, int]] = []
    for start in range(0, len(vectors), _AT_ONCE):  # (of so few none is left out by its signs)
        found = nearest(vectors[start : start + _AT_ONCE], query.vector, 10, least=-1.0)
        near += [(-cosine, start + number) for number, cosine in found]
    return [number for _, number in sorted(near)[:10]]


def _direction(chance: random.Random) -> list[float]:
    return [chance.gauss(0, 1) for _ in range(SIZE)]


async def fill(store: Store, made: Made, key: str = "k") -> None:
    """Write facts into a store, through its port."""
    for user in range(made.users):
        owner, own = msgspec.structs.replace(OWNER, user=f"u{user}"), made.facts[user :: made.users]
        for start in range(0, len(own), _AT_ONCE):
            ops = tuple(_said(fact) for fact in own[start : start + _AT_ONCE])
            await store.memories.apply(Change(owner=owner, key=f"{key}{user}/{start}", at_ms=5, operations=ops))


def _said(fact: Fact) -> Operation:
    return Operation(
        do="add", subject=fact.subject, attribute=fact.attribute, value=fact.value, trust="user", source="user",
        run=fact.run, place=fact.place, from_ms=1, vector=fact.vector,
    )  # fmt: skip
