"""What the benchmarks of memory measure: facts that are like real ones, the same searches in each, and files that are really read."""

from __future__ import annotations

import itertools
import statistics
from operator import mul
from pathlib import Path

import pytest

from bench.memory_erased import WORD, left, made_with_target
from bench.memory_facts import OWNER, fill, make
from bench.memory_indexes import SqliteVec
from bench.memory_vectors import recall_of_ours
from stanchion.core.cosine import floats
from stanchion.core.remembered import search
from stanchion.journal.sqlite import SqliteStore


def test_made_vectors_are_neither_chance_nor_all_alike() -> None:
    """Two of them have the cosine that sentences have to each other by a real model, and a search has near ones."""
    made = make(400, 5)
    vectors = [floats(fact.vector) for fact in made.facts]
    pairs = [sum(map(mul, a, b)) for a, b in itertools.pairwise(vectors)]
    assert 0.05 < statistics.mean(pairs) < 0.25
    assert max(pairs) > 0.4
    assert recall_of_ours(made) >= 0.98


async def test_both_find_the_same(tmp_path: Path) -> None:
    """Of three users' facts ours and sqlite-vec with FTS5 answer from those of one, and by meaning alike."""
    pytest.importorskip("sqlite_vec")
    made = make(300, 5, users=3)
    index = SqliteVec(str(tmp_path / "vec.db"))
    index.fill(made)
    assert made.recall([index.by_meaning(query, 10) for query in made.queries]) == 1.0
    store = await SqliteStore.open(tmp_path / "ours.db")
    try:
        await fill(store, made)
        facts = await store.memories.facts(OWNER)
        assert [fact.value for fact in facts] == [fact.value for fact in made.own]
        for query in made.queries:
            ours = {fact.value for fact in search(facts, query.text, query.vector, 10)}
            theirs = {fact.value for fact in index.search(query)}
            assert len(ours & theirs) > 0.6 * min(len(ours), len(theirs))
    finally:
        await store.aclose()
        index.connection.close()


def test_what_is_left_is_seen(tmp_path: Path) -> None:
    """The word, and pieces of the vector, in any of the files; of a file that is not there, nothing."""
    target = next(fact for fact in made_with_target(1_000).facts if WORD in fact.value)
    (tmp_path / "a").write_bytes(b"..." + target.vector[:512] + b"..")
    (tmp_path / "b").write_bytes(WORD.encode()[1:])
    assert left([tmp_path / "a", tmp_path / "no"], target).vector == "50%"
    assert not left([tmp_path / "a"], target).word
    assert left([tmp_path / "a", tmp_path / "b"], target).word
    assert left([tmp_path / "b"], target).vector == "0%"
