-- subscription_admin.sql: creating, altering, pausing, seeking and dropping subscriptions.
--
-- Order of locks: the subscription's row, then its leases. Whoever holds both
-- knows that nobody is about to acknowledge.

CREATE FUNCTION @extschema@.es_lock_subscription(name text)
RETURNS @extschema@.es_subscriptions LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    s @extschema@.es_subscriptions;
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION 'subscription name must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT t.* INTO s FROM @extschema@.es_subscriptions AS t WHERE t.name = es_lock_subscription.name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" does not exist', name USING ERRCODE = 'undefined_object';
    END IF;
    RETURN s;
END $$;
COMMENT ON FUNCTION @extschema@.es_lock_subscription(text) IS
'es_pg: locks a subscription''s row and returns it.
Example: SELECT es_lock_subscription(''mailer'');';

-- Waits for open acknowledgements; a new epoch makes void what was handed out.
CREATE FUNCTION @extschema@.es_fence_subscription(subscription_id integer)
RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    next_epoch bigint;
BEGIN
    PERFORM FROM @extschema@.es_leases AS l WHERE l.subscription_id = es_fence_subscription.subscription_id
      ORDER BY l.lane FOR UPDATE;
    next_epoch := @extschema@.es_next_epoch();
    UPDATE @extschema@.es_leases AS l SET epoch = next_epoch, owner = NULL, since = pg_catalog.clock_timestamp()
     WHERE l.subscription_id = es_fence_subscription.subscription_id;
    UPDATE @extschema@.es_parked AS p SET delivered_epoch = NULL
     WHERE p.subscription_id = es_fence_subscription.subscription_id AND p.delivered_epoch IS NOT NULL;
    PERFORM @extschema@.es_wake_consumers();
    RETURN next_epoch;
END $$;
COMMENT ON FUNCTION @extschema@.es_fence_subscription(integer) IS
'es_pg: takes all lanes of a subscription away from their owners, after waiting for open acknowledgements; returns the new epoch.
Example: SELECT es_fence_subscription(1);';

-- The newest cursor of each lane; one without any has read nothing.
CREATE VIEW @extschema@.es_lane_cursors AS
    SELECT l.subscription_id, l.lane, l.epoch, l.owner, l.since, COALESCE(c."position", 0) AS "position"
      FROM @extschema@.es_leases AS l
      LEFT JOIN LATERAL (SELECT n."position" FROM @extschema@.es_cursors AS n
                          WHERE n.subscription_id = l.subscription_id AND n.lane = l.lane
                          ORDER BY n.epoch DESC, n."position" DESC LIMIT 1) AS c ON true;
COMMENT ON VIEW @extschema@.es_lane_cursors IS
'Each lane of each subscription: its lease, and the position up to which it has acknowledged.
Example: SELECT * FROM es_lane_cursors;';

CREATE FUNCTION @extschema@.es_check_names(names text[], what text)
RETURNS void LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.unnest(names) AS f (n) WHERE n IS NULL) THEN
        RAISE EXCEPTION '% must not contain nulls', what USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.unnest(names) AS f (n)
                WHERE n = '' OR pg_catalog.octet_length(n) > 1024 OR n ~ '[\x01-\x1f\x7f]') THEN
        RAISE EXCEPTION 'invalid name among %', what
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'A name has 1 to 1,024 bytes and no control characters.';
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_check_names(text[], text) IS 'es_pg: refuses arrays with what cannot be a name.
Example: SELECT es_check_names(''{order}'', ''categories'');';

CREATE FUNCTION @extschema@.es_check_positive(value interval, what text, maximum interval)
RETURNS void LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF value IS NULL OR value <= '0'::interval OR value > maximum OR EXTRACT(month FROM value) <> 0 OR EXTRACT(year FROM value) <> 0 THEN
        RAISE EXCEPTION 'invalid %', what
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = pg_catalog.format('It is more than zero and at most %s, without months.', maximum);
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_check_positive(interval, text, interval) IS 'es_pg: refuses intervals that cannot be a limit.
Example: SELECT es_check_positive(''30 s'', ''lease_time'', ''1 day'');';

-- Refuses a policy that cannot be, and remarks on a filter that names nothing.
CREATE FUNCTION @extschema@.es_check_subscription(s @extschema@.es_subscriptions)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    missing text;
    newest bigint := @extschema@.es_last_position();
BEGIN
    PERFORM @extschema@.es_check_names(s.categories, 'categories'), @extschema@.es_check_names(s.types, 'types'),
            @extschema@.es_check_names(s.topics, 'topics'),
            @extschema@.es_check_positive(s.lease_time, 'lease_time', '1 day'),
            @extschema@.es_check_positive(s.retry_base, 'retry_base', '1 day'),
            @extschema@.es_check_positive(s.retry_max, 'retry_max', '30 days');
    IF s.max_lag_age IS NOT NULL THEN
        PERFORM @extschema@.es_check_positive(s.max_lag_age, 'max_lag_age', '10000 days');
    END IF;
    IF COALESCE(s.lanes_next, s.lanes) NOT BETWEEN 1 AND 1024 THEN
        RAISE EXCEPTION 'invalid number of lanes' USING ERRCODE = 'invalid_parameter_value',
              DETAIL = 'A subscription has 1 to 1,024 lanes.';
    ELSIF s.max_attempts NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'max_attempts must be between 1 and 1,000' USING ERRCODE = 'invalid_parameter_value';
    ELSIF s.on_dead NOT IN ('block', 'skip') THEN
        RAISE EXCEPTION 'invalid on_dead "%"', s.on_dead USING ERRCODE = 'invalid_parameter_value',
              HINT = 'It is ''block'' (a dead letter holds its key up) or ''skip'' (its key goes on).';
    ELSIF s.max_lag_messages < 1 OR s.max_lag_bytes < 1 THEN
        RAISE EXCEPTION 'max_lag_messages and max_lag_bytes must be positive' USING ERRCODE = 'invalid_parameter_value';
    ELSIF s.source = 'events' AND COALESCE(s.topics, '{}') <> '{}' THEN
        RAISE EXCEPTION 'events have no topics' USING ERRCODE = 'invalid_parameter_value', HINT = 'Use categories.';
    ELSIF s.source = 'outbox' AND COALESCE(s.categories, '{}') <> '{}' THEN
        RAISE EXCEPTION 'messages of the outbox have no categories' USING ERRCODE = 'invalid_parameter_value', HINT = 'Use topics.';
    END IF;
    SELECT n INTO missing FROM pg_catalog.unnest(s.categories) AS f (n)
     WHERE NOT EXISTS (SELECT FROM @extschema@.es_streams AS t WHERE t.category_id = @extschema@.es_category_id(n)) LIMIT 1;
    IF FOUND THEN
        RAISE NOTICE 'there is no stream of category "%" yet', missing;
    END IF;
    IF s.source = 'events' THEN
        SELECT n INTO missing FROM pg_catalog.unnest(s.types) AS f (n)
         WHERE NOT EXISTS (SELECT FROM @extschema@.es_events AS e WHERE e."position" > newest - 100000 AND e.type = n) LIMIT 1;
    ELSE
        SELECT n INTO missing FROM pg_catalog.unnest(s.types) AS f (n)
         WHERE NOT EXISTS (SELECT FROM @extschema@.es_outbox AS o WHERE o."position" > newest - 100000 AND o.type = n) LIMIT 1;
    END IF;
    IF FOUND THEN
        RAISE NOTICE 'there is nothing of type "%" among the newest', missing;
    END IF;
    SELECT n INTO missing FROM pg_catalog.unnest(s.topics) AS f (n)
     WHERE NOT EXISTS (SELECT FROM @extschema@.es_outbox AS o WHERE o."position" > newest - 100000 AND o.topic = n) LIMIT 1;
    IF FOUND THEN
        RAISE NOTICE 'there is no message of topic "%" among the newest', missing;
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_check_subscription(@extschema@.es_subscriptions) IS
'es_pg: refuses a subscription that cannot be; a NOTICE tells of a filter that names nothing.
Example: SELECT es_check_subscription(s) FROM es_subscriptions AS s;';

CREATE FUNCTION @extschema@.es_create_subscription(
    name text, start text, source text DEFAULT 'events', categories text[] DEFAULT NULL, types text[] DEFAULT NULL,
    topics text[] DEFAULT NULL, "where" jsonpath DEFAULT NULL, lanes integer DEFAULT 1,
    lease_time interval DEFAULT '30 s', max_attempts integer DEFAULT 10,
    retry_base interval DEFAULT '1 s', retry_max interval DEFAULT '10 min', on_dead text DEFAULT 'block',
    max_lag_messages bigint DEFAULT NULL, max_lag_bytes bigint DEFAULT NULL, max_lag_age interval DEFAULT NULL)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    start_position bigint;
    made @extschema@.es_subscriptions;
BEGIN
    IF name IS NULL OR start IS NULL THEN
        RAISE EXCEPTION 'subscription name and start must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF name = '' OR pg_catalog.octet_length(name) > 1024 OR name ~ '[\x01-\x1f\x7f]' THEN
        RAISE EXCEPTION 'invalid subscription name'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'A name has 1 to 1,024 bytes and no control characters.';
    END IF;
    IF name LIKE '$inbox/%' AND NOT COALESCE(source = 'outbox' AND topics = ARRAY[name], false) THEN
        RAISE EXCEPTION 'subscription name "%" is reserved', name USING ERRCODE = 'invalid_parameter_value',
              DETAIL = 'Names that begin with "$inbox/" are those of inboxes.', HINT = 'Use es_create_inbox.';
    END IF;
    IF COALESCE(source, 'events') NOT IN ('events', 'outbox') THEN
        RAISE EXCEPTION 'invalid subscription source "%"', source
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The source is ''events'' or ''outbox''.';
    END IF;
    start_position := CASE
        WHEN start = 'beginning' THEN 0
        WHEN start = 'end' THEN @extschema@.es_horizon()
        WHEN start ~ '^[0-9]{1,19}$' THEN
            CASE WHEN start::numeric <= @extschema@.es_horizon() THEN start::bigint END
    END;
    IF start_position IS NULL THEN
        RAISE EXCEPTION 'invalid subscription start "%"', start
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Use ''beginning'', ''end'', or a position at or below the horizon.';
    END IF;
    INSERT INTO @extschema@.es_subscriptions AS s (
        name, source, categories, types, topics, "where", lanes, state, lease_time, max_attempts, retry_base, retry_max,
        on_dead, max_lag_messages, max_lag_bytes, max_lag_age)
    VALUES ($1, COALESCE($3, 'events'), $4, $5, $6, $7, COALESCE($8, 1), 'active', COALESCE($9, '30 s'), COALESCE($10, 10),
            COALESCE($11, '1 s'), COALESCE($12, '10 min'), COALESCE($13, 'block'), $14, $15, $16)
    ON CONFLICT ON CONSTRAINT es_subscriptions_name_key DO NOTHING
    RETURNING s.* INTO made;
    IF made.subscription_id IS NULL THEN
        RAISE EXCEPTION 'subscription "%" already exists', name USING ERRCODE = 'duplicate_object';
    END IF;
    PERFORM @extschema@.es_check_subscription(made);
    INSERT INTO @extschema@.es_leases (subscription_id, lane, epoch, since)
        SELECT made.subscription_id, lane, 0, pg_catalog.clock_timestamp() FROM pg_catalog.generate_series(0, made.lanes - 1) AS g (lane);
    INSERT INTO @extschema@.es_cursors (subscription_id, lane, epoch, "position")
        SELECT made.subscription_id, lane, 0, start_position FROM pg_catalog.generate_series(0, made.lanes - 1) AS g (lane);
END $$;
COMMENT ON FUNCTION @extschema@.es_create_subscription(text, text, text, text[], text[], text[], jsonpath, integer, interval, integer, interval, interval, text, bigint, bigint, interval) IS
'Creates a subscription to events or to the outbox.
start: ''beginning'', ''end'' (what commits from now on) or the position after which to begin. source: ''events'' or ''outbox''.
Filter, all of which must match: categories (events), topics (outbox), types; "where", a jsonpath over {"data", "payload", "headers"} that is a predicate which holds or a path that finds something. A NOTICE tells of names that nothing has yet.
lanes: 1 to 1,024; a key always falls into the same lane, order holds within a key.
lease_time: a consumer that makes no call for so long has left. max_attempts, retry_base, retry_max, on_dead (''block'' or ''skip''): see es_nack.
max_lag_messages, max_lag_bytes, max_lag_age: farther behind it is suspended by es_maintain() and holds no chunks.
Errors: 42710 exists, 22004, 22023, 42601 a path that does not parse.
Example: SELECT es_create_subscription(''mailer'', ''end'', categories => ''{order}'', "where" => ''$.data.total > 100'', lanes => 8);';

CREATE FUNCTION @extschema@.es_alter_subscription(
    name text, categories text[] DEFAULT NULL, types text[] DEFAULT NULL, topics text[] DEFAULT NULL,
    "where" jsonpath DEFAULT NULL, lanes integer DEFAULT NULL, lease_time interval DEFAULT NULL,
    max_attempts integer DEFAULT NULL, retry_base interval DEFAULT NULL, retry_max interval DEFAULT NULL,
    on_dead text DEFAULT NULL, max_lag_messages bigint DEFAULT NULL, max_lag_bytes bigint DEFAULT NULL,
    max_lag_age interval DEFAULT NULL)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    s @extschema@.es_subscriptions := @extschema@.es_lock_subscription($1);
    next_epoch bigint;
BEGIN
    IF s.lanes_next IS NOT NULL AND $6 IS NOT NULL THEN
        RAISE EXCEPTION 'subscription "%" is changing its number of lanes', $1
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = pg_catalog.format('From %s to %s, when all lanes have acknowledged position %s.', s.lanes, s.lanes_next, s.drain_to);
    END IF;
    s.categories := COALESCE($2, s.categories);
    s.types := COALESCE($3, s.types);
    s.topics := COALESCE($4, s.topics);
    s."where" := COALESCE($5, s."where");
    s.lanes_next := COALESCE(NULLIF($6, s.lanes), s.lanes_next);
    s.lease_time := COALESCE($7, s.lease_time);
    s.max_attempts := COALESCE($8, s.max_attempts);
    s.retry_base := COALESCE($9, s.retry_base);
    s.retry_max := COALESCE($10, s.retry_max);
    s.on_dead := COALESCE($11, s.on_dead);
    s.max_lag_messages := COALESCE($12, s.max_lag_messages);
    s.max_lag_bytes := COALESCE($13, s.max_lag_bytes);
    s.max_lag_age := COALESCE($14, s.max_lag_age);
    PERFORM @extschema@.es_check_subscription(s);
    UPDATE @extschema@.es_subscriptions AS t
       SET categories = s.categories, types = s.types, topics = s.topics, "where" = s."where", lanes_next = s.lanes_next,
           lease_time = s.lease_time, max_attempts = s.max_attempts, retry_base = s.retry_base, retry_max = s.retry_max,
           on_dead = s.on_dead, max_lag_messages = s.max_lag_messages, max_lag_bytes = s.max_lag_bytes, max_lag_age = s.max_lag_age
     WHERE t.subscription_id = s.subscription_id;
    IF $11 IS NOT NULL THEN
        -- A fetch that goes by the old policy holds its lane's lease while it parks, or looks at the policy again.
        PERFORM FROM @extschema@.es_leases AS l WHERE l.subscription_id = s.subscription_id ORDER BY l.lane FOR NO KEY UPDATE;
        PERFORM @extschema@.es_plan_by_policy(s.subscription_id);
    END IF;
    IF $6 <> s.lanes THEN
        PERFORM @extschema@.es_fence_subscription(s.subscription_id);
        UPDATE @extschema@.es_subscriptions AS t
           SET drain_to = (SELECT pg_catalog.max(c."position") FROM @extschema@.es_lane_cursors AS c WHERE c.subscription_id = s.subscription_id)
         WHERE t.subscription_id = s.subscription_id;
        PERFORM @extschema@.es_switch_lanes(s.subscription_id);
    END IF;
    PERFORM @extschema@.es_wake_consumers();
END $$;
COMMENT ON FUNCTION @extschema@.es_alter_subscription(text, text[], text[], text[], jsonpath, integer, interval, integer, interval, interval, text, bigint, bigint, interval) IS
'Changes what is given of a subscription; NULL leaves it as it is. An empty array takes a filter away, and so does the path ''$''. A new filter holds for what is fetched from then on.
lanes: what was handed out is void (SE007); the lanes deliver up to the position where the first of them is; when all are there, the new lanes begin.
Errors: 42704, 55000 a change of lanes is under way, 22023.
Example: SELECT es_alter_subscription(''mailer'', lanes => 16);';

-- Called by fetches that find their lanes drained, and by whoever asks for it.
CREATE FUNCTION @extschema@.es_switch_lanes(subscription_id integer)
RETURNS boolean LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    s @extschema@.es_subscriptions;
    locked integer;
    next_epoch bigint;
BEGIN
    SELECT t.* INTO s FROM @extschema@.es_subscriptions AS t
     WHERE t.subscription_id = $1 AND t.lanes_next IS NOT NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT pg_catalog.count(*) INTO locked
      FROM (SELECT FROM @extschema@.es_leases AS l WHERE l.subscription_id = $1 FOR UPDATE SKIP LOCKED) AS l;
    IF locked < s.lanes OR EXISTS (SELECT FROM @extschema@.es_lane_cursors AS c
                                    WHERE c.subscription_id = $1 AND c."position" < s.drain_to) THEN
        RETURN false;
    END IF;
    next_epoch := @extschema@.es_next_epoch();
    DELETE FROM @extschema@.es_leases AS l WHERE l.subscription_id = $1;
    DELETE FROM @extschema@.es_cursors AS c WHERE c.subscription_id = $1;
    INSERT INTO @extschema@.es_leases (subscription_id, lane, epoch, since)
        SELECT $1, lane, next_epoch, pg_catalog.clock_timestamp() FROM pg_catalog.generate_series(0, s.lanes_next - 1) AS g (lane);
    INSERT INTO @extschema@.es_cursors (subscription_id, lane, epoch, "position")
        SELECT $1, lane, next_epoch, s.drain_to FROM pg_catalog.generate_series(0, s.lanes_next - 1) AS g (lane);
    UPDATE @extschema@.es_parked AS p
       SET lane = (p.key_hash & 9223372036854775807) % s.lanes_next, delivered_epoch = NULL
     WHERE p.subscription_id = $1;
    UPDATE @extschema@.es_subscriptions AS t SET lanes = s.lanes_next, lanes_next = NULL, drain_to = NULL
     WHERE t.subscription_id = $1;
    PERFORM @extschema@.es_wake_consumers();
    RETURN true;
END $$;
COMMENT ON FUNCTION @extschema@.es_switch_lanes(integer) IS
'es_pg: changes over to a subscription''s new number of lanes if all lanes are drained and nobody is at work.
Example: SELECT es_switch_lanes(1);';

CREATE FUNCTION @extschema@.es_pause_subscription(name text)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s @extschema@.es_subscriptions := @extschema@.es_lock_subscription(name);
BEGIN
    IF s.state = 'suspended' THEN
        RAISE EXCEPTION 'subscription "%" is suspended', name USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = s.reason;
    END IF;
    UPDATE @extschema@.es_subscriptions AS t SET state = 'paused' WHERE t.subscription_id = s.subscription_id;
    PERFORM @extschema@.es_wake_consumers();
END $$;
COMMENT ON FUNCTION @extschema@.es_pause_subscription(text) IS
'Has fetches of a subscription return nothing until es_resume_subscription. What was handed out can be acknowledged. A paused subscription holds chunks.
Errors: 42704, 55000 it is suspended, 22004.
Example: SELECT es_pause_subscription(''mailer'');';

CREATE FUNCTION @extschema@.es_resume_subscription(name text)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s @extschema@.es_subscriptions := @extschema@.es_lock_subscription(name);
BEGIN
    UPDATE @extschema@.es_subscriptions AS t SET state = 'active', reason = NULL WHERE t.subscription_id = s.subscription_id;
    IF s.state = 'suspended' THEN
        RAISE WARNING 'subscription "%" was suspended: messages may have been dropped before it read them', name
            USING DETAIL = s.reason;
    END IF;
    PERFORM @extschema@.es_wake_consumers();
END $$;
COMMENT ON FUNCTION @extschema@.es_resume_subscription(text) IS
'Has a paused or suspended subscription go on from its cursors. After a suspension, which held no chunks, messages may be missing; a WARNING says so.
Errors: 42704, 22004.
Example: SELECT es_resume_subscription(''mailer'');';

-- The position before the first row recorded at a time or later. Positions and
-- clocks run together but for a little, so a search by halves comes near, and
-- the rest is read.
CREATE FUNCTION @extschema@.es_position_before(source text, "time" timestamptz)
RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    near timestamptz := "time" - interval '1 min';
    low bigint := 0;
    high bigint := @extschema@.es_horizon() + 1;
    middle bigint;
    first bigint;
    at timestamptz;
BEGIN
    WHILE high - low > 1000 LOOP
        middle := low + (high - low) / 2;
        at := NULL;
        IF source = 'events' THEN
            SELECT e.recorded_at INTO at FROM @extschema@.es_events AS e WHERE e."position" > middle AND e."position" < high ORDER BY e."position" LIMIT 1;
        ELSE
            SELECT o.created_at INTO at FROM @extschema@.es_outbox AS o WHERE o."position" > middle AND o."position" < high ORDER BY o."position" LIMIT 1;
        END IF;
        IF at IS NULL OR at >= near THEN
            high := middle;
        ELSE
            low := middle;
        END IF;
    END LOOP;
    IF source = 'events' THEN
        SELECT e."position" INTO first FROM @extschema@.es_events AS e WHERE e."position" > low AND e.recorded_at >= "time" ORDER BY e."position" LIMIT 1;
    ELSE
        SELECT o."position" INTO first FROM @extschema@.es_outbox AS o WHERE o."position" > low AND o.created_at >= "time" ORDER BY o."position" LIMIT 1;
    END IF;
    RETURN COALESCE(first - 1, @extschema@.es_horizon());
END $$;
COMMENT ON FUNCTION @extschema@.es_position_before(text, timestamptz) IS
'es_pg: the position before the first event or message that was recorded at a time or later.
Example: SELECT es_position_before(''events'', now());';

CREATE FUNCTION @extschema@.es_seek_subscription(
    name text, "position" bigint DEFAULT NULL, "time" timestamptz DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    s @extschema@.es_subscriptions := @extschema@.es_lock_subscription($1);
    target bigint := $2;
    next_epoch bigint;
BEGIN
    IF ($2 IS NULL) = ($3 IS NULL) THEN
        RAISE EXCEPTION 'either a position or a time must be given' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF $3 IS NOT NULL THEN
        target := @extschema@.es_position_before(s.source, $3);
    END IF;
    IF target < 0 OR target > @extschema@.es_horizon() THEN
        RAISE EXCEPTION 'cannot seek to position %', target USING ERRCODE = 'invalid_parameter_value',
              DETAIL = pg_catalog.format('The log ends at position %s.', @extschema@.es_horizon());
    END IF;
    IF s.lanes_next IS NOT NULL THEN
        RAISE EXCEPTION 'subscription "%" is changing its number of lanes', $1 USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    next_epoch := @extschema@.es_fence_subscription(s.subscription_id);
    DELETE FROM @extschema@.es_cursors AS c WHERE c.subscription_id = s.subscription_id;
    INSERT INTO @extschema@.es_cursors (subscription_id, lane, epoch, "position")
        SELECT s.subscription_id, lane, next_epoch, target FROM pg_catalog.generate_series(0, s.lanes - 1) AS g (lane);
    DELETE FROM @extschema@.es_parked AS p WHERE p.subscription_id = s.subscription_id AND p."position" > target;
    RETURN target;
END $$;
COMMENT ON FUNCTION @extschema@.es_seek_subscription(text, bigint, timestamptz) IS
'Has a subscription go on behind a position, or at the first message recorded at a time or later; returns the position. Backward is a replay. What was handed out is void (SE007). Parked messages after the position are forgotten, for they come again; earlier ones stay.
Errors: 42704, 22023 a position beyond the end, both or neither given, 55000 a change of lanes is under way.
Example: SELECT es_seek_subscription(''mailer'', "time" => now() - interval ''1 day'');';

CREATE FUNCTION @extschema@.es_drop_subscription(name text)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id integer := (@extschema@.es_lock_subscription(name)).subscription_id;
BEGIN
    IF EXISTS (SELECT FROM @extschema@.es_inboxes AS i WHERE i.name = $1) THEN
        RAISE EXCEPTION 'subscription "%" is an inbox', $1 USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Use es_drop_inbox.';
    END IF;
    DELETE FROM @extschema@.es_leases AS l WHERE l.subscription_id = id;
    DELETE FROM @extschema@.es_subscriptions AS s WHERE s.subscription_id = id;
    DELETE FROM @extschema@.es_cursors AS c WHERE c.subscription_id = id;
    DELETE FROM @extschema@.es_parked AS p WHERE p.subscription_id = id;
    PERFORM @extschema@.es_forget_members(id);
    PERFORM @extschema@.es_wake_consumers();
END $$;
COMMENT ON FUNCTION @extschema@.es_drop_subscription(text) IS
'Drops a subscription with its cursors, parked messages and dead letters. Waits for open acknowledgements; consumers that wait in es_fetch get 42704 at once.
Errors: 42704 does not exist, 2BP01 it is a durable inbox, 22004.
Example: SELECT es_drop_subscription(''mailer'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_lock_subscription(text),
    @extschema@.es_fence_subscription(integer),
    @extschema@.es_check_names(text[], text),
    @extschema@.es_check_positive(interval, text, interval),
    @extschema@.es_check_subscription(@extschema@.es_subscriptions),
    @extschema@.es_create_subscription(text, text, text, text[], text[], text[], jsonpath, integer, interval, integer, interval, interval, text, bigint, bigint, interval),
    @extschema@.es_alter_subscription(text, text[], text[], text[], jsonpath, integer, interval, integer, interval, interval, text, bigint, bigint, interval),
    @extschema@.es_switch_lanes(integer),
    @extschema@.es_pause_subscription(text),
    @extschema@.es_resume_subscription(text),
    @extschema@.es_position_before(text, timestamptz),
    @extschema@.es_seek_subscription(text, bigint, timestamptz),
    @extschema@.es_drop_subscription(text)
FROM PUBLIC;
