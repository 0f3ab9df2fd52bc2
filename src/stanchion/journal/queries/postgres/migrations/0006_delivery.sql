-- additive: a program that does not know it tells nobody what it drives; add endpoints when the last such one is gone.
-- Schedules, and what is to be told to others over HTTP.

CREATE TABLE schedules (
    tenant text NOT NULL,
    name text NOT NULL,
    agent text NOT NULL,
    input text NOT NULL,
    cron text NOT NULL,
    tz text NOT NULL,
    session text NOT NULL,
    "user" text NOT NULL,
    if_busy text NOT NULL,
    if_missed text NOT NULL,
    priority bigint NOT NULL,
    limits text NOT NULL,
    enabled boolean NOT NULL,
    next_ms bigint NOT NULL,
    last_ms bigint NOT NULL,
    last_run text NOT NULL,
    note text NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE INDEX schedules_due ON schedules (next_ms) WHERE enabled;

CREATE TABLE endpoints (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    id text NOT NULL,
    url text NOT NULL,
    lane text NOT NULL,
    events text[] NOT NULL,
    agents text[] NOT NULL,
    include text[] NOT NULL,
    secret text NOT NULL,
    previous text NOT NULL,
    previous_until_ms bigint NOT NULL,
    enabled boolean NOT NULL,
    note text NOT NULL,
    run text NOT NULL, -- whose callback it is; '': an endpoint of the tenant
    created_ms bigint NOT NULL,
    UNIQUE (tenant, id)
);

CREATE INDEX endpoints_by_run ON endpoints (tenant, run);

-- What the callbacks of a tenant's runs are signed with.
CREATE TABLE webhook_secrets (
    tenant text PRIMARY KEY,
    secret text NOT NULL,
    previous text NOT NULL,
    previous_until_ms bigint NOT NULL
);

CREATE TABLE deliveries (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    id text NOT NULL,
    endpoint text NOT NULL,
    lane text NOT NULL,
    kind text NOT NULL,
    run text NOT NULL,
    seq bigint NOT NULL,
    body bytea NOT NULL,
    standing text NOT NULL,
    attempts bigint NOT NULL,
    next_ms bigint NOT NULL,
    status bigint NOT NULL,
    note text NOT NULL,
    created_ms bigint NOT NULL,
    settled_ms bigint NOT NULL,
    UNIQUE (tenant, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX deliveries_due ON deliveries (lane, next_ms, no) WHERE standing = 'pending';
CREATE INDEX deliveries_next ON deliveries (next_ms) WHERE standing = 'pending';
CREATE INDEX deliveries_waiting ON deliveries (tenant, endpoint, run, no) WHERE standing = 'pending';
CREATE INDEX deliveries_by_tenant ON deliveries (tenant, no);
CREATE INDEX deliveries_by_endpoint ON deliveries (tenant, endpoint, no);
CREATE INDEX deliveries_by_run ON deliveries (tenant, run, no);
CREATE INDEX deliveries_settled ON deliveries (standing, settled_ms) WHERE standing <> 'pending';
