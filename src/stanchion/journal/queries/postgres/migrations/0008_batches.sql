-- additive: a program that does not know it makes each call at once; ask for batches when the last such one is gone.
-- Model calls that wait for a batch, and the batches under way.

CREATE TABLE tray (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    run text NOT NULL,
    seq bigint NOT NULL, -- of the call's ModelCallStarted
    lane text NOT NULL,
    batch text NOT NULL DEFAULT '', -- batches.name; '': it waits
    added_ms bigint NOT NULL
);

CREATE INDEX tray_waiting ON tray (lane, no) WHERE batch = '';
CREATE INDEX tray_by_batch ON tray (batch, no) WHERE batch <> '';

CREATE TABLE batches (
    name text PRIMARY KEY,
    lane text NOT NULL,
    stage text NOT NULL,
    provider_id text NOT NULL DEFAULT '',
    items bigint NOT NULL,
    made_ms bigint NOT NULL,
    look_at_ms bigint NOT NULL DEFAULT 0,
    lease_until_ms bigint NOT NULL,
    worker text NOT NULL
);
