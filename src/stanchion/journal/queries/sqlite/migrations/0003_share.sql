-- Who goes next: design/sharing.md.

DROP INDEX runs_runnable;

-- Runs that may be driven and are not, as queues: of a class, a tenant and an agent; those that have begun first.
CREATE INDEX runs_ready ON runs (-priority, tenant, agent, epoch = 0, no) WHERE status = 'runnable' AND worker = '';

-- Runs that are driven: what the caps count, and where leases end.
CREATE INDEX runs_driven ON runs (tenant, agent, user, status, lease_until_ms) WHERE worker <> '';

-- Runs behind their session's live run, to be counted with those that wait to begin.
CREATE INDEX runs_behind ON runs (tenant) WHERE status = 'queued';

-- A tenant's runs, the newest first, are listed without sorting them all.
CREATE INDEX runs_by_tenant ON runs (tenant, no);

CREATE TABLE shares (
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    weight INTEGER NOT NULL,
    max_running INTEGER NOT NULL,
    max_queued INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL, -- a WorkerRow as JSON
    seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
