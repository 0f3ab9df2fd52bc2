-- Moving sessions between stores: journal/moving.py.

-- name: keys
SELECT subject, id, salt FROM keys WHERE tenant = $1 ORDER BY no

-- name: used_keys
SELECT key, digest, run FROM idempotency WHERE tenant = $1 ORDER BY key

-- name: lock_runs
SELECT r.run, r.seq, r.status, r.outcome, r.worker, r.lease_until_ms > now_ms()
FROM runs r WHERE r.tenant = $1 AND r.run = ANY($2::text[]) ORDER BY r.no FOR UPDATE

-- name: let_go
UPDATE runs SET status = 'parked', outcome = $3, epoch = epoch + 1, worker = '', lease_until_ms = 0, updated_ms = now_ms()
WHERE tenant = $1 AND run = $2

-- name: lock_keys
SELECT pg_advisory_xact_lock_shared(1398034499, k) FROM unnest($1::int[]) AS k

-- name: destroyed
SELECT id FROM destroyed_keys WHERE tenant = $1 AND id = ANY($2::text[])

-- name: known_keys
SELECT id, salt, secret FROM keys WHERE tenant = $1 AND id = ANY($2::text[])

-- name: insert_key
INSERT INTO keys (tenant, subject, id, salt, secret, moved)
SELECT $1, $2, $3, $4, $5, EXISTS (SELECT 1 FROM keys WHERE tenant = $1 AND subject = $2 AND NOT moved)

-- name: find_runs
SELECT r.run, r.session, r.status, r.outcome, r.seq, r.hash,
    coalesce((SELECT e.hash FROM events e WHERE e.run = r.no AND e.seq = v.seq), '')
FROM unnest($2::text[], $3::bigint[]) AS v (run, seq) JOIN runs r ON r.tenant = $1 AND r.run = v.run
ORDER BY r.no FOR UPDATE OF r

-- name: find_session
SELECT tenant, session, agent, "user", head_run, head_seq, head_hash, live, runs, created_ms, updated_ms
FROM sessions WHERE tenant = $1 AND session = $2 FOR UPDATE

-- name: insert_run
INSERT INTO runs (tenant, run, session, agent, bundle, "user", status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms,
    worker, attempts, priority, parent, root, cost, created_ms, updated_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) RETURNING no

-- name: grow_run
UPDATE runs SET status = $3, outcome = $4, epoch = greatest(epoch, $5), seq = $6, hash = $7, wake_at_ms = $8, worker = '',
    lease_until_ms = 0, attempts = $9, cost = $10, updated_ms = $11
WHERE tenant = $1 AND run = $2 RETURNING no

-- name: drive_again
UPDATE runs SET status = $3, outcome = $4, attempts = 0, updated_ms = now_ms() WHERE tenant = $1 AND run = $2

-- name: clear_inbox
DELETE FROM inbox WHERE run = $1

-- name: insert_inbox
INSERT INTO inbox (run, kind, body, at_ms)
SELECT $1, v.kind, v.body, v.at_ms FROM unnest($2::text[], $3::bytea[], $4::bigint[]) WITH ORDINALITY
    AS v (kind, body, at_ms, place) ORDER BY v.place

-- name: insert_events
INSERT INTO events (run, seq, hash, envelope)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])

-- name: insert_contents
INSERT INTO contents (key, hash, blob)
SELECT k.no, v.hash, v.blob FROM unnest($2::text[], $3::bytea[], $4::bytea[]) AS v (key, hash, blob)
JOIN keys k ON k.tenant = $1 AND k.id = v.key ORDER BY 1, 2 ON CONFLICT DO NOTHING

-- name: insert_used
INSERT INTO idempotency (tenant, key, digest, run)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[]) ORDER BY 2 ON CONFLICT DO NOTHING

-- name: foreign_used
SELECT v.key FROM unnest($2::text[], $3::text[], $4::text[]) AS v (key, digest, run)
JOIN idempotency i ON i.tenant = $1 AND i.key = v.key WHERE (i.digest, i.run) <> (v.digest, v.run) LIMIT 1

-- name: insert_due
INSERT INTO memory_due (tenant, run, agent, "user", tries, added_ms)
VALUES ($1, $2, $3, $4, $5, now_ms()) ON CONFLICT DO NOTHING

-- name: put_session
INSERT INTO sessions (tenant, session, agent, "user", head_run, head_seq, head_hash, live, runs, created_ms, updated_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (tenant, session) DO UPDATE SET head_run = excluded.head_run, head_seq = excluded.head_seq,
    head_hash = excluded.head_hash, live = excluded.live, runs = excluded.runs, updated_ms = excluded.updated_ms
