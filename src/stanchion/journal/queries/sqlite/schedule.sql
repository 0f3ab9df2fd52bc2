-- The statements of schedules.

-- name: put
INSERT INTO schedules (tenant, name, agent, input, cron, tz, session, user, if_busy, if_missed, priority, limits, enabled,
    next_ms, last_ms, last_run, note, created_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', '', ?) ON CONFLICT DO NOTHING

-- name: replace
INSERT INTO schedules (tenant, name, agent, input, cron, tz, session, user, if_busy, if_missed, priority, limits, enabled,
    next_ms, last_ms, last_run, note, created_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', '', ?)
ON CONFLICT DO UPDATE SET agent = excluded.agent, input = excluded.input, cron = excluded.cron, tz = excluded.tz,
    session = excluded.session, user = excluded.user, if_busy = excluded.if_busy, if_missed = excluded.if_missed,
    priority = excluded.priority, limits = excluded.limits, enabled = excluded.enabled, next_ms = excluded.next_ms, note = ''

-- name: get
SELECT tenant, name, agent, input, cron, tz, session, user, if_busy, if_missed, priority, limits, enabled, next_ms, last_ms,
    last_run, note, created_ms
FROM schedules WHERE tenant = ? AND name = ?

-- name: listed
SELECT tenant, name, agent, input, cron, tz, session, user, if_busy, if_missed, priority, limits, enabled, next_ms, last_ms,
    last_run, note, created_ms
FROM schedules WHERE tenant = ? ORDER BY name

-- name: due
SELECT tenant, name, agent, input, cron, tz, session, user, if_busy, if_missed, priority, limits, enabled, next_ms, last_ms,
    last_run, note, created_ms
FROM schedules WHERE enabled = 1 AND next_ms <= ? AND (tenant, name) > (?, ?) ORDER BY tenant, name LIMIT ?

-- name: next_due
SELECT coalesce(min(next_ms), 0) FROM schedules WHERE enabled = 1

-- name: fired
UPDATE schedules SET next_ms = ?, last_ms = ?, last_run = coalesce(nullif(?, ''), last_run), note = ?
WHERE tenant = ? AND name = ? AND next_ms = ?

-- name: enable
UPDATE schedules SET enabled = ?, next_ms = ? WHERE tenant = ? AND name = ?

-- name: remove
DELETE FROM schedules WHERE tenant = ? AND name = ?
