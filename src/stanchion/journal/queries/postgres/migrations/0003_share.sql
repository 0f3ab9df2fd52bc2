-- Who goes next: design/sharing.md.

DROP INDEX runs_runnable;

-- Runs that may be driven and are not, as queues: of a class, a tenant and an agent; those that have begun first. Only a
-- claim or a release moves a row in or out, so an append is a HOT update as before.
CREATE INDEX runs_ready ON runs ((-priority), tenant, agent, (epoch = 0), no)
WHERE status = 'runnable' AND worker = '';

-- Runs that are driven: what the caps count, and where leases end.
CREATE INDEX runs_driven ON runs (tenant, agent, "user") WHERE worker <> '';

-- Runs behind their session's live run, to be counted with those that wait to begin.
CREATE INDEX runs_behind ON runs (tenant) WHERE status = 'queued';

CREATE TABLE shares (
    tenant text NOT NULL,
    scope text NOT NULL,
    weight bigint NOT NULL,
    max_running bigint NOT NULL,
    max_queued bigint NOT NULL,
    PRIMARY KEY (tenant, scope)
);

CREATE TABLE workers (
    name text PRIMARY KEY,
    body bytea NOT NULL, -- a WorkerRow as JSON
    seen_ms bigint NOT NULL
) WITH (fillfactor = 20);
