-- inbox: effects exactly once. The consumer's side of any queue that delivers at least once.
CREATE EXTENSION es_pg;
CREATE TABLE parcel (order_id bigint, sent_at timestamptz DEFAULT now());

--
-- One message: the answer belongs to the transaction of its effects.
--
BEGIN;
SELECT es_inbox_accept('shipping', 'evt-123');
INSERT INTO parcel VALUES (42);
COMMIT;
SELECT es_inbox_accept('shipping', 'evt-123');
-- Another consumer has its own.
SELECT es_inbox_accept('billing', 'evt-123');
-- In one statement, as a consumer without logic of its own would have it.
INSERT INTO parcel SELECT 43 WHERE es_inbox_accept('shipping', 'evt-124');
INSERT INTO parcel SELECT 43 WHERE es_inbox_accept('shipping', 'evt-124');
SELECT order_id FROM parcel ORDER BY 1;
-- In one statement twice.
SELECT es_inbox_accept('shipping', 'evt-125') AS first, es_inbox_accept('shipping', 'evt-125') AS second;

-- A rollback forgets it,
BEGIN;
SELECT es_inbox_accept('shipping', 'evt-126');
SELECT es_inbox_accept('shipping', 'evt-126');
ROLLBACK;
SELECT es_inbox_accept('shipping', 'evt-126');
-- and so does one to a savepoint.
BEGIN;
SAVEPOINT before;
SELECT es_inbox_accept('shipping', 'evt-127');
ROLLBACK TO before;
SELECT es_inbox_accept('shipping', 'evt-127');
SAVEPOINT released;
SELECT es_inbox_accept('shipping', 'evt-128');
RELEASE released;
COMMIT;
SELECT es_inbox_accept('shipping', 'evt-127'), es_inbox_accept('shipping', 'evt-128');
-- A handler that fails takes its message back.
DO $$
BEGIN
    PERFORM es_inbox_accept('shipping', 'evt-129');
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN NULL;
END $$;
SELECT es_inbox_accept('shipping', 'evt-129');

-- Also under the other isolation levels, and where the mark is newer than the snapshot.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT es_inbox_accept('shipping', 'evt-130'), es_inbox_accept('shipping', 'evt-130'), es_inbox_accept('shipping', 'evt-129');
COMMIT;

--
-- Many: the places of those that are new. Of equal ids the first counts.
--
SELECT es_inbox_accept_batch('shipping', '{evt-130,evt-131,evt-132,evt-131,evt-133}');
SELECT es_inbox_accept_batch('shipping', '{evt-130,evt-131,evt-132,evt-131,evt-133}');
WITH delivered (message_id, order_id) AS (VALUES ('evt-140', 50), ('evt-141', 51), ('evt-140', 50)),
     listed AS (SELECT array_agg(message_id) AS ids, array_agg(order_id) AS orders FROM delivered),
     accepted AS MATERIALIZED (SELECT orders, es_inbox_accept_batch('shipping', ids) AS places FROM listed)
INSERT INTO parcel SELECT orders[place] FROM accepted, unnest(places) AS place RETURNING order_id;
SELECT cardinality(es_inbox_accept_batch('shipping', ARRAY(SELECT 'many-' || i % 5000 FROM generate_series(1, 10000) AS i)));
SELECT cardinality(es_inbox_accept_batch('shipping', ARRAY(SELECT 'many-' || i FROM generate_series(1, 6000) AS i)));

-- What is stored of a message is a digest.
SELECT substring(encode(sha256(int8send(consumer_id) || '\x01' || 'evt-123'), 'hex') FOR 32) = replace(digest::text, '-', '') AS as_documented
  FROM es_inbox JOIN es_inbox_consumers USING (consumer_id) WHERE name = 'shipping' ORDER BY accepted_at LIMIT 1;

-- Untyped literals and untyped parameters.
PREPARE accept AS SELECT es_inbox_accept($1, $2, $3), es_inbox_accept_batch($4, $5, $6);
EXECUTE accept ('shipping', 'evt-150', NULL, 'shipping', '{evt-150,evt-151}', NULL);
EXECUTE accept ('shipping', 'evt-150', 'now', 'shipping', '{evt-150,evt-151}', '{now,now}');

-- Names and ids of all kinds, bounded.
SELECT es_inbox_accept('Ärger', 'ü'), es_inbox_accept('Ärger', 'ü'), es_inbox_accept('Ärger', 'U'), es_inbox_accept('Ärger', ' '),
       es_inbox_accept('x', repeat('x', 1024)), es_inbox_accept(repeat('x', 1024), 'x'), es_inbox_accept('x', 'x');

--
-- How far back it knows: by chunks. This makes what is there a week older.
--
CREATE FUNCTION age() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_restore_chunks(ARRAY(SELECT format('es_inbox_%s', (week - i) * 604800000000)
        FROM generate_series(0, 4) AS i, div(extract(epoch FROM now())::numeric - 946684800, 604800) AS week));
    WITH gone AS (DELETE FROM es_inbox RETURNING *)
    INSERT INTO es_inbox SELECT accepted_at - interval '168 hours', consumer_id, digest, request, response FROM gone;
END $$;
SELECT age();
-- Older marks count as those of today do.
SELECT es_inbox_accept('shipping', 'evt-123'), es_inbox_accept_batch('shipping', '{evt-130,evt-160,evt-131}');
SELECT es_inbox_accept('shipping', 'evt-160'), es_inbox_accept_batch('shipping', '{evt-160,evt-131}');
-- A chunk goes when its end is es_pg.inbox_retention ago. No row is deleted.
SELECT es_retire_chunks() > 0 AS dropped, es_inbox_accept('shipping', 'evt-123') AS accepted;
SELECT age();
SET es_pg.inbox_retention = 2147483647;
SELECT es_retire_chunks();
RESET es_pg.inbox_retention;
SELECT es_inbox_accept('shipping', 'evt-160'), es_inbox_accept('shipping', 'evt-160', '2000-01-02');
SELECT count(*) FROM es_inbox_forgotten;
SET es_pg.inbox_retention = 0;
SELECT es_retire_chunks() > 0 AS dropped;
-- Whoever says when a message was made gets no wrong answer: evt-160 was accepted, and nobody knows.
\set VERBOSITY sqlstate
SELECT es_inbox_accept('shipping', 'evt-160', now() - interval '20 days') AS refused;
SELECT es_inbox_accept_batch('shipping', '{evt-161,evt-160}', ARRAY[now(), now() - interval '20 days']) AS refused;
\set VERBOSITY default
SELECT es_inbox_accept_batch('shipping', '{evt-161,evt-162}', ARRAY[now(), NULL]) AS new;
SET es_pg.inbox_too_old = 'accept';
SELECT es_inbox_accept('shipping', 'evt-160', now() - interval '20 days');
RESET es_pg.inbox_too_old;
-- What is known is answered, however old it is.
SELECT es_inbox_accept('shipping', 'evt-160', now() - interval '20 days');
RESET es_pg.inbox_retention;
-- Maintenance drops, too, and keeps one note of it.
SELECT es_maintain();
SELECT count(*) FROM es_inbox_forgotten;

--
-- Consumers.
--
SELECT left(name, 20) AS name FROM es_inbox_consumers ORDER BY name COLLATE "C";
SET es_pg.inbox_create_consumers = off;
SELECT es_inbox_accept('Shipping', 'evt-1');
SELECT es_create_consumer('Shipping');
SELECT es_inbox_accept('Shipping', 'evt-1');
SELECT es_create_consumer('Shipping');
-- One that is dropped and created anew knows nothing.
SELECT es_drop_consumer('Shipping');
SELECT es_inbox_accept('Shipping', 'evt-1');
SELECT es_create_consumer('Shipping');
SELECT es_inbox_accept('Shipping', 'evt-1');
SELECT es_drop_consumer('nobody');
RESET es_pg.inbox_create_consumers;
-- One that is rolled back is gone.
BEGIN;
SELECT es_inbox_accept('brief', 'evt-1'), es_inbox_accept('brief', 'evt-2');
ROLLBACK;
SELECT count(*) FROM es_inbox_consumers WHERE name = 'brief';
SELECT es_inbox_accept('brief', 'evt-1');
BEGIN;
SELECT es_drop_consumer('brief');
SELECT es_inbox_accept('brief', 'evt-1');
ROLLBACK;
SELECT es_inbox_accept('brief', 'evt-1');

--
-- Bad input.
--
SELECT es_inbox_accept(NULL, 'evt-1');
SELECT es_inbox_accept('shipping', NULL);
SELECT es_inbox_accept('', 'evt-1');
SELECT es_inbox_accept('shipping', '');
SELECT es_inbox_accept('shipping', repeat('x', 1025));
SELECT es_inbox_accept(repeat('x', 1025), 'evt-1');
SELECT es_inbox_accept('shipping', E'evt\n1');
SELECT es_inbox_accept_batch('shipping', NULL);
SELECT es_inbox_accept_batch('shipping', '{}');
SELECT es_inbox_accept_batch('shipping', '{evt-1,NULL}');
SELECT es_inbox_accept_batch('shipping', '{evt-1,""}');
SELECT es_inbox_accept_batch('shipping', '{{evt-1},{evt-2}}');
SELECT es_inbox_accept_batch('shipping', '{evt-1}', '{now,now}');
SELECT es_inbox_accept_batch('shipping', array_fill('x'::text, '{1000001}'));
SET es_pg.inbox_too_old = 'perhaps';
\set VERBOSITY sqlstate
SET es_pg.inbox_chunk_interval = 0;
\set VERBOSITY default
BEGIN READ ONLY;
SELECT es_inbox_accept('shipping', 'evt-1');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_command_begin('pay-1');
ROLLBACK;

--
-- A guard: the same for a table that somebody else writes to.
--
CREATE TABLE payment (message_id text, amount int);
CREATE TRIGGER once BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION es_inbox_guard('payments', 'message_id');
INSERT INTO payment VALUES ('pay-1', 10), ('pay-2', 20), ('pay-1', 10);
INSERT INTO payment VALUES ('pay-2', 20), ('pay-3', 30) RETURNING *;
COPY payment FROM stdin;
pay-3	30
pay-4	40
\.
-- A row that goes does not come back.
DELETE FROM payment WHERE message_id = 'pay-4';
INSERT INTO payment VALUES ('pay-4', 40);
UPDATE payment SET message_id = 'pay-1' WHERE message_id = 'pay-2';
SELECT * FROM payment ORDER BY amount;
-- Or with an error.
DROP TRIGGER once ON payment;
CREATE TRIGGER once BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION es_inbox_guard('payments', 'message_id', 'reject');
INSERT INTO payment VALUES ('pay-5', 50), ('pay-4', 40);
INSERT INTO payment VALUES ('pay-5', 50);
INSERT INTO payment VALUES (NULL, 60);
INSERT INTO payment VALUES ('', 60);
-- Columns by any name, of several types, of partitions too.
CREATE TABLE reading ("Message Id" uuid, device int) PARTITION BY LIST (device);
CREATE TABLE reading_1 PARTITION OF reading FOR VALUES IN (1);
CREATE TABLE reading_2 (device int, "Message Id" uuid);
ALTER TABLE reading ATTACH PARTITION reading_2 FOR VALUES IN (2);
CREATE TRIGGER once BEFORE INSERT OR DELETE ON reading FOR EACH ROW EXECUTE FUNCTION es_inbox_guard('readings', '"Message Id"', 'skip');
INSERT INTO reading VALUES ('a0000000-0000-0000-0000-000000000001', 1), ('a0000000-0000-0000-0000-000000000002', 2),
    ('a0000000-0000-0000-0000-000000000001', 2);
SELECT * FROM reading ORDER BY 1;
-- A row that moves to another partition is no duplicate; one that comes again when it was deleted is.
UPDATE reading SET device = 3 - device;
WITH d AS (DELETE FROM reading WHERE device = 1 RETURNING *) INSERT INTO reading SELECT "Message Id", 2 FROM d, generate_series(1, 2);
SELECT * FROM reading ORDER BY 1;
BEGIN;
DELETE FROM reading;
INSERT INTO reading VALUES ('a0000000-0000-0000-0000-000000000001', 1);
SELECT * FROM reading;
ROLLBACK;
CREATE TRIGGER not_so BEFORE INSERT ON reading_1 FOR EACH ROW EXECUTE FUNCTION es_inbox_guard('readings', '"Message Id"');
UPDATE reading SET device = 3 - device;
DROP TRIGGER not_so ON reading_1;
-- The marks are the inbox's.
SELECT es_inbox_accept('readings', 'a0000000-0000-0000-0000-000000000002'), es_inbox_accept('readings', 'a0000000-0000-0000-0000-000000000003');

CREATE TABLE guarded (id int, at timestamptz, txt text);
CREATE FUNCTION try_guard(arguments text, timing text DEFAULT 'BEFORE INSERT', each text DEFAULT 'ROW') RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
    EXECUTE format('CREATE TRIGGER g %s ON guarded FOR EACH %s EXECUTE FUNCTION es_inbox_guard(%s)', timing, each, arguments);
    INSERT INTO guarded VALUES (1, now(), 'x');
    UPDATE guarded SET id = 2;
    RAISE EXCEPTION 'it worked';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT a, try_guard(a) FROM unnest(ARRAY['', '''c''', '''c'', ''id'', ''maybe''', '''c'', ''id'', ''skip'', ''x''', '''c'', ''nothing''', '''c'', ''id, txt''',
    '''c'', ''at''', ''''', ''id''', '''c'', ''ID''', '''c'', ''"ID"''', '''c'', ''ctid''']) AS a;
SELECT try_guard('''c'', ''id''', 'AFTER INSERT'), try_guard('''c'', ''id''', 'BEFORE INSERT', 'STATEMENT'), try_guard('''c'', ''id''', 'BEFORE UPDATE');
SELECT es_inbox_guard();

--
-- Commands: carried out once, answered as often as they are asked.
--
BEGIN;
SELECT es_command_begin('pay-4711', md5('{"amount": 12}'));
INSERT INTO parcel VALUES (4711);
SELECT es_command_end('pay-4711', '{"paid": true}');
COMMIT;
SELECT es_command_begin('pay-4711', md5('{"amount": 12}'));
SELECT es_command_begin('pay-4711', md5('{"amount": 13}'));
SELECT es_command_begin('pay-4711');
-- Another client's key is another key, and a message of that id is another thing.
BEGIN;
SELECT es_command_begin('pay-4711', 'h', consumer => 'client-2');
SELECT es_command_end('pay-4711', 'null', 'client-2');
SELECT es_inbox_accept('commands', 'pay-4711');
COMMIT;
SELECT es_command_begin('pay-4711', 'h', 'client-2');
-- A rollback forgets it.
BEGIN;
SELECT es_command_begin('pay-4712');
SELECT es_command_end('pay-4712', '1');
ROLLBACK;
BEGIN;
SELECT es_command_begin('pay-4712');
SELECT es_command_end('pay-4712', '2');
-- In the same transaction, the response is there.
SELECT es_command_begin('pay-4712');
COMMIT;
SELECT es_command_begin('pay-4712');
-- What was begun must be ended,
SELECT es_command_begin('pay-4713');
BEGIN;
SELECT es_command_begin('pay-4713');
SELECT es_command_begin('pay-4713');
ROLLBACK;
BEGIN;
SELECT es_command_begin('pay-4713');
SAVEPOINT s;
SELECT es_command_end('pay-4713', '1');
ROLLBACK TO s;
COMMIT;
BEGIN;
SELECT es_command_begin('pay-4713');
PREPARE TRANSACTION 'not ended';
-- in any subtransaction,
BEGIN;
SAVEPOINT s;
SELECT es_command_begin('pay-4713');
RELEASE s;
SAVEPOINT t;
SELECT es_command_end('pay-4713', '{"big": true}'::jsonb || jsonb_build_object('text', repeat('x', 100000)));
RELEASE t;
COMMIT;
SELECT length(es_command_begin('pay-4713') ->> 'text');
-- and not what was taken back.
BEGIN;
SAVEPOINT s;
SELECT es_command_begin('pay-4714');
ROLLBACK TO s;
SELECT es_command_end('pay-4714', '1');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT es_command_begin('pay-4714');
ROLLBACK TO s;
COMMIT;
-- Ended once, and only what was begun.
SELECT es_command_end('pay-4714', '1');
SELECT es_command_end('pay-4714', '1', 'nobody''s');
BEGIN;
SELECT es_command_begin('pay-4714');
SELECT es_command_end('pay-4714', '1');
SELECT es_command_end('pay-4714', '1');
ROLLBACK;
-- Older ones are known.
SELECT age();
SELECT es_command_begin('pay-4712'), es_command_begin('pay-4711', 'h', 'client-2');
SELECT es_command_begin('pay-4711', 'h');
-- Bad input.
SELECT es_command_begin(NULL);
SELECT es_command_begin('');
SELECT es_command_begin('k', '');
SELECT es_command_begin(repeat('x', 1025));
SELECT es_command_begin('k', 'h', '');
SELECT es_command_end(NULL, '1');
SELECT es_command_end('k', NULL);

--
-- DROP and CREATE EXTENSION in one session.
--
DROP TRIGGER once ON payment;
DROP TRIGGER once ON reading;
DROP EXTENSION es_pg;
SELECT to_regclass('es_chunks.es_inbox') IS NULL AS gone;
CREATE EXTENSION es_pg;
SELECT es_inbox_accept('shipping', 'evt-123'), es_inbox_accept('shipping', 'evt-123');
SELECT es_command_begin('pay-4711', 'other');
