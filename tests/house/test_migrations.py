"""Migrations that say that they only add: what an older program knows is as it left it."""

from __future__ import annotations

import re

import pytest

from stanchion.journal import queries

ADDS = re.compile(
    r"CREATE (UNIQUE )?INDEX|CREATE (TABLE|FUNCTION|SEQUENCE|VIEW|STATISTICS)|ALTER TABLE \w+ ADD COLUMN .*(DEFAULT|NULL)"
)
"""How a statement may begin. Statements begin at the margin, and nothing else in capitals does."""


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_what_is_marked_as_additive_only_adds(store: str) -> None:
    """It creates, or adds columns that older programs need not fill; it drops, renames and rewrites nothing."""
    marked = [sql for sql in queries.migrations(store).values() if "-- additive" in sql]
    assert marked
    plain = [re.sub(r"\$\$.*?\$\$", "", sql, flags=re.DOTALL) for sql in marked]  # without bodies of functions
    begins = [line for sql in plain for line in sql.splitlines() if re.match(r"[A-Z]{2,} ", line)]
    assert len(begins) >= len(marked)
    assert [line for line in begins if not ADDS.match(line) and not line.startswith("WHERE ")] == []


def test_both_stores_ask_for_the_same_version() -> None:
    """A program that may use one store's newer schema may use the other's."""
    needed = {queries.compatible_from(queries.migrations(store)) for store in ("sqlite", "postgres")}
    assert needed == {5}  # 0005 makes tables anew
