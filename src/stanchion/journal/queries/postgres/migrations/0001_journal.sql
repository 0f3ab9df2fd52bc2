-- The scale-out store. Why it is laid out so: design/postgres.md.
--
-- runs.no stands for (tenant, run) and keys.no for (tenant, key) in the tables that grow with every step. No column that
-- an append changes is in an index, but for the status: an ordinary append is a HOT update of its run's row.

CREATE TABLE meta (
    name text PRIMARY KEY,
    value bigint NOT NULL
);

CREATE TABLE runs (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    run text NOT NULL,
    session text NOT NULL,
    agent text NOT NULL,
    bundle text NOT NULL,
    "user" text NOT NULL,
    status text NOT NULL,
    outcome text NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT '',
    wake_at_ms bigint NOT NULL DEFAULT 0,
    lease_until_ms bigint NOT NULL DEFAULT 0,
    worker text NOT NULL DEFAULT '',
    attempts bigint NOT NULL DEFAULT 0,
    priority bigint NOT NULL,
    parent text NOT NULL,
    root text NOT NULL,
    cost bigint NOT NULL DEFAULT 0,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    UNIQUE (tenant, run)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);

CREATE INDEX runs_runnable ON runs (priority DESC, no) WHERE status = 'runnable';
CREATE INDEX runs_due ON runs (wake_at_ms) WHERE status = 'waiting' AND wake_at_ms > 0;
CREATE INDEX runs_by_tenant ON runs (tenant, no);
CREATE INDEX runs_by_session ON runs (tenant, session, no);

CREATE TABLE events (
    run bigint NOT NULL, -- runs.no
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    envelope bytea NOT NULL, -- packed as in the embedded store
    PRIMARY KEY (run, seq)
);

CREATE TABLE keys (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    subject text NOT NULL,
    id text NOT NULL,
    salt bytea NOT NULL,
    secret bytea NOT NULL,
    UNIQUE (tenant, subject),
    UNIQUE (tenant, id)
);

CREATE TABLE contents (
    key bigint NOT NULL, -- keys.no
    hash bytea NOT NULL, -- the commitment
    blob bytea NOT NULL,
    PRIMARY KEY (key, hash)
);

-- Keys that are destroyed, and whose contents are not all deleted yet.
CREATE TABLE erasing (
    key bigint PRIMARY KEY
);

CREATE TABLE inbox (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL, -- runs.no
    kind text NOT NULL,
    body bytea NOT NULL,
    at_ms bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX inbox_by_run ON inbox (run, no);

CREATE TABLE sessions (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    session text NOT NULL,
    agent text NOT NULL,
    "user" text NOT NULL,
    head_run text NOT NULL,
    head_seq bigint NOT NULL,
    head_hash text NOT NULL,
    live text NOT NULL,
    runs bigint NOT NULL,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    UNIQUE (tenant, session)
) WITH (fillfactor = 80);

CREATE INDEX sessions_by_tenant ON sessions (tenant, no);

CREATE TABLE idempotency (
    tenant text NOT NULL,
    key text NOT NULL,
    digest text NOT NULL,
    run text NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE ledgers (
    tenant text NOT NULL,
    ledger text NOT NULL,
    name text NOT NULL, -- the ledger's without its window
    settled bigint NOT NULL,
    reserved bigint NOT NULL,
    closed boolean NOT NULL,
    PRIMARY KEY (tenant, ledger)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE limits (
    tenant text NOT NULL,
    name text NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE bundles (
    tenant text NOT NULL,
    digest text NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (tenant, digest)
);

CREATE TABLE api_keys (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    hash bytea NOT NULL,
    name text NOT NULL,
    created_ms bigint NOT NULL,
    revoked boolean NOT NULL
);

-- The store's clock: milliseconds since 1970 UTC, as it goes on within a transaction.
CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
AS 'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint';

-- Lock what a group writes: its content keys against erasure, then its runs in the order of their numbers. The first
-- row that comes back has no run: its seq is the clock.
CREATE FUNCTION lock_heads(key_locks int[], of_tenants text[], of_runs text[])
RETURNS TABLE (
    tenant text, run text, no bigint, seq bigint, hash bytea, epoch bigint, status text, outcome text,
    wake_at_ms bigint, lease_until_ms bigint, worker text, attempts bigint, cost bigint, session text
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1398034499, k) FROM unnest(key_locks) AS k;
    RETURN QUERY SELECT ''::text, ''::text, 0::bigint, now_ms(), ''::bytea, 0::bigint, ''::text, ''::text,
        0::bigint, 0::bigint, ''::text, 0::bigint, 0::bigint, ''::text;
    RETURN QUERY SELECT r.tenant, r.run, r.no, r.seq, r.hash, r.epoch, r.status, r.outcome,
        r.wake_at_ms, r.lease_until_ms, r.worker, r.attempts, r.cost, r.session
    FROM unnest(of_tenants, of_runs) AS v (tenant, run) JOIN runs r ON r.tenant = v.tenant AND r.run = v.run
    ORDER BY r.no FOR UPDATE OF r;
END
$$;

-- Lock ledgers in the order of their names, then read the limits: one that was set meanwhile waited for the ledgers, or
-- is seen here. `kept` is false for a ledger that has no row yet.
CREATE FUNCTION lock_ledgers(of_tenants text[], of_ledgers text[], of_names text[])
RETURNS TABLE (tenant text, ledger text, amount bigint, settled bigint, reserved bigint, closed boolean, kept boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM unnest(of_tenants, of_ledgers) AS v (tenant, ledger)
    JOIN ledgers l ON l.tenant = v.tenant AND l.ledger = v.ledger
    ORDER BY l.tenant, l.ledger FOR UPDATE OF l;
    RETURN QUERY SELECT v.tenant, v.ledger, coalesce(m.amount, -1), coalesce(l.settled, 0), coalesce(l.reserved, 0),
        coalesce(l.closed, false), l.tenant IS NOT NULL
    FROM unnest(of_tenants, of_ledgers, of_names) AS v (tenant, ledger, name)
    LEFT JOIN ledgers l ON l.tenant = v.tenant AND l.ledger = v.ledger
    LEFT JOIN limits m ON m.tenant = v.tenant AND m.name = v.name;
END
$$;
