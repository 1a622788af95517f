-- subscription_lag: how far a subscription is behind, and what becomes of one that is too far.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
SET es_pg.outbox_chunk_size = 100;
SET es_pg.outbox_retention = 0;
SET es_pg.outbox_chunk_interval = -1;
CREATE FUNCTION publish(n integer) RETURNS text LANGUAGE sql AS
$$SELECT 'up to ' || es_publish_batch('t', array_fill('T'::text, ARRAY[n]), array_fill('1'::jsonb, ARRAY[n]))$$;
CREATE VIEW chunks AS SELECT count(*) AS chunks FROM es_chunk_list
 WHERE of_table = 'es_outbox' AND split_part(bounds, '''', 2)::bigint <= es_last_position();
CREATE VIEW states AS SELECT name, state, reason FROM es_subscriptions ORDER BY name;

--
-- Rows above a position, and since when they are there. Events and messages share positions.
--
SELECT publish(250);
SELECT count(es_append('order-1', 'E', '1')) FROM generate_series(1, 5);
SELECT es_lag_messages('outbox', 0), es_lag_messages('outbox', 100), es_lag_messages('outbox', 250), es_lag_messages('outbox', 300);
SELECT es_lag_messages('outbox', 0, 120), es_lag_messages('outbox', 0, 0), es_lag_messages('outbox', -5, NULL), es_lag_messages('events', 0);
SELECT es_lag_since('outbox', 99) = created_at AS same FROM es_outbox WHERE position = 100;
SELECT es_lag_since('events', 0) = recorded_at AS same FROM es_events WHERE version = 0;
SELECT es_lag_since('events', es_horizon());
SELECT es_lag_bytes('outbox', 0) > es_lag_bytes('outbox', 150) AS less, es_lag_bytes('outbox', es_last_position() + 1);
-- What is not committed is not behind, and what this transaction wrote is counted.
BEGIN;
SELECT count(es_append('order-1', 'E', '1')) FROM generate_series(1, 5);
SELECT es_lag_messages('events', 0);
ROLLBACK;
SELECT es_lag_messages('events', 0);
\set VERBOSITY sqlstate
SELECT es_lag_messages('inbox', 0);
SELECT es_lag_messages(NULL, 0);
SELECT es_lag_since('outbox', NULL);
\set VERBOSITY default

--
-- A limit on the lag costs no chunk its end: es_maintain() asks for the lag and then drops what is over.
--
SELECT es_create_subscription('limited', 'beginning', 'outbox', max_lag_messages => 1000, max_lag_bytes => 1000000000, max_lag_age => '1 day');
SELECT max(position) FROM es_fetch('limited', 'me');
SELECT es_ack('limited', 0, epoch, 250) FROM es_leases;
SELECT * FROM chunks;
SELECT es_maintain();
SELECT * FROM chunks;
SELECT es_drop_subscription('limited');

--
-- Too far behind by messages, by bytes, by age: each is suspended with a WARNING, tells why, and holds no chunk.
--
SELECT publish(200);
SELECT es_create_subscription('messages', 'beginning', 'outbox', max_lag_messages => 100);
SELECT es_create_subscription('bytes', 'beginning', 'outbox', max_lag_bytes => 1000);
SELECT es_create_subscription('age', 'beginning', 'outbox', max_lag_age => '1 microsecond');
SELECT es_create_subscription('enough', 'beginning', 'outbox', max_lag_messages => 10000, max_lag_bytes => 100000000, max_lag_age => '1 day');
-- Where there is nothing it is not behind.
SELECT es_create_subscription('end', 'end', 'outbox', max_lag_messages => 1, max_lag_bytes => 1, max_lag_age => '1 microsecond');
SELECT es_create_subscription('events', 'beginning', max_lag_messages => 5);
SELECT es_create_subscription('too many events', 'beginning', max_lag_messages => 4);
SELECT es_lowest_cursor('outbox'), es_lowest_cursor('events');
\set VERBOSITY terse
SELECT es_maintain();
\set VERBOSITY default
SELECT * FROM states;
SELECT es_fetch('age', 'me');
-- The one that is not suspended holds its chunks; without it they go.
SELECT es_maintain();
SELECT chunks > 2 AS held FROM chunks;
SELECT es_drop_subscription('enough');
SELECT es_lowest_cursor('outbox') = position AS at_the_end FROM es_subscription_status WHERE subscription = 'end';
SELECT es_maintain();
SELECT * FROM chunks;
-- One that goes on begins with what is left; a seek would do, too.
SELECT es_alter_subscription('messages', max_lag_messages => 100000);
SELECT es_resume_subscription('messages');
SELECT es_seek_subscription('messages', es_horizon()) > 0 AS moved;
SELECT * FROM es_fetch('messages', 'me');
SELECT * FROM states;

-- A lane whose cursor somebody has deleted has read nothing, for all who ask.
SELECT es_create_subscription('lost', 'end', 'outbox', lanes => 2);
DELETE FROM es_cursors WHERE lane = 1;
SELECT lane, position > 0 AS somewhere FROM es_lane_cursors JOIN es_subscriptions USING (subscription_id) WHERE name = 'lost' ORDER BY lane;
SELECT es_lowest_cursor('outbox'), position FROM es_subscription_status WHERE subscription = 'lost';
