-- inbox_durable: what must hold of sequences and of durable inboxes, whatever fails and is rolled back.
CREATE EXTENSION es_pg;
SELECT plan(14);
SELECT setseed(0.4);
SET jit = off;

--
-- Sequences, against the plain set of numbers that were taken: random order, repeats, savepoints, rollbacks.
--
CREATE TABLE taken (source text, n bigint);
CREATE INDEX ON taken (source, n);
CREATE TABLE told (source text, n bigint, is_new boolean, expected boolean);
SET es_pg.inbox_hole_timeout = -1;
CREATE PROCEDURE take(source text, number bigint) LANGUAGE plpgsql AS $$
DECLARE
    expected boolean := NOT EXISTS (SELECT FROM taken AS t WHERE t.source = take.source AND t.n = number);
    is_new boolean := es_inbox_accept_sequence('model', source, number);
BEGIN
    IF is_new THEN
        INSERT INTO taken VALUES (source, number);
    END IF;
    IF is_new <> expected THEN
        RAISE WARNING 'told % of % in %', is_new, number, source;
    END IF;
    INSERT INTO told VALUES (source, number, is_new, expected);
END $$;
DO $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        BEGIN
            -- "dense" is around the end of what was seen, "sparse" anywhere, "long" mostly in order.
            CALL take('dense', GREATEST(0, i / 3 + floor(random() * 40)::bigint - 20));
            CALL take('sparse', floor(random() * 20000)::bigint);
            CALL take('long', CASE WHEN random() < 0.02 THEN floor(random() * 1500)::bigint ELSE i END);
            IF random() < 0.1 THEN
                RAISE division_by_zero;
            END IF;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
        IF random() < 0.2 THEN
            IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
        END IF;
    END LOOP;
END $$;
SELECT is_empty('SELECT * FROM told WHERE is_new <> expected', 'every answer was right when it was given');
SELECT is_empty('SELECT source, n FROM taken GROUP BY 1, 2 HAVING count(*) > 1', 'no number was taken twice');
SELECT cmp_ok((SELECT count(*) FROM told WHERE NOT is_new), '>', 500::bigint, 'and there were duplicates');
SELECT is_empty($$SELECT * FROM taken AS t JOIN es_inbox_sequences AS s USING (source)
                   WHERE t.n > s.watermark AND NOT EXISTS (SELECT FROM es_inbox_ranges AS r
                                                            WHERE r.sequence_id = s.sequence_id AND t.n BETWEEN r.low AND r.high)$$,
    'what was taken is kept');
SELECT is_empty($$SELECT source, s.accepted FROM es_inbox_sequences AS s
                   WHERE s.accepted <> (SELECT count(*) FROM taken AS t WHERE t.source = s.source)
                      OR s.accepted <> s.watermark + 1 + (SELECT COALESCE(sum(high - low + 1), 0) FROM es_inbox_ranges AS r WHERE r.sequence_id = s.sequence_id)$$,
    'and nothing else');
SELECT is_empty('SELECT * FROM es_inbox_ranges AS a JOIN es_inbox_ranges AS b ON b.sequence_id = a.sequence_id AND b.low > a.low AND b.low <= a.high + 1',
    'ranges do not touch');
SELECT is_empty($$SELECT source FROM es_inbox_sequences AS s WHERE s.ranges <> (SELECT count(*) FROM es_inbox_ranges AS r WHERE r.sequence_id = s.sequence_id)
                      OR EXISTS (SELECT FROM es_inbox_ranges AS r WHERE r.sequence_id = s.sequence_id AND r.low <= s.watermark + 1)$$,
    'they are counted, and lie beyond a hole');

--
-- A durable inbox: handlers that fail at random, transactions that are rolled back at random, numbered messages in
-- random order beside others; in the end everything was done once, and in the order of its key.
--
CREATE TABLE effect (n serial, key text, i int, message_id text);
CREATE FUNCTION handle(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO effect (key, i, message_id) VALUES (m.key, (m.payload->>'i')::int, m.message_id);
    IF random() < 0.15 THEN
        RAISE EXCEPTION 'no luck';
    END IF;
END $$;
SELECT es_create_inbox('model', lanes => 3, max_attempts => 1000, retry_base => '1 us', retry_max => '1 us', resequence_timeout => '1 day');
CREATE TABLE message AS
    SELECT k || '-' || i AS id, 'key' || k AS key, i, CASE WHEN k % 2 = 0 THEN i::bigint END AS number, k
      FROM generate_series(1, 10) AS k, generate_series(1, 60) AS i;
DO $$
DECLARE
    m record;
BEGIN
    -- Each twice; those with numbers in any order, the others in theirs.
    FOR m IN SELECT *, CASE WHEN number IS NULL THEN i + pass * 0.5 ELSE random() * 60 END AS place
               FROM message, generate_series(0, 1) AS pass ORDER BY place LOOP
        PERFORM es_inbox_put('model', m.id, 'orders', 'A', m.key, jsonb_build_object('i', m.i), "sequence" => m.number);
        IF random() < 0.3 THEN
            COMMIT;
        END IF;
    END LOOP;
    COMMIT;
    FOR pass IN 1 .. 2000 LOOP
        PERFORM es_inbox_run('model', 'handle(es_inbox_message)', 1 + floor(random() * 40)::int);
        IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
        EXIT WHEN (SELECT count(*) FROM effect) >= 600;
    END LOOP;
END $$;
SELECT is((SELECT count(*) FROM effect), 600::bigint, 'every message had its effect');
SELECT is_empty('SELECT message_id FROM effect GROUP BY 1 HAVING count(*) > 1', 'and none had it twice');
SELECT is_empty('SELECT * FROM (SELECT key, i, lag(i) OVER (PARTITION BY key ORDER BY n) AS before FROM effect) AS e WHERE before > i',
    'each key in its order');
SELECT is((SELECT backlog FROM es_inbox_status), 0::bigint, 'nothing waits any more');
SELECT is((SELECT count(*) FROM es_parked) + (SELECT count(*) FROM es_inbox_held), 0::bigint, 'nor is anything left of what waited');
SELECT ok((SELECT duplicates >= 600 FROM es_inbox_status), 'duplicates were seen');

-- What a lane is for the status is what it is for a fetch.
SELECT es_inbox_put('model', 'l' || i, 'orders', 'A', NULLIF('key' || i % 7, 'key0'), '{}') FROM generate_series(1, 100) AS i \g /dev/null
SELECT is_empty($$SELECT lane, key, position FROM es_fetch('$inbox/model', 'session ' || pg_backend_pid(), session_bound => true)
                   WHERE lane <> es_key_lane(key, position, 3)$$, 'es_key_lane says where a message is');
SELECT * FROM finish();
