-- Limits that all workers share: blocks, pauses, breakers, settings.

-- name: paused
SELECT until_ms FROM quota_pauses WHERE name = ? AND until_ms > ?

-- name: expire
DELETE FROM quota_blocks WHERE name = ? AND until_ms <= ?

-- name: counted
SELECT until_ms, amount FROM quota_blocks WHERE name = ? ORDER BY until_ms, no

-- name: insert_block
INSERT INTO quota_blocks (name, worker, amount, until_ms) VALUES (?, ?, ?, ?) RETURNING no

-- name: change
UPDATE quota_blocks SET amount = ?2, until_ms = CASE WHEN ?3 > 0 THEN ?4 + ?3 ELSE until_ms END
WHERE no = ?1 AND until_ms > ?4 RETURNING no

-- name: give_back
DELETE FROM quota_blocks WHERE no = ? RETURNING no

-- name: pause
INSERT INTO quota_pauses VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET until_ms = max(until_ms, excluded.until_ms)

-- name: trip
INSERT INTO breakers (name, until_ms) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET until_ms = excluded.until_ms, probe = '', probe_until_ms = 0

-- name: probe
UPDATE breakers SET probe = ?2, probe_until_ms = ?4 + ?3
WHERE name = ?1 AND until_ms <= ?4 AND probe_until_ms <= ?4 RETURNING name

-- name: mend
DELETE FROM breakers WHERE name = ?

-- name: signals
SELECT 'quota', name, 0, 0, body FROM quotas
UNION ALL SELECT 'pause', name, until_ms - ?1, 0, x'' FROM quota_pauses WHERE until_ms > ?1
UNION ALL SELECT 'breaker', name, until_ms - ?1, probe_until_ms > ?1, x'' FROM breakers
ORDER BY 1, 2

-- name: usage
SELECT name, sum(amount), count(DISTINCT worker) FROM quota_blocks WHERE until_ms > ? GROUP BY name ORDER BY name

-- name: set_quota
INSERT INTO quotas VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body

-- name: drop_quota
DELETE FROM quotas WHERE name = ? RETURNING name
