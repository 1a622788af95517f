-- subscription_status.sql: subscriptions, as an operator sees them, and what keeps them from filling the disk.

CREATE FUNCTION @extschema@.es_members(
    OUT subscription_id integer, OUT consumer text, OUT consumer_hash bigint, OUT session_pid integer, OUT expires_at timestamptz)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_members() IS
'The members of this database''s subscriptions that are alive: the first 31 bytes of each one''s name, the process it is bound to if any, and when it ends unless it calls again.
Example: SELECT * FROM es_members();';

CREATE FUNCTION @extschema@.es_consumer_hash(consumer text)
RETURNS bigint LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_consumer_hash(text) IS
'Under which number es_members() has a consumer; NULL for NULL.
Example: SELECT es_consumer_hash(''host-1'');';

-- How far a subscription is behind: messages of its source above its lowest
-- cursor, before its filter.
CREATE FUNCTION @extschema@.es_lag_messages(source text, "position" bigint, at_most bigint DEFAULT 100000)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_lag_messages(text, bigint, bigint) IS
'How many events or messages that are committed lie above a position; counts no further than at_most.
Errors: 22004, 22023 the source is neither ''events'' nor ''outbox''.
Example: SELECT es_lag_messages(''events'', 4711);';

CREATE FUNCTION @extschema@.es_lag_since(source text, "position" bigint)
RETURNS timestamptz LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_lag_since(text, bigint) IS
'When the first event or message above a position was recorded; NULL when there is none.
Errors: 22004, 22023 the source is neither ''events'' nor ''outbox''.
Example: SELECT es_lag_since(''events'', 4711);';

-- The chunks that a cursor holds, each counted by the part of its positions above it.
CREATE FUNCTION @extschema@.es_lag_bytes(source text, "position" bigint)
RETURNS bigint LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT COALESCE(pg_catalog.sum(c.bytes * (LEAST(c.upper, l.last) - GREATEST(c.lower, $2 + 1)) /
                                   GREATEST(LEAST(c.upper, l.last) - c.lower, 1)), 0)::bigint
      FROM (SELECT bytes,
                   (pg_catalog.regexp_match(bounds, 'FROM \(''?(\d+)'))[1]::numeric AS lower,
                   (pg_catalog.regexp_match(bounds, 'TO \(''?(\d+)'))[1]::numeric AS upper
              FROM @extschema@.es_chunk_list
             WHERE of_table = CASE WHEN $1 = 'events' THEN 'es_events' ELSE 'es_outbox' END) AS c,
           (SELECT @extschema@.es_last_position() + 1 AS last) AS l
     WHERE c.upper > $2 + 1 AND $2 + 1 < l.last AND c.lower < l.last;
END;
COMMENT ON FUNCTION @extschema@.es_lag_bytes(text, bigint) IS
'About how many bytes of the source''s chunks lie above a position.
Example: SELECT es_lag_bytes(''events'', 4711);';

CREATE FUNCTION @extschema@.es_lowest_cursor(source text)
RETURNS bigint LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT pg_catalog.min(c."position")
      FROM @extschema@.es_subscriptions AS s
      JOIN @extschema@.es_lane_cursors AS c USING (subscription_id)
     WHERE s.source = $1 AND s.state <> 'suspended';
END;
COMMENT ON FUNCTION @extschema@.es_lowest_cursor(text) IS
'The position up to which every subscription to ''events'' or ''outbox'' that is not suspended has read: what lies at or below it is not needed for them. NULL when there is none.
Example: SELECT es_lowest_cursor(''events'');';

-- Suspends what is too far behind, loudly; called by es_maintain().
CREATE FUNCTION @extschema@.es_suspend_lagging()
RETURNS integer LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    why text;
    n integer := 0;
BEGIN
    FOR s IN
        SELECT t.*, (SELECT min(c."position") FROM @extschema@.es_lane_cursors AS c WHERE c.subscription_id = t.subscription_id) AS floor
          FROM @extschema@.es_subscriptions AS t
         WHERE t.state <> 'suspended' AND (t.max_lag_messages IS NOT NULL OR t.max_lag_bytes IS NOT NULL OR t.max_lag_age IS NOT NULL)
    LOOP
        CONTINUE WHEN @extschema@.es_lag_since(s.source, s.floor) IS NULL;
        why := CASE
            WHEN s.max_lag_messages IS NOT NULL
                 AND @extschema@.es_lag_messages(s.source, s.floor, s.max_lag_messages + 1) > s.max_lag_messages
                THEN format('It was more than %s messages behind.', s.max_lag_messages)
            WHEN s.max_lag_bytes IS NOT NULL AND @extschema@.es_lag_bytes(s.source, s.floor) > s.max_lag_bytes
                THEN format('It was more than %s bytes behind.', s.max_lag_bytes)
            WHEN s.max_lag_age IS NOT NULL AND clock_timestamp() - @extschema@.es_lag_since(s.source, s.floor) > s.max_lag_age
                THEN format('It was more than %s behind.', s.max_lag_age)
        END;
        CONTINUE WHEN why IS NULL;
        UPDATE @extschema@.es_subscriptions AS t SET state = 'suspended', reason = why WHERE t.subscription_id = s.subscription_id;
        n := n + 1;
        RAISE WARNING 'subscription "%" is suspended', s.name
            USING DETAIL = why || format(' Its lowest cursor is at position %s.', s.floor),
                  HINT = 'It no longer holds chunks: what it did not read may be dropped. Use es_resume_subscription or es_seek_subscription.';
    END LOOP;
    IF n > 0 THEN
        PERFORM @extschema@.es_wake_consumers();
    END IF;
    RETURN n;
END $$;
COMMENT ON FUNCTION @extschema@.es_suspend_lagging() IS
'Suspends each subscription that is farther behind than its max_lag_messages, max_lag_bytes or max_lag_age allow, with a WARNING; returns how many. es_maintain() does it.
Example: SELECT es_suspend_lagging();';

CREATE VIEW @extschema@.es_subscription_lanes AS
    SELECT s.name AS subscription, c.lane, c.owner,
           c.owner IS NOT NULL AND m.consumer IS NOT NULL AS alive, m.expires_at, m.session_pid, c.epoch, c.since, c."position",
           (SELECT pg_catalog.count(*) FROM @extschema@.es_parked AS p WHERE p.subscription_id = c.subscription_id AND p.lane = c.lane) AS parked
      FROM @extschema@.es_lane_cursors AS c
      JOIN @extschema@.es_subscriptions AS s USING (subscription_id)
      LEFT JOIN @extschema@.es_members() AS m
        ON m.subscription_id = c.subscription_id AND m.consumer_hash = @extschema@.es_consumer_hash(c.owner);
COMMENT ON VIEW @extschema@.es_subscription_lanes IS
'Each lane of each subscription: its owner, whether that is alive and until when, its epoch, how far it has acknowledged, and how many messages of it are parked.
Example: SELECT * FROM es_subscription_lanes WHERE subscription = ''mailer'';';

CREATE VIEW @extschema@.es_subscription_status AS
    SELECT s.name AS subscription, s.source, s.state, s.reason, s.lanes, s.lanes_next,
           l.owned AS lanes_owned, l.owners, l.epoch AS newest_epoch,
           (SELECT pg_catalog.count(*) FROM @extschema@.es_members() AS m WHERE m.subscription_id = s.subscription_id) AS members,
           l."position", h.horizon,
           @extschema@.es_lag_messages(s.source, l."position") AS lag_messages,
           COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - @extschema@.es_lag_since(s.source, l."position")), 0)::numeric(20, 3) AS lag_seconds,
           p.parked, p.dead, p.next_attempt_at, e.error AS last_error, e.failed_at AS last_failed_at,
           h.last_position - h.horizon AS held_back, f.pid AS held_by
      FROM @extschema@.es_subscriptions AS s
     CROSS JOIN (SELECT @extschema@.es_horizon() AS horizon, @extschema@.es_last_position() AS last_position) AS h
     CROSS JOIN LATERAL (
        SELECT pg_catalog.min(c."position") AS "position", pg_catalog.count(c.owner) AS owned, pg_catalog.max(c.epoch) AS epoch,
               pg_catalog.array_agg(DISTINCT c.owner) FILTER (WHERE c.owner IS NOT NULL) AS owners
          FROM @extschema@.es_lane_cursors AS c WHERE c.subscription_id = s.subscription_id) AS l
     CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) FILTER (WHERE NOT q.dead) AS parked, pg_catalog.count(*) FILTER (WHERE q.dead) AS dead,
               pg_catalog.min(q.next_attempt_at) AS next_attempt_at
          FROM @extschema@.es_parked AS q WHERE q.subscription_id = s.subscription_id) AS p
      LEFT JOIN LATERAL (
        SELECT q.error, q.failed_at FROM @extschema@.es_parked AS q
         WHERE q.subscription_id = s.subscription_id AND q.failed_at IS NOT NULL ORDER BY q.failed_at DESC LIMIT 1) AS e ON true
      LEFT JOIN LATERAL (SELECT w.pid FROM @extschema@.es_writers() AS w ORDER BY w."position" LIMIT 1) AS f ON true;
COMMENT ON VIEW @extschema@.es_subscription_status IS
'A row a subscription: state, lanes and who owns them, members that are alive, the lowest cursor, and how far it is behind: lag_messages (of its source, before the filter, counted up to 100,000) and lag_seconds (age of the first of them); parked messages, dead letters, the last error; held_back and held_by: positions above the horizon, and the process whose open transaction holds it (see es_in_flight).
Errors: 55000 on a standby.
Example: SELECT subscription, state, lag_messages, lag_seconds, parked, dead FROM es_subscription_status;';

REVOKE ALL ON FUNCTION
    @extschema@.es_members(),
    @extschema@.es_consumer_hash(text),
    @extschema@.es_lag_messages(text, bigint, bigint),
    @extschema@.es_lag_since(text, bigint),
    @extschema@.es_lag_bytes(text, bigint),
    @extschema@.es_lowest_cursor(text),
    @extschema@.es_suspend_lagging()
FROM PUBLIC;
