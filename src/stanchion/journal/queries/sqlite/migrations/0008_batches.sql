-- additive: a program that does not know it makes each call at once; ask for batches when the last such one is gone.
-- Model calls that wait for a batch, and the batches under way.

CREATE TABLE tray (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL, -- of the call's ModelCallStarted
    lane TEXT NOT NULL,
    batch TEXT NOT NULL, -- batches.name; '': it waits
    added_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX tray_by_batch ON tray (batch, lane, no);

CREATE TABLE batches (
    name TEXT PRIMARY KEY,
    lane TEXT NOT NULL,
    stage TEXT NOT NULL,
    provider_id TEXT NOT NULL,
    items INTEGER NOT NULL,
    made_ms INTEGER NOT NULL,
    look_at_ms INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    worker TEXT NOT NULL
) STRICT;
