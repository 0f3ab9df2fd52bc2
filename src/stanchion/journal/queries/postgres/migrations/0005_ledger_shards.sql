-- A ledger is a row per process that moves it, so that processes do not wait for one another: design/postgres.md,
-- "Budgets without a hot row". The view has the sums, for people.

CREATE TABLE ledger_shards (
    tenant text NOT NULL,
    ledger text NOT NULL,
    shard bigint NOT NULL,
    name text NOT NULL, -- the ledger's without its window
    allot bigint, -- this shard's part of the limit; NULL: there is no limit. The parts add up to the limit at most.
    given bigint NOT NULL, -- what of it was free when it was last shared out
    settled bigint NOT NULL,
    reserved bigint NOT NULL, -- below 0 where reservations of other shards were settled here
    closed boolean NOT NULL, -- the same in all shards of a ledger
    PRIMARY KEY (tenant, ledger, shard)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

INSERT INTO ledger_shards (tenant, ledger, shard, name, allot, given, settled, reserved, closed)
SELECT l.tenant, l.ledger, 0, l.name, m.amount, coalesce(m.amount - l.settled - l.reserved, 0), l.settled, l.reserved, l.closed
FROM ledgers l LEFT JOIN limits m ON m.tenant = l.tenant AND m.name = l.name;

DROP FUNCTION lock_ledgers(text[], text[], text[]);
DROP TABLE ledgers;

CREATE VIEW ledgers AS
SELECT tenant, ledger, min(name) AS name, sum(settled)::bigint AS settled, sum(reserved)::bigint AS reserved,
    bool_or(closed) AS closed, count(*) AS shards
FROM ledger_shards GROUP BY tenant, ledger;

-- Lanes that move money take turns: each gets the next number, and with it its shard.
CREATE SEQUENCE lane_numbers MINVALUE 0 START 0 CACHE 1;

-- Lock what a group moves: of each ledger our own shard, or all of them ("whole"), as asked or because ours is not there
-- yet. Whole ledgers are locked by name first, which also holds off set_limit and whoever would add a shard; only then
-- are rows read, in one order. A whole ledger comes with a first row of its own: shard -1, whose allot is the limit.
CREATE FUNCTION lock_shards(of_tenants text[], of_ledgers text[], of_names text[], name_locks int[], whole boolean[], own bigint)
RETURNS TABLE (
    tenant text, ledger text, shard bigint, allot bigint, given bigint, settled bigint, reserved bigint, closed boolean
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    all_of boolean[];
BEGIN
    all_of := ARRAY(
        SELECT v.whole OR NOT EXISTS (
            SELECT 1 FROM ledger_shards s WHERE s.tenant = v.tenant AND s.ledger = v.ledger AND s.shard = own
        )
        FROM unnest(of_tenants, of_ledgers, whole) WITH ORDINALITY AS v (tenant, ledger, whole, place) ORDER BY v.place
    );
    IF true = ANY (all_of) THEN
        PERFORM pg_advisory_xact_lock(1398034500, k.lock) FROM (
            SELECT DISTINCT v.lock FROM unnest(name_locks, all_of) AS v (lock, needed) WHERE v.needed ORDER BY 1
        ) AS k;
        RETURN QUERY SELECT v.tenant, v.ledger, -1::bigint, m.amount, 0::bigint, 0::bigint, 0::bigint, false
        FROM unnest(of_tenants, of_ledgers, of_names, all_of) AS v (tenant, ledger, name, needed)
        LEFT JOIN limits m ON m.tenant = v.tenant AND m.name = v.name WHERE v.needed;
    END IF;
    RETURN QUERY SELECT s.tenant, s.ledger, s.shard, s.allot, s.given, s.settled, s.reserved, s.closed
    FROM unnest(of_tenants, of_ledgers, all_of) AS v (tenant, ledger, needed)
    JOIN ledger_shards s ON s.tenant = v.tenant AND s.ledger = v.ledger
        AND s.shard >= CASE WHEN v.needed THEN 0 ELSE own END
        AND s.shard <= CASE WHEN v.needed THEN 9223372036854775807 ELSE own END
    ORDER BY s.tenant, s.ledger, s.shard FOR UPDATE OF s;
END
$$;

-- A subject may have keys that came with moved runs beside its own; a key that was destroyed does not come back with one
-- (journal/moving.py).
ALTER TABLE keys ADD COLUMN moved boolean NOT NULL DEFAULT false;
ALTER TABLE keys DROP CONSTRAINT keys_tenant_subject_key;
CREATE UNIQUE INDEX keys_by_subject ON keys (tenant, subject) WHERE NOT moved;
CREATE INDEX keys_moved ON keys (tenant, subject) WHERE moved;

CREATE TABLE destroyed_keys (
    tenant text NOT NULL,
    id text NOT NULL,
    PRIMARY KEY (tenant, id)
);
