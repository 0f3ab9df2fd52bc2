-- Model calls that wait for a batch, and the batches under way.

-- name: insert
INSERT INTO tray (tenant, run, seq, lane, added_ms)
SELECT v.tenant, v.run, v.seq, v.lane, $5 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) WITH ORDINALITY
    AS v (tenant, run, seq, lane, place)
ORDER BY v.place

-- name: waiting
SELECT lane, count(*), now_ms() - min(added_ms) FROM tray WHERE batch = '' GROUP BY lane

-- name: take
WITH taken AS (
    SELECT no FROM tray WHERE lane = $1 AND batch = '' ORDER BY no LIMIT $3 FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE tray t SET batch = $2 FROM taken WHERE t.no = taken.no RETURNING t.no, t.tenant, t.run, t.seq, t.lane
), made AS (
    INSERT INTO batches (name, lane, stage, items, made_ms, lease_until_ms, worker)
    SELECT $2, $1, 'handing_in', count(*), now_ms(), now_ms() + $5, $4 FROM moved HAVING count(*) > 0
)
SELECT tenant, run, seq, lane FROM moved ORDER BY no

-- name: handed_in
UPDATE batches SET stage = 'running', provider_id = $2, look_at_ms = now_ms() + $3, lease_until_ms = 0, worker = '' WHERE name = $1

-- name: put_back
WITH freed AS (UPDATE tray SET batch = '' WHERE batch = $1)
DELETE FROM batches WHERE name = $1

-- name: due
UPDATE batches SET worker = $1, lease_until_ms = now_ms() + $2
WHERE name IN (
    SELECT name FROM batches WHERE look_at_ms <= now_ms() AND lease_until_ms <= now_ms()
    ORDER BY look_at_ms, made_ms LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING name, lane, stage, provider_id, items, now_ms() - made_ms

-- name: items
SELECT tenant, run, seq, lane FROM tray WHERE batch = $1 ORDER BY no

-- name: look_again
UPDATE batches SET look_at_ms = now_ms() + $2, lease_until_ms = 0, worker = '' WHERE name = $1

-- name: drop
WITH gone AS (DELETE FROM tray WHERE batch = $1)
DELETE FROM batches WHERE name = $1

-- name: batches
SELECT name, lane, stage, provider_id, items, now_ms() - made_ms FROM batches ORDER BY made_ms, name
