-- Model calls that wait for a batch, and the batches under way.

-- name: insert
INSERT INTO tray (tenant, run, seq, lane, batch, added_ms) VALUES (?, ?, ?, ?, '', ?)

-- name: waiting
SELECT lane, count(*), ?1 - min(added_ms) FROM tray WHERE batch = '' GROUP BY lane

-- name: take
UPDATE tray SET batch = ?2
WHERE no IN (SELECT no FROM tray WHERE batch = '' AND lane = ?1 ORDER BY no LIMIT ?3)

-- name: insert_batch
INSERT INTO batches VALUES (?, ?, 'handing_in', '', ?, ?, 0, ?, ?)

-- name: handed_in
UPDATE batches SET stage = 'running', provider_id = ?2, look_at_ms = ?3, lease_until_ms = 0, worker = '' WHERE name = ?1

-- name: free_items
UPDATE tray SET batch = '' WHERE batch = ?

-- name: drop_items
DELETE FROM tray WHERE batch = ?

-- name: drop_batch
DELETE FROM batches WHERE name = ?

-- name: due
UPDATE batches SET worker = ?1, lease_until_ms = ?4 + ?2
WHERE name IN (
    SELECT name FROM batches WHERE look_at_ms <= ?4 AND lease_until_ms <= ?4 ORDER BY look_at_ms, made_ms LIMIT ?3
)
RETURNING name, lane, stage, provider_id, items, ?4 - made_ms

-- name: items
SELECT tenant, run, seq, lane FROM tray WHERE batch = ? ORDER BY no

-- name: look_again
UPDATE batches SET look_at_ms = ?2, lease_until_ms = 0, worker = '' WHERE name = ?1

-- name: batches
SELECT name, lane, stage, provider_id, items, ?1 - made_ms FROM batches ORDER BY made_ms, name
