-- Moving sessions between stores: journal/moving.py.

-- name: keys
SELECT subject, id, salt FROM keys WHERE tenant = ? ORDER BY no

-- name: used_keys
SELECT key, digest, run FROM idempotency WHERE tenant = ? ORDER BY key

-- name: find_run
SELECT r.session, r.status, r.outcome, r.seq, r.hash,
    coalesce((SELECT e.hash FROM events e WHERE e.run = r.no AND e.seq = ?3), x'')
FROM runs r WHERE r.tenant = ?1 AND r.run = ?2

-- name: let_go
UPDATE runs SET status = 'parked', outcome = ?3, epoch = epoch + 1, worker = '', lease_until_ms = 0, updated_ms = ?4
WHERE tenant = ?1 AND run = ?2

-- name: destroyed
SELECT 1 FROM destroyed_keys WHERE tenant = ? AND id = ?

-- name: known_key
SELECT id, salt, secret FROM keys WHERE tenant = ? AND id = ?

-- name: insert_key
INSERT INTO keys (tenant, subject, id, salt, secret, moved)
SELECT ?1, ?2, ?3, ?4, ?5, EXISTS (SELECT 1 FROM keys WHERE tenant = ?1 AND subject = ?2 AND moved = 0)

-- name: key_nos
SELECT id, no FROM keys WHERE tenant = ?

-- name: insert_run
INSERT INTO runs (tenant, run, session, agent, bundle, user, status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms,
    worker, attempts, priority, parent, root, cost, created_ms, updated_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: grow_run
UPDATE runs SET status = ?3, outcome = ?4, epoch = max(epoch, ?5), seq = ?6, hash = ?7, wake_at_ms = ?8, worker = '',
    lease_until_ms = 0, attempts = ?9, cost = ?10, updated_ms = ?11
WHERE tenant = ?1 AND run = ?2

-- name: run_no
SELECT no FROM runs WHERE tenant = ? AND run = ?

-- name: drive_again
UPDATE runs SET status = ?3, outcome = ?4, attempts = 0, updated_ms = ?5 WHERE tenant = ?1 AND run = ?2

-- name: clear_inbox
DELETE FROM inbox WHERE run = ?

-- name: used_key
SELECT digest, run FROM idempotency WHERE tenant = ? AND key = ?

-- name: insert_used
INSERT INTO idempotency (tenant, key, digest, run) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: insert_due
INSERT INTO memory_due (tenant, run, agent, "user", tries, added_ms) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: put_session
INSERT INTO sessions (tenant, session, agent, user, head_run, head_seq, head_hash, live, runs, created_ms, updated_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, session) DO UPDATE SET head_run = excluded.head_run, head_seq = excluded.head_seq,
    head_hash = excluded.head_hash, live = excluded.live, runs = excluded.runs, updated_ms = excluded.updated_ms

-- name: has_ledger
SELECT 1 FROM ledgers WHERE tenant = ? AND ledger = ?

-- name: insert_ledger
INSERT INTO ledgers (tenant, ledger, name, settled, reserved, closed) VALUES (?, ?, ?, ?, 0, 0)
