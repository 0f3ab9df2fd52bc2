-- additive: a program that does not know it remembers nothing and forgets nothing; erasure by one leaves what is remembered.
-- What is remembered of users.

CREATE TABLE memory_facts (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    "user" text NOT NULL,
    space text NOT NULL,
    id text NOT NULL,
    kind text NOT NULL,
    about bytea NOT NULL,
    recorded_ms bigint NOT NULL,
    ended_ms bigint NOT NULL,
    why text NOT NULL,
    replaced_by text NOT NULL,
    key text NOT NULL, -- keys.id
    by text NOT NULL,
    body bytea NOT NULL,
    UNIQUE (tenant, id)
);

CREATE INDEX memory_facts_of_user ON memory_facts (tenant, "user", space, no);
CREATE INDEX memory_facts_about ON memory_facts (tenant, "user", space, about) WHERE ended_ms = 0;
CREATE INDEX memory_facts_by ON memory_facts (tenant, by);

CREATE TABLE memory_due (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    run text NOT NULL,
    agent text NOT NULL,
    "user" text NOT NULL,
    tries bigint NOT NULL DEFAULT 0,
    next_ms bigint NOT NULL DEFAULT 0,
    added_ms bigint NOT NULL,
    UNIQUE (tenant, run)
);
