-- The statements of the scale-out store. Those of a group take arrays: one statement for all writes of the group.

-- name: now
SELECT now_ms()

-- The group: locking and reading.

-- name: lock_heads
SELECT * FROM lock_heads($1::int[], $2::text[], $3::text[])

-- name: lock_sessions
SELECT s.tenant, s.session, s.live, s.head_run, s.head_seq, s.head_hash, s.runs
FROM unnest($1::text[], $2::text[]) AS v (tenant, session)
JOIN sessions s ON s.tenant = v.tenant AND s.session = v.session
ORDER BY s.no FOR UPDATE OF s

-- name: lock_queued
SELECT r.tenant, r.run, r.no, r.seq, r.hash, r.epoch, r.status, r.outcome, r.wake_at_ms, r.lease_until_ms, r.worker,
    r.attempts, r.cost, r.session
FROM unnest($1::text[], $2::text[]) AS v (tenant, session)
JOIN runs r ON r.tenant = v.tenant AND r.session = v.session AND r.status = 'queued'
ORDER BY r.no FOR UPDATE OF r

-- name: idempotency
SELECT i.tenant, i.key, i.digest, i.run
FROM unnest($1::text[], $2::text[]) AS v (tenant, key)
JOIN idempotency i ON i.tenant = v.tenant AND i.key = v.key

-- name: unread
SELECT run, no, kind FROM inbox WHERE run = ANY($1::bigint[])

-- The group: writing.

-- name: write
WITH content AS (
    INSERT INTO contents (key, hash, blob)
    SELECT k.no, v.hash, v.blob FROM unnest($5::text[], $6::text[], $7::bytea[], $8::bytea[]) AS v (tenant, key, hash, blob)
    JOIN keys k ON k.tenant = v.tenant AND k.id = v.key
    ORDER BY 1, 2 ON CONFLICT DO NOTHING
), event AS (
    INSERT INTO events (run, seq, hash, envelope)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])
), read AS (
    DELETE FROM inbox i USING unnest($21::bigint[], $22::bigint[]) AS v (run, no) WHERE i.no = v.no AND i.run = v.run
), money AS (
    INSERT INTO ledger_shards (tenant, ledger, shard, name, allot, given, settled, reserved, closed)
    SELECT * FROM unnest($23::text[], $24::text[], $25::bigint[], $26::text[], $27::bigint[], $28::bigint[],
        $29::bigint[], $30::bigint[], $31::boolean[])
    ON CONFLICT (tenant, ledger, shard) DO UPDATE SET allot = excluded.allot, given = excluded.given,
        settled = excluded.settled, reserved = excluded.reserved, closed = excluded.closed
)
UPDATE runs r SET seq = v.seq, hash = v.hash, cost = v.cost, attempts = v.attempts, status = v.status,
    outcome = v.outcome, epoch = v.epoch, wake_at_ms = v.wake_at_ms, lease_until_ms = v.lease_until_ms,
    worker = v.worker, updated_ms = $20
FROM unnest($9::bigint[], $10::bigint[], $11::bytea[], $12::bigint[], $13::bigint[], $14::text[], $15::text[],
    $16::bigint[], $17::bigint[], $18::bigint[], $19::text[])
    AS v (no, seq, hash, cost, attempts, status, outcome, epoch, wake_at_ms, lease_until_ms, worker)
WHERE r.no = v.no

-- name: insert_runs
INSERT INTO runs (tenant, run, session, agent, bundle, "user", status, priority, parent, root, created_ms, updated_ms)
SELECT v.tenant, v.run, v.session, v.agent, v.bundle, v."user", v.status, v.priority, v.parent, v.root, $11, $11
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::text[], $10::text[]) WITH ORDINALITY
    AS v (tenant, run, session, agent, bundle, "user", status, priority, parent, root, place)
ORDER BY v.place RETURNING no

-- name: insert_inbox
INSERT INTO inbox (run, kind, body, at_ms)
SELECT v.run, v.kind, v.body, $4 FROM unnest($1::bigint[], $2::text[], $3::bytea[]) WITH ORDINALITY
    AS v (run, kind, body, place)
ORDER BY v.place RETURNING no

-- name: insert_idempotency
INSERT INTO idempotency (tenant, key, digest, run)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) ORDER BY 1, 2

-- name: insert_sessions
INSERT INTO sessions (tenant, session, agent, "user", head_run, head_seq, head_hash, live, runs, created_ms, updated_ms)
SELECT v.*, $10, $10 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
    $8::text[], $9::bigint[]) AS v

-- name: update_sessions
UPDATE sessions s SET head_run = v.head_run, head_seq = v.head_seq, head_hash = v.head_hash, live = v.live,
    runs = v.runs, updated_ms = $8
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])
    AS v (tenant, session, head_run, head_seq, head_hash, live, runs)
WHERE s.tenant = v.tenant AND s.session = v.session

-- The rest.

-- name: key_of_subject
SELECT id, salt, secret FROM keys WHERE tenant = $1 AND subject = $2 AND NOT moved

-- name: ids_of_subject
SELECT id FROM keys WHERE tenant = $1 AND subject = $2 ORDER BY id

-- name: insert_key
INSERT INTO keys (tenant, subject, id, salt, secret) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING

-- name: keys
SELECT id, salt, secret FROM keys WHERE tenant = $1 ORDER BY no

-- name: key_of_id
SELECT id, salt, secret FROM keys WHERE tenant = $1 AND id = ANY($2::text[])

-- name: lock_key
SELECT pg_advisory_xact_lock(1398034499, $1)

-- name: destroy_key
WITH gone AS (
    DELETE FROM keys WHERE tenant = $1 AND subject = $2 AND id = $3 RETURNING no
), told AS (
    INSERT INTO destroyed_keys (tenant, id) SELECT $1, $3 FROM gone ON CONFLICT DO NOTHING
), forgotten AS (
    DELETE FROM connections WHERE tenant = $1 AND "user" = $2 AND EXISTS (SELECT 1 FROM gone)
)
INSERT INTO erasing (key) SELECT no FROM gone RETURNING key

-- name: erasing
SELECT key FROM erasing ORDER BY key

-- name: erase_contents
DELETE FROM contents WHERE key = $1 AND hash IN (SELECT hash FROM contents WHERE key = $1 LIMIT 2000)

-- name: erased
DELETE FROM erasing WHERE key = $1

-- name: insert_bundle
INSERT INTO bundles (tenant, digest, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: bundle
SELECT body FROM bundles WHERE tenant = $1 AND digest = $2

-- name: insert_api_key
INSERT INTO api_keys (id, tenant, hash, name, created_ms, revoked, may_approve) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING RETURNING 1

-- name: revoke_api_key
UPDATE api_keys SET revoked = true WHERE id = $1 RETURNING 1

-- name: api_keys
SELECT id, tenant, hash, name, created_ms, revoked, may_approve FROM api_keys ORDER BY created_ms, id

-- Reading.

-- name: events
SELECT seq, hash, envelope FROM events WHERE run = (SELECT no FROM runs WHERE tenant = $1 AND run = $2) AND seq > $3
ORDER BY seq LIMIT $4

-- name: outlines
-- Of one run after the other, each in order, from behind an event of the first of them.
SELECT r.run, e.seq, e.envelope FROM unnest($2::text[]) WITH ORDINALITY AS v (run, place)
JOIN runs r ON r.tenant = $1 AND r.run = v.run CROSS JOIN LATERAL (
    SELECT seq, envelope FROM events WHERE run = r.no AND seq > CASE v.place WHEN 1 THEN $3 ELSE 0 END ORDER BY seq LIMIT $4
) e ORDER BY v.place, e.seq LIMIT $4

-- name: tenants
-- From each tenant to the next in the index, not past all of its runs.
WITH RECURSIVE t AS (
    (SELECT tenant FROM runs ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant FROM runs r WHERE r.tenant > t.tenant ORDER BY r.tenant LIMIT 1) FROM t WHERE t.tenant IS NOT NULL
)
SELECT tenant FROM t WHERE tenant IS NOT NULL ORDER BY tenant

-- name: contents
SELECT k.id, c.hash, c.blob FROM unnest($2::text[], $3::bytea[]) AS v (id, hash)
JOIN keys k ON k.tenant = $1 AND k.id = v.id JOIN contents c ON c.key = k.no AND c.hash = v.hash

-- name: inbox
SELECT no, kind, body, at_ms FROM inbox WHERE run = (SELECT no FROM runs WHERE tenant = $1 AND run = $2) ORDER BY no

-- name: run
SELECT tenant, run, session, agent, bundle, "user", status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE tenant = $1 AND run = $2

-- name: runs
SELECT tenant, run, session, agent, bundle, "user", status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE tenant = $1
    AND no < coalesce((SELECT no FROM runs WHERE tenant = $1 AND run = $2), 9223372036854775807)
    AND ($3 = '' OR agent = $3) AND ($4 = '' OR "user" = $4) AND ($5 = '' OR status = $5) AND ($7 = '' OR outcome = $7)
ORDER BY no DESC LIMIT $6

-- name: parked
SELECT tenant, run, session, agent, bundle, "user", status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE status = 'parked'
    AND no < coalesce((SELECT no FROM runs WHERE tenant = $4 AND run = $5), 9223372036854775807)
    AND ($1 = '' OR tenant = $1) AND ($2 = '' OR agent = $2) AND ($3 = '' OR outcome = $3)
ORDER BY no DESC LIMIT $6

-- name: orphans
SELECT tenant, run, session, agent, bundle, "user", status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs r WHERE (
    status = 'runnable' AND lease_until_ms <= now_ms() - $1 AND updated_ms <= now_ms() - $1
) OR (
    status = 'queued' AND NOT EXISTS (
        SELECT 1 FROM sessions s JOIN runs l ON l.tenant = s.tenant AND l.run = s.live
        WHERE s.tenant = r.tenant AND s.session = r.session AND l.status <> 'ended'
    )
) ORDER BY no LIMIT $2

-- name: claims
SELECT epoch, worker, ended_ms FROM claims WHERE run = (SELECT no FROM runs WHERE tenant = $1 AND run = $2) ORDER BY epoch

-- name: insert_claims
INSERT INTO claims (run, epoch, worker, ended_ms)
SELECT v.run, v.epoch, v.worker, $4 FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS v (run, epoch, worker)
ON CONFLICT DO NOTHING

-- name: runs_of_session
SELECT tenant, run, session, agent, bundle, "user", status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE tenant = $1 AND session = $8
    AND no < coalesce((SELECT no FROM runs WHERE tenant = $1 AND run = $2), 9223372036854775807)
    AND ($3 = '' OR agent = $3) AND ($4 = '' OR "user" = $4) AND ($5 = '' OR status = $5) AND ($7 = '' OR outcome = $7)
ORDER BY no DESC LIMIT $6

-- name: session
SELECT tenant, session, agent, "user", head_run, head_seq, head_hash, live, runs, created_ms, updated_ms
FROM sessions WHERE tenant = $1 AND session = $2

-- name: sessions
SELECT tenant, session, agent, "user", head_run, head_seq, head_hash, live, runs, created_ms, updated_ms
FROM sessions WHERE tenant = $1
    AND no < coalesce((SELECT no FROM sessions WHERE tenant = $1 AND session = $2), 9223372036854775807)
ORDER BY no DESC LIMIT $3

-- name: renew_all
WITH held AS (
    SELECT r.no FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v (tenant, run, epoch)
    JOIN runs r ON r.tenant = v.tenant AND r.run = v.run
    WHERE r.epoch = v.epoch AND r.worker <> '' AND r.status <> 'ended' ORDER BY r.no FOR UPDATE OF r
)
UPDATE runs r SET lease_until_ms = now_ms() + $4 FROM held WHERE r.no = held.no RETURNING r.tenant, r.run
