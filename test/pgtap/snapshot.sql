-- snapshot: what must hold of folds, states and snapshots, whatever the events are.
CREATE EXTENSION es_pg;
SELECT plan(18);
SELECT setseed(0.4);
SET jit = off;    -- a staged server has none

--
-- A built-in is what one would have written by hand
--
-- RFC 7396, section 2, word for word.
CREATE FUNCTION merge_patch(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    name text;
    value jsonb;
BEGIN
    IF jsonb_typeof(patch) <> 'object' THEN
        RETURN patch;
    END IF;
    IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN
        target := '{}';
    END IF;
    FOR name, value IN SELECT * FROM jsonb_each(patch) LOOP
        IF jsonb_typeof(value) = 'null' THEN
            target := target - name;
        ELSE
            target := target || jsonb_build_object(name, merge_patch(target->name, value));
        END IF;
    END LOOP;
    RETURN target;
END $$;
CREATE FUNCTION by_hand_merge_patch(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS 'SELECT merge_patch(state, event.data)';
CREATE FUNCTION by_hand_sum(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS $$
    SELECT COALESCE(state, '{}') || CASE WHEN jsonb_typeof(event.data->'n') = 'number' THEN
        jsonb_build_object(event.type, COALESCE((state->event.type)::numeric, 0) + CASE WHEN event.type = 'Type1' THEN -1 ELSE 1 END * (event.data->'n')::numeric) ELSE '{}' END
$$;
CREATE FUNCTION by_hand_last_write(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE WHEN NOT event.data ? 'a' OR (state->'at')::numeric > (event.data->'at')::numeric THEN state
                ELSE jsonb_build_object('at', event.data->'at', 'value', event.data->'a') END
$$;

-- Random JSON, with nulls, few names, and every kind of value.
CREATE FUNCTION random_json(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    kind int := floor(random() * CASE WHEN depth > 0 THEN 9 ELSE 5 END);
BEGIN
    RETURN CASE kind
        WHEN 0 THEN 'null'
        WHEN 1 THEN to_jsonb(random() < 0.5)
        WHEN 2 THEN to_jsonb((random() * 100)::numeric(5, 2))
        WHEN 3 THEN to_jsonb(repeat('x', floor(random() * 20)::int))
        WHEN 4 THEN '[1, null, {"a": null}]'
        ELSE (SELECT COALESCE(jsonb_object_agg(chr(97 + floor(random() * 4)::int), random_json(depth - 1)), '{}') FROM generate_series(1, floor(random() * 5)::int))
    END;
END $$;
-- Streams of random length, appended in batches of random size.
DO $$
DECLARE
    n int;
BEGIN
    FOR stream IN 1..20 LOOP
        FOR batch IN 1..1 + floor(random() * 5)::int LOOP
            n := 1 + floor(random() * 30)::int;
            PERFORM es_append_batch('apple-' || stream, ARRAY(SELECT 'Type' || floor(random() * 3) FROM generate_series(1, n)),
                ARRAY(SELECT CASE WHEN random() < 0.1 THEN random_json(2) ELSE
                             jsonb_build_object('at', floor(random() * 10), 'n', CASE WHEN random() < 0.9 THEN to_jsonb((random() * 10 - 5)::numeric(6, 3)) ELSE 'null' END) || COALESCE(NULLIF(random_json(3), 'null'), '{}') END
                        FROM generate_series(1, n)));
        END LOOP;
    END LOOP;
END $$;
CREATE TABLE stream AS SELECT name, es_stream_version(name) AS head FROM es_streams;
SELECT cmp_ok(sum(head), '>', 500::numeric, 'there are events') FROM stream;
CREATE TABLE pair (builtin text, by_hand text);
INSERT INTO pair VALUES ('merge_patch', 'by_hand_merge_patch');
CREATE VIEW state AS
    SELECT builtin, by_hand, name, at, (es_state(name, builtin, at)).state AS a, (es_state(name, by_hand, at)).state AS b
      FROM pair, stream, LATERAL (SELECT DISTINCT least(head, at) AS at FROM (VALUES (0), (1), (7), (20), (head)) AS v (at)) AS v;
SELECT is_empty('SELECT * FROM state WHERE a IS DISTINCT FROM b', 'merge_patch is what RFC 7396 says, at any version');
SELECT cmp_ok(count(DISTINCT a), '>', 50::bigint, 'of many states') FROM state;

-- The others want objects.
DO $$
BEGIN
    FOR stream IN 1..10 LOOP
        FOR i IN 1..30 LOOP
            PERFORM es_append('pear-' || stream, 'Type' || floor(random() * 3),
                jsonb_build_object('at', floor(random() * 10), 'n', CASE WHEN random() < 0.9 THEN to_jsonb((random() * 10 - 5)::numeric(6, 3)) ELSE 'null' END)
                || CASE WHEN random() < 0.8 THEN jsonb_build_object('a', random_json(1)) ELSE '{}' END);
        END LOOP;
    END LOOP;
END $$;
DELETE FROM stream;
INSERT INTO stream SELECT name, es_stream_version(name) FROM es_streams WHERE name LIKE 'pear-%';
DELETE FROM pair;
INSERT INTO pair VALUES ('sum {"path": "$.n", "by": "type", "minus": ["Type1"]}', 'by_hand_sum'), ('last_write {"path": "$.a", "at": "$.at"}', 'by_hand_last_write');
SELECT is_empty('SELECT * FROM state WHERE a IS DISTINCT FROM b', 'so are sum and last_write');
SELECT cmp_ok(count(DISTINCT a), '>', 50::bigint, 'of many states') FROM state;

-- A PN-counter does not mind order or repetition: any shuffle of what nodes told comes to the same.
CREATE TABLE told AS SELECT jsonb_build_object('type', 'Told', 'data', jsonb_build_object('node', n, 'p', i * n, 'n', i)) AS e FROM generate_series(1, 4) AS n, generate_series(1, 5) AS i;
CREATE FUNCTION shuffled(seed int) RETURNS jsonb LANGUAGE sql AS $$
    SELECT es_fold(e, 'pn_counter') FROM es_given((SELECT jsonb_agg(e ORDER BY random()) FROM (SELECT e FROM told UNION ALL SELECT e FROM told) AS twice)) AS e
$$;
SELECT is(array_agg(DISTINCT shuffled(s)), ARRAY['{"p": {"1": 5, "2": 10, "3": 15, "4": 20}, "n": {"1": 5, "2": 5, "3": 5, "4": 5}, "value": 30}'::jsonb], 'a PN-counter is the same in any order')
  FROM generate_series(1, 20) AS s;

--
-- A snapshot changes nothing but the work: a log with snapshots beside itself without
--
DELETE FROM stream;
INSERT INTO stream SELECT name, es_stream_version(name) FROM es_streams;
CREATE TABLE reducer (name text, of text);
INSERT INTO reducer VALUES ('merge_patch', '%'), ('by_hand_merge_patch', '%'), ('count {"by": "type"}', '%'), ('last_value', '%'), ('by_hand_sum', 'pear-%'),
    ('last_write {"path": "$.a", "at": "$.at"}', 'pear-%'), ('sum {"path": "$.n"}', 'pear-%'),
    ('combine {"m": {"reducer": "merge_patch"}, "n": {"reducer": "count"}, "l": {"reducer": "last_value", "types": ["Type2"]}, "c": {"reducer": "count", "by": "$.at", "types": ["Type1"]}}', 'pear-%');
CREATE TABLE expected AS
    SELECT s.name AS stream, r.name AS reducer, at, (es_state(s.name, r.name, at)).state FROM stream AS s JOIN reducer AS r ON s.name LIKE r.of CROSS JOIN LATERAL generate_series(-1, head, 3) AS at;
SELECT is_empty('SELECT * FROM es_snapshots', 'nobody took a snapshot yet');
CREATE TABLE difference (step int, stream text, reducer text, at bigint, got jsonb, want jsonb);
SELECT es_set_snapshot_policy(c, name, every => 5, keep => k) FROM reducer, (VALUES ('apple', -1), ('pear', 2)) AS p (c, k);
CREATE TABLE used (events bigint, snapshot bigint);
DO $$
DECLARE
    e expected;
    got es_folded;
BEGIN
    FOR step IN 1..1500 LOOP
        SELECT * INTO e FROM expected OFFSET floor(random() * (SELECT count(*) FROM expected)) LIMIT 1;
        CASE floor(random() * 6)::int
            WHEN 0 THEN IF e.at >= 0 THEN PERFORM es_snapshot(e.stream, e.reducer, e.at); END IF;
            WHEN 1 THEN PERFORM es_state(e.stream, e.reducer);
            WHEN 2 THEN IF random() < 0.05 THEN PERFORM es_prune_snapshots(floor(random() * 3)::int); END IF;
            ELSE NULL;
        END CASE;
        got := es_state(e.stream, e.reducer, e.at);
        INSERT INTO used VALUES (got.events, got.snapshot);
        IF got.state IS DISTINCT FROM e.state OR got.version <> e.at THEN
            INSERT INTO difference VALUES (step, e.stream, e.reducer, e.at, got.state, e.state);
        END IF;
    END LOOP;
END $$;
SELECT is_empty('SELECT * FROM difference LIMIT 10', 'with snapshots the state is what it is without, at any version');
SELECT ok(bool_or(snapshot IS NULL) AND bool_or(snapshot >= 0 AND events > 0) AND bool_or(snapshot >= 0 AND events = 0), 'folds began at the beginning, at snapshots, and not at all') FROM used;
-- The aggregate and es_state are one.
SELECT is_empty($$SELECT s.name, r.name FROM stream AS s JOIN reducer AS r ON s.name LIKE r.of
                   WHERE (SELECT es_fold(e, r.name) FROM es_read_stream(s.name, 0, 1000000) AS e) IS DISTINCT FROM (es_state(s.name, r.name)).state$$, 'es_fold comes to what es_state says');

-- A time is a version.
SELECT is_empty($$SELECT e.stream, e.version FROM es_read_all(0, 1000000) AS e, LATERAL es_state(e.stream, 'count', at_time => e.recorded_at) AS s
                   WHERE s.version <> (SELECT max(o.version) FROM es_read_stream(e.stream, 0, 1000000) AS o WHERE o.recorded_at <= e.recorded_at)$$, 'the state at a time has the events up to it');

-- What a reducer's text comes to is a reducer's text.
SELECT is_empty('SELECT name FROM reducer WHERE es_reducer(es_reducer(name)) <> es_reducer(name)', 'a canonical text is its own');

--
-- Given, when, then: how a reducer and a decision are tested without a log
--
CREATE FUNCTION account(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('balance', COALESCE((state->'balance')::numeric, 0)
        + CASE event.type WHEN 'Deposited' THEN 1 WHEN 'Withdrawn' THEN -1 ELSE 0 END * (event.data->'amount')::numeric)
$$;
CREATE FUNCTION withdraw(state jsonb, amount numeric) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF COALESCE((state->'balance')::numeric, 0) < amount THEN
        RAISE EXCEPTION 'not enough';
    END IF;
    RETURN jsonb_build_array(jsonb_build_object('type', 'Withdrawn', 'data', jsonb_build_object('amount', amount)));
END $$;
\set given '[{"type": "Deposited", "data": {"amount": 100}}]'
-- given these events, when this is decided, then these events follow, and this state
SELECT is((SELECT withdraw(es_fold(e, 'account'), 30) FROM es_given(:'given') AS e), '[{"type": "Withdrawn", "data": {"amount": 30}}]', 'given a deposit, a withdrawal is decided');
SELECT is((SELECT es_fold(e, 'account') FROM es_given(:'given'::jsonb || (SELECT withdraw(es_fold(e, 'account'), 30) FROM es_given(:'given') AS e)) AS e), '{"balance": 70}', 'then less is left');
SELECT throws_ok(format('SELECT withdraw(es_fold(e, ''account''), 101) FROM es_given(%L) AS e', :'given'), 'not enough');

-- A function that is replaced during the fold: the state is of neither form, and nobody's snapshot.
CREATE FUNCTION fickle(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 1 THEN
        EXECUTE 'CREATE OR REPLACE FUNCTION fickle(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $f$ BEGIN RETURN ''"new"''; END $f$';
    END IF;
    RETURN '"old"';
END $$;
SELECT es_append_json('fickle-1', '[{"type": "E", "data": {}}, {"type": "E", "data": {}}]');
SELECT throws_ok($$SELECT es_snapshot('fickle-1', 'fickle')$$, '55000');
SELECT is((SELECT count(*) FROM es_snapshots WHERE reducer LIKE '%fickle'), 0::bigint, 'no snapshot of a state of two reducers');
CREATE OR REPLACE FUNCTION fickle(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"new"'::jsonb $$;
SELECT is((SELECT state FROM es_state('fickle-1', 'fickle')), '"new"', 'what replaced it is what folds');
SELECT * FROM finish();
