-- subscription_parked.sql: attempts, dead letters, redrive and discard.
--
-- Whoever changes parked messages of a lane holds that lane's lease, locked.

CREATE FUNCTION @extschema@.es_promote_parked(subscription_id integer, key_hash bigint, key text, entered bigint)
RETURNS void LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    UPDATE @extschema@.es_parked AS p
       SET next_attempt_at = pg_catalog.clock_timestamp(), entered = COALESCE(p.entered, $4)
     WHERE p.subscription_id = $1 AND NOT p.dead AND p.next_attempt_at IS NULL
       AND p."position" = (SELECT q."position" FROM @extschema@.es_parked AS q
                            WHERE q.subscription_id = $1 AND q.key_hash = $2 AND q.key = $3
                              AND (NOT q.dead OR (SELECT s.on_dead = 'block' FROM @extschema@.es_subscriptions AS s WHERE s.subscription_id = $1))
                            ORDER BY q."position" LIMIT 1);
END;
COMMENT ON FUNCTION @extschema@.es_promote_parked(integer, bigint, text, bigint) IS
'es_pg: makes the first parked message of a key due, if nothing of the key is before it.
Example: SELECT es_promote_parked(1, 4711, ''42'', NULL);';

CREATE FUNCTION @extschema@.es_is_blocked(subscription_id integer, key_hash bigint, key text, "position" bigint)
RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM @extschema@.es_parked AS q
                    WHERE q.subscription_id = $1 AND q.key_hash = $2 AND q.key = $3 AND q.dead AND q."position" < $4)
       AND (SELECT s.on_dead = 'block' FROM @extschema@.es_subscriptions AS s WHERE s.subscription_id = $1);
END;
COMMENT ON FUNCTION @extschema@.es_is_blocked(integer, bigint, text, bigint) IS
'es_pg: does a dead letter of this key hold up what comes after it?
Example: SELECT es_is_blocked(1, 4711, ''42'', 17);';

-- After a change of policy; the leases are locked.
CREATE FUNCTION @extschema@.es_plan_by_policy(subscription_id integer)
RETURNS void LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    UPDATE @extschema@.es_parked AS p SET next_attempt_at = NULL
     WHERE p.subscription_id = $1 AND p.next_attempt_at IS NOT NULL
       AND @extschema@.es_is_blocked($1, p.key_hash, p.key, p."position");
    SELECT @extschema@.es_promote_parked($1, p.key_hash, p.key, p.entered)
      FROM @extschema@.es_parked AS p WHERE p.subscription_id = $1 AND p.dead AND p.key IS NOT NULL;
END;
COMMENT ON FUNCTION @extschema@.es_plan_by_policy(integer) IS
'es_pg: plans, of keys with dead letters, what the policy lets go on, and takes the plan from what it does not.
Example: SELECT es_plan_by_policy(1);';

CREATE FUNCTION @extschema@.es_resolve_parked(subscription_id integer, lane integer, epoch bigint, "position" bigint)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    gone record;
BEGIN
    FOR gone IN
        WITH gone AS (
            DELETE FROM @extschema@.es_parked AS p
             WHERE p.subscription_id = $1 AND p.lane = $2 AND p.delivered_epoch = $3 AND p."position" <= $4
            RETURNING p.key, p.key_hash, p.entered)
        SELECT g.key, g.key_hash, pg_catalog.max(g.entered) AS entered FROM gone AS g WHERE g.key IS NOT NULL GROUP BY 1, 2
    LOOP
        PERFORM @extschema@.es_promote_parked($1, gone.key_hash, gone.key, gone.entered);
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.es_resolve_parked(integer, integer, bigint, bigint) IS
'es_pg: parked messages that were handed out and are acknowledged go; the next of their keys are due.
Example: SELECT es_resolve_parked(1, 0, 17, 4711);';

CREATE FUNCTION @extschema@.es_fail_parked(
    subscription_id integer, epoch bigint, "position" bigint, error text, retry_after interval, reject boolean, entered bigint)
RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    s @extschema@.es_subscriptions;
    m @extschema@.es_parked;
    seconds double precision;
BEGIN
    SELECT t.* INTO STRICT s FROM @extschema@.es_subscriptions AS t WHERE t.subscription_id = $1;
    SELECT p.* INTO STRICT m FROM @extschema@.es_parked AS p WHERE p.subscription_id = $1 AND p."position" = $3;
    IF m.delivered_epoch IS DISTINCT FROM $2 THEN
        -- Said before: nothing is counted again.
        RETURN QUERY SELECT p."position" FROM @extschema@.es_parked AS p
                      WHERE p.subscription_id = $1 AND p.key_hash = m.key_hash AND p.key = m.key AND p."position" > $3;
        RETURN;
    END IF;
    m.attempts := m.attempts + 1;
    m.dead := $6 OR m.attempts >= s.max_attempts;
    seconds := pg_catalog.random() * LEAST(EXTRACT(epoch FROM s.retry_max),
                                           EXTRACT(epoch FROM s.retry_base) * pg_catalog.power(2, LEAST(m.attempts - 1, 40)));
    UPDATE @extschema@.es_parked AS p
       SET attempts = m.attempts, dead = m.dead, delivered_epoch = NULL, error = $4, failed_at = pg_catalog.clock_timestamp(),
           next_attempt_at = CASE WHEN NOT m.dead AND NOT @extschema@.es_is_blocked($1, m.key_hash, m.key, $3) THEN
               pg_catalog.clock_timestamp() + COALESCE($5, pg_catalog.make_interval(secs => seconds)) END,
           entered = COALESCE(p.entered, $7)
     WHERE p.subscription_id = $1 AND p."position" = $3;
    RETURN QUERY SELECT p."position" FROM @extschema@.es_parked AS p
                  WHERE p.subscription_id = $1 AND p.key_hash = m.key_hash AND p.key = m.key
                    AND p."position" > $3 AND p.delivered_epoch = $2 AND NOT p.dead;
    -- Whatever was planned for later ones of the key: they wait for this one.
    UPDATE @extschema@.es_parked AS p SET delivered_epoch = NULL, next_attempt_at = NULL
     WHERE p.subscription_id = $1 AND p.key_hash = m.key_hash AND p.key = m.key AND p."position" > $3 AND NOT p.dead
       AND (p.delivered_epoch IS NOT NULL OR p.next_attempt_at IS NOT NULL);
    IF m.dead AND m.key IS NOT NULL THEN
        PERFORM @extschema@.es_promote_parked($1, m.key_hash, m.key, $7);
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_fail_parked(integer, bigint, bigint, text, interval, boolean, bigint) IS
'es_pg: counts a failed attempt of a parked message and plans the next; returns what waits behind it.
Example: SELECT es_fail_parked(1, 17, 4711, ''refused'', NULL, false, 1);';

CREATE VIEW @extschema@.es_dead_letters AS
    SELECT s.name AS subscription, p."position", p.key, p.attempts, p.error, p.failed_at, p.parked_at, p.lane,
           p.topic, p.type, p.message_id, p.payload, p.headers, p.payload_binary, p.content_type, p.incarnation,
           p.version, p.schema_version, p.source, p.correlation_id, p.causation_id, p.traceparent, p.occurred_at, p.recorded_at
      FROM @extschema@.es_parked AS p
      JOIN @extschema@.es_subscriptions AS s USING (subscription_id)
     WHERE p.dead;
COMMENT ON VIEW @extschema@.es_dead_letters IS
'Messages whose attempts are used up, or that were rejected, with the last error. They stay until es_redrive or es_discard.
Example: SELECT position, key, attempts, error FROM es_dead_letters WHERE subscription = ''mailer'';';

-- The dead letters of a subscription by key, error and number, with their lanes' leases locked.
CREATE FUNCTION @extschema@.es_choose_dead(subscription_id integer, key text, error text, "position" bigint, max_count bigint)
RETURNS SETOF @extschema@.es_parked LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
BEGIN
    IF $5 < 1 THEN
        RAISE EXCEPTION 'max_count must be positive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM @extschema@.es_leases AS l WHERE l.subscription_id = $1 ORDER BY l.lane FOR NO KEY UPDATE;
    RETURN QUERY
        SELECT p.* FROM @extschema@.es_parked AS p
         WHERE p.subscription_id = $1 AND p.dead AND ($2 IS NULL OR p.key = $2) AND ($4 IS NULL OR p."position" = $4)
           AND ($3 IS NULL OR pg_catalog.strpos(p.error, $3) > 0)
         ORDER BY p."position" LIMIT $5;
END $$;
COMMENT ON FUNCTION @extschema@.es_choose_dead(integer, text, text, bigint, bigint) IS
'es_pg: dead letters by key, text in the error and position; locks the leases of the subscription.
Example: SELECT es_choose_dead(1, ''42'', NULL, NULL, 10);';

CREATE FUNCTION @extschema@.es_redrive(
    subscription text, key text DEFAULT NULL, error text DEFAULT NULL, "position" bigint DEFAULT NULL,
    max_count bigint DEFAULT NULL, per_second double precision DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    id integer := (@extschema@.es_lock_subscription($1)).subscription_id;
    pause interval := '0';
    m record;
    n bigint := 0;
    chosen bigint[];
BEGIN
    IF $6 <= 0 OR $6 = 'NaN' THEN
        RAISE EXCEPTION 'per_second must be positive' USING ERRCODE = 'invalid_parameter_value';
    ELSIF $6 IS NOT NULL THEN
        pause := pg_catalog.make_interval(secs => 1 / $6);
    END IF;
    SELECT pg_catalog.array_agg(d."position") INTO chosen FROM @extschema@.es_choose_dead(id, $2, $3, $4, $5) AS d;
    UPDATE @extschema@.es_parked AS p SET dead = false, attempts = 0, next_attempt_at = NULL
     WHERE p.subscription_id = id AND p."position" = ANY (chosen);
    -- The first of each key is due, one after the other; what is behind it follows it.
    FOR m IN
        SELECT DISTINCT ON (p.key_hash, p.key, CASE WHEN p.key IS NULL THEN p."position" END) p."position", p.key, p.key_hash, p.entered
          FROM @extschema@.es_parked AS p WHERE p.subscription_id = id AND p."position" = ANY (chosen)
         ORDER BY p.key_hash, p.key, CASE WHEN p.key IS NULL THEN p."position" END, p."position"
    LOOP
        IF m.key IS NULL THEN
            UPDATE @extschema@.es_parked AS p SET next_attempt_at = pg_catalog.clock_timestamp()
             WHERE p.subscription_id = id AND p."position" = m."position";
        ELSE
            -- Another one of its key may be due at a later position: it waits behind this one now.
            UPDATE @extschema@.es_parked AS p SET next_attempt_at = NULL, delivered_epoch = NULL
             WHERE p.subscription_id = id AND p.key_hash = m.key_hash AND p.key = m.key AND NOT p.dead AND p."position" > m."position";
            PERFORM @extschema@.es_promote_parked(id, m.key_hash, m.key, m.entered);
        END IF;
    END LOOP;
    IF $6 IS NOT NULL THEN
        FOR m IN SELECT p."position" FROM @extschema@.es_parked AS p
                  WHERE p.subscription_id = id AND p."position" = ANY (chosen) AND p.next_attempt_at IS NOT NULL ORDER BY p."position"
        LOOP
            UPDATE @extschema@.es_parked AS p SET next_attempt_at = pg_catalog.clock_timestamp() + n * pause
             WHERE p.subscription_id = id AND p."position" = m."position";
            n := n + 1;
        END LOOP;
    END IF;
    PERFORM @extschema@.es_wake_consumers();
    RETURN COALESCE(pg_catalog.cardinality(chosen), 0);
END $$;
COMMENT ON FUNCTION @extschema@.es_redrive(text, text, text, bigint, bigint, double precision) IS
'Gives dead letters of a subscription their attempts back: all, or those of a key, with a text in their error, at a position; the first max_count of them. Each key goes on in the order of its positions. per_second: so many keys (or messages without one) are due a second. Returns how many dead letters there were.
Errors: 42704, 22004, 22023.
Example: SELECT es_redrive(''mailer'', error => ''connection refused'', per_second => 50);';

CREATE FUNCTION @extschema@.es_discard(
    subscription text, key text DEFAULT NULL, error text DEFAULT NULL, "position" bigint DEFAULT NULL,
    max_count bigint DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    id integer := (@extschema@.es_lock_subscription($1)).subscription_id;
    chosen bigint[];
    m record;
BEGIN
    -- One above its lane's cursor would be met and handed out again: it stays until the lane has passed it.
    SELECT pg_catalog.array_agg(d."position") INTO chosen
      FROM @extschema@.es_choose_dead(id, $2, $3, $4, $5) AS d
      JOIN @extschema@.es_lane_cursors AS c ON c.subscription_id = id AND c.lane = d.lane AND c."position" >= d."position";
    FOR m IN
        WITH gone AS (
            DELETE FROM @extschema@.es_parked AS p WHERE p.subscription_id = id AND p."position" = ANY (chosen)
            RETURNING p.key, p.key_hash, p.entered)
        SELECT g.key, g.key_hash, pg_catalog.max(g.entered) AS entered FROM gone AS g WHERE g.key IS NOT NULL GROUP BY 1, 2
    LOOP
        PERFORM @extschema@.es_promote_parked(id, m.key_hash, m.key, m.entered);
    END LOOP;
    PERFORM @extschema@.es_wake_consumers();
    RETURN COALESCE(pg_catalog.cardinality(chosen), 0);
END $$;
COMMENT ON FUNCTION @extschema@.es_discard(text, text, text, bigint, bigint) IS
'Gives dead letters of a subscription up for good: all, or those of a key, with a text in their error, at a position; the first max_count of them. What waited behind them goes on. Those that their lane has not passed yet are left. Returns how many went.
Errors: 42704, 22004, 22023.
Example: SELECT es_discard(''mailer'', key => ''42'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_promote_parked(integer, bigint, text, bigint),
    @extschema@.es_is_blocked(integer, bigint, text, bigint),
    @extschema@.es_plan_by_policy(integer),
    @extschema@.es_resolve_parked(integer, integer, bigint, bigint),
    @extschema@.es_fail_parked(integer, bigint, bigint, text, interval, boolean, bigint),
    @extschema@.es_choose_dead(integer, text, text, bigint, bigint),
    @extschema@.es_redrive(text, text, text, bigint, bigint, double precision),
    @extschema@.es_discard(text, text, text, bigint, bigint)
FROM PUBLIC;
