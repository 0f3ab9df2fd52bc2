-- Who goes next. `status = 'runnable' AND worker = ''` is the index `runs_ready`, `worker <> ''` is `runs_driven`.

-- name: ready
-- Steps from queue to queue ($1 class, $2 tenant, $3 agent: where to go on from; at most $4 queues), and takes the first
-- of each that is served ($6) and not full ($7 agents, $8 tenants, $9 tenant and agent, $10 tenant and user): together about $5.
WITH RECURSIVE queues AS (
    (
        SELECT -priority AS rank, tenant, agent FROM runs
        WHERE status = 'runnable' AND worker = '' AND (-priority, tenant, agent) > ($1::bigint, $2::text, $3::text)
        ORDER BY -priority, tenant, agent LIMIT 1
    )
    UNION ALL
    SELECT n.rank, n.tenant, n.agent FROM queues q CROSS JOIN LATERAL (
        SELECT -priority AS rank, tenant, agent FROM runs
        WHERE status = 'runnable' AND worker = '' AND (-priority, tenant, agent) > (q.rank, q.tenant, q.agent)
        ORDER BY -priority, tenant, agent LIMIT 1
    ) n
), seen AS MATERIALIZED (
    SELECT * FROM queues LIMIT $4
), served AS MATERIALIZED (
    SELECT * FROM seen WHERE ($6::text[] IS NULL OR agent = ANY($6)) AND agent <> ALL($7::text[])
        AND tenant <> ALL($8::text[]) AND tenant || chr(31) || agent <> ALL($9::text[])
)
SELECT -s.rank, s.tenant, s.agent, r."user", r.epoch > 0, r.no, r.run FROM served s CROSS JOIN LATERAL (
    SELECT "user", epoch, no, run FROM runs
    WHERE status = 'runnable' AND worker = '' AND -priority = s.rank AND tenant = s.tenant AND agent = s.agent
        AND tenant || chr(31) || "user" <> ALL($10::text[])
    ORDER BY -priority, tenant, agent, (epoch = 0), no
    LIMIT (SELECT least($5::bigint, 2 * $5::bigint / greatest(count(*), 1) + 1) FROM served)
) r
UNION ALL
SELECT -rank, tenant, agent, '', NULL, 0, '' FROM (SELECT * FROM seen OFFSET $4 - 1) last

-- name: due
SELECT priority, tenant, agent, "user", true, no, run, worker <> '' FROM (
    SELECT * FROM runs WHERE status = 'waiting' AND wake_at_ms > 0 AND wake_at_ms <= $1 AND lease_until_ms <= $1
        AND ($3::text[] IS NULL OR agent = ANY($3))
    ORDER BY wake_at_ms LIMIT $2
) AS due
UNION ALL
SELECT priority, tenant, agent, "user", true, no, run, true FROM (
    SELECT * FROM runs WHERE worker <> '' AND status = 'runnable' AND lease_until_ms <= $1
        AND ($3::text[] IS NULL OR agent = ANY($3))
    LIMIT $2
) AS lost

-- name: next_wake
SELECT coalesce(min(at_ms), 0) FROM (
    SELECT min(lease_until_ms) AS at_ms FROM runs WHERE worker <> '' AND status = 'runnable'
    UNION ALL
    (
        SELECT greatest(wake_at_ms, lease_until_ms) FROM runs
        WHERE status = 'waiting' AND wake_at_ms > 0 ORDER BY wake_at_ms LIMIT 100
    )
) AS times

-- name: driven
SELECT tenant, agent, "user", count(*) FROM runs WHERE worker <> '' GROUP BY tenant, agent, "user"

-- name: agents
WITH RECURSIVE queues AS (
    (
        SELECT -priority AS rank, tenant, agent FROM runs WHERE status = 'runnable' AND worker = ''
        ORDER BY -priority, tenant, agent LIMIT 1
    )
    UNION ALL
    SELECT n.rank, n.tenant, n.agent FROM queues q CROSS JOIN LATERAL (
        SELECT -priority AS rank, tenant, agent FROM runs
        WHERE status = 'runnable' AND worker = '' AND (-priority, tenant, agent) > (q.rank, q.tenant, q.agent)
        ORDER BY -priority, tenant, agent LIMIT 1
    ) n
)
SELECT agent FROM queues
UNION
SELECT agent FROM runs WHERE worker <> '' AND status = 'runnable' AND lease_until_ms <= now_ms()
UNION
SELECT agent FROM (
    SELECT agent FROM runs WHERE status = 'waiting' AND wake_at_ms > 0 AND wake_at_ms <= now_ms()
    ORDER BY wake_at_ms LIMIT 1000
) AS due

-- name: caps_of
SELECT r.tenant, r.run, r.agent, r."user" FROM unnest($1::text[], $2::text[]) AS v (tenant, run)
JOIN runs r ON r.tenant = v.tenant AND r.run = v.run

-- name: lock_caps
SELECT pg_advisory_xact_lock(1398034515, k) FROM (SELECT DISTINCT k FROM unnest($1::int[]) AS k ORDER BY k) AS locks

-- name: count_caps
SELECT c.tenant, c.agent, c."user", (
    SELECT count(*) FROM runs r WHERE r.worker <> '' AND r.tenant = c.tenant
        AND (c.agent = '' OR r.agent = c.agent) AND (c."user" = '' OR r."user" = c."user")
) FROM unnest($1::text[], $2::text[], $3::text[]) AS c (tenant, agent, "user") WHERE c.tenant <> ''
UNION ALL
SELECT '', c.agent, '', (
    SELECT count(*) FROM runs r WHERE r.worker <> '' AND r.agent = c.agent
) FROM unnest($1::text[], $2::text[], $3::text[]) AS c (tenant, agent, "user") WHERE c.tenant = ''

-- name: queued
SELECT (
    SELECT count(*) FROM (
        SELECT 1 FROM runs WHERE status = 'runnable' AND worker = '' AND -priority IN (0, 1) AND tenant = $1 AND epoch = 0
        LIMIT $2
    ) AS ready
) + (
    SELECT count(*) FROM (SELECT 1 FROM runs WHERE status = 'queued' AND tenant = $1 LIMIT $2) AS behind
)

-- name: place_of
SELECT -priority, no FROM runs
WHERE tenant = $1 AND run = $2 AND status = 'runnable' AND worker = '' AND epoch = 0

-- name: counts
-- How many of a tenant ($2) go before a run ($3) of a class ($1), and how many of a class before; each up to $4.
SELECT (
    SELECT count(*) FROM (
        SELECT 1 FROM runs WHERE status = 'runnable' AND worker = '' AND -priority = $1 AND tenant = $2
            AND (epoch > 0 OR no < $3)
        LIMIT $4
    ) AS own
), (
    SELECT count(*) FROM (
        SELECT 1 FROM runs WHERE status = 'runnable' AND worker = '' AND -priority < $1 LIMIT $4
    ) AS before
)

-- name: queues
-- How long each other tenant's queue of a class ($1) is, up to $3.
WITH RECURSIVE tenants AS (
    (
        SELECT tenant FROM runs WHERE status = 'runnable' AND worker = '' AND -priority = $1 ORDER BY tenant LIMIT 1
    )
    UNION ALL
    SELECT n.tenant FROM tenants t CROSS JOIN LATERAL (
        SELECT tenant FROM runs WHERE status = 'runnable' AND worker = '' AND -priority = $1 AND tenant > t.tenant
        ORDER BY tenant LIMIT 1
    ) n
)
SELECT t.tenant, q.length FROM tenants t CROSS JOIN LATERAL (
    SELECT count(*) AS length FROM (
        SELECT 1 FROM runs r WHERE r.status = 'runnable' AND r.worker = '' AND -r.priority = $1 AND r.tenant = t.tenant
        LIMIT $3
    ) AS one
) q WHERE t.tenant <> $2

-- name: shares
SELECT tenant, scope, weight, max_running, max_queued FROM shares ORDER BY tenant, scope

-- name: set_share
INSERT INTO shares (tenant, scope, weight, max_running, max_queued) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, scope) DO UPDATE
SET weight = excluded.weight, max_running = excluded.max_running, max_queued = excluded.max_queued

-- name: drop_share
DELETE FROM shares WHERE tenant = $1 AND scope = $2

-- name: beat
INSERT INTO workers (name, body, seen_ms) VALUES ($1, $2, now_ms())
ON CONFLICT (name) DO UPDATE SET body = excluded.body, seen_ms = excluded.seen_ms

-- name: leave
DELETE FROM workers WHERE name = $1 OR seen_ms < now_ms() - 86400000

-- name: workers
SELECT body, seen_ms FROM workers WHERE seen_ms > now_ms() - 86400000 ORDER BY name
