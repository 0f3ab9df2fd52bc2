-- The statements of connections. The time is the server's.

-- name: get
SELECT body, version, busy_until_ms FROM connections WHERE tenant = $1 AND "user" = $2 AND name = $3

-- name: insert
INSERT INTO connections (tenant, "user", name, body, version, created_ms, updated_ms)
VALUES ($1, $2, $3, $4, now_ms(), now_ms(), now_ms())
ON CONFLICT DO NOTHING RETURNING version

-- name: replace
UPDATE connections SET body = $4, version = greatest(version + 1, now_ms()), busy_until_ms = 0, updated_ms = now_ms()
WHERE tenant = $1 AND "user" = $2 AND name = $3 AND version = $5 RETURNING version

-- name: claim
UPDATE connections SET busy_until_ms = now_ms() + $5::bigint
WHERE tenant = $1 AND "user" = $2 AND name = $3 AND version = $4 AND (busy_until_ms <= now_ms() OR $5::bigint = 0)
RETURNING version

-- name: remove
DELETE FROM connections WHERE tenant = $1 AND "user" = $2 AND name = $3 AND ($4::bigint = 0 OR version = $4) RETURNING version

-- name: listed
SELECT "user", name, created_ms, updated_ms FROM connections
WHERE tenant = $1 AND ($2 = '' OR "user" = $2) ORDER BY "user" COLLATE "C", name COLLATE "C"
