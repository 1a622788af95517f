-- subscription_lanes: sharing lanes, taking them over, and administration.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
CREATE VIEW lanes AS SELECT lane, owner, alive, position FROM es_subscription_lanes ORDER BY subscription, lane;

SELECT es_create_subscription('work', 'beginning', lanes => 5);
SELECT count(es_append('order-' || i, 'E', '{}')) FROM generate_series(1, 20) AS i;
-- The only member has all lanes; positions rise in each.
SELECT count(*), count(DISTINCT lane), count(DISTINCT epoch) FROM es_fetch('work', 'a');
SELECT bool_and(before IS NULL OR before < position) AS in_order
  FROM (SELECT position, lag(position) OVER (PARTITION BY lane ORDER BY n) AS before
          FROM es_fetch('work', 'a') WITH ORDINALITY AS f (lane, epoch, incarnation, position, topic, key, version, message_id, type, schema_version, source, payload, headers, correlation_id, causation_id, traceparent, occurred_at, recorded_at, payload_binary, content_type, attempt, n)) AS f;
-- A second one gets its share when the first has given it up; they differ by at most one.
SELECT count(*) FROM es_fetch('work', 'b');
SELECT count(DISTINCT lane) FROM es_fetch('work', 'a');
SELECT count(DISTINCT lane) FROM es_fetch('work', 'b');
SELECT * FROM lanes;
SELECT count(*) FROM es_fetch('work', 'c');
SELECT count(DISTINCT lane) FROM es_fetch('work', 'a');
SELECT count(DISTINCT lane) FROM es_fetch('work', 'b');
SELECT count(DISTINCT lane) FROM es_fetch('work', 'c');
SELECT owner, count(*) FROM es_leases GROUP BY 1 ORDER BY 1;
-- Nobody acknowledges in another's lane, or in one it had before.
SELECT lane, epoch FROM es_leases WHERE owner = 'c' ORDER BY lane LIMIT 1 \gset
SELECT es_ack('work', (:lane + 1) % 5, :epoch, 1);
-- A sign of life during long work; whoever has no lane left has nothing to renew.
SELECT r.lane = :lane AND r.epoch = :epoch AS mine FROM es_renew('work', 'c') AS r;
SELECT es_release('work', 'c'), es_release('work', 'c');
SELECT * FROM es_renew('work', 'c');
SELECT es_ack('work', :lane, :epoch, 1);
-- What a member leaves goes to the others at once.
SELECT count(DISTINCT lane) FROM es_fetch('work', 'a');
SELECT count(DISTINCT lane) FROM es_fetch('work', 'b');
-- A name that is bound to a session is no other's; the lease ends with the session.
SELECT count(DISTINCT lane) FROM es_fetch('work', 'bound', session_bound => true);
SELECT consumer, session_pid = pg_backend_pid() AS mine FROM es_members() WHERE session_pid IS NOT NULL;
\c
DO $$ BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM es_members() WHERE consumer = 'bound');
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT count(*) FROM es_members() WHERE consumer = 'bound';
SELECT es_release('work', 'b');
SELECT count(DISTINCT lane) FROM es_fetch('work', 'a');

--
-- Acknowledged in the transaction of the effects, effects happen exactly once.
--
CREATE TABLE effects (position bigint);
BEGIN;
WITH f AS MATERIALIZED (SELECT * FROM es_fetch('work', 'a', 10)), e AS (INSERT INTO effects SELECT position FROM f)
SELECT count(es_ack('work', lane, epoch, position)) FROM f;
ROLLBACK;
SELECT count(*) FROM effects;
BEGIN;
WITH f AS MATERIALIZED (SELECT * FROM es_fetch('work', 'a', 10)), e AS (INSERT INTO effects SELECT position FROM f)
SELECT count(es_ack('work', lane, epoch, position)) FROM f;
COMMIT;
BEGIN;
WITH f AS MATERIALIZED (SELECT * FROM es_fetch('work', 'a')), e AS (INSERT INTO effects SELECT position FROM f)
SELECT count(es_ack('work', lane, epoch, position)) FROM f;
COMMIT;
SELECT count(*), count(DISTINCT position) FROM effects;
-- A fetch that was rolled back took no lane: what it handed out cannot be acknowledged.
SELECT es_release('work', 'a');
BEGIN;
SELECT DISTINCT epoch FROM es_fetch('work', 'z') UNION SELECT max(epoch) FROM es_leases ORDER BY 1 DESC LIMIT 1 \gset
ROLLBACK;
SELECT count(*) FROM es_members() WHERE consumer = 'z';
SELECT es_ack('work', 0, :epoch, 1);

--
-- Pause and resume, seek.
--
SELECT count(*) FROM es_fetch('work', 'a');
SELECT count(es_append('order-' || i, 'F', '{}')) FROM generate_series(1, 4) AS i;
SELECT es_pause_subscription('work');
SELECT count(*) FROM es_fetch('work', 'a');
SELECT count(*) FROM es_fetch('work', 'a', 10, '20 ms');
SELECT es_resume_subscription('work');
SELECT count(*), min(epoch) AS epoch FROM es_fetch('work', 'a') \gset old_
SELECT :old_count AS count;
SELECT es_seek_subscription('work', 18);
SELECT es_ack('work', 0, :old_epoch, 1);
SELECT count(*) FROM es_fetch('work', 'a');
SELECT count(*) FROM es_fetch('work', 'a');
SELECT es_seek_subscription('work', "time" => now() - interval '1 day') = 0 AS at_the_beginning;
SELECT count(*) FROM es_fetch('work', 'a');
SELECT es_seek_subscription('work', "time" => now() + interval '1 day') BETWEEN es_horizon() - 1 AND es_horizon() AS at_the_end;
SELECT count(*) FROM es_fetch('work', 'a');

--
-- Another number of lanes: what was handed out is void, the lanes drain to one position, then the new ones begin.
--
SELECT es_seek_subscription('work', 0);
SELECT count(*) FROM es_fetch('work', 'a');
SELECT es_ack('work', lane, epoch, max(position)) FROM es_fetch('work', 'a') WHERE lane IN (0, 1) GROUP BY lane, epoch \g /dev/null
SELECT es_alter_subscription('work', lanes => 3);
SELECT lanes, lanes_next, drain_to FROM es_subscriptions;
SELECT es_alter_subscription('work', lanes => 4);
SELECT es_seek_subscription('work', 0);
SELECT count(DISTINCT lane), max(position) <= max(drain_to) AS no_further FROM es_fetch('work', 'a'), es_subscriptions;
SELECT es_ack('work', lane, epoch, max(position)) FROM es_fetch('work', 'a') GROUP BY lane, epoch \g /dev/null
SELECT count(*) FROM es_fetch('work', 'a');
SELECT lanes, lanes_next, drain_to FROM es_subscriptions;
SELECT lane, owner IS NOT NULL AS owned, position = (SELECT min(position) FROM lanes) AS together FROM lanes;

-- Two members, and the lane of one is drained: it waits for the other, and has locked nothing when it is done waiting.
SELECT es_create_subscription('two', 'beginning', lanes => 2);
SELECT es_ack('two', 0, epoch, max(position)) FROM es_fetch('two', 'a') WHERE lane = 0 GROUP BY epoch \g /dev/null
SELECT es_alter_subscription('two', lanes => 3);
SELECT count(*) FROM es_fetch('two', 'a', 1) UNION ALL SELECT count(*) FROM es_fetch('two', 'b', 1);
SELECT count(*) FROM es_fetch('two', 'a', 1) UNION ALL SELECT count(*) FROM es_fetch('two', 'b', 1);
SELECT owner, lane, position = (SELECT drain_to FROM es_subscriptions WHERE name = 'two') AS drained
  FROM es_lane_cursors JOIN es_subscriptions USING (subscription_id) WHERE name = 'two' ORDER BY lane;
SELECT owner AS idle FROM es_lane_cursors JOIN es_subscriptions USING (subscription_id) WHERE name = 'two' AND position = drain_to \gset
BEGIN;
SELECT count(*) FROM es_fetch('two', :'idle', 1, '50 ms');
SELECT pg_current_xact_id_if_assigned() IS NULL AS read_only;
COMMIT;
SELECT es_drop_subscription('two');

--
-- Lanes share the room for what is due, the one that has waited for longest first.
--
SELECT es_create_subscription('due', 'end', lanes => 3);
SELECT count(es_append('due-' || i, 'E', '1')) FROM generate_series(1, 30) AS i;
CREATE TEMP TABLE got AS SELECT lane, epoch, position FROM es_fetch('due', 'a');
SELECT count(*) FROM (SELECT es_nack('due', lane, epoch, position, 'x', '0 s') FROM got) AS n;
SELECT es_ack('due', lane, epoch, max(position)) FROM got GROUP BY lane, epoch \g /dev/null
SELECT count(*), count(DISTINCT lane) AS lanes FROM es_fetch('due', 'a', 12);
SELECT lane AS longest FROM es_parked ORDER BY next_attempt_at LIMIT 1 \gset
SELECT count(*), bool_and(lane = :longest) AS the_longest FROM es_fetch('due', 'a', 2);
SELECT es_drop_subscription('due');

--
-- A filter that is widened holds for what is fetched from then on, and what is fetched can be acknowledged.
--
SELECT es_create_subscription('wide', 'beginning', categories => '{order}', types => '{F}');
SELECT count(*) AS narrow FROM es_fetch('wide', 'a');
SELECT es_alter_subscription('wide', types => '{}');
SELECT lane, epoch, max(position) AS position, count(*) FROM es_fetch('wide', 'a', 6) GROUP BY 1, 2 \gset wide_
SELECT :wide_count AS count;
SELECT es_ack('wide', :wide_lane, :wide_epoch, :wide_position);
SELECT min(position) > :wide_position AS further FROM es_fetch('wide', 'a');
SELECT es_drop_subscription('wide');

--
-- Too far behind: suspended, loudly, and no longer in the way.
--
SELECT es_seek_subscription('work', 0);
SELECT es_alter_subscription('work', max_lag_messages => 20);
SELECT es_lowest_cursor('events'), es_lowest_cursor('outbox');
SELECT es_suspend_lagging();
SELECT es_suspend_lagging(), es_lowest_cursor('events');
SELECT state, reason FROM es_subscriptions;
SELECT * FROM es_fetch('work', 'a');
SELECT es_pause_subscription('work');
SELECT es_alter_subscription('work', max_lag_messages => 1000, max_lag_age => '1 day', max_lag_bytes => 100000000);
SELECT es_resume_subscription('work');
SELECT es_suspend_lagging();
SELECT es_alter_subscription('work', max_lag_bytes => 1);
SELECT es_suspend_lagging();

-- What an operator sees.
\x on
SELECT subscription, source, state, reason, lanes, lanes_owned, position, horizon - position AS positions, lag_messages, lag_seconds >= 0 AS lag, parked, dead, last_error, held_back, held_by FROM es_subscription_status;
\x off
SELECT es_drop_subscription('work');
SELECT (SELECT count(*) FROM es_leases) AS leases, (SELECT count(*) FROM es_cursors) AS cursors;

--
-- What is refused.
--
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT es_create_subscription('x', 'beginning');
SELECT call, refusal('SELECT ' || call) FROM (VALUES
    ($$es_create_subscription('y', 'end', lanes => 0)$$),
    ($$es_create_subscription('y', 'end', lanes => 1025)$$),
    ($$es_create_subscription('y', 'end', lease_time => '0 s')$$),
    ($$es_create_subscription('y', 'end', lease_time => '1 month')$$),
    ($$es_create_subscription('y', 'end', max_attempts => 0)$$),
    ($$es_create_subscription('y', 'end', retry_base => '-1 s')$$),
    ($$es_create_subscription('y', 'end', retry_max => '31 days')$$),
    ($$es_create_subscription('y', 'end', on_dead => 'rest')$$),
    ($$es_create_subscription('y', 'end', max_lag_messages => 0)$$),
    ($$es_create_subscription('y', 'end', topics => '{a}')$$),
    ($$es_create_subscription('y', 'end', 'outbox', categories => '{a}')$$),
    ($$es_create_subscription('y', 'end', "where" => '$.data ==')$$),
    ($$es_alter_subscription('unknown')$$),
    ($$es_alter_subscription(NULL)$$),
    ($$es_alter_subscription('x', lanes => 2000)$$),
    ($$es_pause_subscription('unknown')$$),
    ($$es_resume_subscription('unknown')$$),
    ($$es_seek_subscription('unknown', 0)$$),
    ($$es_seek_subscription('x')$$),
    ($$es_seek_subscription('x', 1, now())$$),
    ($$es_seek_subscription('x', -1)$$),
    ($$es_seek_subscription('x', 999999)$$),
    ($$es_renew('unknown', 'a')$$),
    ($$es_renew('x', NULL)$$),
    ($$es_release('unknown', 'a')$$),
    ($$es_release('x', NULL)$$),
    ($$es_fetch('x', 'a', -1)$$)) AS t (call);
BEGIN READ ONLY;
SELECT * FROM es_fetch('x', 'nobody');
ROLLBACK;
