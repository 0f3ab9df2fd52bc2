-- The statements of connections. ?1 is the store's time.

-- name: get
SELECT body, version, busy_until_ms FROM connections WHERE tenant = ? AND "user" = ? AND name = ?

-- name: insert
INSERT INTO connections (tenant, "user", name, body, version, created_ms, updated_ms)
VALUES (?2, ?3, ?4, ?5, ?1, ?1, ?1) ON CONFLICT DO NOTHING RETURNING version

-- name: replace
UPDATE connections SET body = ?5, version = max(version + 1, ?1), busy_until_ms = 0, updated_ms = ?1
WHERE tenant = ?2 AND "user" = ?3 AND name = ?4 AND version = ?6 RETURNING version

-- name: claim
UPDATE connections SET busy_until_ms = ?1 + ?6
WHERE tenant = ?2 AND "user" = ?3 AND name = ?4 AND version = ?5 AND (busy_until_ms <= ?1 OR ?6 = 0) RETURNING version

-- name: remove
DELETE FROM connections WHERE tenant = ?2 AND "user" = ?3 AND name = ?4 AND (?5 = 0 OR version = ?5) RETURNING version

-- name: listed
SELECT "user", name, created_ms, updated_ms FROM connections
WHERE tenant = ?1 AND (?2 = '' OR "user" = ?2) ORDER BY "user", name
