-- additive: a program that does not know it forgets without a note, so that an older export may bring back what it forgot.
-- Ids of versions that were forgotten. An id is a digest of what wrote it: it says nothing of whom or what it was.

CREATE TABLE memory_forgotten (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
