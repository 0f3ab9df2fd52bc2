"""Statements over many rows at once: one step of SQLite for up to 64 rows, instead of one each.

Each step gives up the interpreter's lock and takes it again; under a busy event loop that is what costs.
"""

from __future__ import annotations

from functools import cache

from stanchion.journal.sqlite.connection import Connection, Value

_SIZES = (64, 16, 4, 1)

INSERT_EVENTS = ("INSERT INTO events (run, seq, hash, envelope) VALUES {}", 4)
INSERT_CONTENTS = ("INSERT INTO contents (key, hash, blob) VALUES {} ON CONFLICT DO NOTHING", 3)
MOVE_HEADS = (
    (
        "UPDATE runs SET seq = v.column2, hash = v.column3, cost = v.column4, attempts = v.column5, updated_ms = v.column6 "
        "FROM (VALUES {}) v WHERE runs.no = v.column1"
    ),
    6,
)
CHANGE_HEADS = (
    (
        "UPDATE runs SET seq = v.column2, hash = v.column3, cost = v.column4, attempts = v.column5, updated_ms = v.column6, "
        "status = v.column7, outcome = v.column8, epoch = v.column9, wake_at_ms = v.column10, lease_until_ms = v.column11, "
        "worker = v.column12 FROM (VALUES {}) v WHERE runs.no = v.column1"
    ),
    12,
)
PUT_LEDGERS = (
    (
        "INSERT INTO ledgers (tenant, ledger, name, settled, reserved, closed) VALUES {} ON CONFLICT DO UPDATE SET "
        "settled = excluded.settled, reserved = excluded.reserved, closed = excluded.closed"
    ),
    6,
)
Statement = tuple[str, int]


@cache
def _sql(statement: Statement, rows: int) -> str:
    template, width = statement
    row = f"({','.join('?' * width)})"
    return template.format(",".join([row] * rows))


def execute(connection: Connection, statement: Statement, values: list[Value]) -> None:
    """Run a statement over all rows, given as one flat list."""
    width, at = statement[1], 0
    left = len(values) // width
    for size in _SIZES:
        while left >= size:
            step = size * width
            connection.execute(_sql(statement, size), values[at : at + step])
            at, left = at + step, left - size
