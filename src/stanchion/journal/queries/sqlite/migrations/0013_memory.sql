-- additive: a program that does not know it remembers nothing and forgets nothing; erasure by one leaves what is remembered.
-- What is remembered of users. Bodies are only added, and overwritten where they lie: nothing of one is ever moved to another page.

CREATE TABLE memory_facts (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    "user" TEXT NOT NULL,
    space TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    about BLOB NOT NULL,
    recorded_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    why TEXT NOT NULL,
    replaced_by TEXT NOT NULL,
    key TEXT NOT NULL, -- keys.id
    by TEXT NOT NULL,
    UNIQUE (tenant, id)
) STRICT;

CREATE INDEX memory_facts_of_user ON memory_facts (tenant, "user", space, no);
CREATE INDEX memory_facts_about ON memory_facts (tenant, "user", space, about) WHERE ended_ms = 0;
CREATE INDEX memory_facts_by ON memory_facts (tenant, by);

CREATE TABLE memory_bodies (
    no INTEGER PRIMARY KEY, -- memory_facts.no
    body BLOB NOT NULL
) STRICT;

CREATE TABLE memory_due (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    run TEXT NOT NULL,
    agent TEXT NOT NULL,
    "user" TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    next_ms INTEGER NOT NULL DEFAULT 0,
    added_ms INTEGER NOT NULL,
    UNIQUE (tenant, run)
) STRICT;
