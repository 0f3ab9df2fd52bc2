-- additive
-- Runs that stand are listed over all tenants, and claims that came to nothing are kept: who looks into a dead letter wants
-- to know which workers it cost. Written only when a run is claimed again without progress.

CREATE INDEX runs_parked ON runs (no) WHERE status = 'parked';

CREATE TABLE claims (
    run INTEGER NOT NULL, -- runs.no
    epoch INTEGER NOT NULL,
    worker TEXT NOT NULL, -- '': it gave the lease back
    ended_ms INTEGER NOT NULL, -- when the run was claimed again
    PRIMARY KEY (run, epoch)
) STRICT, WITHOUT ROWID;
