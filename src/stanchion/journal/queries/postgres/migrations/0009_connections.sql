-- additive: a program that does not know it hands out none of these; erasure by one leaves rows that nothing opens any more.
-- What users have connected: their tokens, sealed.

CREATE TABLE connections (
    tenant text NOT NULL,
    "user" text NOT NULL,
    name text NOT NULL,
    body bytea NOT NULL,
    version bigint NOT NULL,
    busy_until_ms bigint NOT NULL DEFAULT 0,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    PRIMARY KEY (tenant, "user", name)
);
