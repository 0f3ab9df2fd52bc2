"""The scale-out store: journals in a PostgreSQL database, for many processes at once (design/postgres.md)."""

from stanchion.journal.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
