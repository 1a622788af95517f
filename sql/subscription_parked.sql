-- subscription_parked: what fails waits, with its key and nobody else.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
CREATE VIEW parked AS SELECT position, key, attempts, next_attempt_at IS NOT NULL AS planned, delivered_epoch IS NOT NULL AS out, dead, error
  FROM es_parked ORDER BY position;
-- Fail a position, and acknowledge one, in lane 0.
CREATE FUNCTION fail(subscription text, "position" bigint, error text DEFAULT 'oops', retry_after interval DEFAULT '0 s', reject boolean DEFAULT false)
RETURNS SETOF bigint LANGUAGE sql AS
$$SELECT es_nack($1, l.lane, l.epoch, $2, $3, $4, $5) FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id) WHERE s.name = $1$$;
CREATE FUNCTION done(subscription text, "position" bigint) RETURNS void LANGUAGE sql AS
$$SELECT es_ack($1, l.lane, l.epoch, $2) FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id) WHERE s.name = $1$$;

SELECT es_create_subscription('work', 'beginning', max_attempts => 3);
-- Three orders, three events each: positions 1 to 9.
SELECT count(es_append('order-' || o, 'E' || e, to_jsonb(e))) FROM generate_series(1, 3) AS e, generate_series(1, 3) AS o;
SELECT position, key, type FROM es_fetch('work', 'me');

-- Position 2 fails. What its key was handed out behind it must not be processed now.
SELECT fail('work', 2);
SELECT * FROM parked;
-- The others go on, in one acknowledgement.
SELECT done('work', 9);
-- The retry comes with what waited behind it, in order.
SELECT position, key, attempt FROM es_fetch('work', 'me');
-- Until it is acknowledged it comes again, and new ones of the key are parked behind; of other keys they come.
SELECT count(es_append('order-' || o, 'E4', '4')) FROM generate_series(1, 3) AS o;
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT * FROM parked;
-- In the middle of the retry something fails again: what is before it is done.
SELECT fail('work', 5, 'again');
SELECT done('work', 13);
SELECT * FROM parked;
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT done('work', 12);
SELECT * FROM parked;

--
-- Dead letters: after max_attempts, or at once. With block, the default, they hold their key up.
--
SELECT count(es_append('order-' || o, 'E5', '5')) FROM generate_series(1, 3) AS o;
SELECT position, key, type FROM es_fetch('work', 'me');
SELECT fail('work', 15, 'first');
SELECT done('work', 16);
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT fail('work', 15, 'second');
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT fail('work', 15, 'third and last');
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT subscription, position, key, attempts, error, payload FROM es_dead_letters;
SELECT count(es_append('order-' || o, 'E6', '6')) FROM generate_series(1, 3) AS o;
SELECT position, key FROM es_fetch('work', 'me');
SELECT position, key FROM es_fetch('work', 'me');
SELECT done('work', 19);
SELECT * FROM parked;
-- Redriven, it has all its attempts again, and the key goes on in order.
SELECT es_redrive('work', error => 'nothing like that'), es_redrive('work', key => 'order-9'), es_redrive('work', error => 'last');
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT done('work', 18);
SELECT * FROM parked;
-- Rejected, and given up.
SELECT count(es_append('order-1', 'E7', '7')) FROM generate_series(1, 3);
SELECT min(position) AS p, count(*) FROM es_fetch('work', 'me') \gset
SELECT fail('work', :p, 'never', reject => true);
SELECT done('work', :p + 2);
SELECT position, key FROM es_fetch('work', 'me');
SELECT es_discard('work', key => 'order-1');
SELECT position - :p AS behind, key FROM es_fetch('work', 'me');
SELECT done('work', :p + 2);
SELECT * FROM parked;
-- With skip the key goes on without it.
SELECT es_alter_subscription('work', on_dead => 'skip');
SELECT count(es_append('order-1', 'E8', '8')) FROM generate_series(1, 3);
SELECT min(position) AS p, count(*) FROM es_fetch('work', 'me') \gset
SELECT f - :p AS behind FROM fail('work', :p, 'never', reject => true) AS f;
SELECT done('work', :p + 2);
SELECT position - :p AS behind, key FROM es_fetch('work', 'me');
SELECT done('work', :p + 2);
SELECT es_discard('work', "position" => :p), (SELECT count(*) FROM es_parked);
-- Changed to block while messages are due behind a dead letter: they wait for it, and a fetch that waits has
-- locked nothing for their sake. Changed back, they come.
SELECT count(es_append('order-1', 'E9', '9')) FROM generate_series(1, 3);
SELECT min(position) AS p, count(*) FROM es_fetch('work', 'me') \gset
SELECT count(*) FROM fail('work', :p, 'never', reject => true);
SELECT done('work', :p + 2);
SELECT position - :p AS n, planned, dead FROM parked;
SELECT es_alter_subscription('work', on_dead => 'block');
SELECT position - :p AS n, planned, dead FROM parked;
BEGIN;
SELECT position - :p AS n FROM es_fetch('work', 'me', 10, '50 ms');
SELECT pg_current_xact_id_if_assigned() IS NULL AS read_only;
COMMIT;
SELECT es_alter_subscription('work', on_dead => 'skip');
SELECT position - :p AS n FROM es_fetch('work', 'me');
-- One that was out when the policy changed, and fails, waits as well.
SELECT es_alter_subscription('work', on_dead => 'block');
SELECT * FROM fail('work', :p + 1);
SELECT position - :p AS n, planned, dead FROM parked;
SELECT es_redrive('work');
SELECT position - :p AS n FROM es_fetch('work', 'me');
SELECT done('work', :p + 2);
SELECT * FROM parked;
SELECT es_alter_subscription('work', on_dead => 'skip');

--
-- Attempts are spread: base * 2^attempt with full jitter, at most the maximum; or as told.
--
SELECT es_create_subscription('slow', 'end', retry_base => '1 h', retry_max => '2 h', max_attempts => 1000);
SELECT position FROM es_append('order-1', 'Slow', '1') \gset
SELECT count(*) FROM es_fetch('slow', 'me');
SELECT fail('slow', :position, retry_after => NULL);
SELECT attempts, next_attempt_at BETWEEN failed_at AND failed_at + interval '1 h' AS within FROM es_parked;
UPDATE es_parked SET attempts = 50, delivered_epoch = (SELECT epoch FROM es_leases JOIN es_subscriptions USING (subscription_id) WHERE name = 'slow');
SELECT fail('slow', :position, retry_after => NULL);
SELECT attempts, next_attempt_at BETWEEN failed_at AND failed_at + interval '2 h' AS within FROM es_parked;
-- Said twice, it is counted once.
SELECT fail('slow', :position);
SELECT attempts FROM es_parked;
SELECT es_seek_subscription('slow', 0), (SELECT count(*) FROM es_parked);
SELECT es_drop_subscription('slow');

--
-- Without a key there is no order: such messages park alone. (Messages are put into the outbox by hand here.)
--
SELECT es_prepare_chunks() > 0 AS made;
CREATE FUNCTION publish(topic text, key text, payload jsonb, headers jsonb DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
$$INSERT INTO es_outbox (position, created_at, message_id, topic, type, key, payload, headers)
  VALUES (es_next_epoch(), now(), gen_random_uuid(), $1, 'T', $2, $3, $4) RETURNING position$$;
SELECT es_create_subscription('out', 'end', 'outbox');
SELECT publish('orders', 'a', '1') AS p \gset
SELECT count(publish('orders', k, '2')) FROM unnest(ARRAY[NULL, 'a', NULL, NULL, 'b']) AS k;
SELECT position - :p AS n, topic, key, payload, attempt FROM es_fetch('out', 'me');
SELECT fail('out', :p + 1);
SELECT f - :p AS behind FROM fail('out', :p) AS f;
SELECT done('out', :p + 5);
SELECT position - :p AS n, topic, key, payload, attempt FROM es_fetch('out', 'me');
-- The last acknowledgement, said again, is not for what was handed out since.
SELECT done('out', :p + 5), (SELECT count(*) FROM es_parked);
SELECT position - :p AS n FROM es_fetch('out', 'me');
SELECT done('out', :p + 2), (SELECT count(*) FROM es_parked);

-- Filters of the outbox: topics, types, a path over payload and headers.
SELECT es_create_subscription('topic', 'beginning', 'outbox', topics => '{bills}');
SELECT es_create_subscription('where', 'beginning', 'outbox', "where" => '$.payload.total > 10 && $.headers.tenant == "x"');
SELECT es_create_subscription('exists', 'beginning', 'outbox', "where" => '$.headers.tenant');
SELECT es_create_subscription('events where', 'beginning', "where" => '$.data == 7');
SELECT publish('bills', 'a', '{"total": 11}', '{"tenant": "x"}'), publish('orders', 'a', '{"total": 12}', '{"tenant": "y"}'), publish('bills', 'a', '{"total": "x"}') \g /dev/null
SELECT topic, payload FROM es_fetch('topic', 'me');
SELECT topic, payload FROM es_fetch('where', 'me');
SELECT topic, payload FROM es_fetch('exists', 'me');
SELECT topic, type, payload FROM es_fetch('events where', 'me');

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
SELECT call, refusal('SELECT * FROM ' || call) FROM (VALUES
    ($$es_nack('unknown', 0, 0, 1)$$),
    ($$es_nack(NULL, 0, 0, 1)$$),
    ($$es_nack('work', NULL, 0, 1)$$),
    ($$es_nack('work', 0, 0, 1)$$),
    ($$es_nack('work', 1, 0, 1)$$),
    ($$es_nack('work', -1, 0, 1)$$),
    ($$es_nack('work', 0, 0, 0)$$),
    ($$fail('work', 99999)$$),
    ($$fail('work', 1)$$),
    ($$fail('work', 1, retry_after => '-1 s')$$),
    ($$es_redrive('unknown')$$),
    ($$es_redrive(NULL)$$),
    ($$es_redrive('work', max_count => 0)$$),
    ($$es_redrive('work', per_second => 0)$$),
    ($$es_discard('unknown')$$),
    ($$es_discard('work', max_count => -1)$$)) AS t (call);
BEGIN READ ONLY;
SELECT es_nack('work', 0, 0, 1);
ROLLBACK;
