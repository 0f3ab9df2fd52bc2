-- What is remembered of users, and what is to be learned.

-- name: lock
SELECT pg_advisory_xact_lock($1)

-- name: applied
SELECT 1 FROM memory_facts WHERE tenant = $1 AND by = ANY($2::text[]) LIMIT 1

-- name: take_due
DELETE FROM memory_due WHERE tenant = $1 AND run = $2 RETURNING no

-- name: known
SELECT body, key, space, ended_ms, why, replaced_by FROM memory_facts
WHERE tenant = $1 AND "user" = $2 AND space = $3 AND about = $4 AND ended_ms = 0 ORDER BY no

-- name: named
SELECT body, key, space, ended_ms, why, replaced_by FROM memory_facts
WHERE tenant = $1 AND "user" = $2 AND id = $3 AND ended_ms = 0

-- name: end
UPDATE memory_facts SET ended_ms = $3, why = $4, replaced_by = $5 WHERE tenant = $1 AND id = $2

-- name: insert
INSERT INTO memory_facts (tenant, "user", space, id, kind, about, recorded_ms, ended_ms, why, replaced_by, key, by, body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- name: key_of
SELECT id, salt, secret FROM keys WHERE tenant = $1 AND subject = $2 AND NOT moved

-- name: insert_key
INSERT INTO keys (tenant, subject, id, salt, secret) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING

-- Sorted are numbers alone: rows with their bodies might be sorted through a temporary file.
-- name: listed
SELECT body, key, space, ended_ms, why, replaced_by FROM memory_facts
WHERE no IN (
    SELECT no FROM memory_facts
    WHERE tenant = $1 AND "user" = $2 AND ($3 = '' OR space = $3)
        AND ($5 OR (recorded_ms <= $4 AND (ended_ms = 0 OR ended_ms > $4)))
        AND ($6::text[] = '{}' OR kind = ANY($6))
    ORDER BY no DESC LIMIT $7
)
ORDER BY no

-- name: users
SELECT "user", space, count(*), max(recorded_ms) FROM memory_facts
WHERE tenant = $1 AND "user" > $2 AND ended_ms = 0 GROUP BY "user", space ORDER BY "user", space LIMIT $3

-- name: forget
DELETE FROM memory_facts WHERE tenant = $1 AND "user" = $2 RETURNING id

-- name: forget_about
DELETE FROM memory_facts g USING memory_facts f
WHERE f.tenant = $1 AND f."user" = $2 AND f.id = ANY($3::text[])
    AND g.tenant = f.tenant AND g."user" = f."user" AND g.space = f.space AND g.about = f.about
RETURNING g.id

-- name: drop_dues
DELETE FROM memory_due WHERE tenant = $1 AND "user" = $2

-- name: expect
INSERT INTO memory_due (tenant, run, agent, "user", added_ms) VALUES ($1, $2, $3, $4, now_ms()) ON CONFLICT DO NOTHING

-- name: due
SELECT d.tenant, d.run, d.agent, d."user", d.tries
FROM memory_due d JOIN runs r ON r.tenant = d.tenant AND r.run = d.run
WHERE d.next_ms <= now_ms() AND r.status = 'ended' AND d.agent = ANY($1::text[]) ORDER BY d.no LIMIT $2

-- name: drop_dangling
DELETE FROM memory_due d WHERE d.added_ms < now_ms() - $1
    AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant = d.tenant AND r.run = d.run)

-- name: later
UPDATE memory_due SET tries = tries + 1, next_ms = now_ms() + $3 WHERE tenant = $1 AND run = $2

-- name: dues
SELECT tenant, run, agent, "user", tries FROM memory_due WHERE tenant = $1 ORDER BY no

-- name: everyone
SELECT DISTINCT "user" FROM memory_facts WHERE tenant = $1 AND "user" > $2 ORDER BY "user" LIMIT $3

-- name: versions
SELECT body, key, space, ended_ms, why, replaced_by FROM memory_facts WHERE tenant = $1 AND "user" = $2 ORDER BY no

-- name: forgotten
SELECT id FROM memory_forgotten WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3

-- name: among_forgotten
SELECT id FROM memory_forgotten WHERE tenant = $1 AND id = ANY($2::text[])

-- name: note_forgotten
INSERT INTO memory_forgotten (tenant, id) SELECT $1, * FROM unnest($2::text[]) ORDER BY 2 ON CONFLICT DO NOTHING

-- name: among_users
SELECT "user", id FROM memory_facts WHERE tenant = $1 AND id = ANY($2::text[]) LIMIT 1

-- name: drop
DELETE FROM memory_due WHERE tenant = $1 AND run = $2
