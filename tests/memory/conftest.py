"""A database for the tests of memory."""

from __future__ import annotations

from tests.journal.conftest import dsn, fresh_dsn, postgres

__all__ = ["dsn", "fresh_dsn", "postgres"]
