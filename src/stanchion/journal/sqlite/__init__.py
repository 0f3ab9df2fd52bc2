"""The embedded store: SQLite through apsw, one writer thread, group commit without a timer. Its design: design/store.md."""

from stanchion.journal.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
