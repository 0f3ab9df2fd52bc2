-- The statements of the outbox.

-- name: wanting
SELECT tenant, id, url, lane, events, agents, include, secret, previous, previous_until_ms, enabled, note, run, created_ms
FROM endpoints WHERE tenant = ?1 AND run IN ('', ?2) AND enabled = 1 ORDER BY no

-- name: insert_delivery
INSERT INTO deliveries (tenant, id, endpoint, lane, kind, run, seq, body, standing, attempts, next_ms, status, note,
    created_ms, settled_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'pending', 0, ?9, 0, '', ?9, 0) ON CONFLICT DO NOTHING

-- name: insert_endpoint
INSERT INTO endpoints (tenant, id, url, lane, events, agents, include, secret, previous, previous_until_ms, enabled, note,
    run, created_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: endpoint
SELECT tenant, id, url, lane, events, agents, include, secret, previous, previous_until_ms, enabled, note, run, created_ms
FROM endpoints WHERE tenant = ? AND id = ?

-- name: endpoints
SELECT tenant, id, url, lane, events, agents, include, secret, previous, previous_until_ms, enabled, note, run, created_ms
FROM endpoints WHERE tenant = ? AND run = '' ORDER BY no

-- name: enable
UPDATE endpoints SET enabled = ?, note = ? WHERE tenant = ? AND id = ?

-- name: give_up_endpoint
UPDATE deliveries SET standing = 'dead', note = ?, settled_ms = ? WHERE tenant = ? AND endpoint = ? AND standing = 'pending'

-- name: remove_deliveries
DELETE FROM deliveries WHERE tenant = ? AND endpoint = ?

-- name: remove_endpoint
DELETE FROM endpoints WHERE tenant = ? AND id = ?

-- name: secrets
SELECT secret, previous, previous_until_ms FROM webhook_secrets WHERE tenant = ?

-- name: insert_secrets
INSERT INTO webhook_secrets (secret, previous, previous_until_ms, tenant) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: update_secrets
UPDATE webhook_secrets SET secret = ?, previous = ?, previous_until_ms = ? WHERE tenant = ? AND secret = ?

-- name: update_endpoint_secrets
UPDATE endpoints SET secret = ?, previous = ?, previous_until_ms = ? WHERE tenant = ? AND id = ? AND secret = ?

-- name: lanes
WITH RECURSIVE found (lane) AS (
    SELECT min(lane) FROM deliveries WHERE standing = 'pending'
    UNION ALL
    SELECT (SELECT min(d.lane) FROM deliveries d WHERE d.standing = 'pending' AND d.lane > found.lane)
    FROM found WHERE found.lane IS NOT NULL
)
SELECT lane FROM found WHERE lane IS NOT NULL
    AND EXISTS (SELECT 1 FROM deliveries d WHERE d.standing = 'pending' AND d.lane = found.lane AND d.next_ms <= ?)
LIMIT ?

-- name: next_due
SELECT coalesce(min(next_ms), 0) FROM deliveries WHERE standing = 'pending'

-- name: claimable
SELECT d.no FROM deliveries d
WHERE d.standing = 'pending' AND d.lane = ?1 AND d.next_ms <= ?2 AND (d.run = '' OR NOT EXISTS (
    SELECT 1 FROM deliveries p
    WHERE p.standing = 'pending' AND p.tenant = d.tenant AND p.endpoint = d.endpoint AND p.run = d.run AND p.no < d.no
))
ORDER BY d.next_ms, d.no LIMIT ?3

-- name: claim
UPDATE deliveries SET attempts = attempts + 1, next_ms = ?1 WHERE no = ?2

-- name: claimed
SELECT d.tenant, d.id, d.endpoint, d.kind, d.run, d.seq, d.body, d.standing, d.attempts, d.next_ms, d.status, d.note,
    d.created_ms, d.settled_ms,
    e.tenant, e.id, e.url, e.lane, e.events, e.agents, e.include, e.secret, e.previous, e.previous_until_ms, e.enabled,
    e.note, e.run, e.created_ms, coalesce(s.secret, ''), coalesce(s.previous, ''), coalesce(s.previous_until_ms, 0)
FROM deliveries d JOIN endpoints e ON e.tenant = d.tenant AND e.id = d.endpoint
LEFT JOIN webhook_secrets s ON s.tenant = d.tenant WHERE d.no = ?

-- name: settle_done
UPDATE deliveries SET standing = 'done', status = ?, note = '', settled_ms = ? WHERE tenant = ? AND id = ? AND standing <> 'done'

-- name: settle_dead
UPDATE deliveries SET standing = 'dead', status = ?, note = ?, settled_ms = ?
WHERE tenant = ? AND id = ? AND standing = 'pending' AND attempts = ?

-- name: settle_retry
UPDATE deliveries SET next_ms = ?, status = ?, note = ?
WHERE tenant = ? AND id = ? AND standing = 'pending' AND attempts = ? RETURNING no, endpoint, run

-- name: defer_following
UPDATE deliveries SET next_ms = ?1
WHERE standing = 'pending' AND tenant = ?2 AND endpoint = ?3 AND run = ?4 AND run <> '' AND no > ?5 AND +next_ms < ?1

-- name: delivery
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = ? AND id = ?

-- name: deliveries
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = ?1
    AND no < coalesce((SELECT no FROM deliveries WHERE tenant = ?1 AND id = ?2), 9223372036854775807)
    AND (?3 = '' OR endpoint = ?3) AND (?4 = '' OR run = ?4) AND (?5 = '' OR standing = ?5)
ORDER BY no DESC LIMIT ?6

-- name: deliveries_of_endpoint
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = ?1 AND endpoint = ?3
    AND no < coalesce((SELECT no FROM deliveries WHERE tenant = ?1 AND id = ?2), 9223372036854775807)
    AND (?3 = '' OR endpoint = ?3) AND (?4 = '' OR run = ?4) AND (?5 = '' OR standing = ?5)
ORDER BY no DESC LIMIT ?6

-- name: deliveries_of_run
SELECT tenant, id, endpoint, kind, run, seq, body, standing, attempts, next_ms, status, note, created_ms, settled_ms
FROM deliveries WHERE tenant = ?1 AND run = ?4
    AND no < coalesce((SELECT no FROM deliveries WHERE tenant = ?1 AND id = ?2), 9223372036854775807)
    AND (?3 = '' OR endpoint = ?3) AND (?4 = '' OR run = ?4) AND (?5 = '' OR standing = ?5)
ORDER BY no DESC LIMIT ?6

-- name: redeliver
UPDATE deliveries SET standing = 'pending', attempts = 0, next_ms = ?1, settled_ms = 0
WHERE tenant = ?2 AND id = ?3 AND standing <> 'pending'

-- name: redeliver_dead
UPDATE deliveries SET standing = 'pending', attempts = 0, next_ms = ?1, settled_ms = 0
WHERE tenant = ?2 AND endpoint = ?3 AND standing = 'dead'

-- name: prune
DELETE FROM deliveries WHERE no IN (
    SELECT no FROM deliveries WHERE standing <> 'pending' AND settled_ms < CASE standing WHEN 'done' THEN ? ELSE ? END LIMIT ?
)
