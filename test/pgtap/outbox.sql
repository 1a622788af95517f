-- outbox: what must hold of the outbox, whatever was published, delayed, closed and dropped.
\ir history.inc
SET es_pg.outbox_chunk_size = 100;

-- What was promised, rolled back together with what it tells of.
CREATE TABLE told (what text, "position" bigint, topic text, payload jsonb, key text);
CREATE TABLE later (message_id uuid, deliver_after timestamptz, place int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE lost (what text);
CREATE SEQUENCE due_order;

-- Four hundred operations at random, in transactions that commit, roll back, or roll back to a savepoint, while chunks
-- are closed and dropped, and delayed messages become due out of the order in which they came.
DO $$
DECLARE
    n int;
    chance float;
    last bigint;
    id uuid;
BEGIN
    PERFORM setseed(0.17);
    FOR operation IN 1..400 LOOP
        chance := random();
        n := 1 + floor(random() ^ 3 * 60);
        BEGIN
            IF chance < 0.35 THEN
                INSERT INTO told SELECT 'one', es_publish('t' || n % 3, 'T', to_jsonb(operation), key => nullif(n % 5, 0)::text),
                                        't' || n % 3, to_jsonb(operation), nullif(n % 5, 0)::text;
            ELSIF chance < 0.6 THEN
                last := es_publish_batch('b', array_fill('T'::text, ARRAY[n]), ARRAY(SELECT to_jsonb(i) FROM generate_series(1, n) AS i));
                INSERT INTO told SELECT 'batch', last - n + i, 'b', to_jsonb(i) FROM generate_series(1, n) AS i;
            ELSIF chance < 0.7 THEN
                PERFORM es_append_batch('mixed-1', array_fill('E'::text, ARRAY[n]), array_fill('1'::jsonb, ARRAY[n]));
            ELSIF chance < 0.85 THEN
                id := gen_random_uuid();
                INSERT INTO later VALUES (id, now() + make_interval(secs => n));
                IF es_publish('later', 'T', '1', message_id => id, deliver_after => now() + make_interval(secs => 1000 + n)) IS NOT NULL THEN
                    INSERT INTO lost VALUES ('a delayed message has a position');
                END IF;
            ELSIF chance < 0.9 THEN
                PERFORM es_publish_due(n);
            ELSE
                PERFORM es_publish('gone', 'T', '1'), es_publish('gone', 'T', '1', deliver_after => now() + interval '1 h');
                RAISE EXCEPTION 'taken back';
            END IF;
        EXCEPTION
            WHEN raise_exception THEN
                NULL;
        END;
        chance := random();
        IF chance < 0.3 THEN
            COMMIT;
        ELSIF chance < 0.35 THEN
            ROLLBACK;
        END IF;
    END LOOP;
END $$;

SELECT plan(18);

SELECT cmp_ok(count(DISTINCT tableoid), '>', 20::bigint, 'messages lie in many chunks') FROM es_outbox;
SELECT cmp_ok(count(*), '>', 20::bigint, 'and some wait for their time') FROM es_delayed;
SELECT is_empty('SELECT * FROM lost', 'which gave them no position');
SELECT bag_eq($$SELECT position, topic, payload, key FROM es_outbox$$, 'SELECT position, topic, payload, key FROM told',
    'what was promised is there, where it was promised, and nothing else');
SELECT bag_eq('SELECT message_id FROM es_delayed', 'SELECT message_id FROM later', 'and so is what waits');
SELECT is_empty('SELECT position FROM (SELECT position FROM es_outbox UNION ALL SELECT position FROM es_events UNION ALL SELECT delayed_id FROM es_delayed) AS p GROUP BY 1 HAVING count(*) > 1',
    'no position serves twice, for a message, an event, or one that waits');
SELECT is_empty('SELECT FROM es_outbox WHERE position > es_last_position()', 'none was given that was not drawn');
SELECT is_empty('SELECT FROM es_outbox WHERE (payload IS NULL) = (payload_binary IS NULL)', 'each message has one payload');
SELECT is_empty('SELECT FROM es_outbox GROUP BY message_id HAVING count(*) > 1', 'ids that were made differ');

-- As if they were due: all are published, once, in the order of their times and then of their coming.
UPDATE es_delayed AS d SET deliver_after = l.deliver_after - interval '2 h' FROM later AS l WHERE l.message_id = d.message_id;
CREATE TABLE published AS SELECT es_publish_due(7) AS n FROM generate_series(1, (SELECT count(*) / 7 + 1 FROM es_delayed));
SELECT is((SELECT sum(n) FROM published), (SELECT count(*) FROM later), 'what is due is published');
SELECT is_empty('SELECT FROM es_delayed', 'and waits no more');
SELECT results_eq($$SELECT message_id FROM es_outbox WHERE topic = 'later' ORDER BY position$$,
    'SELECT message_id FROM later ORDER BY deliver_after, place', 'in the order of the times');

-- Retention. A reader in the middle: all that it has not acknowledged stays, whatever the settings.
SET es_pg.outbox_retention = 0;
SET es_pg.outbox_chunk_interval = 0;
SELECT es_create_subscription('middle', (percentile_disc(0.5) WITHIN GROUP (ORDER BY position))::text, source => 'outbox') FROM es_outbox;
CREATE TABLE kept AS SELECT * FROM es_outbox WHERE position > es_lowest_cursor('outbox');
SELECT cmp_ok(es_retire_chunks(), '>', 10, 'what the reader has passed is dropped');
SELECT bag_eq($$SELECT * FROM es_outbox WHERE position > es_lowest_cursor('outbox')$$, 'SELECT * FROM kept', 'what it has not is not');
SELECT cmp_ok(count(*), '<', 100::bigint, 'but for the rest of the chunk where it is') FROM es_outbox WHERE position <= es_lowest_cursor('outbox');
SELECT es_drop_subscription('middle');
SELECT cmp_ok(es_retire_chunks(), '>', 10, 'without a reader all goes');
SELECT is_empty('SELECT FROM es_outbox', 'whose time is over');
SELECT is_empty($$SELECT FROM es_chunk_list WHERE of_table = 'es_outbox' AND split_part(bounds, '''', 4)::bigint <= es_horizon()$$,
    'and no chunk below the horizon stays');
SELECT * FROM finish();
