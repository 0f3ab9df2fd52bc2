-- additive: a program that does not know it goes by no limits; set them when the last such one is gone.
-- Limits that all workers share: what counts against a name and until when, pauses, breakers, settings. Why: design/sharing.md.

CREATE TABLE quota_blocks (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    worker TEXT NOT NULL,
    amount INTEGER NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX quota_blocks_by_name ON quota_blocks (name, until_ms);

CREATE TABLE quota_pauses (
    name TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE breakers (
    name TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL,
    probe TEXT NOT NULL DEFAULT '', -- the worker that tries
    probe_until_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE quotas (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
