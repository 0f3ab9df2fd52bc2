"""What is left in the files of a fact that was deleted: `python -m bench.memory_erased`.

Of 1,000 facts one holds a word and a vector that are known. It is forgotten, by us, in FTS5, in vec0 and in PostgreSQL with pgvector; then the
files are read, and it is told how much of the vector (of its 64 pieces of 16 bytes) and whether the word stands there still: at once, after the log was
brought in, after 200 facts more, and after what each has for tidying up. Each structure has a file of its own, so that it is seen which of them keeps what.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from bench.memory_facts import OWNER, Made, fill, make
from bench.memory_indexes import PgVector, SqliteVec
from stanchion.core.fact import Fact
from stanchion.core.remembered import words
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.record import Cipher, Identity
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Key, Store
from stanchion.testing.postgres import PostgresServer

WORD = "zqxjvukarn"
"""No ending of it is taken off."""
_SEEN = b"qxjvukarn"
"""Of it, where a list of words says the beginning by the word before."""
_PIECE = 16
_FACTS = 1_000
_MORE = 200
_TARGET = _FACTS // 2
_AT_ONCE = 20
"""In a transaction, so that the index of words has been merged some times before the fact goes."""


class Left(msgspec.Struct, frozen=True):
    """What is left of the fact."""

    vector: str
    """Of its pieces, so many in a hundred."""
    word: bool


class Stream:
    """A cipher for this test: what a key's secret makes of a counter, laid over the content. Not for anything else."""

    def seal(self, key: Key, content: bytes) -> bytes:
        """Make what is stored."""
        over = hashlib.shake_256(key.secret + b"stream").digest(len(content))
        return bytes(a ^ b for a, b in zip(content, over, strict=True))

    def open(self, key: Key, blob: bytes) -> bytes:
        """Read what was stored."""
        return self.seal(key, blob)


def made_with_target(count: int) -> Made:
    """Make facts, one of which holds the word."""
    made = make(count + _MORE, 0)
    target = msgspec.structs.replace(made.facts[_TARGET], value=f"the {WORD} account")
    return msgspec.structs.replace(made, facts=[*made.facts[:_TARGET], target, *made.facts[_TARGET + 1 :]])


def left(files: Iterable[Path], target: Fact) -> Left:
    """Read files, and look for the fact."""
    data = [file.read_bytes() for file in files if file.exists()]
    pieces = [target.vector[at : at + _PIECE] for at in range(0, len(target.vector), _PIECE)]
    found = sum(any(piece in one for one in data) for piece in pieces)
    return Left(f"{found / len(pieces):.0%}", any(_SEEN in one for one in data))


def _part(made: Made, start: int, stop: int) -> Made:
    return msgspec.structs.replace(made, facts=made.facts[start:stop])


async def of_ours(store: Store, made: Made, look: Callable[[str], Awaitable[None]]) -> None:
    """Fill a store of ours, forget the fact, write more, and look each time."""
    await fill(store, _part(made, 0, _FACTS))
    await look("before")
    facts = await store.memories.facts(OWNER)
    target = next(fact.id for fact in facts if WORD in fact.value)
    await store.memories.forget(OWNER.tenant, OWNER.user, ids=(target,))
    await look("deleted")


async def on_sqlite(made: Made, cipher: Cipher) -> dict[str, Left]:
    """Look at the embedded store."""
    found: dict[str, Left] = {}
    with tempfile.TemporaryDirectory(prefix="stanchion-bench-") as folder:
        path = Path(folder) / "ours.db"

        async def look(stage: str) -> None:
            found[stage] = left([path, Path(f"{path}-wal")], made.facts[_TARGET])

        store = await SqliteStore.open(path, cipher=cipher)
        await of_ours(store, made, look)
        await fill(store, _part(made, _FACTS, len(made.facts)), "more")
        await look("and 200 more")
        await store.aclose()
        await look("closed")
    return found


def of_index(made: Made, kind: str, *, secure: bool) -> dict[str, Left]:
    """Look at what one structure of SQLite keeps: "words", "vectors", or "words, secure-delete" (FTS5's own setting)."""
    found: dict[str, Left] = {}
    table = kind.partition(",")[0]
    with tempfile.TemporaryDirectory(prefix="stanchion-bench-") as folder:

        def look(stage: str) -> None:
            found[stage] = left(Path(folder).iterdir(), made.facts[_TARGET])

        index = SqliteVec(str(Path(folder) / "index.db"), secure=secure, only=table)
        if kind.endswith("secure-delete"):
            index.keep_text_and_delete_securely()
        index.fill(_part(made, 0, _FACTS), at_once=_AT_ONCE)
        index.checkpoint()
        look("before")
        index.forget(_TARGET)
        look("deleted")
        index.checkpoint()
        look("log brought in")
        index.fill(_part(made, _FACTS, len(made.facts)), first=_FACTS, at_once=_AT_ONCE)
        index.checkpoint()
        look("and 200 more")
        index.tidy()
        look("merged and vacuumed")
        index.connection.close()
    return found


async def on_postgres(made: Made, server: PostgresServer) -> dict[str, dict[str, Left]]:
    """Look at pgvector's table and each of its indices, and at the server's log."""
    connection: Any = await asyncpg.connect(server.dsn())
    try:
        pg = PgVector(connection)
        await pg.fill(_part(made, 0, _FACTS))
        await pg.hnsw()
        names = ("facts", "facts_near", "facts_words")
        return await _stages(
            connection, server, names, made, lambda: connection.execute("DELETE FROM facts WHERE no = $1", _TARGET)
        )
    finally:
        await connection.close()


async def ours_on_postgres(made: Made, server: PostgresServer, cipher: Cipher) -> dict[str, dict[str, Left]]:
    """Look at the table of the scale-out store."""
    schema = type(cipher).__name__.lower()
    store = await PostgresStore.open(server.dsn(), cipher=cipher, schema=schema)
    connection: Any = await asyncpg.connect(server.dsn(), server_settings={"search_path": schema})
    try:
        await fill(store, _part(made, 0, _FACTS))
        facts = await store.memories.facts(OWNER)
        target = next(fact.id for fact in facts if WORD in fact.value)
        forget = lambda: store.memories.forget(OWNER.tenant, OWNER.user, ids=(target,))  # noqa: E731
        return await _stages(connection, server, ("memory_facts",), made, forget)
    finally:
        await connection.close()
        await store.aclose()


async def _stages(
    connection: Any, server: PostgresServer, names: Sequence[str], made: Made, forget: Callable[[], Awaitable[Any]]
) -> dict[str, dict[str, Left]]:
    found: dict[str, dict[str, Left]] = {name: {} for name in (*names, "log")}
    data = server.folder / "data"

    async def look(stage: str) -> None:
        await connection.execute("CHECKPOINT")
        for name in names:
            path = data / await connection.fetchval("SELECT pg_relation_filepath($1::regclass)", name)
            found[name][stage] = left([path], made.facts[_TARGET])
        found["log"][stage] = left(
            (file for file in (data / "pg_wal").iterdir() if file.is_file()), made.facts[_TARGET]
        )

    await look("before")
    await forget()
    await look("deleted")
    for command in ("VACUUM", "VACUUM FULL"):
        await connection.execute(f"{command} {names[0]}")
        await look(command)
    return found


def show(name: str, found: dict[str, Left]) -> None:
    """Print a line."""
    stages = {
        stage: f"{one.vector} of the vector, {'the word' if one.word else 'no word'}" for stage, one in found.items()
    }
    print(name, json.dumps(stages), flush=True)


async def measure() -> None:
    """Look at all."""
    made = made_with_target(_FACTS)
    assert WORD in words(made.facts[_TARGET])
    for cipher in (Identity(), Stream()):
        show(f"ours, SQLite, {type(cipher).__name__}", await on_sqlite(made, cipher))
    for secure in (False, True):
        for kind in ("vectors", "words", *(("words, secure-delete",) if secure else ())):
            show(f"{kind}, secure_delete={'ON' if secure else 'OFF'}", of_index(made, kind, secure=secure))
    for cipher in (None, Identity(), Stream()):
        with PostgresServer(durable=True, settings={"autovacuum": "off"}) as server:  # (its own, for the log's sake)
            found = await on_postgres(made, server) if cipher is None else await ours_on_postgres(made, server, cipher)
        for name, stages in found.items():
            show(f"{f'ours, PostgreSQL, {type(cipher).__name__}' if cipher else 'pgvector'}, {name}", stages)


def main() -> None:
    """Measure what the command line says."""
    argparse.ArgumentParser(
        prog="python -m bench.memory_erased", description=(__doc__ or "").split("\n\n")[0]
    ).parse_args()
    asyncio.run(measure())


if __name__ == "__main__":
    main()
