-- additive: a program that does not know it hands out none of these; erasure by one leaves rows that nothing opens any more.
-- What users have connected: their tokens, sealed.

CREATE TABLE connections (
    tenant TEXT NOT NULL,
    "user" TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    version INTEGER NOT NULL,
    busy_until_ms INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, "user", name)
) STRICT;
