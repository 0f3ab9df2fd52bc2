-- Limits that all workers share: blocks, pauses, breakers, settings.

-- name: take
SELECT numbers, given, more_left, retry_ms
FROM quota_take($1, $2, $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])

-- name: change
UPDATE quota_blocks b SET amount = w.amount,
    until_ms = CASE WHEN w.for_ms > 0 THEN now_ms() + w.for_ms ELSE b.until_ms END
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w(no, amount, for_ms)
WHERE b.no = w.no AND b.until_ms > now_ms() RETURNING b.no

-- name: give_back
DELETE FROM quota_blocks WHERE no = ANY($1::bigint[]) RETURNING no

-- name: pause
INSERT INTO quota_pauses VALUES ($1, now_ms() + $2)
ON CONFLICT (name) DO UPDATE SET until_ms = greatest(quota_pauses.until_ms, excluded.until_ms)

-- name: trip
INSERT INTO breakers (name, until_ms) VALUES ($1, now_ms() + $2)
ON CONFLICT (name) DO UPDATE SET until_ms = excluded.until_ms, probe = '', probe_until_ms = 0

-- name: probe
UPDATE breakers SET probe = $2, probe_until_ms = now_ms() + $3
WHERE name = $1 AND until_ms <= now_ms() AND probe_until_ms <= now_ms() RETURNING name

-- name: mend
DELETE FROM breakers WHERE name = $1

-- name: signals
SELECT 'quota', name, 0::bigint, false, body FROM quotas
UNION ALL SELECT 'pause', name, until_ms - now_ms(), false, '' FROM quota_pauses WHERE until_ms > now_ms()
UNION ALL SELECT 'breaker', name, until_ms - now_ms(), probe_until_ms > now_ms(), '' FROM breakers
ORDER BY 1, 2

-- name: usage
SELECT name, sum(amount)::bigint, count(DISTINCT worker) FROM quota_blocks WHERE until_ms > now_ms() GROUP BY name
ORDER BY name

-- name: set_quota
INSERT INTO quotas VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET body = excluded.body

-- name: drop_quota
DELETE FROM quotas WHERE name = $1 RETURNING name
