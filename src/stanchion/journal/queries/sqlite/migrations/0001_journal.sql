-- The embedded store. Why it is laid out so: design/store.md.
--
-- runs.no stands for (tenant, run) and keys.no for (tenant, key) in the tables that grow with every step, so that those
-- names are stored once. Rows of events and contents are added at the end of their tables and are never moved.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    no INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    session TEXT NOT NULL,
    agent TEXT NOT NULL,
    bundle TEXT NOT NULL,
    user TEXT NOT NULL,
    status TEXT NOT NULL,
    outcome TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    wake_at_ms INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    worker TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    parent TEXT NOT NULL,
    root TEXT NOT NULL,
    cost INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (tenant, run)
) STRICT;

CREATE INDEX runs_runnable ON runs (priority DESC, no, lease_until_ms) WHERE status = 'runnable';
CREATE INDEX runs_due ON runs (wake_at_ms, lease_until_ms) WHERE status = 'waiting' AND wake_at_ms > 0;
CREATE INDEX runs_due_leased ON runs (lease_until_ms) WHERE status = 'waiting' AND lease_until_ms > 0;
CREATE INDEX runs_by_session ON runs (tenant, session);

CREATE TABLE events (
    no INTEGER PRIMARY KEY,
    run INTEGER NOT NULL, -- runs.no
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    envelope BLOB NOT NULL -- packing.py
) STRICT;

CREATE UNIQUE INDEX events_by_run ON events (run, seq);

CREATE TABLE contents (
    no INTEGER PRIMARY KEY,
    key INTEGER NOT NULL, -- keys.no
    hash BLOB NOT NULL, -- the commitment
    blob BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX contents_by_key ON contents (key, hash);

CREATE TABLE keys (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    id TEXT NOT NULL,
    salt BLOB NOT NULL,
    secret BLOB NOT NULL,
    UNIQUE (tenant, subject),
    UNIQUE (tenant, id)
) STRICT;

CREATE TABLE inbox (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL, -- runs.no
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX inbox_by_run ON inbox (run);

CREATE TABLE sessions (
    no INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    session TEXT NOT NULL,
    agent TEXT NOT NULL,
    user TEXT NOT NULL,
    head_run TEXT NOT NULL,
    head_seq INTEGER NOT NULL,
    head_hash TEXT NOT NULL,
    live TEXT NOT NULL,
    runs INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (tenant, session)
) STRICT;

CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    run TEXT NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledgers (
    tenant TEXT NOT NULL,
    ledger TEXT NOT NULL,
    name TEXT NOT NULL, -- the ledger's without its window
    settled INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    PRIMARY KEY (tenant, ledger)
) STRICT, WITHOUT ROWID;

CREATE TABLE limits (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE bundles (
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, digest)
) STRICT;

CREATE TABLE api_keys (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    hash BLOB NOT NULL,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
