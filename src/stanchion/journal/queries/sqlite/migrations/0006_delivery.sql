-- additive: a program that does not know it tells nobody what it drives; add endpoints when the last such one is gone.
-- Schedules, and what is to be told to others over HTTP.

CREATE TABLE schedules (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    agent TEXT NOT NULL,
    input TEXT NOT NULL,
    cron TEXT NOT NULL,
    tz TEXT NOT NULL,
    session TEXT NOT NULL,
    user TEXT NOT NULL,
    if_busy TEXT NOT NULL,
    if_missed TEXT NOT NULL,
    priority INTEGER NOT NULL,
    limits TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    last_run TEXT NOT NULL,
    note TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;

CREATE INDEX schedules_due ON schedules (next_ms) WHERE enabled = 1;

CREATE TABLE endpoints (
    no INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    url TEXT NOT NULL,
    lane TEXT NOT NULL,
    events TEXT NOT NULL, -- JSON arrays
    agents TEXT NOT NULL,
    include TEXT NOT NULL,
    secret TEXT NOT NULL,
    previous TEXT NOT NULL,
    previous_until_ms INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    note TEXT NOT NULL,
    run TEXT NOT NULL, -- whose callback it is; '': an endpoint of the tenant
    created_ms INTEGER NOT NULL,
    UNIQUE (tenant, id)
) STRICT;

CREATE INDEX endpoints_by_run ON endpoints (tenant, run);

-- What the callbacks of a tenant's runs are signed with.
CREATE TABLE webhook_secrets (
    tenant TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    previous TEXT NOT NULL,
    previous_until_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE deliveries (
    no INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    lane TEXT NOT NULL,
    kind TEXT NOT NULL,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    body BLOB NOT NULL,
    standing TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    status INTEGER NOT NULL,
    note TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    settled_ms INTEGER NOT NULL,
    UNIQUE (tenant, id)
) STRICT;

CREATE INDEX deliveries_due ON deliveries (lane, next_ms, no) WHERE standing = 'pending';
CREATE INDEX deliveries_next ON deliveries (next_ms) WHERE standing = 'pending';
CREATE INDEX deliveries_waiting ON deliveries (tenant, endpoint, run, no) WHERE standing = 'pending';
CREATE INDEX deliveries_by_tenant ON deliveries (tenant, no);
CREATE INDEX deliveries_by_endpoint ON deliveries (tenant, endpoint, no);
CREATE INDEX deliveries_by_run ON deliveries (tenant, run, no);
CREATE INDEX deliveries_settled ON deliveries (standing, settled_ms) WHERE standing <> 'pending';
