-- The statements of the embedded store. Those with several rows of values are made in sqlite/multi.py.

-- name: head
SELECT no, seq, hash, epoch, status, outcome, wake_at_ms, lease_until_ms, worker, attempts, cost, session
FROM runs WHERE tenant = ? AND run = ?

-- name: insert_run
INSERT INTO runs (tenant, run, session, agent, bundle, user, status, outcome, epoch, seq, hash, wake_at_ms,
    lease_until_ms, worker, attempts, priority, parent, root, cost, created_ms, updated_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, '', 0, 0, x'', 0, 0, '', 0, ?, ?, ?, 0, ?, ?)

-- name: void_claims
INSERT INTO claims (run, epoch, worker, ended_ms)
SELECT no, epoch, worker, ? FROM runs WHERE lease_until_ms > 0 AND worker <> ? AND attempts > 0 ON CONFLICT DO NOTHING

-- name: void_leases
UPDATE runs INDEXED BY runs_driven SET lease_until_ms = 0, worker = '' WHERE worker <> '' AND worker <> ?

-- name: next_queued
SELECT run FROM runs WHERE tenant = ? AND session = ? AND status = 'queued' ORDER BY no LIMIT 1

-- name: insert_inbox
INSERT INTO inbox (run, kind, body, at_ms) VALUES (?, ?, ?, ?)

-- name: delete_inbox
DELETE FROM inbox WHERE run = ? AND no = ?

-- name: inbox_nos
SELECT no FROM inbox WHERE run = ? AND kind <> 'start'

-- name: has_inbox
SELECT 1 FROM inbox WHERE run = ? LIMIT 1

-- name: session_for_start
SELECT live, head_run, head_seq, head_hash FROM sessions WHERE tenant = ? AND session = ?

-- name: insert_session
INSERT INTO sessions (tenant, session, agent, user, head_run, head_seq, head_hash, live, runs, created_ms, updated_ms)
VALUES (?, ?, ?, ?, '', 0, '', ?, 1, ?, ?)

-- name: session_started
UPDATE sessions SET live = ?, runs = runs + 1, updated_ms = ? WHERE tenant = ? AND session = ?

-- name: session_head
UPDATE sessions SET head_run = ?, head_seq = ?, head_hash = ?, updated_ms = ? WHERE tenant = ? AND session = ?

-- name: session_live
UPDATE sessions SET live = ?, updated_ms = ? WHERE tenant = ? AND session = ?

-- name: idempotency
SELECT digest, run FROM idempotency WHERE tenant = ? AND key = ?

-- name: insert_idempotency
INSERT INTO idempotency (tenant, key, digest, run) VALUES (?, ?, ?, ?)

-- name: ledger
SELECT settled, reserved, closed FROM ledgers WHERE tenant = ? AND ledger = ?

-- name: limit
SELECT amount FROM limits WHERE tenant = ? AND name = ?

-- name: set_limit
INSERT INTO limits (tenant, name, amount) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = excluded.amount

-- name: drop_limit
DELETE FROM limits WHERE tenant = ? AND name = ?

-- name: open_ledgers
UPDATE ledgers SET closed = 0 WHERE tenant = ? AND name = ?

-- name: ledgers
SELECT l.ledger, coalesce(m.amount, -1), l.settled, l.reserved, l.closed
FROM ledgers l LEFT JOIN limits m ON m.tenant = l.tenant AND m.name = l.name WHERE l.tenant = ?1
UNION ALL
SELECT m.name, m.amount, 0, 0, 0 FROM limits m
WHERE m.tenant = ?1 AND NOT EXISTS (SELECT 1 FROM ledgers l WHERE l.tenant = ?1 AND l.name = m.name)
ORDER BY 1

-- name: key_of_subject
SELECT id, salt, secret FROM keys WHERE tenant = ? AND subject = ? AND moved = 0

-- name: insert_key
INSERT INTO keys (tenant, subject, id, salt, secret) VALUES (?, ?, ?, ?, ?)

-- name: key_no
SELECT no FROM keys WHERE tenant = ? AND id = ?

-- name: subject_nos
SELECT no FROM keys WHERE tenant = ? AND subject = ?

-- name: erase_contents
UPDATE contents SET blob = zeroblob(length(blob)) WHERE key = ?

-- name: remember_destroyed
INSERT INTO destroyed_keys (tenant, id) SELECT tenant, id FROM keys WHERE no = ? ON CONFLICT DO NOTHING

-- name: forget_connections
DELETE FROM connections WHERE tenant = ? AND "user" = ?

-- name: delete_key
DELETE FROM keys WHERE no = ?

-- name: insert_bundle
INSERT INTO bundles (tenant, digest, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING

-- name: insert_api_key
INSERT INTO api_keys (tenant, id, hash, name, created_ms, revoked, may_approve) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: revoke_api_key
UPDATE api_keys SET revoked = 1 WHERE id = ?

-- Reading.

-- name: run_no
SELECT no FROM runs WHERE tenant = ? AND run = ?

-- name: events
SELECT seq, hash, envelope FROM events WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: tenants
-- From each tenant to the next in the index, not past all of its runs.
WITH RECURSIVE t (tenant) AS (
    SELECT min(tenant) FROM runs
    UNION ALL
    SELECT (SELECT min(r.tenant) FROM runs r WHERE r.tenant > t.tenant) FROM t WHERE t.tenant IS NOT NULL
)
SELECT tenant FROM t WHERE tenant IS NOT NULL ORDER BY tenant

-- name: key
SELECT no, salt, secret FROM keys WHERE tenant = ? AND id = ?

-- name: content
SELECT blob FROM contents WHERE key = ? AND hash = ?

-- name: inbox
SELECT no, kind, body, at_ms FROM inbox WHERE run = (SELECT no FROM runs WHERE tenant = ? AND run = ?) ORDER BY no

-- name: run
SELECT tenant, run, session, agent, bundle, user, status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE tenant = ? AND run = ?

-- name: runs
SELECT tenant, run, session, agent, bundle, user, status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE tenant = ?1
    AND no < coalesce((SELECT no FROM runs WHERE tenant = ?1 AND run = ?2), 9223372036854775807)
    AND (?3 = '' OR agent = ?3) AND (?4 = '' OR user = ?4) AND (?5 = '' OR status = ?5) AND (?7 = '' OR outcome = ?7)
ORDER BY no DESC LIMIT ?6

-- name: parked
SELECT tenant, run, session, agent, bundle, user, status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE status = 'parked'
    AND no < coalesce((SELECT no FROM runs WHERE tenant = ?4 AND run = ?5), 9223372036854775807)
    AND (?1 = '' OR tenant = ?1) AND (?2 = '' OR agent = ?2) AND (?3 = '' OR outcome = ?3)
ORDER BY no DESC LIMIT ?6

-- name: orphans
SELECT tenant, run, session, agent, bundle, user, status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs r WHERE (
    status = 'runnable' AND lease_until_ms <= ?3 - ?1 AND updated_ms <= ?3 - ?1
) OR (
    status = 'queued' AND NOT EXISTS (
        SELECT 1 FROM sessions s JOIN runs l ON l.tenant = s.tenant AND l.run = s.live
        WHERE s.tenant = r.tenant AND s.session = r.session AND l.status <> 'ended'
    )
) ORDER BY no LIMIT ?2

-- name: claims
SELECT epoch, worker, ended_ms FROM claims WHERE run = (SELECT no FROM runs WHERE tenant = ? AND run = ?) ORDER BY epoch

-- name: insert_claim
INSERT INTO claims (run, epoch, worker, ended_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: runs_of_session
SELECT tenant, run, session, agent, bundle, user, status, outcome, epoch, seq, hash, wake_at_ms, lease_until_ms, worker,
    attempts, priority, parent, root, cost, created_ms, updated_ms
FROM runs WHERE tenant = ?1 AND session = ?8
    AND no < coalesce((SELECT no FROM runs WHERE tenant = ?1 AND run = ?2), 9223372036854775807)
    AND (?3 = '' OR agent = ?3) AND (?4 = '' OR user = ?4) AND (?5 = '' OR status = ?5) AND (?7 = '' OR outcome = ?7)
ORDER BY no DESC LIMIT ?6

-- name: session
SELECT tenant, session, agent, user, head_run, head_seq, head_hash, live, runs, created_ms, updated_ms
FROM sessions WHERE tenant = ? AND session = ?

-- name: sessions
SELECT tenant, session, agent, user, head_run, head_seq, head_hash, live, runs, created_ms, updated_ms
FROM sessions WHERE tenant = ?1
    AND no < coalesce((SELECT no FROM sessions WHERE tenant = ?1 AND session = ?2), 9223372036854775807)
ORDER BY no DESC LIMIT ?3

-- name: keys
SELECT id, salt, secret FROM keys WHERE tenant = ? ORDER BY no

-- name: bundle
SELECT body FROM bundles WHERE tenant = ? AND digest = ?

-- name: api_keys
SELECT id, tenant, hash, name, created_ms, revoked, may_approve FROM api_keys ORDER BY created_ms, id
