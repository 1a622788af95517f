-- inbox: what must hold of marks, whatever is asked in whatever order.
CREATE EXTENSION es_pg;
SELECT plan(14);
SET es_pg.inbox_retention = -1;

-- Random calls beside a model: a table with one row for each message that a consumer has accepted. Some calls are rolled
-- back; now and then all that is there gets a week older, so that it lies in other chunks than what is new.
CREATE TABLE model (consumer text, message_id text, PRIMARY KEY (consumer, message_id));
CREATE TABLE wrong (what text, got text, due text);
CREATE PROCEDURE age() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_restore_chunks(ARRAY(SELECT format('es_inbox_%s', (week - i) * 604800000000)
        FROM generate_series(0, 20) AS i, div(extract(epoch FROM now())::numeric - 946684800, 604800) AS week));
    WITH gone AS (DELETE FROM es_inbox RETURNING *)
    INSERT INTO es_inbox SELECT accepted_at - interval '168 hours', consumer_id, digest, request, response FROM gone;
END $$;
CREATE FUNCTION accept_one(consumer text, message_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    got boolean := es_inbox_accept(consumer, message_id);
    due boolean;
BEGIN
    INSERT INTO model VALUES (consumer, message_id) ON CONFLICT DO NOTHING;
    due := FOUND;
    IF got IS DISTINCT FROM due THEN INSERT INTO wrong VALUES (consumer || ' ' || message_id, got, due); END IF;
END $$;
CREATE FUNCTION accept_many(consumer text, message_ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    got integer[] := es_inbox_accept_batch(consumer, message_ids);
    due integer[];
BEGIN
    due := ARRAY(SELECT min(place)::integer FROM unnest(message_ids) WITH ORDINALITY AS m (id, place)
                  WHERE NOT EXISTS (SELECT FROM model WHERE model.consumer = accept_many.consumer AND message_id = id)
                  GROUP BY id ORDER BY 1);
    INSERT INTO model SELECT consumer, id FROM unnest(message_ids) AS id ON CONFLICT DO NOTHING;
    IF got IS DISTINCT FROM due THEN INSERT INTO wrong VALUES (consumer || ' ' || message_ids::text, got, due); END IF;
END $$;
CREATE FUNCTION something() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    consumer text := 'c' || (random() * 2)::int;
BEGIN
    IF random() < 0.7 THEN
        PERFORM accept_one(consumer, 'm' || (random() * 300)::int);
    ELSE
        PERFORM accept_many(consumer, ARRAY(SELECT 'm' || (random() * 300)::int FROM generate_series(1, 1 + (random() * 20)::int)));
    END IF;
    IF random() < 0.2 THEN RAISE EXCEPTION 'back' USING ERRCODE = 'P0009'; END IF;
END $$;
DO $$
BEGIN
    PERFORM setseed(0.29);
    FOR i IN 1 .. 600 LOOP
        BEGIN
            FOR j IN 1 .. 1 + (random() * 3)::int LOOP PERFORM something(); END LOOP;
        EXCEPTION WHEN SQLSTATE 'P0009' THEN NULL;
        END;
        COMMIT;
        IF i % 100 = 0 THEN CALL age(); COMMIT; END IF;
    END LOOP;
END $$;
SELECT is_empty('SELECT * FROM wrong', 'each answer is what the model says');
SELECT is((SELECT count(*) FROM es_inbox), (SELECT count(*) FROM model), 'there is a mark for each message, and no other');
SELECT is((SELECT count(DISTINCT digest) FROM es_inbox), (SELECT count(*) FROM model), 'which is told from all others');
SELECT cmp_ok((SELECT count(DISTINCT tableoid) FROM es_inbox), '>', 3::bigint, 'they lie in several chunks');
SELECT set_eq($$SELECT DISTINCT consumer FROM model$$, 'SELECT name FROM es_inbox_consumers', 'the consumers are those that were named');

-- Of many duplicates only the first writes anything: in the present chunk, and where their marks are in another.
CREATE VIEW written AS SELECT sum(n_tup_ins)::bigint AS rows
  FROM es_chunk_list JOIN pg_stat_xact_user_tables ON relid = chunk WHERE of_table = 'es_inbox';
SELECT es_inbox_accept_batch('c0', ARRAY(SELECT 'new' || i FROM generate_series(1, 1000) AS i)) IS NOT NULL AS batch;
BEGIN;
SELECT rows AS before FROM written \gset
SELECT is(cardinality(es_inbox_accept_batch('c0', ARRAY(SELECT 'new' || i FROM generate_series(1, 1000) AS i))), 0, 'duplicates of the present chunk');
SELECT is((SELECT rows FROM written), :before + 1::bigint, 'write a row that is withdrawn, and no more');
COMMIT;
CALL age();
BEGIN;
SELECT rows AS before FROM written \gset
SELECT is(cardinality(es_inbox_accept_batch('c0', ARRAY(SELECT 'new' || i FROM generate_series(1, 1000) AS i))), 0, 'duplicates of older chunks');
SELECT is((SELECT rows FROM written), :before + 1::bigint, 'write one, too');
COMMIT;

-- Chunks have what is to be had of a table that rows are only inserted into.
SELECT is_empty($$SELECT chunk FROM es_chunk_list WHERE of_table = 'es_inbox' AND NOT EXISTS
                     (SELECT FROM pg_index WHERE indrelid = chunk AND indisprimary AND indkey = '3')$$, 'a chunk has a primary key of the digest');
SELECT is_empty($$SELECT chunk FROM es_chunk_list JOIN pg_class AS c ON c.oid = chunk WHERE of_table = 'es_inbox'
                     AND NOT reloptions @> '{autovacuum_vacuum_insert_threshold=100000}'$$, 'and is vacuumed as what is only inserted into');

-- Rights.
CREATE ROLE es_pg_tap_inbox;
SELECT es_grant('es_pg_tap_inbox', 'inbox', 'mine');
SET ROLE es_pg_tap_inbox;
SELECT throws_ok($$SELECT es_inbox_accept('c0', 'x')$$, '42501', NULL, 'a limited role may act for no other consumer');
SELECT ok(es_inbox_accept('mine', 'x'), 'but for its own, which needs no right on a table');
SELECT throws_ok($$SELECT es_command_begin('k')$$, '42501', NULL, 'commands of a consumer that it may not act for are none of its business');
RESET ROLE;
SELECT * FROM finish();
DROP OWNED BY es_pg_tap_inbox;
DROP ROLE es_pg_tap_inbox;
