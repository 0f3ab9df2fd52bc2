-- The statements of schedules.

-- name: put
INSERT INTO schedules (tenant, name, agent, input, cron, tz, session, "user", if_busy, if_missed, priority, limits, enabled,
    next_ms, last_ms, last_run, note, created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, '', '', now_ms()) ON CONFLICT DO NOTHING RETURNING 1

-- name: replace
INSERT INTO schedules (tenant, name, agent, input, cron, tz, session, "user", if_busy, if_missed, priority, limits, enabled,
    next_ms, last_ms, last_run, note, created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, '', '', now_ms())
ON CONFLICT (tenant, name) DO UPDATE SET agent = excluded.agent, input = excluded.input, cron = excluded.cron,
    tz = excluded.tz, session = excluded.session, "user" = excluded."user", if_busy = excluded.if_busy,
    if_missed = excluded.if_missed, priority = excluded.priority, limits = excluded.limits, enabled = excluded.enabled,
    next_ms = excluded.next_ms, note = '' RETURNING 1

-- name: get
SELECT tenant, name, agent, input, cron, tz, session, "user", if_busy, if_missed, priority, limits, enabled, next_ms,
    last_ms, last_run, note, created_ms
FROM schedules WHERE tenant = $1 AND name = $2

-- name: listed
SELECT tenant, name, agent, input, cron, tz, session, "user", if_busy, if_missed, priority, limits, enabled, next_ms,
    last_ms, last_run, note, created_ms
FROM schedules WHERE tenant = $1 ORDER BY name COLLATE "C"

-- name: due
SELECT tenant, name, agent, input, cron, tz, session, "user", if_busy, if_missed, priority, limits, enabled, next_ms,
    last_ms, last_run, note, created_ms
FROM schedules WHERE enabled AND next_ms <= (SELECT now_ms())
    AND (tenant COLLATE "C", name COLLATE "C") > ($1::text COLLATE "C", $2::text COLLATE "C")
ORDER BY tenant COLLATE "C", name COLLATE "C" LIMIT $3

-- name: next_due
SELECT coalesce(min(next_ms), 0) FROM schedules WHERE enabled

-- name: fired
UPDATE schedules SET next_ms = $4, last_ms = $3, last_run = coalesce(nullif($5, ''), last_run), note = $6
WHERE tenant = $1 AND name = $2 AND next_ms = $3 RETURNING 1

-- name: enable
UPDATE schedules SET enabled = $3, next_ms = $4 WHERE tenant = $1 AND name = $2 RETURNING 1

-- name: remove
DELETE FROM schedules WHERE tenant = $1 AND name = $2 RETURNING 1
