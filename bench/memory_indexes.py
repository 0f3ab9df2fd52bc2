"""What a user's facts could be searched by instead: sqlite-vec with FTS5, and pgvector with tsvector. Each beside a table of bodies."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from bench.memory_facts import OWNER, SIZE, Made, Query
from stanchion.core.bm25 import terms
from stanchion.core.cosine import floats, packed
from stanchion.core.fact import Fact
from stanchion.core.remembered import LISTED, RANK_CONSTANT, words


def joined(*orders: Sequence[int]) -> list[int]:
    """Join orders by reciprocal rank."""
    scores: dict[int, float] = {}
    for order in orders:
        for rank, number in enumerate(order, start=1):
            scores[number] = scores.get(number, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores, key=lambda number: (-scores[number], number))


def body(fact: Fact) -> bytes:
    """Encode what is kept of a fact beside its index."""
    return msgspec.msgpack.encode(msgspec.structs.replace(fact, vector=b""))


_decode = msgspec.msgpack.Decoder(Fact).decode


class SqliteVec:
    """vec0 with FTS5 in one file: a table of bodies, an index of words without its own copy of the text, vectors by user."""

    def __init__(self, path: str, *, secure: bool = False, only: str = "") -> None:
        """`only`: nothing is written but this table."""
        self._only = only
        self.connection = apsw.Connection(path)
        self.connection.enable_load_extension(True)
        self.connection.load_extension(importlib.import_module("sqlite_vec").loadable_path())
        self._all(f"PRAGMA journal_mode = WAL; PRAGMA secure_delete = {'ON' if secure else 'OFF'}")
        self._all(f"""
            CREATE TABLE facts (no INTEGER PRIMARY KEY, "user" TEXT NOT NULL, body BLOB NOT NULL);
            CREATE VIRTUAL TABLE words USING fts5(owner, text, content='', contentless_delete=1, tokenize='porter unicode61');
            CREATE VIRTUAL TABLE vectors USING vec0(owner text partition key, embedding float[{SIZE}] distance_metric=cosine)
        """)

    def keep_text_and_delete_securely(self) -> None:
        """Set up the index of words so that it takes a deleted text's entries out: it must have the text for that."""
        self._all("""
            DROP TABLE words;
            CREATE VIRTUAL TABLE words USING fts5(owner, text, tokenize='porter unicode61');
            INSERT INTO words (words, rank) VALUES ('secure-delete', 1)
        """)

    def fill(self, made: Made, first: int = 0, *, at_once: int = 1_000_000) -> None:
        """Write facts, with numbers from the first on, so many in a transaction."""
        for start in range(0, len(made.facts), at_once):
            with self.connection:
                for no, fact in enumerate(made.facts[start : start + at_once], start=first + start):
                    user = made.user(no)
                    self._write("facts", 'INSERT INTO facts (no, "user", body) VALUES (?, ?, ?)', no, user, body(fact))
                    self._write(
                        "words", "INSERT INTO words (rowid, owner, text) VALUES (?, ?, ?)", no, user, words(fact)
                    )
                    sql = "INSERT INTO vectors (rowid, owner, embedding) VALUES (?, ?, ?)"
                    self._write("vectors", sql, no, user, fact.vector)

    def _write(self, table: str, sql: str, *values: Any) -> None:
        if self._only in ("", table):
            self._all(sql, *values)

    def by_meaning(self, query: Query, limit: int) -> list[int]:
        """Search the vectors."""
        sql = "SELECT rowid FROM vectors WHERE embedding MATCH ? AND k = ? AND owner = ? ORDER BY distance"
        return [row[0] for row in self._all(sql, packed(query.vector), limit, OWNER.user)]

    def by_words(self, query: Query, limit: int) -> list[int]:
        """Search the words."""
        any_of = " OR ".join(f'"{term}"' for term in _asked(query))
        asked = f"owner: {OWNER.user} AND text: ({any_of})"
        sql = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
        return [row[0] for row in self._all(sql, asked, limit)]

    def search(self, query: Query) -> list[Fact]:
        """Search both, and read what is found."""
        numbers = joined(self.by_words(query, LISTED), self.by_meaning(query, LISTED))
        rows = self._all(f"SELECT no, body FROM facts WHERE no IN ({','.join('?' * len(numbers))})", *numbers)  # noqa: S608
        found = {no: _decode(stored) for no, stored in rows}
        return [found[no] for no in numbers]

    def forget(self, no: int) -> None:
        """Delete a fact everywhere."""
        with self.connection:
            self._write("facts", "DELETE FROM facts WHERE no = ?", no)
            self._write("words", "DELETE FROM words WHERE rowid = ?", no)
            self._write("vectors", "DELETE FROM vectors WHERE rowid = ?", no)

    def tidy(self) -> None:
        """Merge the index of words into one piece, and write the file anew."""
        self._all("INSERT INTO words (words) VALUES ('optimize')")
        self._all("VACUUM")
        self.checkpoint()

    def checkpoint(self) -> None:
        """Bring all into the main file, and cut the log."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")

    def _all(self, sql: str, *values: Any) -> list[Any]:
        return list(self.connection.execute(sql, values))


def _asked(query: Query) -> list[str]:
    """The words of a query, without those that any question has."""
    return [word for word in re.findall(r"\w+", query.text) if terms(word) and word not in ("what", "is", "the", "of")]


class PgVector:
    """pgvector with tsvector: a row for each fact; an index of words; with `hnsw` one of vectors, built by pgvector's defaults."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def fill(self, made: Made) -> None:
        """Write facts."""
        await self.connection.execute(f"""
            CREATE EXTENSION IF NOT EXISTS vector;
            DROP TABLE IF EXISTS facts;
            CREATE TABLE facts (no bigint PRIMARY KEY, "user" text NOT NULL, body bytea NOT NULL, words tsvector NOT NULL,
                embedding vector({SIZE}) NOT NULL);
            CREATE INDEX facts_words ON facts USING gin (words);
            CREATE INDEX facts_user ON facts ("user");
            SET max_parallel_workers_per_gather = 0;
            SET hnsw.ef_search = 100
        """)  # fmt: skip
        await self.connection.set_type_codec("vector", schema="public", encoder=_text, decoder=str, format="text")
        rows = [(no, made.user(no), body(fact), words(fact), floats(fact.vector)) for no, fact in enumerate(made.facts)]
        await self.connection.executemany("INSERT INTO facts VALUES ($1, $2, $3, to_tsvector('english', $4), $5)", rows)
        await self.connection.execute("VACUUM ANALYZE facts")

    async def hnsw(self) -> None:
        """Build the index of vectors."""
        await self.connection.execute("CREATE INDEX facts_near ON facts USING hnsw (embedding vector_cosine_ops)")

    async def by_meaning(self, query: Query, limit: int) -> list[int]:
        """Search the vectors."""
        sql = 'SELECT no FROM facts WHERE "user" = $1 ORDER BY embedding <=> $2 LIMIT $3'
        return [row[0] for row in await self.connection.fetch(sql, OWNER.user, query.vector, limit)]

    async def by_words(self, query: Query, limit: int) -> list[int]:
        """Search the words."""
        sql = """SELECT no FROM facts, to_tsquery('english', $2) asked WHERE "user" = $1 AND words @@ asked
            ORDER BY ts_rank_cd(words, asked) DESC, no LIMIT $3"""
        return [row[0] for row in await self.connection.fetch(sql, OWNER.user, " | ".join(_asked(query)), limit)]

    async def search(self, query: Query) -> list[Fact]:
        """Search both, and read what is found."""
        numbers = joined(await self.by_words(query, LISTED), await self.by_meaning(query, LISTED))
        rows = await self.connection.fetch("SELECT no, body FROM facts WHERE no = ANY($1::bigint[])", numbers)
        found = {row[0]: _decode(row[1]) for row in rows}
        return [found[no] for no in numbers]

    async def bytes_on_disk(self) -> int:
        """Size of the table with all its indices."""
        return await self.connection.fetchval("SELECT pg_total_relation_size('facts')")


def _text(vector: Sequence[float]) -> str:
    return "[" + ",".join(map(str, vector)) + "]"
