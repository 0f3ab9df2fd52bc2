"""A search of one user's memory, ours beside sqlite-vec with FTS5 and pgvector with tsvector: `python -m bench.memory_vectors [FACTS ..] [--users N]`.

20 searches, by words and by meaning (vectors of 256 numbers), joined by reciprocal rank, and the facts that are found are read. CPU is that of this
process, in all its threads, and of PostgreSQL's; of each search the least of three, of all searches the mean. Recall is of the ten nearest by exact
cosine. `--users`: the facts are those of so many users in turn, in the same tables and indices, and one user's are searched. A quick form is `--short`. What
is left of a fact that was deleted: `python -m bench.memory_erased`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from bench.memory_facts import NOW_MS, OWNER, WARM, Made, fill, make
from bench.memory_indexes import PgVector, SqliteVec
from stanchion.core.bm25 import search_once
from stanchion.core.cosine import nearest
from stanchion.core.remembered import LISTED, NEAR, MemoryRules, fitting, profile, search, words
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Store
from stanchion.testing.postgres import PostgresServer

SEARCHES = 20
ROUNDS = 3
_BOTH = 30_000
"""Up to so many facts ours is measured on PostgreSQL as well."""
Work = Callable[[int], Awaitable[Any]]


async def timed(work: Work, searches: int, server: PostgresServer | None = None) -> dict[str, float]:
    """Measure the CPU of a search here, and in the server, in ms: of each search the least of some rounds, of all searches the mean."""
    least = [(float("inf"), float("inf"))] * searches
    for number in range(WARM):
        await work(searches + number)
    for _ in range(ROUNDS):
        for number in range(searches):
            served, here = _server_ns(server), time.process_time_ns()
            await work(number)
            here = time.process_time_ns() - here
            served = _server_ns(server) - served
            least[number] = min(here, least[number][0]), min(served, least[number][1])
    figures = {"ms": sum(here for here, _ in least), "server_ms": sum(served for _, served in least)}
    return {name: round(took / searches / 1e6, 2) for name, took in figures.items() if took}


def _server_ns(server: PostgresServer | None) -> int:
    """Read the CPU of a server's processes, to the nanosecond (Linux)."""
    if server is None:
        return 0
    folder = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in folder.read_text().split())


async def ours(store: Store, made: Made, server: PostgresServer | None = None) -> dict[str, Any]:
    """Measure a search of ours and its parts: read and decode, by words, by meaning; and the choice of a profile."""
    own, searches = made.own, len(made.queries) - WARM
    count, vectors, rules = len(own), [fact.vector for fact in own], MemoryRules("desk")

    async def whole(number: int) -> None:
        query = made.queries[number]
        search(await store.memories.facts(OWNER, limit=count), query.text, query.vector, NOW_MS)

    async def read(_: int) -> None:
        await store.memories.facts(OWNER, limit=count)

    async def by_words(number: int) -> None:
        search_once(map(words, own), made.queries[number].text, LISTED)

    async def by_meaning(number: int) -> None:
        nearest(vectors, made.queries[number].vector, LISTED, least=NEAR)

    async def chosen(_: int) -> None:
        fitting(profile(own, NOW_MS, rules, untrusted=True), rules.tokens)

    return {
        "whole": await timed(whole, searches, server),
        **{name: await timed(work, searches, server if name == "read" else None)
           for name, work in {"read": read, "words": by_words, "meaning": by_meaning, "profile": chosen}.items()},
    }  # fmt: skip


def recall_of_ours(made: Made) -> float:
    """Measure the part of the ten nearest that our two passes find."""
    vectors = [fact.vector for fact in made.own]
    found = ([no * made.users for no, _ in nearest(vectors, query.vector, 10, least=-1)] for query in made.queries)
    return made.recall(list(found))


async def on_sqlite(made: Made, folder: Path) -> dict[str, Any]:
    """Measure ours and sqlite-vec."""
    results: dict[str, Any] = {}
    searches = len(made.queries) - WARM
    path = folder / "ours.db"
    store = await SqliteStore.open(path)
    empty = path.stat().st_size
    await fill(store, made)
    results["ours, SQLite"] = {**await ours(store, made), "recall": recall_of_ours(made)}
    await store.aclose()
    results["ours, SQLite"]["bytes"] = path.stat().st_size - empty
    vec = SqliteVec(str(folder / "vec.db"))
    vec.fill(made)
    vec.checkpoint()

    async def whole(number: int) -> None:
        vec.search(made.queries[number])

    async def by_words(number: int) -> None:
        vec.by_words(made.queries[number], LISTED)

    async def by_meaning(number: int) -> None:
        vec.by_meaning(made.queries[number], LISTED)

    results["sqlite-vec, FTS5"] = {
        "whole": await timed(whole, searches),
        "words": await timed(by_words, searches),
        "meaning": await timed(by_meaning, searches),
        "recall": made.recall([vec.by_meaning(query, 10) for query in made.queries]),
        "bytes": (folder / "vec.db").stat().st_size,
    }
    vec.connection.close()
    return results


async def on_postgres(made: Made, server: PostgresServer, *, both: bool) -> dict[str, Any]:
    """Measure ours and pgvector: a scan of all, and HNSW."""
    results: dict[str, Any] = {}
    searches = len(made.queries) - WARM
    connection = await asyncpg.connect(server.dsn())
    if both:
        await connection.execute("DROP DATABASE IF EXISTS ours")
        await connection.execute("CREATE DATABASE ours")
        store = await PostgresStore.open(server.dsn("ours"))
        await fill(store, made)
        results["ours, PostgreSQL"] = await ours(store, made, server)
        await store.aclose()
        ours_there = await asyncpg.connect(server.dsn("ours"))
        results["ours, PostgreSQL"]["bytes"] = await ours_there.fetchval(
            "SELECT pg_total_relation_size('stanchion.memory_facts')"
        )
        await ours_there.close()
    pg = PgVector(connection)

    async def whole(number: int) -> None:
        await pg.search(made.queries[number])

    async def by_words(number: int) -> None:
        await pg.by_words(made.queries[number], LISTED)

    async def by_meaning(number: int) -> None:
        await pg.by_meaning(made.queries[number], LISTED)

    async def measured() -> dict[str, Any]:
        return {
            "whole": await timed(whole, searches, server),
            "words": await timed(by_words, searches, server),
            "meaning": await timed(by_meaning, searches, server),
            "recall": made.recall([await pg.by_meaning(query, 10) for query in made.queries]),
            "bytes": await pg.bytes_on_disk(),
        }

    await pg.fill(made)
    results["pgvector, scan"] = await measured()
    began = time.monotonic()
    await pg.hnsw()
    built = round(time.monotonic() - began, 1)
    results["pgvector, HNSW"] = {**await measured(), "built_s": built}
    if made.users > 1:  # (else it sorts the rows of the user, where those are few)
        await connection.execute("DROP INDEX facts_user; SET enable_seqscan = off; SET enable_sort = off")
        results["pgvector, HNSW alone"] = await measured()
        await connection.execute("SET hnsw.iterative_scan = strict_order")
        results["pgvector, HNSW alone, iterative"] = await measured()
    await connection.close()
    return results


async def measure(counts: Sequence[int], searches: int, users: int) -> None:
    """Measure all, for each number of facts."""
    with PostgresServer(durable=False) as server:
        for count in counts:
            made = make(count, searches, users)
            with tempfile.TemporaryDirectory(prefix="stanchion-bench-") as folder:
                found = await on_sqlite(made, Path(folder))
            found.update(await on_postgres(made, server, both=count <= _BOTH))
            for name, figures in found.items():
                print(count, name, json.dumps(figures), flush=True)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory_vectors", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("facts", nargs="*", type=int, default=[], help="how many (300 3000 30000)")
    parser.add_argument("--short", action="store_true", help="300 facts, 5 searches")
    parser.add_argument("--users", type=int, default=1, help="whose the facts are; those of one are searched")
    given = parser.parse_args()
    counts = given.facts or ([300] if given.short else [300, 3_000, 30_000])
    asyncio.run(measure(counts, 5 if given.short else SEARCHES, given.users))


if __name__ == "__main__":
    main()
