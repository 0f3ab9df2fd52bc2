"""The database server of a test session, for servers on it."""

from __future__ import annotations

from tests.journal.conftest import dsn, fresh_dsn, postgres

__all__ = ["dsn", "fresh_dsn", "postgres"]
