"""The nearest of many vectors: the exact cosine decides, a first pass by signs loses next to none, and what has no direction is never near."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core import cosine
from stanchion.core.cosine import RESCORED, RESCORED_PART, floats, nearest, packed

SIZE = 64
number = st.floats(-1e3, 1e3, width=32)


def by_hand(vectors: Sequence[bytes], query: Sequence[float]) -> list[tuple[int, float]]:
    """Order all by the cosine of the textbook, of equals the earlier one first."""
    found: list[tuple[int, float]] = []
    for place, vector in enumerate(vectors):
        own = struct.unpack(f"<{len(vector) // 4}f", vector)
        lengths = math.hypot(*own) * math.hypot(*query)
        if len(own) == len(query) and lengths:
            found.append((place, sum(a * b for a, b in zip(own, query, strict=True)) / lengths))
    return sorted(found, key=lambda one: (-one[1], one[0]))


def topics(count: int, *, shared: float, seed: int = 1, size: int = SIZE) -> tuple[list[bytes], list[list[float]]]:
    """Make vectors about 30 centres, all of which share a part; and searches near some."""
    chance = random.Random(seed)
    common = [chance.gauss(0, 1) for _ in range(size)]
    centres = [[chance.gauss(0, 1) for _ in range(size)] for _ in range(30)]

    def one() -> list[float]:
        return [shared * a + b + chance.gauss(0, 1) for a, b in zip(common, chance.choice(centres), strict=True)]

    return [packed(one()) for _ in range(count)], [one() for _ in range(10)]


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0, 2.0])
def test_two_passes_find_what_all_cosines_find(shared: float) -> None:
    """Of 2,500 vectors, also where all share a large part: at least 98 of 100 of the ten nearest, in their order, with their cosines."""
    vectors, queries = topics(2_500, shared=shared, size=256)
    hits = 0
    for query in queries:
        expected, found = by_hand(vectors, query), nearest(vectors, query, 10, least=-1.0)
        cosines = dict(expected)
        assert found == sorted(found, key=lambda one: (-one[1], one[0]))
        assert all(said == pytest.approx(cosines[place], abs=1e-6) for place, said in found)
        hits += len({place for place, _ in expected[:10]} & {place for place, _ in found})
    assert hits >= 0.98 * 10 * len(queries)


@pytest.mark.parametrize("count", [0, 1, RESCORED])
def test_of_few_all_cosines_are_computed(count: int) -> None:
    """So that nothing is lost there."""
    vectors, queries = topics(count, shared=1.0)
    for query in queries:
        assert [place for place, _ in nearest(vectors, query, 99, least=-1.0)] == [
            place for place, _ in by_hand(vectors, query)[:99]
        ]


def test_the_first_pass_spares_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,000 vectors one in eight is unpacked."""
    unpacked: list[bytes] = []
    monkeypatch.setattr(cosine, "floats", lambda vector: unpacked.append(vector) or floats(vector))
    vectors, queries = topics(4_000, shared=0.5)
    nearest(vectors, queries[0], 10, least=0.25)
    assert len(unpacked) == 4_000 // RESCORED_PART


@pytest.mark.parametrize("kind", ["counts", "sparse"])
def test_where_signs_say_nothing_all_are_computed(kind: str) -> None:
    """Vectors of counts have no negative numbers, sparse ones hardly any: the order is that of all cosines."""
    chance = random.Random(3)

    def one() -> list[float]:
        if kind == "counts":
            return [float(chance.randrange(9)) for _ in range(SIZE)]
        return [chance.choice((-1.0, 1.0)) if chance.random() < 0.1 else 0.0 for _ in range(SIZE)]

    vectors, query = [packed(one()) for _ in range(1_500)], one()
    expected, found = by_hand(vectors, query)[:20], nearest(vectors, query, 20, least=-1.0)
    assert [said for _, said in found] == pytest.approx([said for _, said in expected], abs=1e-6)


def test_of_equals_the_earlier_comes_first() -> None:
    """In both passes, whichever of them decides."""
    vectors, queries = topics(1, shared=0.0)
    same = vectors * 5_000
    assert [place for place, _ in nearest(same, queries[0], 7, least=-1.0)] == list(range(7))
    assert nearest(same, queries[0], 7, least=-1.0) == nearest(same, queries[0], 7, least=-1.0)


def test_what_has_no_direction_is_not_near() -> None:
    """Vectors of zeros, of another length and of none are left out; a query of zeros finds nothing."""
    vectors = [packed([0.0] * 3), b"", packed([1.0, 0.0]), packed([2.0, 0.0, 0.0]), packed([1.0, 0.0, 0.0, 0.0])]
    assert nearest(vectors, [1.0, 0.0, 0.0], 9, least=0.25) == [(3, 1.0)]
    assert nearest(vectors, [0.0, 0.0, 0.0], 9, least=0.25) == []
    assert nearest(vectors, [], 9, least=-1.0) == []
    assert nearest([], [1.0], 9, least=-1.0) == []
    many = [packed([0.0] * SIZE)] * 2_000 + topics(2_000, shared=0.5)[0]
    found = nearest(many, topics(1, shared=0.5)[1][0], 50, least=0.25)
    assert found
    assert all(place >= 2_000 for place, _ in found)


def test_after_a_change_of_embedder_the_new_ones_are_found() -> None:
    """Thousands of the old length are no candidates, and take no place of those of the new."""
    old, new = topics(3_000, shared=0.0, size=32)[0], topics(100, shared=0.5)
    for query in new[1]:
        found = nearest(old + new[0], query, 10, least=-1.0)
        assert [place - 3_000 for place, _ in found] == [place for place, _ in by_hand(new[0], query)[:10]]


@given(st.lists(number, max_size=40))
def test_bytes_are_the_same_everywhere(vector: list[float]) -> None:
    """The lowest byte first, of length 1, whatever the machine's order is: the highest byte has the sign."""
    stored = packed(vector)
    own = struct.unpack(f"<{len(vector)}f", stored)
    assert list(floats(stored)) == list(own)
    assert math.hypot(*own) == pytest.approx(1.0, abs=1e-5) or not any(own)
    assert [byte >> 7 for byte in stored[3::4]] == [math.copysign(1, x) < 0 for x in own]


@given(st.lists(st.lists(number, min_size=4, max_size=4), max_size=30), st.lists(number, min_size=4, max_size=4))
def test_the_order_is_that_of_the_cosines(rows: list[list[float]], query: list[float]) -> None:
    """For any vectors: cosines fall, none is below the least, and the same call gives the same."""
    vectors = [packed(row) for row in rows]
    found = nearest(vectors, query, 10, least=0.25)
    assert found == sorted(found, key=lambda one: (-one[1], one[0]))
    assert all(said >= 0.25 for _, said in found)
    assert found == nearest(vectors, query, 10, least=0.25)
    assert len(found) == min(10, sum(said >= 0.25 for _, said in nearest(vectors, query, 99, least=-1.0)))
