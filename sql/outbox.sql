-- outbox: messages to the outside world, published in the transaction that they tell of.
CREATE EXTENSION es_pg;

-- A chunk usually has a million positions. Here it has 100, to see some.
SHOW es_pg.outbox_chunk_size;
SET es_pg.outbox_chunk_size = 100;

-- What was published, without what differs from run to run.
CREATE VIEW message AS
    SELECT position, topic, type, key, payload, headers FROM es_outbox ORDER BY position;

--
-- Publish. The message is there when the transaction commits, and not if it does not.
--
CREATE TABLE orders (id integer PRIMARY KEY, total numeric);
BEGIN;
INSERT INTO orders VALUES (42, 99.99);
SELECT es_publish('orders', 'OrderPlaced', '{"order_id": 42}', key => '42');
COMMIT;
BEGIN;
INSERT INTO orders VALUES (43, 12);
SELECT es_publish('orders', 'OrderPlaced', '{"order_id": 43}', key => '43');
ROLLBACK;
SELECT * FROM message;

-- Untyped literals and untyped parameters both do.
PREPARE publish AS SELECT es_publish($1, $2, $3, $4, $5, $6, $7, $8, $9);
EXECUTE publish('orders', 'OrderPaid', '{"by": "card"}', '42', '{"tenant": "north"}',
                '0190163d-8694-739b-aea5-966c26f8ad91', NULL, 'request-7', 'click-1');
SELECT type, headers, message_id, correlation_id, causation_id, traceparent FROM es_outbox WHERE position = 3;

-- An id that is not given is made: a UUIDv7, rising. One that is given is handed
-- on as it is. It is for the consumers: nothing here looks whether it came before.
SELECT es_publish('orders', 'Same', '1', message_id => '0190163d-8694-739b-aea5-966c26f8ad91');
SELECT count(*) FROM es_outbox WHERE message_id = '0190163d-8694-739b-aea5-966c26f8ad91';
SELECT es_publish('orders', 'New', to_jsonb(i)) FROM generate_series(1, 3) AS i;
SELECT count(DISTINCT message_id) AS ids, bool_and(substr(message_id::text, 15, 1) = '7') AS version_7,
       array_agg(position ORDER BY message_id) = array_agg(position ORDER BY position) AS rising
  FROM es_outbox WHERE type = 'New';

-- Correlation, causation and trace come from the arguments, or else from settings.
BEGIN;
SET LOCAL es_pg.correlation_id = 'request-8';
SET LOCAL es_pg.causation_id = 'click-2';
SET LOCAL es_pg.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
SELECT es_publish('orders', 'Traced', '1'), es_publish('orders', 'Traced', '2', correlation_id => 'own', causation_id => '');
COMMIT;
SELECT payload, correlation_id, causation_id, traceparent FROM es_outbox WHERE type = 'Traced' ORDER BY position;

-- Any JSON is a payload, JSON null too.
SELECT es_publish('odds', 'Json', value) FROM jsonb_array_elements('[null, 1, "text", [], {"a": {"b": [1, null]}}]');
SELECT payload FROM message WHERE topic = 'odds';

--
-- Many at once: all or none, at consecutive positions in the order of the
-- arrays; the answer is the last.
--
TRUNCATE es_outbox;
SELECT es_publish_batch('orders', '{OrderPlaced,OrderPaid,OrderPlaced}',
                        ARRAY['{"order_id": 50}', '{"order_id": 50}', '{"order_id": 51}']::jsonb[], '{50,50,NULL}',
                        ARRAY['{"a": 1}', NULL, NULL]::jsonb[]);
SELECT position - es_last_position() AS position, type, key, payload, headers FROM message;
PREPARE publish_batch AS SELECT es_publish_batch($1, $2, $3, $4, $5, $6, $7, $8) - es_last_position() AS last;
EXECUTE publish_batch('orders', '{A,B}', '{1,2}', NULL, NULL, '{0190163d-8694-739b-aea5-966c26f8ad91,NULL}', 'c', 'd');
SELECT type, message_id = '0190163d-8694-739b-aea5-966c26f8ad91' AS given, correlation_id, causation_id
  FROM es_outbox WHERE type IN ('A', 'B') ORDER BY position;
-- A batch goes across chunks.
SELECT es_publish_batch('many', array_fill('N'::text, '{250}'), ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 250) AS i)) - es_last_position() AS last;
SELECT count(*), bool_and(payload = to_jsonb(number)) AS in_order, count(DISTINCT chunk) > 2 AS several_chunks,
       max(position) - min(position) + 1 AS positions
  FROM (SELECT payload, position, tableoid AS chunk, row_number() OVER (ORDER BY position) AS number FROM es_outbox WHERE topic = 'many') AS m;

--
-- Bytes, as Avro or Protobuf make them.
--
SELECT es_publish_binary('orders', 'OrderPlaced', '\x0a02ff00', 'application/protobuf', key => '42') - es_last_position() AS last;
PREPARE publish_binary AS SELECT es_publish_binary($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) - es_last_position() AS last;
EXECUTE publish_binary('orders', 'Empty', '', 'application/x-empty', NULL, NULL, NULL, NULL, NULL, NULL);
SELECT type, key, payload, payload_binary, content_type FROM es_outbox WHERE payload_binary IS NOT NULL ORDER BY position;
-- Large ones are stored out of line, and come back as they were.
SELECT es_publish_binary('large', 'B', decode(repeat('0123456789abcdef', 250000), 'hex'), 'application/octet-stream') IS NOT NULL,
       es_publish('large', 'J', to_jsonb(repeat('x', 3000000))) IS NOT NULL;
SELECT type, length(payload_binary), md5(payload_binary) = md5(decode(repeat('0123456789abcdef', 250000), 'hex')) AS same,
       length(payload #>> '{}') FROM es_outbox WHERE topic = 'large' ORDER BY position;

--
-- Order. Events and messages share one counter of positions, and a transaction's
-- positions are in the order of its calls.
--
BEGIN;
SELECT es_publish('mixed', 'm1', '1') AS m1 \gset
SELECT position AS e1 FROM es_append('order-1', 'E', '{}') \gset
SELECT es_publish('mixed', 'm2', '1') AS m2 \gset
COMMIT;
SELECT :e1 - :m1 AS event_after, :m2 - :e1 AS message_after;
-- A savepoint that is rolled back takes its messages with it.
BEGIN;
SELECT es_publish('kept', 'before', '1') IS NOT NULL;
SAVEPOINT s;
SELECT es_publish('kept', 'inside', '1') IS NOT NULL;
ROLLBACK TO s;
SELECT es_publish('kept', 'after', '1') IS NOT NULL;
COMMIT;
SELECT type FROM message WHERE topic = 'kept';
-- Two calls in one statement, calls in a function, in SERIALIZABLE: all the same.
SELECT es_publish('kept', 'left', '1') < es_publish('kept', 'right', '1') AS in_order;
CREATE FUNCTION publish_two() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN es_publish('kept', 'one', '1') + 1 = es_publish('kept', 'two', '2');
END $$;
SELECT publish_two();
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT publish_two();
COMMIT;
-- Not in a transaction that shall be prepared: it could hold all readers back, for ever and unseen.
BEGIN;
SELECT es_publish('kept', 'prepared', '1') IS NOT NULL;
PREPARE TRANSACTION 'publisher';

--
-- Later. A delayed message waits in es_delayed and has no position yet, so the
-- answer is NULL. A time that has passed is no delay.
--
TRUNCATE es_outbox;
SELECT es_publish('reminders', 'PayNow', '{"order_id": 42}', key => '42', deliver_after => now() + '3 days') IS NULL AS delayed;
SELECT es_publish('reminders', 'AtOnce', '1', deliver_after => now() - interval '1 s') IS NULL AS delayed;
SELECT es_publish_binary('reminders', 'Bytes', '\x00', 'application/octet-stream', deliver_after => now() + '1 day',
                         message_id => es_uuid('test', 'bytes')) IS NULL AS delayed;
SELECT type, payload, payload_binary, deliver_after > now() + '23 h' AS later FROM es_delayed ORDER BY deliver_after;
SELECT type FROM message;
SELECT es_publish_due();
-- When they are due, es_maintain() publishes them, in the order of their times.
SELECT es_publish('reminders', 'Second', '1', deliver_after => now() + '1 h') IS NULL,
       es_publish('reminders', 'Third', '1', deliver_after => now() + '1 h') IS NULL;
UPDATE es_delayed SET deliver_after = now() - interval '1 h' WHERE type IN ('Second', 'Third');
UPDATE es_delayed SET deliver_after = now() - interval '2 h' WHERE type = 'PayNow';
SELECT es_maintain();
SELECT type, key FROM message;
-- It has its position, and its time, since then.
SELECT bool_and(created_at > now() - interval '1 min') AS new_time FROM es_outbox WHERE type = 'PayNow';
SELECT type FROM es_delayed;
-- Until then it can be taken back, by its id.
SELECT es_cancel_delayed('orders', es_uuid('test', 'bytes'));
SELECT es_cancel_delayed('reminders', es_uuid('test', 'bytes'));
SELECT es_cancel_delayed('reminders', es_uuid('test', 'bytes'));
SELECT count(*) FROM es_delayed;
-- At most so many at a time.
SELECT count(es_publish('due', i::text, '1', deliver_after => now() + '1 h')) AS positions FROM generate_series(1, 5) AS i;
UPDATE es_delayed SET deliver_after = now() - make_interval(mins => 10 - type::int);
SELECT es_publish_due(2), es_publish_due('2'), es_publish_due(NULL), es_publish_due();
SELECT string_agg(type, ' ' ORDER BY position) FROM es_outbox WHERE topic = 'due';

--
-- How long messages stay: es_pg.outbox_retention, and as long as a subscription
-- needs them. A chunk goes as a whole. One that is written to is closed when its
-- first message is older than es_pg.outbox_chunk_interval: the counter moves to its end.
--
SHOW es_pg.outbox_retention;
SHOW es_pg.outbox_chunk_interval;
-- The chunks that positions have reached.
CREATE VIEW reached AS
    SELECT l.chunk, l.bounds FROM es_chunk_list AS l
     WHERE of_table = 'es_outbox' AND split_part(bounds, '''', 2)::bigint <= es_last_position() ORDER BY length(bounds), bounds;
TRUNCATE es_outbox;
-- What is empty is over, but for the one that is written to.
SELECT es_retire_chunks() > 0 AS dropped;
SELECT count(*) FROM reached;
SELECT es_publish('quiet', 'One', '1') AS one \gset
-- Nothing is old enough.
SELECT es_retire_chunks();
-- As if a day had passed:
SET es_pg.outbox_chunk_interval = 0;
SELECT es_retire_chunks();
SELECT es_publish('quiet', 'Two', '1') AS two \gset
SELECT :one / 100 + 1 = :two / 100 AS in_the_next_chunk, :two % 100 AS at_its_begin;
RESET es_pg.outbox_chunk_interval;
SELECT count(*) FROM reached;
-- As if a week had passed: the first chunk goes.
SET es_pg.outbox_retention = 0;
SELECT es_retire_chunks();
SELECT type FROM message;
-- A subscription that has not read keeps the chunk.
SELECT es_create_subscription('slow', :'one', source => 'outbox');
SELECT es_lowest_cursor('outbox') = :one AS lowest;
SET es_pg.outbox_chunk_interval = 0;
SELECT es_retire_chunks();
SELECT type FROM message;
-- When it has read the last message, the chunk goes.
SELECT count(es_seek_subscription('slow', :two));
SELECT es_retire_chunks();
SELECT type FROM message;
-- For ever is -1.
SET es_pg.outbox_retention = -1;
SELECT es_publish('quiet', 'Three', '1') AS three \gset
SELECT count(es_seek_subscription('slow', :three));
SELECT es_retire_chunks();
SELECT type FROM message;
RESET es_pg.outbox_retention;
RESET es_pg.outbox_chunk_interval;

--
-- No more than so many messages may wait, if that is wanted.
--
SHOW es_pg.max_outbox_backlog;
SET es_pg.max_outbox_backlog = 10;
SELECT count(es_publish('full', i::text, '1')) FROM generate_series(1, 10) AS i;
SELECT es_publish('full', '11', '1');
SELECT es_publish_batch('full', '{11}', '{1}');
SELECT es_publish_binary('full', '11', '', 'text/plain');
SELECT es_publish('full', '11', '1', deliver_after => now() + '1 day');
-- The reader goes on, and so do the writers.
SELECT count(es_seek_subscription('slow', es_last_position() - 3));
SELECT count(es_publish('full', i::text, '1')) FROM generate_series(1, 5) AS i;
-- What is rolled back does not count.
BEGIN;
SELECT count(es_publish('full', i::text, '1')) FROM generate_series(1, 2) AS i;
SELECT es_publish('full', '11', '1');
ROLLBACK;
SELECT count(es_publish('full', i::text, '1')) FROM generate_series(1, 2) AS i;
SELECT es_publish('full', '11', '1');
-- Nobody subscribes: nothing waits for anybody.
SELECT es_drop_subscription('slow');
SELECT count(es_publish('full', i::text, '1')) FROM generate_series(1, 20) AS i;
RESET es_pg.max_outbox_backlog;

-- At a glance. Rows are as the statistics have them.
SELECT chunks > chunks_ahead AS chunks, chunks_ahead >= 0 AS ahead, rows >= 0 AS rows, bytes > 0 AS bytes,
       delayed, next_due, last_position = es_last_position() AS last_position, oldest_cursor, behind
  FROM es_outbox_status;

--
-- Rights. Publishing is EXECUTE; nobody but the owner has any on the tables.
--
CREATE ROLE es_pg_publisher;
SET ROLE es_pg_publisher;
SELECT es_publish('orders', 'T', '1');
SELECT count(*) FROM es_outbox;
SELECT count(*) FROM es_delayed;
SELECT es_retire_chunks();
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_publish, es_publish_due, es_cancel_delayed TO es_pg_publisher;
SET ROLE es_pg_publisher;
SET SESSION es_pg.max_outbox_backlog = 0;
SELECT es_publish('orders', 'T', '1') IS NOT NULL AS published,
       es_publish('orders', 'T', '1', deliver_after => now() + '1 h', message_id => es_uuid('test', 'mine')) IS NULL AS delayed;
SELECT es_publish_due(), es_cancel_delayed('orders', es_uuid('test', 'mine'));
INSERT INTO es_outbox (position, created_at, message_id, topic, type) VALUES (1, now(), gen_random_uuid(), 't', 't');
RESET ROLE;
REVOKE ALL ON FUNCTION es_publish, es_publish_due, es_cancel_delayed FROM es_pg_publisher;
-- es_grant says the same in a word, and can limit it to topics.
SELECT es_grant('es_pg_publisher', 'publish', 'orders');
SET ROLE es_pg_publisher;
SELECT es_publish('orders', 'T', '1') IS NOT NULL AS published;
SELECT es_publish('invoices', 'T', '1');
SELECT es_publish_batch('invoices', '{T}', '{1}');
SELECT es_publish_binary('invoices', 'T', '', 'text/plain');
SELECT es_cancel_delayed('invoices', es_uuid('test', 'mine'));
RESET ROLE;
SELECT es_revoke('es_pg_publisher', 'publish');
DROP ROLE es_pg_publisher;

-- The tables. A partitioned table has no rows of its own, so it is not registered for dumps.
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attrelid = 'es_outbox'::regclass AND attnum > 0 ORDER BY attnum;
\d es_delayed
SELECT 'es_outbox'::regclass = ANY (extconfig) AS outbox, 'es_delayed'::regclass = ANY (extconfig) AS delayed FROM pg_extension WHERE extname = 'es_pg';
