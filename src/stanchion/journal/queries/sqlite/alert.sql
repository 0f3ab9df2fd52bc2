-- The statements of alerts.

-- name: used
SELECT l.tenant, l.ledger, m.amount, l.settled, l.reserved, l.closed
FROM limits m JOIN ledgers l ON l.tenant = m.tenant AND l.ledger IN (
    SELECT m.name UNION ALL SELECT m.name || ':' || w.value FROM json_each(?) w
)
WHERE m.amount > 0 AND (l.settled >= m.amount - m.amount / 2 OR l.closed = 1) ORDER BY l.tenant, l.ledger

-- name: note
INSERT INTO alerts (tenant, subject, line, bound, told_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: told
SELECT tenant, subject, line, bound, told_ms FROM alerts WHERE tenant = ? ORDER BY told_ms DESC, subject, line LIMIT 1000
