-- inbox_durable: messages that are stored once and handled later.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
CREATE TABLE shipped (message_id text, key text, n int, attempt int);
-- A handler does what the message says, and fails if it says so.
CREATE FUNCTION ship(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shipped VALUES (m.message_id, m.key, (m.payload->>'n')::int, m.attempt);
    IF m.payload->>'fail' = 'always' OR m.attempt < (m.payload->>'fail')::int THEN
        RAISE EXCEPTION 'cannot ship %', m.message_id USING ERRCODE = 'P0042', DETAIL = 'It is too heavy.';
    ELSIF m.payload ? 'hang' THEN
        PERFORM pg_sleep(600);
    END IF;
END $$;
-- Everything that is due now; retries here are due at once.
CREATE FUNCTION run_all(consumer text, handler regprocedure DEFAULT 'ship(es_inbox_message)', OUT handled int, OUT failed int) LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    handled := 0;
    failed := 0;
    FOR i IN 1 .. 20 LOOP
        r := es_inbox_run(consumer, handler);
        handled := handled + r.handled;
        failed := failed + r.failed;
        UPDATE es_parked SET next_attempt_at = now() - interval '1 s' WHERE next_attempt_at IS NOT NULL;
        EXIT WHEN r.handled + r.failed = 0 AND NOT EXISTS (SELECT FROM es_parked WHERE next_attempt_at IS NOT NULL);
    END LOOP;
END $$;

--
-- Put: once for each message id.
--
SELECT es_inbox_put('shipping', 'm1', 'orders', 'OrderPlaced', '42', '{"n": 1}');
SELECT es_create_inbox('shipping', lanes => 1, max_attempts => 3, retry_base => '1 ms', retry_max => '1 ms', handler_timeout => '400 ms');
SELECT es_inbox_put('shipping', 'm1', 'orders', 'OrderPlaced', '42', '{"n": 1}', '{"by": "ann"}', correlation_id => 'c-1');
SELECT es_inbox_put('shipping', 'm1', 'orders', 'OrderPlaced', '42', '{"n": 1}');
SELECT es_inbox_put_batch('shipping', '{m2,m1,m3,m2}', 'orders', '{A,A,B,A}', '{42,42,NULL,42}',
                          ARRAY['{"n": 2}', '{"n": 1}', '{"n": 3}', '{"n": 2}']::jsonb[], ARRAY['{"x": 1}', NULL, NULL, NULL]::jsonb[]);
-- It belongs to its transaction, with the mark.
BEGIN;
SELECT es_inbox_put('shipping', 'm4', 'orders', 'A', '42', '{"n": 4}');
ROLLBACK;
SELECT es_inbox_put('shipping', 'm4', 'orders', 'A', '42', NULL, payload_binary => '\x0102', content_type => 'application/protobuf');
SELECT consumer, accepted, duplicates, backlog, oldest_waiting < now() AS waiting, dead FROM es_inbox_status;

-- What a handler gets.
CREATE FUNCTION show(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    m.received_at := NULL;
    m.position := NULL;
    RAISE NOTICE '%', m;
END $$;
BEGIN;
SELECT * FROM es_inbox_run('shipping', 'show(es_inbox_message)');
ROLLBACK;
-- What a handler publishes was caused by its message.
CREATE FUNCTION publish(m es_inbox_message) RETURNS void LANGUAGE sql AS $$SELECT es_publish('shipped', 'A', '{}')$$;
SET es_pg.causation_id = 'mine';
BEGIN;
SELECT * FROM es_inbox_run('shipping', 'publish(es_inbox_message)', 2);
SELECT correlation_id, causation_id FROM es_outbox WHERE topic = 'shipped' ORDER BY position;
SHOW es_pg.causation_id;
ROLLBACK;
RESET es_pg.causation_id;
-- That was rolled back, so it has not been. At most so many at once.
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)', 3);
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)');
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)');
SELECT * FROM shipped ORDER BY message_id;
SELECT backlog, oldest_waiting FROM es_inbox_status;
TRUNCATE shipped;

--
-- Attempts: what fails is undone and comes again, its key waits, other keys go on.
--
SELECT es_inbox_put('shipping', 'f1', 'orders', 'A', 'sick', '{"n": 1, "fail": 2}'),
       es_inbox_put('shipping', 'f2', 'orders', 'A', 'sick', '{"n": 2}'),
       es_inbox_put('shipping', 'f3', 'orders', 'A', 'well', '{"n": 3}');
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)');
SELECT * FROM shipped;
SELECT backlog, parked FROM es_inbox_status;
SELECT * FROM run_all('shipping');
SELECT * FROM shipped;
TRUNCATE shipped;

-- Used up: a dead letter, with the error; its key waits for somebody to decide.
SELECT es_inbox_put('shipping', 'd1', 'orders', 'A', 'sick', '{"n": 1, "fail": "always"}'),
       es_inbox_put('shipping', 'd2', 'orders', 'A', 'sick', '{"n": 2}'),
       es_inbox_put('shipping', 'd3', 'orders', 'A', NULL, '{"n": 3, "hang": true}');
SELECT * FROM run_all('shipping');
SELECT subscription, key, attempts, error, headers FROM es_dead_letters ORDER BY position;
SELECT backlog, parked, dead FROM es_inbox_status;
SELECT es_discard('$inbox/shipping', error => 'took longer');
SELECT es_redrive('$inbox/shipping');
SELECT * FROM run_all('shipping', 'show(es_inbox_message)');
SELECT backlog, parked, dead FROM es_inbox_status;

--
-- Deferred constraints are checked for each message, and keep their modes.
--
-- Also where the caller may not name any.
CREATE SCHEMA hidden
    CREATE TABLE hidden.parent (id text PRIMARY KEY)
    CREATE TABLE hidden.child (id text REFERENCES hidden.parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION hide(m es_inbox_message) RETURNS void LANGUAGE sql SECURITY DEFINER AS $$INSERT INTO hidden.child VALUES (m.message_id)$$;
CREATE ROLE es_pg_hider;
SELECT es_grant('es_pg_hider', 'inbox', 'shipping');
SELECT es_inbox_put('shipping', 'hidden', 'orders', 'A', NULL, '{}');
SET ROLE es_pg_hider;
SELECT * FROM es_inbox_run('shipping', 'hide(es_inbox_message)');
RESET ROLE;
SELECT error FROM es_parked;
SELECT * FROM run_all('shipping', 'show(es_inbox_message)');
DROP OWNED BY es_pg_hider;
DROP ROLE es_pg_hider;
DROP FUNCTION hide;
DROP SCHEMA hidden CASCADE;
CREATE TABLE parent (id text PRIMARY KEY);
CREATE TABLE child (id text REFERENCES parent DEFERRABLE INITIALLY DEFERRED, n int UNIQUE DEFERRABLE);
CREATE FUNCTION late_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = 'm9' THEN
        RAISE EXCEPTION 'not that one';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late_check AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late_check();
CREATE FUNCTION adopt(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO child VALUES (m.message_id, (m.payload->>'n')::int);
    IF m.payload ? 'parent' THEN
        INSERT INTO parent VALUES (m.message_id);
    END IF;
END $$;
SELECT es_inbox_put('shipping', 'm5', 'orders', 'A', NULL, '{"n": 5}'), es_inbox_put('shipping', 'm6', 'orders', 'A', NULL, '{"n": 6, "parent": 1}'),
       es_inbox_put('shipping', 'm7', 'orders', 'A', NULL, '{"n": 6, "parent": 1}'), es_inbox_put('shipping', 'm9', 'orders', 'A', NULL, '{"n": 9, "parent": 1}');
BEGIN;
SELECT * FROM es_inbox_run('shipping', 'adopt(es_inbox_message)');
INSERT INTO child VALUES ('later', 10);
INSERT INTO parent VALUES ('later');
SAVEPOINT a;
INSERT INTO child VALUES ('later', 10);
ROLLBACK TO a;
COMMIT;
SELECT * FROM child ORDER BY n;
SELECT error FROM es_parked ORDER BY position;
-- What the caller has deferred is the caller's.
BEGIN;
INSERT INTO child VALUES ('nobody', 11);
SELECT * FROM es_inbox_run('shipping', 'adopt(es_inbox_message)');
ROLLBACK;
UPDATE es_parked SET next_attempt_at = now() - interval '1 s';
SELECT * FROM es_inbox_run('shipping', 'show(es_inbox_message)');
SELECT * FROM run_all('shipping', 'adopt(es_inbox_message)');
SELECT es_discard('$inbox/shipping');

--
-- A query cancel and statement_timeout are the caller's: the call has not been.
--
SELECT es_inbox_put('shipping', 'h1', 'orders', 'A', NULL, '{"n": 1}'), es_inbox_put('shipping', 'h2', 'orders', 'A', NULL, '{"n": 2, "hang": 1}');
SET statement_timeout = '50 ms';
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)');
DO $$
BEGIN
    PERFORM es_inbox_run('shipping', 'ship(es_inbox_message)');
EXCEPTION WHEN query_canceled THEN
    RAISE NOTICE '%', SQLERRM;
END $$;
RESET statement_timeout;
SELECT count(*) FROM shipped;
SELECT * FROM run_all('shipping');
SELECT * FROM shipped;
SELECT es_discard('$inbox/shipping');

--
-- The handler's rights are the caller's.
--
CREATE ROLE es_pg_handler;
SELECT es_grant('es_pg_handler', 'inbox', 'shipping');
CREATE FUNCTION who(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'this is %', current_user;
    DELETE FROM es_parked;
END $$;
SET ROLE es_pg_handler;
SELECT es_inbox_put('shipping', 'r1', 'orders', 'A', NULL, '{}');
SELECT * FROM es_inbox_run('shipping', 'who(es_inbox_message)');
SELECT es_inbox_put('billing', 'r1', 'orders', 'A', NULL, '{}');
SELECT es_create_inbox('billing');
RESET ROLE;
SELECT error FROM es_parked;
REVOKE EXECUTE ON FUNCTION who(es_inbox_message) FROM PUBLIC;
SET ROLE es_pg_handler;
SELECT * FROM es_inbox_run('shipping', 'who(es_inbox_message)');
RESET ROLE;
SELECT * FROM run_all('shipping', 'show(es_inbox_message)');

--
-- Sequences: a message that comes before earlier ones of its key waits for them.
--
SELECT es_create_inbox('ordered', lanes => 1, resequence_timeout => '1 day');
SELECT es_inbox_put('ordered', 's3', 'orders', 'A', '42', '{}', "sequence" => 3), es_inbox_put('ordered', 's2', 'orders', 'A', '42', '{}', "sequence" => 2),
       es_inbox_put('ordered', 's5', 'orders', 'A', '42', '{}', "sequence" => 5), es_inbox_put('ordered', 't1', 'orders', 'A', '43', '{}', "sequence" => 1);
SELECT backlog, held FROM es_inbox_status WHERE consumer = 'ordered';
SELECT * FROM run_all('ordered', 'show(es_inbox_message)');
SELECT es_inbox_put('ordered', 's1', 'orders', 'A', '42', '{}', "sequence" => 1);
SELECT * FROM run_all('ordered', 'show(es_inbox_message)');
-- The same sequence under another id.
SELECT es_inbox_put('ordered', 'other', 'orders', 'A', '42', '{}', "sequence" => 5);
-- Too long: the key goes on without what is missing, and what comes then is late.
UPDATE es_inbox_keys SET waiting_since = waiting_since - interval '2 days';
SELECT * FROM run_all('ordered', 'show(es_inbox_message)');
SELECT * FROM run_all('ordered', 'show(es_inbox_message)');
SELECT es_inbox_put('ordered', 's4', 'orders', 'A', '42', '{}', "sequence" => 4);
SELECT held, late FROM es_inbox_status WHERE consumer = 'ordered';
SELECT es_inbox_put_batch('ordered', '{u3,s6,u1,u2,s5}', 'orders', '{A,A,A,A,A}', '{44,42,44,44,42}',
                          array_fill('{}'::jsonb, ARRAY[5]), sequences => '{3,6,1,2,5}');
SELECT * FROM run_all('ordered', 'show(es_inbox_message)');
-- Or the next one becomes a dead letter, and somebody decides.
SELECT es_create_inbox('strict', lanes => 1, resequence_timeout => '1 day', on_missing => 'dead', first_sequence => 0);
SELECT es_inbox_put('strict', 's2', 'orders', 'A', '42', '{}', "sequence" => 2), es_inbox_put('strict', 's3', 'orders', 'A', '42', '{}', "sequence" => 3);
UPDATE es_inbox_keys SET waiting_since = waiting_since - interval '2 days';
SELECT * FROM es_inbox_run('strict', 'show(es_inbox_message)');
SELECT * FROM es_inbox_run('strict', 'show(es_inbox_message)');
SELECT key, error FROM es_dead_letters;
SELECT es_redrive('$inbox/strict');
SELECT * FROM run_all('strict', 'show(es_inbox_message)');

--
-- The topic is the inbox's own: others cannot publish to it, and do not see it.
--
SELECT es_publish('$inbox/shipping', 'A', '{}');
SELECT es_create_subscription('$inbox/mine', 'beginning', 'outbox');
SELECT es_create_subscription('all', 'beginning', 'outbox');
SELECT es_publish('orders', 'A', '{}') > 0 AS published;
SELECT topic FROM es_fetch('all', 'me');

--
-- Bad input.
--
SELECT * FROM es_inbox_run('shipping', NULL);
SELECT * FROM es_inbox_run('shipping', 'lower(text)');
SELECT * FROM es_inbox_run('shipping', 'es_wake_consumers()');
SELECT * FROM es_inbox_run('shipping', 'nothing(es_inbox_message)');
SELECT * FROM es_inbox_run('shipping', 0::regprocedure);
SELECT * FROM es_inbox_run('nobody', 'ship(es_inbox_message)');
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)', 0);
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)', wait => '1 min');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)');
ROLLBACK;
BEGIN READ ONLY;
SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)');
ROLLBACK;
CREATE FUNCTION nested(m es_inbox_message) RETURNS void LANGUAGE sql AS $$SELECT es_inbox_run('shipping', 'ship(es_inbox_message)')$$;
SELECT es_inbox_put('shipping', 'n1', 'orders', 'A', NULL, '{}');
SELECT * FROM es_inbox_run('shipping', 'nested(es_inbox_message)');
SELECT error FROM es_parked;
-- Nor may it park behind the back of who calls it.
CREATE FUNCTION refuse(m es_inbox_message) RETURNS void LANGUAGE sql AS $$
    SELECT es_nack('$inbox/shipping', lane, epoch, m.position, 'no') FROM es_subscription_lanes WHERE owner IS NOT NULL$$;
SELECT es_inbox_put('shipping', 'n2', 'orders', 'A', NULL, '{}');
UPDATE es_parked SET next_attempt_at = now() - interval '1 s';
SELECT * FROM es_inbox_run('shipping', 'refuse(es_inbox_message)');
SELECT DISTINCT error FROM es_parked;
SELECT es_inbox_put('shipping', '', 'orders', 'A', NULL, '{}');
SELECT es_inbox_put('shipping', NULL, 'orders', 'A', NULL, '{}');
SELECT es_inbox_put('shipping', repeat('x', 1025), 'orders', 'A', NULL, '{}');
SELECT es_inbox_put('shipping', 'b1', NULL, 'A', NULL, '{}');
SELECT es_inbox_put('shipping', 'b1', 'orders', NULL, NULL, '{}');
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', '', '{}');
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', NULL, NULL);
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', NULL, '{}', payload_binary => '\x00');
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', NULL, NULL, payload_binary => '\x00');
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', NULL, '{}', '[]');
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', NULL, '{}', '{"$id": 1}');
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', NULL, '{}', "sequence" => 1);
SELECT es_inbox_put('shipping', 'b1', 'orders', 'A', 'k', '{}', "sequence" => -1);
SELECT es_inbox_put_batch('shipping', '{b1,b2}', 'orders', '{A}', NULL, ARRAY['{}']::jsonb[]);
SELECT es_inbox_put_batch('shipping', '{}', 'orders', '{}', NULL, '{}');
SELECT es_inbox_put_batch('shipping', '{b1,NULL}', 'orders', '{A,A}', NULL, ARRAY['{}', '{}']::jsonb[]);
SELECT es_create_inbox(NULL);
SELECT es_create_inbox('');
SELECT es_create_inbox(repeat('x', 1020));
SELECT es_create_inbox('shipping');
SELECT es_create_inbox('new', on_missing => 'wait');
SELECT es_create_inbox('new', handler_timeout => '0');
SELECT es_create_inbox('new', resequence_timeout => '-1 s');
SELECT es_create_inbox('new', first_sequence => -1);
SELECT es_create_inbox('new', lanes => 0);
SELECT es_drop_inbox('nobody');
SELECT es_drop_inbox(NULL);
-- Untyped parameters.
PREPARE put AS SELECT es_inbox_put($1, $2, $3, $4, $5, $6);
EXECUTE put('shipping', 'p1', 'orders', 'A', NULL, '{}');
PREPARE run AS SELECT * FROM es_inbox_run($1, $2, $3);
EXECUTE run('shipping', 'show(es_inbox_message)', 10);

-- Gone with all its messages; which ones it has seen is known still.
SELECT es_drop_consumer('shipping');
SELECT es_drop_subscription('$inbox/shipping');
SELECT es_drop_inbox('shipping');
SELECT es_create_inbox('shipping');
SELECT es_inbox_put('shipping', 'p1', 'orders', 'A', NULL, '{}');
DROP OWNED BY es_pg_handler;
DROP ROLE es_pg_handler;
