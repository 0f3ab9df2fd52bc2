-- Who goes next. `status = 'runnable' AND worker = ''` is the index `runs_ready`, `worker <> ''` is `runs_driven`.

-- name: next_queue
SELECT -priority, tenant, agent FROM runs
WHERE status = 'runnable' AND worker = '' AND (-priority, tenant, agent) > (?, ?, ?)
ORDER BY -priority, tenant, agent LIMIT 1

-- name: of_queue
SELECT priority, tenant, agent, user, epoch > 0, no, run, 0 FROM runs
WHERE status = 'runnable' AND worker = '' AND -priority = ? AND tenant = ? AND agent = ?
ORDER BY -priority, tenant, agent, epoch = 0, no

-- name: due
SELECT priority, tenant, agent, user, 1, no, run, worker <> '' FROM runs
WHERE status = 'waiting' AND wake_at_ms > 0 AND wake_at_ms <= ?1 AND lease_until_ms <= ?1 ORDER BY wake_at_ms

-- name: lost
SELECT priority, tenant, agent, user, 1, no, run, 1 FROM runs INDEXED BY runs_driven
WHERE worker <> '' AND status = 'runnable' AND lease_until_ms <= ?

-- name: next_wake
SELECT min(at_ms) FROM (
    SELECT min(lease_until_ms) AS at_ms FROM runs INDEXED BY runs_driven WHERE worker <> '' AND status = 'runnable'
    UNION ALL
    SELECT min(wake_at_ms) FROM runs WHERE status = 'waiting' AND wake_at_ms > 0 AND lease_until_ms = 0
    UNION ALL
    SELECT min(max(wake_at_ms, lease_until_ms)) FROM runs
    WHERE status = 'waiting' AND lease_until_ms > 0 AND wake_at_ms > 0
)

-- name: driven
SELECT tenant, agent, user, count(*) FROM runs INDEXED BY runs_driven WHERE worker <> '' GROUP BY tenant, agent, user

-- name: subject
SELECT agent, user FROM runs WHERE no = ?

-- name: count_cap
SELECT count(*) FROM runs INDEXED BY runs_driven
WHERE worker <> '' AND tenant = ?1 AND (?2 = '' OR agent = ?2) AND (?3 = '' OR user = ?3)

-- name: count_agent
SELECT count(*) FROM runs INDEXED BY runs_driven WHERE worker <> '' AND agent = ?

-- name: queued
SELECT (
    SELECT count(*) FROM (
        SELECT 1 FROM runs WHERE status = 'runnable' AND worker = '' AND -priority IN (0, 1) AND tenant = ?1 AND epoch = 0
        LIMIT ?2
    )
) + (
    SELECT count(*) FROM (SELECT 1 FROM runs WHERE status = 'queued' AND tenant = ?1 LIMIT ?2)
)

-- name: standing
SELECT -priority, no FROM runs
WHERE tenant = ? AND run = ? AND status = 'runnable' AND worker = '' AND epoch = 0

-- name: own_ahead
SELECT count(*) FROM (
    SELECT 1 FROM runs WHERE status = 'runnable' AND worker = '' AND -priority = ?1 AND tenant = ?2
        AND (epoch > 0 OR no < ?3)
    LIMIT ?4
)

-- name: length
SELECT count(*) FROM (
    SELECT 1 FROM runs WHERE status = 'runnable' AND worker = '' AND -priority = ? AND tenant = ? LIMIT ?
)

-- name: before
SELECT count(*) FROM (
    SELECT 1 FROM runs WHERE status = 'runnable' AND worker = '' AND -priority < ? LIMIT ?
)

-- name: due_agents
SELECT agent FROM runs INDEXED BY runs_driven WHERE worker <> '' AND status = 'runnable' AND lease_until_ms <= ?1
UNION
SELECT agent FROM (
    SELECT agent FROM runs WHERE status = 'waiting' AND wake_at_ms > 0 AND wake_at_ms <= ?1 ORDER BY wake_at_ms LIMIT 1000
)

-- name: shares
SELECT tenant, scope, weight, max_running, max_queued FROM shares ORDER BY tenant, scope

-- name: set_share
INSERT INTO shares (tenant, scope, weight, max_running, max_queued) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
SET weight = excluded.weight, max_running = excluded.max_running, max_queued = excluded.max_queued

-- name: drop_share
DELETE FROM shares WHERE tenant = ? AND scope = ?

-- name: beat
INSERT INTO workers (name, body, seen_ms) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET body = excluded.body, seen_ms = excluded.seen_ms

-- name: leave
DELETE FROM workers WHERE name = ? OR seen_ms < ?

-- name: workers
SELECT body, seen_ms FROM workers WHERE seen_ms > ? ORDER BY name
