-- A subject may have keys that came with moved runs beside its own; a key that was destroyed does not come back with one
-- (journal/moving.py). SQLite drops a UNIQUE only with its table.

ALTER TABLE keys RENAME TO keys_before;

CREATE TABLE keys (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    id TEXT NOT NULL,
    salt BLOB NOT NULL,
    secret BLOB NOT NULL,
    moved INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, id)
) STRICT;

-- Numbers of keys are never used twice, whatever became of their rows.
INSERT INTO sqlite_sequence (name, seq) SELECT 'keys', seq FROM sqlite_sequence WHERE name = 'keys_before';
INSERT INTO keys (no, tenant, subject, id, salt, secret) SELECT no, tenant, subject, id, salt, secret FROM keys_before;
DROP TABLE keys_before;

CREATE UNIQUE INDEX keys_by_subject ON keys (tenant, subject) WHERE moved = 0;
CREATE INDEX keys_moved ON keys (tenant, subject) WHERE moved = 1;

CREATE TABLE destroyed_keys (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
