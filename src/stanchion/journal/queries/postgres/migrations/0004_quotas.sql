-- additive: a program that does not know it goes by no limits; set them when the last such one is gone.
-- Limits that all workers share. Why it is laid out so: design/sharing.md.

-- What counts against a limit: an amount under a name, until a time.
CREATE TABLE quota_blocks (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    worker text NOT NULL,
    amount bigint NOT NULL,
    until_ms bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);

CREATE INDEX quota_blocks_by_name ON quota_blocks (name, until_ms);

CREATE TABLE quota_pauses (
    name text PRIMARY KEY,
    until_ms bigint NOT NULL
);

CREATE TABLE breakers (
    name text PRIMARY KEY,
    until_ms bigint NOT NULL,
    probe text NOT NULL DEFAULT '', -- the worker that tries
    probe_until_ms bigint NOT NULL DEFAULT 0
);

CREATE TABLE quotas (
    name text PRIMARY KEY,
    body bytea NOT NULL
);

-- Takes a block for each wish, or none: one short statement under one advisory lock for each name. What it decides is
-- journal/quota.py's `decide`. A row: the blocks' numbers and amounts, whether there is more, how long to wait.
CREATE FUNCTION quota_take(
    a_worker text, a_pause text, a_names text[], a_amounts bigint[], a_leasts bigint[], a_mosts bigint[], a_for_ms bigint[],
    OUT numbers bigint[], OUT given bigint[], OUT more_left boolean, OUT retry_ms bigint
) LANGUAGE plpgsql AS $$
DECLARE
    at_ms bigint;
    each_name text;
    used bigint;
    free bigint;
    sum_least bigint;
    sum_amount bigint;
    allowed bigint;
    room bigint;
    until_ms_found bigint;
    names text[];
    rooms bigint[] := '{}';
    refused boolean := false;
    place int;
    share bigint;
    made bigint;
BEGIN
    numbers := '{}'; given := '{}'; more_left := true; retry_ms := 0;
    SELECT array_agg(DISTINCT n ORDER BY n) INTO names FROM unnest(a_names) AS n;
    FOREACH each_name IN ARRAY names LOOP
        PERFORM pg_advisory_xact_lock(1398034500, hashtext(current_schema() || '/' || each_name));
    END LOOP;
    at_ms := now_ms();
    IF a_pause <> '' THEN
        SELECT p.until_ms - at_ms INTO retry_ms FROM quota_pauses p WHERE p.name = a_pause AND p.until_ms > at_ms;
        IF FOUND THEN
            more_left := false;
            RETURN;
        END IF;
        retry_ms := 0;
    END IF;
    FOREACH each_name IN ARRAY names LOOP
        DELETE FROM quota_blocks b WHERE b.name = each_name AND b.until_ms <= at_ms;
        SELECT coalesce(sum(b.amount), 0) INTO used FROM quota_blocks b WHERE b.name = each_name;
        SELECT sum(w.lowest), sum(w.amount), max(w.most) INTO sum_least, sum_amount, allowed
        FROM unnest(a_names, a_leasts, a_amounts, a_mosts) AS w(n, lowest, amount, most) WHERE w.n = each_name;
        free := allowed - used;
        IF free < sum_least THEN
            refused := true;
            SELECT min(c.until_ms) INTO until_ms_found FROM (
                SELECT b.until_ms, sum(b.amount) OVER (ORDER BY b.until_ms, b.no) AS freed
                FROM quota_blocks b WHERE b.name = each_name
            ) c WHERE c.freed >= sum_least - free;
            retry_ms := greatest(retry_ms, coalesce(until_ms_found, at_ms) - at_ms);
        ELSE
            room := greatest(sum_least, (free + 1) / 2);
            more_left := more_left AND free - least(room, sum_amount) >= sum_least;
        END IF;
        rooms := rooms || coalesce(room, 0);
    END LOOP;
    IF refused THEN
        more_left := false;
        RETURN;
    END IF;
    FOR place IN 1 .. array_length(a_names, 1) LOOP
        SELECT sum(w.lowest), sum(w.amount - w.lowest) INTO sum_least, sum_amount
        FROM unnest(a_names, a_leasts, a_amounts) AS w(n, lowest, amount) WHERE w.n = a_names[place];
        room := rooms[array_position(names, a_names[place])];
        share := a_leasts[place];
        IF sum_amount > 0 THEN
            share := share + least(sum_amount, room - sum_least) * (a_amounts[place] - a_leasts[place]) / sum_amount;
        END IF;
        INSERT INTO quota_blocks (name, worker, amount, until_ms)
        VALUES (a_names[place], a_worker, share, at_ms + a_for_ms[place]) RETURNING no INTO made;
        numbers := numbers || made;
        given := given || share;
    END LOOP;
END $$;
