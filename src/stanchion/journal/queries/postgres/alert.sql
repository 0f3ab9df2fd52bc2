-- The statements of alerts.

-- name: used
SELECT m.tenant, v.ledger, m.amount, sum(s.settled)::bigint, sum(s.reserved)::bigint, bool_or(s.closed)
FROM limits m
CROSS JOIN LATERAL (
    SELECT m.name AS ledger UNION ALL SELECT m.name || ':' || w.name FROM unnest($1::text[]) AS w (name)
) v
JOIN ledger_shards s ON s.tenant = m.tenant AND s.ledger = v.ledger
WHERE m.amount > 0 GROUP BY m.tenant, v.ledger, m.amount
HAVING sum(s.settled) >= m.amount - m.amount / 2 OR bool_or(s.closed) ORDER BY 1, 2

-- name: note
INSERT INTO alerts (tenant, subject, line, bound, told_ms) VALUES ($1, $2, $3, $4, now_ms()) ON CONFLICT DO NOTHING
RETURNING told_ms

-- name: told
SELECT tenant, subject, line, bound, told_ms FROM alerts WHERE tenant = $1 ORDER BY told_ms DESC, subject, line LIMIT 1000
