-- The statements of the outbox.

-- name: wanting
SELECT e.tenant, e.id, e.url, e.lane, e.events, e.agents, e.include, e.secret, e.previous, e.previous_until_ms, e.enabled,
    e.note, e.run, e.created_ms
FROM unnest($1::text[], $2::text[]) AS v (tenant, run)
JOIN endpoints e ON e.tenant = v.tenant AND e.run = v.run AND e.enabled ORDER BY e.no

-- name: insert_deliveries
INSERT INTO deliveries (tenant, id, endpoint, lane, kind, run, seq, body, standing, attempts, next_ms, status, note,
    created_ms, settled_ms)
SELECT v.tenant, v.id, v.endpoint, v.lane, v.kind, v.run, v.seq, v.body, 'pending', 0, $9, 0, '', $9, 0
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[])
    WITH ORDINALITY AS v (tenant, id, endpoint, lane, kind, run, seq, body, place)
ORDER BY v.place ON CONFLICT DO NOTHING

-- name: insert_endpoint
INSERT INTO endpoints (tenant, id, url, lane, events, agents, include, secret, previous, previous_until_ms, enabled, note,
    run, created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, now_ms()) ON CONFLICT DO NOTHING RETURNING 1

-- name: endpoint
SELECT tenant, id, url, lane, events, agents, include, secret, previous, previous_until_ms, enabled, note, run, created_ms
FROM endpoints WHERE tenant = $1 AND id = $2

-- name: endpoints
SELECT tenant, id, url, lane, events, agents, include, secret, previous, previous_until_ms, enabled, note, run, created_ms
FROM endpoints WHERE tenant = $1 AND run = '' ORDER BY no

-- name: enable
UPDATE endpoints SET enabled = $3, note = $4 WHERE tenant = $1 AND id = $2 RETURNING 1

-- name: give_up_endpoint
UPDATE deliveries SET standing = 'dead', note = $3, settled_ms = now_ms()
WHERE tenant = $1 AND endpoint = $2 AND standing = 'pending'

-- name: remove_deliveries
DELETE FROM deliveries WHERE tenant = $1 AND endpoint = $2

-- name: remove_endpoint
DELETE FROM endpoints WHERE tenant = $1 AND id = $2 RETURNING 1

-- name: secrets
SELECT secret, previous, previous_until_ms FROM webhook_secrets WHERE tenant = $1

-- name: insert_secrets
INSERT INTO webhook_secrets (secret, previous, previous_until_ms, tenant) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING 1

-- name: update_secrets
UPDATE webhook_secrets SET secret = $1, previous = $2, previous_until_ms = $3 WHERE tenant = $4 AND secret = $5 RETURNING 1

-- name: update_endpoint_secrets
UPDATE endpoints SET secret = $1, previous = $2, previous_until_ms = $3 WHERE tenant = $4 AND id = $5 AND secret = $6
RETURNING 1

-- name: tell
INSERT INTO deliveries (tenant, id, endpoint, lane, kind, run, seq, body, standing, attempts, next_ms, status, note,
    created_ms, settled_ms)
SELECT e.tenant, $3, e.id, e.lane, $4, '', $5, $6, 'pending', 0, now_ms(), 0, '', now_ms(), 0
FROM endpoints e WHERE e.tenant = $1 AND e.id = $2 ON CONFLICT DO NOTHING RETURNING 1

-- name: lanes
WITH RECURSIVE found (lane) AS (
    SELECT min(lane) FROM deliveries WHERE standing = 'pending'
    UNION ALL
    SELECT (SELECT min(d.lane) FROM deliveries d WHERE d.standing = 'pending' AND d.lane > found.lane)
    FROM found WHERE found.lane IS NOT NULL
)
SELECT lane FROM found WHERE lane IS NOT NULL AND EXISTS (
    SELECT 1 FROM deliveries d WHERE d.standing = 'pending' AND d.lane = found.lane AND d.next_ms <= (SELECT now_ms())
)
LIMIT $1

-- name: next_due
SELECT coalesce(min(next_ms), 0) FROM deliveries WHERE standing = 'pending'

-- name: claim
WITH due AS (
    SELECT d.no FROM deliveries d
    WHERE d.standing = 'pending' AND d.lane = $1 AND d.next_ms <= (SELECT now_ms()) AND (d.run = '' OR NOT EXISTS (
        SELECT 1 FROM deliveries p
        WHERE p.standing = 'pending' AND p.tenant = d.tenant AND p.endpoint = d.endpoint AND p.run = d.run AND p.no < d.no
    ))
    ORDER BY d.next_ms, d.no LIMIT $2 FOR UPDATE OF d SKIP LOCKED
), taken AS (
    UPDATE deliveries d SET attempts = d.attempts + 1, next_ms = now_ms() + $3 FROM due WHERE d.no = due.no RETURNING d.*
)
SELECT d.tenant, d.id, d.endpoint, d.kind, d.run, d.seq, d.body, d.standing, d.attempts, d.next_ms, d.status, d.note,
    d.created_ms, d.settled_ms,
    e.tenant, e.id, e.url, e.lane, e.events, e.agents, e.include, e.secret, e.previous, e.previous_until_ms, e.enabled,
    e.note, e.run, e.created_ms, coalesce(s.secret, ''), coalesce(s.previous, ''), coalesce(s.previous_until_ms, 0)
FROM taken d JOIN endpoints e ON e.tenant = d.tenant AND e.id = d.endpoint
LEFT JOIN webhook_secrets s ON s.tenant = d.tenant ORDER BY d.no

-- name: settle_done
UPDATE deliveries d SET standing = 'done', status = v.status, note = '', settled_ms = now_ms()
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v (tenant, id, status)
WHERE d.tenant = v.tenant AND d.id = v.id AND d.standing <> 'done'

-- (`|| ''` and `+ 0` keep the planner from an index on what nearly all rows share, when it has no statistics yet.)

-- name: settle_dead
UPDATE deliveries SET standing = 'dead', status = $4, note = $5, settled_ms = now_ms()
WHERE tenant = $1 AND id = $2 AND standing || '' = 'pending' AND attempts = $3

-- name: settle_retry
UPDATE deliveries SET next_ms = $4, status = $5, note = $6
WHERE tenant = $1 AND id = $2 AND standing || '' = 'pending' AND attempts = $3 RETURNING no, endpoint, run

-- name: defer_following
UPDATE deliveries SET next_ms = $1
WHERE standing = 'pending' AND tenant = $2 AND endpoint = $3 AND run = $4 AND run <> '' AND no > $5 AND next_ms + 0 < $1

-- name: delivery
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = $1 AND id = $2

-- name: deliveries
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = $1
    AND no < coalesce((SELECT no FROM deliveries WHERE tenant = $1 AND id = $2), 9223372036854775807)
    AND ($3 = '' OR endpoint = $3) AND ($4 = '' OR run = $4) AND ($5 = '' OR standing = $5)
ORDER BY no DESC LIMIT $6

-- name: deliveries_of_endpoint
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = $1 AND endpoint = $3
    AND no < coalesce((SELECT no FROM deliveries WHERE tenant = $1 AND id = $2), 9223372036854775807)
    AND ($3 = '' OR endpoint = $3) AND ($4 = '' OR run = $4) AND ($5 = '' OR standing = $5)
ORDER BY no DESC LIMIT $6

-- name: deliveries_of_run
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = $1 AND run = $4
    AND no < coalesce((SELECT no FROM deliveries WHERE tenant = $1 AND id = $2), 9223372036854775807)
    AND ($3 = '' OR endpoint = $3) AND ($4 = '' OR run = $4) AND ($5 = '' OR standing = $5)
ORDER BY no DESC LIMIT $6

-- name: redeliver
UPDATE deliveries SET standing = 'pending', attempts = 0, next_ms = now_ms(), settled_ms = 0
WHERE tenant = $1 AND id = $2 AND standing <> 'pending' RETURNING 1

-- name: redeliver_dead
UPDATE deliveries SET standing = 'pending', attempts = 0, next_ms = now_ms(), settled_ms = 0
WHERE tenant = $1 AND endpoint = $2 AND standing = 'dead' RETURNING 1

-- name: prune
DELETE FROM deliveries WHERE no IN (
    SELECT no FROM deliveries WHERE (standing = 'done' AND settled_ms < $1) OR (standing = 'dead' AND settled_ms < $2) LIMIT $3
) RETURNING 1
