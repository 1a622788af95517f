-- subscription: named, durable readers of the log.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
-- The epoch that a lane is in: what es_fetch returns with each row.
CREATE FUNCTION epoch(subscription text, lane integer DEFAULT 0) RETURNS bigint LANGUAGE sql AS
$$SELECT l.epoch FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id) WHERE s.name = $1 AND l.lane = $2$$;

SELECT version FROM es_append('order-1', 'OrderPlaced', '{"total": 10}', es_no_stream());
SELECT version FROM es_append('order-1', 'OrderPaid', '{"by": "card"}', 0);
SELECT version FROM es_append('cart-1', 'CartOpened', '{}', es_no_stream());
SELECT version FROM es_append('order-2', 'OrderPlaced', '{"total": 20}', es_no_stream(), '{"by": "ann"}',
                              'd0000000-0000-0000-0000-000000000001', '2', '2020-01-01 00:00:00+00', 'c-1', 'c-0');

--
-- A subscription begins at the beginning, at the end, or after a position.
--
SELECT es_create_subscription('all', 'beginning');
SELECT es_create_subscription('new', 'end');
SELECT es_create_subscription('late', '2');
SELECT name, source, categories, types FROM es_subscriptions ORDER BY name;

-- A fetch hands out what comes after the cursor, in order.
SELECT position, topic, key, version, type, payload FROM es_fetch('all', 'me');
SELECT position FROM es_fetch('late', 'me');
SELECT position FROM es_fetch('new', 'me');
SELECT version FROM es_append('order-2', 'OrderPaid', '{"by": "cash"}');
SELECT position FROM es_fetch('new', 'me');

-- Everything of one delivery.
\x on
SELECT lane, epoch, incarnation = es_incarnation() AS this_life, position, topic, key, version, message_id, type,
       schema_version, source, payload, headers, correlation_id, causation_id, traceparent,
       occurred_at AT TIME ZONE 'UTC' AS occurred_at, recorded_at > occurred_at AS recorded_later
  FROM es_fetch('all', 'me') WHERE position = 4;
\x off
-- occurred_at is recorded_at where none was given.
SELECT position, occurred_at = recorded_at AS same FROM es_fetch('all', 'me', 1);

--
-- What is not acknowledged is handed out again. An acknowledgement is
-- cumulative; again it is harmless, and lower it changes nothing.
--
SELECT position FROM es_fetch('all', 'me', 2);
SELECT position FROM es_fetch('all', 'me', 2);
SELECT es_ack('all', 0, epoch('all'), 2);
SELECT position FROM es_fetch('all', 'me', 2);
SELECT es_ack('all', 0, epoch('all'), 4);
SELECT es_ack('all', 0, epoch('all'), 4);
SELECT es_ack('all', 0, epoch('all'), 1);
SELECT position FROM es_fetch('all', 'me');
SELECT c.lane, c.epoch, c.position FROM es_cursors AS c JOIN es_subscriptions USING (subscription_id)
 WHERE name = 'all' ORDER BY position;
-- Twice in one statement is no different.
SELECT es_ack('late', 0, epoch('late'), 3), es_ack('late', 0, epoch('late'), 3), es_ack('late', 0, epoch('late'), 1);
-- Each subscription has a cursor of its own.
SELECT position FROM es_fetch('late', 'me');

-- An acknowledgement belongs to its transaction: with the side effect, or not at all.
BEGIN;
SELECT es_ack('all', 0, epoch('all'), 8);
SELECT position FROM es_fetch('all', 'me');
ROLLBACK;
SELECT position FROM es_fetch('all', 'me');

-- Old cursors are swept away by housekeeping, the newest one stays.
SELECT count(*) > 4 AS some FROM es_cursors;
SELECT es_maintain();
SELECT name, c.position FROM es_cursors AS c JOIN es_subscriptions USING (subscription_id) ORDER BY name;
SELECT position FROM es_fetch('all', 'me');
SELECT es_maintain();
SELECT count(*) FROM es_cursors;

-- An epoch that is not the lane's fences its acknowledgement off.
SELECT es_ack('all', 0, 1, 5);
\set VERBOSITY sqlstate
SELECT es_ack('all', 0, -1, 5);
\set VERBOSITY default
-- Nobody can acknowledge what was never handed out.
SELECT es_ack('all', 0, epoch('all'), 9);
SELECT es_ack('all', 0, epoch('all'), -1);
SELECT es_ack('all', 1, 0, 5);
SELECT position FROM es_fetch('all', 'me');

-- Nothing that is uncommitted is handed out, not even one's own.
BEGIN;
SELECT position FROM es_append('order-3', 'OrderPlaced', '{}');
SELECT position FROM es_fetch('all', 'me');
SELECT es_ack('all', 0, epoch('all'), 9);
ROLLBACK;

--
-- Filters: by category, by type, by both.
--
SELECT es_create_subscription('orders', 'beginning', categories => '{order}');
SELECT es_create_subscription('payments', 'beginning', types => '{OrderPaid,Refunded}');
SELECT es_create_subscription('both', 'beginning', 'events', '{order,cart}', '{OrderPlaced,CartOpened}');
SELECT es_create_subscription('none', 'beginning', NULL, '{nothing}');
SELECT position, topic, type FROM es_fetch('orders', 'me');
SELECT position, topic, type FROM es_fetch('payments', 'me');
SELECT position, topic, type FROM es_fetch('both', 'me', 3);
SELECT position, topic, type FROM es_fetch('none', 'me');
-- Where nothing matches for long, the cursor moves on by itself.
SELECT version FROM es_append_batch('bulk-1', array_fill('T'::text, ARRAY[10100]), array_fill('{}'::jsonb, ARRAY[10100]));
SELECT position FROM es_fetch('none', 'me');
SELECT c.position = es_horizon() AS moved FROM es_cursors AS c JOIN es_subscriptions USING (subscription_id)
 WHERE name = 'none' ORDER BY position;
-- It does not pass over what matches.
SELECT es_ack('payments', 0, epoch('payments'), 2);
SELECT version FROM es_append('order-2', 'Refunded', '{}');
SELECT type, key FROM es_fetch('payments', 'me');

-- A fetch stops at 1,000 unless told otherwise.
SELECT count(*) FROM es_fetch('all', 'me');
SELECT count(*) FROM es_fetch('all', 'me', 20000);

--
-- A fetch with a wait comes back at once when there is something, and after
-- the wait when there is not. Less than a statement_timeout, it is not cancelled.
--
SELECT position FROM es_fetch('late', 'me', 1, '30 s');
SELECT position FROM es_fetch('none', 'me', 1, '0 s');
SELECT position FROM es_fetch('none', 'me', 1, '50 ms');
SET statement_timeout = '1 s';
SELECT position FROM es_fetch('none', 'me', 1, '20 s');
RESET statement_timeout;
-- Waiting while holding the horizon back would be waiting for oneself.
BEGIN;
SELECT version FROM es_append('order-9', 'OrderPlaced', '{}');
SAVEPOINT s;
SELECT position FROM es_fetch('none', 'me', 1, '1 s');
ROLLBACK TO s;
SELECT position FROM es_fetch('none', 'me', 1, '0 s');
SELECT position FROM es_fetch('none', 'me', 1);
ROLLBACK;
-- So would waiting with any transaction id: others may wait for it.
BEGIN;
CREATE TABLE side_effects (i int);
\set VERBOSITY sqlstate
SELECT position FROM es_fetch('none', 'me', 1, '1 s');
ROLLBACK;
\set VERBOSITY default
-- Half a minute is the most.
SELECT position FROM es_fetch('none', 'me', 1, '30.001 s');
\set VERBOSITY sqlstate
SELECT position FROM es_fetch('none', 'me', 1, '-1 s');
SELECT position FROM es_fetch('none', 'me', 1, '1 month');
SELECT position FROM es_fetch('none', 'me', 1, '1 day');
\set VERBOSITY default

-- A read-only transaction may fetch, not acknowledge.
BEGIN READ ONLY;
SELECT position FROM es_fetch('late', 'me', 1);
SAVEPOINT s;
SELECT es_ack('late', 0, epoch('late'), 3);
ROLLBACK;

--
-- Untyped parameters.
--
PREPARE create_subscription AS SELECT es_create_subscription($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);
EXECUTE create_subscription('param', 'beginning', 'events', '{order}', '{OrderPaid}', NULL, '$', 1, '30 s', 3, '1 s', '1 min', 'skip', 1000, NULL, NULL);
PREPARE fetch_some AS SELECT position FROM es_fetch($1, $2, $3, $4, $5);
EXECUTE fetch_some('param', 'me', 1, '1 s', false);
EXECUTE fetch_some('param', 'me', NULL, NULL, NULL);
PREPARE ack AS SELECT es_ack($1, $2, $3, $4);
SELECT epoch('param') AS param \gset
EXECUTE ack('param', 0, :param, 2);
SELECT position FROM es_fetch('param', 'me', '1', '1 s');
SELECT es_ack('param', '0', :'param', '8');
EXECUTE fetch_some('param', 'me', NULL, NULL, NULL);
PREPARE drop_subscription AS SELECT es_drop_subscription($1);
EXECUTE drop_subscription('param');

-- A dropped subscription leaves nothing behind; a new one of its name is a new one.
SELECT es_drop_subscription('all');
SELECT position FROM es_fetch('all', 'me');
SELECT es_ack('all', 0, 1, 1);
SELECT es_drop_subscription('all');
SELECT count(*) FROM es_cursors WHERE subscription_id NOT IN (SELECT subscription_id FROM es_subscriptions);
SELECT es_create_subscription('all', 'beginning');
SELECT position FROM es_fetch('all', 'me', 1);

--
-- What is refused, and how. Nothing is created by it.
--
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT count(*) AS subscriptions, (SELECT count(*) FROM es_cursors) AS cursors FROM es_subscriptions \gset before_
SELECT call, refusal('SELECT es_create_subscription(' || call || ')') FROM (VALUES
    ($$'all', 'end'$$),
    ($$NULL, 'end'$$),
    ($$'x', NULL$$),
    ($$'', 'end'$$),
    ($$E'a\tb', 'end'$$),
    ($$repeat('x', 1025), 'end'$$),
    ($$'x', ''$$),
    ($$'x', 'middle'$$),
    ($$'x', '-1'$$),
    ($$'x', '99999999'$$),
    ($$'x', '99999999999999999999'$$),
    ($$'x', 'end', 'rubbish'$$),
    ($$'x', 'end', categories => '{a,NULL}'$$),
    ($$'x', 'end', types => '{NULL}'$$)) AS t (call);
SELECT call, refusal('SELECT FROM es_fetch(' || call || ')') FROM (VALUES
    ($$NULL, 'me'$$),
    ($$'', 'me'$$),
    ($$'all', NULL$$),
    ($$'all', ''$$),
    ($$'unknown', 'me'$$),
    ($$'all', 'me', 0$$),
    ($$'all', 'me', -1$$)) AS t (call);
SELECT call, refusal('SELECT es_ack(' || call || ')') FROM (VALUES
    ($$NULL, 0, 0, 1$$),
    ($$'all', NULL, 0, 1$$),
    ($$'all', 0, NULL, 1$$),
    ($$'all', 0, 0, NULL$$),
    ($$'unknown', 0, 0, 1$$)) AS t (call);
SELECT call, left(refusal('SELECT es_drop_subscription(' || call || ')'), 5) AS sqlstate
  FROM (VALUES ($$'unknown'$$), ($$NULL$$)) AS t (call);
-- A filter that no fetch could use is refused here, not there.
SELECT call, left(refusal('SELECT es_create_subscription(' || call || ')'), 5) AS sqlstate FROM (VALUES
    ($$'x', 'end', categories => '{""}'$$),
    ($$'x', 'end', types => ARRAY[repeat('x', 1025)]$$),
    ($$'x', 'end', types => ARRAY[E'a\nb']$$)) AS t (call);
SELECT count(*) - :before_subscriptions AS subscriptions, (SELECT count(*) FROM es_cursors) - :before_cursors AS cursors FROM es_subscriptions;

-- A name of 1,024 bytes, with anything in it, is a good one.
SELECT es_create_subscription('%s''"' || repeat('x', 1020), 'beginning');
SELECT position FROM es_fetch('%s''"' || repeat('x', 1020), 'me', 1);
SELECT es_fetch('%s', 'me');

-- Consuming is a right of its own, and gives none to the tables.
SELECT epoch('all') \gset
CREATE ROLE es_pg_consumer;
SET ROLE es_pg_consumer;
\set VERBOSITY sqlstate
SELECT FROM es_fetch('all', 'me');
SELECT es_ack('all', 0, :epoch, 1);
SELECT es_create_subscription('x', 'end');
SELECT es_drop_subscription('all');
SELECT es_maintain();
SELECT FROM es_cursors;
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_fetch, es_ack TO es_pg_consumer;
SET ROLE es_pg_consumer;
SELECT position FROM es_fetch('all', 'me', 1);
SELECT es_ack('all', 0, :epoch, 1);
SELECT position FROM es_fetch('all', 'me', 1);
SELECT FROM es_cursors;
RESET ROLE;
\set VERBOSITY default
REVOKE EXECUTE ON FUNCTION es_fetch, es_ack FROM es_pg_consumer;
DROP ROLE es_pg_consumer;

-- A backend knows where it last found a lane. However often it was acknowledged since, the newest counts; and what was
-- rolled back does not.
BEGIN;
INSERT INTO es_cursors
SELECT c.subscription_id, c.lane, c.epoch, c.position + i
  FROM (SELECT * FROM es_cursors WHERE epoch = :epoch ORDER BY position DESC LIMIT 1) AS c, generate_series(1, 50) AS i;
SELECT position FROM es_fetch('all', 'me', 1);
ROLLBACK;
SELECT position FROM es_fetch('all', 'me', 1);
