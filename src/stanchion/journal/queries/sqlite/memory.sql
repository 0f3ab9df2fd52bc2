-- What is remembered of users, and what is to be learned.

-- name: applied
SELECT 1 FROM memory_facts WHERE tenant = ? AND by >= ?2 AND by < ?3 LIMIT 1

-- name: take_due
DELETE FROM memory_due WHERE tenant = ? AND run = ? RETURNING no

-- name: known
SELECT b.body, f.key, f.space, f.ended_ms, f.why, f.replaced_by
FROM memory_facts f JOIN memory_bodies b ON b.no = f.no
WHERE f.tenant = ?1 AND f."user" = ?2 AND f.space = ?3 AND f.about = ?4 AND f.ended_ms = 0 ORDER BY f.no

-- name: named
SELECT b.body, f.key, f.space, f.ended_ms, f.why, f.replaced_by
FROM memory_facts f JOIN memory_bodies b ON b.no = f.no
WHERE f.tenant = ?1 AND f."user" = ?2 AND f.id = ?3 AND f.ended_ms = 0

-- name: end
UPDATE memory_facts SET ended_ms = ?3, why = ?4, replaced_by = ?5 WHERE tenant = ?1 AND id = ?2

-- name: insert
INSERT INTO memory_facts (tenant, "user", space, id, kind, about, recorded_ms, ended_ms, why, replaced_by, key, by)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_body
INSERT INTO memory_bodies (no, body) VALUES (?, ?)

-- Sorted are numbers alone: rows with their bodies would be sorted through a temporary file, which takes six times as long and is content.
-- name: listed
SELECT b.body, f.key, f.space, f.ended_ms, f.why, f.replaced_by
FROM memory_facts f JOIN memory_bodies b ON b.no = f.no
WHERE f.no IN (
    SELECT no FROM memory_facts
    WHERE tenant = ?1 AND "user" = ?2 AND (?3 = '' OR space = ?3)
        AND (?5 OR (recorded_ms <= ?4 AND (ended_ms = 0 OR ended_ms > ?4)))
        AND (?6 = '' OR instr(?6, ' ' || kind || ' '))
    ORDER BY no DESC LIMIT ?7
)
ORDER BY f.no

-- name: key_of
SELECT id, salt, secret FROM keys WHERE tenant = ? AND subject = ? AND moved = 0

-- name: users
SELECT "user", space, count(*), max(recorded_ms) FROM memory_facts
WHERE tenant = ?1 AND "user" > ?2 AND ended_ms = 0 GROUP BY "user", space ORDER BY "user", space LIMIT ?3

-- name: nos
SELECT no FROM memory_facts WHERE tenant = ?1 AND "user" = ?2

-- name: nos_about
SELECT g.no FROM memory_facts f JOIN memory_facts g
    ON g.tenant = f.tenant AND g."user" = f."user" AND g.space = f.space AND g.about = f.about
WHERE f.tenant = ?1 AND f."user" = ?2 AND f.id = ?3

-- name: overwrite
UPDATE memory_bodies SET body = zeroblob(length(body)) WHERE no = ?

-- name: delete
DELETE FROM memory_facts WHERE no = ?

-- name: drop_dues
DELETE FROM memory_due WHERE tenant = ? AND "user" = ?

-- name: expect
INSERT INTO memory_due (tenant, run, agent, "user", added_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: due
SELECT d.tenant, d.run, d.agent, d."user", d.tries
FROM memory_due d JOIN runs r ON r.tenant = d.tenant AND r.run = d.run
WHERE d.next_ms <= ?1 AND r.status = 'ended' ORDER BY d.no

-- name: dangling
SELECT 1 FROM memory_due d WHERE d.added_ms < ?1
    AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant = d.tenant AND r.run = d.run) LIMIT 1

-- name: drop_dangling
DELETE FROM memory_due WHERE added_ms < ?1
    AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant = memory_due.tenant AND r.run = memory_due.run)

-- name: later
UPDATE memory_due SET tries = tries + 1, next_ms = ?3 WHERE tenant = ?1 AND run = ?2

-- name: dues
SELECT tenant, run, agent, "user", tries FROM memory_due WHERE tenant = ? ORDER BY no

-- name: everyone
SELECT DISTINCT "user" FROM memory_facts WHERE tenant = ?1 AND "user" > ?2 ORDER BY "user" LIMIT ?3

-- name: versions
SELECT b.body, f.key, f.space, f.ended_ms, f.why, f.replaced_by
FROM memory_facts f JOIN memory_bodies b ON b.no = f.no WHERE f.tenant = ? AND f."user" = ? ORDER BY f.no

-- name: forgotten
SELECT id FROM memory_forgotten WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3

-- name: is_forgotten
SELECT 1 FROM memory_forgotten WHERE tenant = ? AND id = ?

-- name: note_forgotten
INSERT INTO memory_forgotten (tenant, id) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: note_deleted
INSERT INTO memory_forgotten (tenant, id) SELECT tenant, id FROM memory_facts WHERE no = ? ON CONFLICT DO NOTHING

-- name: user_of
SELECT "user" FROM memory_facts WHERE tenant = ? AND id = ?

-- name: drop
DELETE FROM memory_due WHERE tenant = ? AND run = ?
