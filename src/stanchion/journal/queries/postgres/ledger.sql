-- Budgets that processes share: design/postgres.md, "Budgets without a hot row". What a group moves is written with its
-- events (journal.sql, "write").

-- name: lane_number
SELECT nextval('lane_numbers')

-- name: lock_shards
SELECT * FROM lock_shards($1::text[], $2::text[], $3::text[], $4::int[], $5::boolean[], $6)

-- name: lock_name
SELECT pg_advisory_xact_lock(1398034500, $1)

-- name: lock_named
SELECT ledger, shard, allot, given, settled, reserved, closed FROM ledger_shards
WHERE tenant = $1 AND name = $2 ORDER BY tenant, ledger, shard FOR UPDATE

-- name: put_shards
UPDATE ledger_shards s SET allot = v.allot, given = v.given, closed = v.closed
FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::boolean[]) AS v (ledger, shard, allot, given, closed)
WHERE s.tenant = $1 AND s.name = $2 AND s.ledger = v.ledger AND s.shard = v.shard

-- name: set_limit
INSERT INTO limits (tenant, name, amount) VALUES ($1, $2, $3)
ON CONFLICT (tenant, name) DO UPDATE SET amount = excluded.amount

-- name: drop_limit
DELETE FROM limits WHERE tenant = $1 AND name = $2

-- name: ledgers
SELECT l.ledger, coalesce(m.amount, -1), l.settled, l.reserved, l.closed
FROM ledgers l LEFT JOIN limits m ON m.tenant = l.tenant AND m.name = l.name WHERE l.tenant = $1
UNION ALL
SELECT m.name, m.amount, 0, 0, false FROM limits m
WHERE m.tenant = $1 AND NOT EXISTS (SELECT 1 FROM ledger_shards l WHERE l.tenant = $1 AND l.name = m.name)
ORDER BY 1

-- name: limit
SELECT amount FROM limits WHERE tenant = $1 AND name = $2

-- name: has_ledger
SELECT 1 FROM ledger_shards WHERE tenant = $1 AND ledger = $2 LIMIT 1

-- name: insert_shard
INSERT INTO ledger_shards (tenant, ledger, shard, name, allot, given, settled, reserved, closed)
VALUES ($1, $2, 0, $3, $4, $5, $6, 0, false)
