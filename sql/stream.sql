-- stream: events go into streams and come out again, in order and unchanged.
CREATE EXTENSION es_pg;

--
-- A stream begins with its first event. The answer is the event's version in
-- the stream, its position in the log and its id, made here as a UUIDv7.
--
SELECT version, position, substr(event_id::text, 15, 1) AS uuid_version
  FROM es_append('order-42', 'OrderPlaced', '{"total": 99.99}', es_no_stream());
SELECT version, position FROM es_append('order-42', 'OrderPaid', '{"by": "card"}', 0);
SELECT version, position FROM es_append('order-42', 'OrderNoted', '{}');
SELECT version, position FROM es_append('order-42', 'OrderShipped', '{}', es_stream_exists());
SELECT version, type, data FROM es_read_stream('order-42');
SELECT es_stream_version('order-42'), es_stream_version('order-nowhere');

--
-- Expected versions. A conflict names stream, expectation and fact, and has
-- written nothing.
--
SELECT es_any(), es_no_stream(), es_stream_exists();
SELECT * FROM es_append('order-42', 'OrderPlaced', '{}', es_no_stream());
SELECT * FROM es_append('order-42', 'OrderPaid', '{}', 2);
SELECT * FROM es_append('order-42', 'OrderPaid', '{}', 4);
SELECT * FROM es_append('order-43', 'OrderPaid', '{}', es_stream_exists());
SELECT * FROM es_append('order-43', 'OrderPaid', '{}', 0);
\set VERBOSITY sqlstate
SELECT * FROM es_append('order-42', 'OrderPlaced', '{}', es_no_stream());
\set VERBOSITY default
SELECT es_stream_version('order-42'), es_stream_version('order-43'), es_last_position();

--
-- Several events at once, all or none; the answer is the last one's.
--
SELECT version, position
  FROM es_append_batch('cart-1', '{ItemAdded,ItemAdded,ItemRemoved}',
                       ARRAY['{"sku": 1}', '{"sku": 2}', '{"sku": 1}']::jsonb[], es_no_stream(),
                       metadata => ARRAY[NULL, '{"by": "ann"}', NULL]::jsonb[],
                       schema_versions => '{1,2,NULL}',
                       occurred_at => '{2020-01-01 00:00:00+00,NULL,2020-01-03 00:00:00+00}');
SELECT version, type, data, metadata, schema_version,
       CASE WHEN occurred_at = recorded_at THEN 'when recorded' ELSE (occurred_at AT TIME ZONE 'UTC')::date::text END AS occurred
  FROM es_read_stream('cart-1');

-- As JSON, an event has everything it can have.
SELECT version, position, event_id
  FROM es_append_json('cart-1', '[
    {"type": "ItemAdded", "data": {"sku": 3}, "id": "00000000-0000-0000-0000-00000000c001"},
    {"type": "CartClosed", "data": [], "id": "00000000-0000-0000-0000-00000000c002",
     "metadata": {"by": "ann"}, "schema_version": "2", "source": "shop.example",
     "occurred_at": "2021-02-03T04:05:06Z", "correlation_id": "c-7", "causation_id": "c-6",
     "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}]', 2);
\x on
SELECT * FROM es_read_event('00000000-0000-0000-0000-00000000c002') \gset found_
SELECT :'found_position' AS position, :'found_stream' AS stream, :'found_version' AS version, :'found_type' AS type,
       :'found_schema_version' AS schema_version, :'found_source' AS source, :'found_data' AS data,
       :'found_metadata' AS metadata, :'found_correlation_id' AS correlation_id,
       :'found_causation_id' AS causation_id, :'found_traceparent' AS traceparent,
       :'found_occurred_at'::timestamptz AT TIME ZONE 'UTC' AS occurred_at,
       :'found_recorded_at'::timestamptz BETWEEN now() - interval '1 hour' AND now() + interval '1 hour' AS recorded_now;
\x off
-- A key that is null is one that is not there.
SELECT version FROM es_append_json('cart-2', '[{"type": "T", "data": 1, "id": null, "metadata": null, "source": null}]');
SELECT data, metadata, source FROM es_read_stream('cart-2');

--
-- Every function takes untyped literals, as above, and untyped parameters.
--
PREPARE append AS SELECT version FROM es_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);
EXECUTE append('param-1', 'T', '{}', -1, '{}', 'f0000000-0000-0000-0000-000000000001', '1', '2020-01-01', 'c', 'd');
PREPARE append_4 AS SELECT * FROM es_append($1, $2, $3, $4);
EXECUTE append_4('param-1', 'T', '{}', 7);
PREPARE append_batch AS SELECT version FROM es_append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);
EXECUTE append_batch('param-1', '{T}', '{1}', 0, '{1}', '{f0000000-0000-0000-0000-000000000002}', '{1}', '{2020-01-01}', 'c', 'd');
PREPARE append_json AS SELECT version FROM es_append_json($1, $2, $3);
EXECUTE append_json('param-1', '[{"type": "T", "data": {}}]', 1);
PREPARE read_stream AS SELECT version FROM es_read_stream($1, $2, $3, $4);
EXECUTE read_stream('param-1', 2, 2, 'true');
PREPARE read_category AS SELECT version FROM es_read_category($1, $2, $3, $4);
EXECUTE read_category('param', 0, 1, '{T}');
PREPARE read_all AS SELECT version FROM es_read_all($1, $2, $3, $4);
EXECUTE read_all(0, 1, '{param}', '{T}');
PREPARE read_event AS SELECT stream FROM es_read_event($1);
EXECUTE read_event('f0000000-0000-0000-0000-000000000002');
PREPARE stream_version AS SELECT es_stream_version($1);
EXECUTE stream_version('param-1');
PREPARE category AS SELECT es_category($1), es_category_id($2), es_uuid($3, $4);
EXECUTE category('param-1', 'param', 'shop', '1');
SELECT version FROM es_read_stream('param-1', '0', '1', 'f');
SELECT version FROM es_read_category('param', '0', '1', NULL);
SELECT version FROM es_read_all('0', '1', '{param}', '{T}');

-- NULL for what may be left out is its default.
EXECUTE append('param-2', 'T', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
EXECUTE append_batch('param-2', '{T}', '{1}', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
EXECUTE append_json('param-2', '[{"type": "T", "data": {}}]', NULL);
EXECUTE read_stream('param-2', NULL, NULL, NULL);
EXECUTE read_category('param', NULL, 1, NULL);
EXECUTE read_all(NULL, 1, NULL, NULL);
SELECT count(*) = es_last_position() AS all_of_them FROM es_read_all(NULL, NULL, NULL, NULL);

--
-- The same append again, with the same event ids, gets the first answer and
-- writes nothing: for an exact version, for no stream, for any.
--
SELECT version, position, event_id
  FROM es_append('retry-1', 'A', '{"n": 1}', es_no_stream(), event_id => 'a0000000-0000-0000-0000-000000000001')
\gset first_
SELECT version, position, event_id
  FROM es_append('retry-1', 'B', '{"n": 2}', 0, '{"m": 2}', 'a0000000-0000-0000-0000-000000000002', '1')
\gset second_
SELECT es_last_position() AS before \gset
SELECT version = :first_version AND position = :first_position AND event_id = :'first_event_id' AS same
  FROM es_append('retry-1', 'A', '{"n": 1}', es_no_stream(), event_id => 'a0000000-0000-0000-0000-000000000001');
SELECT version = :second_version AND position = :second_position AS same
  FROM es_append('retry-1', 'B', '{"n": 2}', 0, '{"m": 2}', 'a0000000-0000-0000-0000-000000000002', '1');
SELECT version = :second_version AND position = :second_position AS same
  FROM es_append('retry-1', 'B', '{"n": 2}', es_any(), '{"m": 2}', 'a0000000-0000-0000-0000-000000000002', '1');
SELECT version = :first_version AND position = :first_position AS same
  FROM es_append('retry-1', 'A', '{"n": 1}', es_stream_exists(), event_id => 'a0000000-0000-0000-0000-000000000001');
SELECT version = :first_version AND position = :first_position AS same
  FROM es_append_json('retry-1', '[{"type": "A", "data": {"n": 1}, "id": "a0000000-0000-0000-0000-000000000001"}]', -1);
SELECT es_stream_version('retry-1'), es_last_position() = :before AS nothing_drawn;

-- A batch too, also when the stream has grown since.
SELECT version, position
  FROM es_append_batch('retry-2', '{A,B,C}', '{1,2,3}', es_no_stream(),
                       event_ids => '{b0000000-0000-0000-0000-000000000001,b0000000-0000-0000-0000-000000000002,b0000000-0000-0000-0000-000000000003}')
\gset batch_
SELECT version FROM es_append('retry-2', 'D', '4', event_id => 'b0000000-0000-0000-0000-000000000004');
SELECT version = :batch_version AND position = :batch_position AS same, event_id
  FROM es_append_batch('retry-2', '{A,B,C}', '{1,2,3}', es_no_stream(),
                       event_ids => '{b0000000-0000-0000-0000-000000000001,b0000000-0000-0000-0000-000000000002,b0000000-0000-0000-0000-000000000003}');
SELECT version = :batch_version AND position = :batch_position AS same, event_id
  FROM es_append_batch('retry-2', '{A,B,C}', '{1,2,3}', es_any(),
                       event_ids => '{b0000000-0000-0000-0000-000000000001,b0000000-0000-0000-0000-000000000002,b0000000-0000-0000-0000-000000000003}');
SELECT version, type FROM es_read_stream('retry-2');

-- The same id with another type, data, metadata or schema version is no retry.
SELECT * FROM es_append('retry-1', 'A', '{"n": 9}', es_no_stream(), event_id => 'a0000000-0000-0000-0000-000000000001');
\set VERBOSITY sqlstate
SELECT * FROM es_append('retry-1', 'A', '{"n": 9}', es_any(), event_id => 'a0000000-0000-0000-0000-000000000001');
SELECT * FROM es_append('retry-1', 'Z', '{"n": 1}', es_any(), event_id => 'a0000000-0000-0000-0000-000000000001');
SELECT * FROM es_append('retry-1', 'A', '{"n": 1}', es_any(), '{}', 'a0000000-0000-0000-0000-000000000001');
SELECT * FROM es_append('retry-1', 'A', '{"n": 1}', es_any(), NULL, 'a0000000-0000-0000-0000-000000000001', '9');
\set VERBOSITY default
-- Nor is one of which only a part is there, at the end, at the beginning, or in another order.
SELECT * FROM es_append_batch('retry-2', '{D,E}', '{4,5}', es_any(),
                              event_ids => '{b0000000-0000-0000-0000-000000000004,b0000000-0000-0000-0000-000000000005}');
SELECT * FROM es_append_batch('retry-2', '{Z,A}', '{0,1}', es_any(),
                              event_ids => '{b0000000-0000-0000-0000-000000000000,b0000000-0000-0000-0000-000000000001}');
\set VERBOSITY sqlstate
SELECT * FROM es_append_batch('retry-2', '{D,E}', '{4,5}', 2,
                              event_ids => '{b0000000-0000-0000-0000-000000000004,b0000000-0000-0000-0000-000000000005}');
SELECT * FROM es_append_batch('retry-2', '{B,A}', '{2,1}', es_any(),
                              event_ids => '{b0000000-0000-0000-0000-000000000002,b0000000-0000-0000-0000-000000000001}');
SELECT * FROM es_append_batch('retry-2', '{A,X,C}', '{1,0,3}', es_no_stream(),
                              event_ids => '{b0000000-0000-0000-0000-000000000001,b0000000-0000-0000-0000-00000000000f,b0000000-0000-0000-0000-000000000003}');
-- The right id, expected at a place where it is not.
SELECT * FROM es_append('retry-2', 'A', '1', 3, event_id => 'b0000000-0000-0000-0000-000000000001');
-- A new id and a version that is past is a plain conflict.
SELECT * FROM es_append('retry-2', 'X', '1', 1, event_id => 'b0000000-0000-0000-0000-0000000000ff');
\set VERBOSITY default
SELECT es_stream_version('retry-1'), es_stream_version('retry-2');

-- Ids are a stream's own matter: another stream may hold the same.
SELECT version FROM es_append('retry-3', 'A', '{"n": 1}', es_any(), event_id => 'a0000000-0000-0000-0000-000000000001');
SELECT stream, version, data FROM es_read_event('a0000000-0000-0000-0000-000000000001');
SELECT count(*) FROM es_read_event('a0000000-0000-0000-0000-0000000000ff');

-- An id of another system becomes an event id by hashing (UUIDv5, RFC 9562).
SELECT es_uuid('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com') AS dns,
       es_uuid('6BA7B811-9DAD-11D1-80B4-00C04FD430C8', 'http://www.example.com') AS url,
       es_uuid('6ba7b812-9dad-11d1-80b4-00c04fd430c8', '') AS nothing;
SELECT es_uuid('shop', 'order-4711') = es_uuid('shop', 'order-4711') AS stable,
       es_uuid('shop', 'order-4711') = es_uuid('bank', 'order-4711') AS mixed_up,
       substr(es_uuid('shop', 'order-4711')::text, 15, 1) AS uuid_version;

--
-- The category is what stands before the first dash.
--
SELECT name, es_category(name), es_category_id(es_category(name))
  FROM (VALUES ('order-42'), ('order'), ('order-42-line-7'), ('Order-1'), ('order-'), ('größe-1'), ('a b:c/d-1')) AS t (name);
SELECT es_append(name, 'Named', to_jsonb(name)) IS NOT NULL AS appended
  FROM (VALUES ('kind-1'), ('kind'), ('kind-1-2'), ('kin-d'), ('Kind-1'), ('kind-')) AS t (name);
SELECT stream FROM es_read_category('kind');
SELECT stream FROM es_read_category('kin');
SELECT stream FROM es_read_category('nothing of this kind');

-- Two categories may have one number, and are not mixed up for that.
SELECT es_category_id('hikica') = es_category_id('fibagonoru') AS same_number;
SELECT es_append(name, 'Named', to_jsonb(name)) IS NOT NULL AS appended FROM (VALUES ('hikica-1'), ('fibagonoru-1')) AS t (name);
SELECT stream FROM es_read_category('hikica');
SELECT stream FROM es_read_all(categories => '{fibagonoru,kin}');

-- A name is any text of up to 1,024 bytes, and nothing in it is special.
SELECT version, length(s) FROM (SELECT repeat('x', 1024) AS s) AS n, es_append(s, 'Long', '{}');
SELECT version, length(s) FROM (SELECT 'l-' || repeat('ä', 511) AS s) AS n, es_append(s, 'Long', '{}');
SELECT version FROM es_append('odd-''"%s%n\;--{}$$', 'Odd ''"%s%n', '"''\"%s"');
SELECT version FROM es_append('odd-日本語 🙂', 'Größe', '"日本語 🙂"', 0);
SELECT version FROM es_append('odd-日本語 🙂', 'Größe', '"日本語 🙂"', -1);
SELECT stream, type, data FROM es_read_category('odd');
SELECT stream = repeat('x', 1024) AS name_intact, type FROM es_read_stream(repeat('x', 1024));
SELECT stream = 'l-' || repeat('ä', 511) AS name_intact, type FROM es_read_category('l');
SELECT * FROM es_append('odd-''"%s%n\;--{}$$', 'T', '{}', 7);

--
-- Where it came from: correlation, causation and trace, as arguments or as
-- settings of the transaction. An argument wins; an empty one says: none.
--
BEGIN;
SET LOCAL es_pg.correlation_id = 'request-1';
SET LOCAL es_pg.causation_id = 'command-1';
SET LOCAL es_pg.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
SELECT version FROM es_append('trace-1', 'FromSettings', '{}');
SELECT version FROM es_append('trace-1', 'FromArguments', '{}', correlation_id => 'mine', causation_id => 'too');
SELECT version FROM es_append('trace-1', 'FromBoth', '{}', causation_id => 'too');
SELECT version FROM es_append('trace-1', 'None', '{}', correlation_id => '', causation_id => '');
SELECT version FROM es_append_batch('trace-1', '{Batch,Batch}', '{1,2}', correlation_id => 'mine');
SELECT version FROM es_append_json('trace-1', '[
    {"type": "Json", "data": {}, "correlation_id": "mine", "traceparent": "00-00000000000000000000000000000001-0000000000000001-00"},
    {"type": "Json", "data": {}}]');
COMMIT;
SELECT version FROM es_append('trace-1', 'Afterwards', '{}');
SELECT version, type, correlation_id, causation_id, right(traceparent, 19) AS trace FROM es_read_stream('trace-1');

-- A setting made before the library was loaded counts as well.
\c -
SET es_pg.correlation_id = 'early';
SELECT version FROM es_append('trace-2', 'Early', '{}');
SELECT correlation_id FROM es_read_stream('trace-2');
RESET es_pg.correlation_id;

--
-- Reading a stream: from a version on, in pages, backwards, from the newest.
--
SELECT version FROM es_append_batch('count-1', array_fill('N'::text, ARRAY[10]),
    ARRAY(SELECT to_jsonb(i) FROM generate_series(0, 9) AS i));
SELECT array_agg(version) FROM es_read_stream('count-1');
SELECT array_agg(version) FROM es_read_stream('count-1', 4);
SELECT array_agg(version) FROM es_read_stream('count-1', 4, 3);
SELECT array_agg(version) FROM es_read_stream('count-1', 9, 3);
SELECT array_agg(version) FROM es_read_stream('count-1', 10);
SELECT array_agg(version) FROM es_read_stream('count-1', -1);
SELECT array_agg(version) FROM es_read_stream('count-1', -1, 3, true);
SELECT array_agg(version) FROM es_read_stream('count-1', 4, backward => true);
SELECT array_agg(version) FROM es_read_stream('count-1', 4, 2, backward => true);
SELECT array_agg(version) FROM es_read_stream('count-1', 99, 2, backward => true);
SELECT array_agg(version) FROM es_read_stream('count-1', backward => true);
SELECT array_agg(version) FROM es_read_stream('count-1', 0, 0);
SELECT array_agg(version) FROM es_read_stream('count-1', 9223372036854775807);
SELECT count(*) FROM es_read_stream('count-0');
SELECT count(*) FROM es_read_stream('count-0', -1, 10, true);
-- Reads stop at 1,000 rows unless told otherwise.
SELECT version FROM es_append_batch('count-2', array_fill('N'::text, ARRAY[1100]), array_fill('{}'::jsonb, ARRAY[1100]));
SELECT count(*), max(version) FROM es_read_stream('count-2');
SELECT count(*), max(version) FROM es_read_stream('count-2', max_count => 2000);
SELECT count(*), min(version) FROM es_read_stream('count-2', -1, backward => true);
SELECT count(*) FROM es_read_category('count');
SELECT count(*) FROM es_read_all();

--
-- Reading the log: everything, or some categories, or some types; remember the
-- last position and go on from there.
--
SELECT version FROM es_append('apple-1', 'Picked', '1');
SELECT version FROM es_append('pear-1', 'Picked', '2');
SELECT version FROM es_append('apple-2', 'Eaten', '3');
SELECT version FROM es_append('apple-1', 'Eaten', '4');
SELECT version FROM es_append('plum-1', 'Picked', '5');
SELECT es_last_position() - 5 AS start \gset
SELECT stream, type, data FROM es_read_all(:start);
SELECT stream, type, data FROM es_read_all(:start, 2);
SELECT stream, type, data FROM es_read_all(:start + 2, 2);
SELECT stream, type, data FROM es_read_all(:start, categories => '{plum,pear}');
SELECT stream, type, data FROM es_read_all(:start, types => '{Eaten}');
SELECT stream, type, data FROM es_read_all(:start, categories => '{apple}', types => '{Eaten,Planted}');
SELECT stream, type, data FROM es_read_all(:start, categories => '{}', types => '{}', max_count => 1);
SELECT stream, type, data FROM es_read_category('apple');
SELECT stream, type, data FROM es_read_category('apple', :start + 1, 1);
SELECT stream, type, data FROM es_read_category('apple', types => '{Picked}');
SELECT count(*) FROM es_read_all(0, 0);
SELECT count(*) FROM es_read_all(9223372036854775807);

--
-- In one transaction, in one statement, and in what is rolled back.
--
BEGIN;
SELECT version FROM es_append('tx-1', 'A', '{}', -1);
SELECT version FROM es_append('tx-1', 'B', '{}', 0);
SELECT version, type FROM es_read_stream('tx-1');
ROLLBACK;
SELECT es_stream_version('tx-1');

SELECT a.version, b.version, a.position < b.position AS rising
  FROM es_append('tx-2', 'A', '{}') AS a, es_append('tx-2', 'B', '{}') AS b;
SELECT (es_append('tx-2', 'C', to_jsonb(i))).version FROM generate_series(1, 3) AS i;
SELECT version, type, data FROM es_read_stream('tx-2');

-- What a savepoint or an EXCEPTION block takes back leaves no hole in the versions.
DO $$
BEGIN
    BEGIN
        PERFORM es_append('tx-3', 'Lost', '{}');
        RAISE EXCEPTION 'never mind';
    EXCEPTION WHEN raise_exception THEN
        PERFORM es_append('tx-3', 'Kept', '{}', es_no_stream());
    END;
    BEGIN
        PERFORM es_append('tx-3', 'Refused', '{}', 7);
    EXCEPTION WHEN SQLSTATE 'SE001' THEN
        PERFORM es_append('tx-3', 'Instead', to_jsonb(SQLERRM));
    END;
END $$;
BEGIN;
SELECT version FROM es_append('tx-3', 'BeforeSavepoint', '{}');
SAVEPOINT s;
SELECT version FROM es_append('tx-3', 'Lost', '{}');
ROLLBACK TO s;
SELECT version FROM es_append('tx-3', 'AfterSavepoint', '{}');
COMMIT;
SELECT version, type, data FROM es_read_stream('tx-3');

-- Event and business row commit together; a CTE joins them in one statement.
CREATE TABLE orders (id int PRIMARY KEY, version bigint, "position" bigint);
WITH placed AS (SELECT version, position FROM es_append('order-77', 'OrderPlaced', '{}', -1))
INSERT INTO orders SELECT 77, version, position FROM placed RETURNING id, version;
-- If the one fails, the other has not happened.
WITH placed AS (SELECT version, position FROM es_append('order-77', 'OrderPlacedAgain', '{}'))
INSERT INTO orders SELECT 77, version, position FROM placed;
SELECT type FROM es_read_stream('order-77');

-- A read-only transaction reads, and does not append.
BEGIN READ ONLY;
SELECT version FROM es_read_stream('order-77');
SELECT stream FROM es_read_category('order', 0, 1);
\set VERBOSITY sqlstate
SELECT * FROM es_append('order-77', 'T', '{}');
ROLLBACK;
\set VERBOSITY default

-- An append leaves the user's lastval() alone.
CREATE SEQUENCE mine START 4711;
SELECT nextval('mine');
SELECT version FROM es_append('tx-4', 'T', '{}');
SELECT lastval();

--
-- Large data is kept out of line and comes back as it was, also from copies.
--
CREATE TABLE large AS
    SELECT jsonb_build_object('text', string_agg(md5(i::text), '')) AS data FROM generate_series(1, 32768) AS i;
SELECT length(data ->> 'text') FROM large;
SELECT version FROM large, es_append('large-1', 'Large', data, -1, data, event_id => 'c0000000-0000-0000-0000-000000000001');
SELECT version FROM large, es_append_batch('large-2', '{Large,Large}', ARRAY[data, data]);
SELECT e.version FROM es_read_stream('large-1') AS r, es_append('large-3', r.type, r.data) AS e;
SELECT stream, e.version, e.data = l.data AS intact, e.metadata = l.data AS metadata_intact
  FROM es_read_category('large') AS e, large AS l;
SELECT e.data = l.data AS intact FROM es_read_event('c0000000-0000-0000-0000-000000000001') AS e, large AS l;
SELECT version FROM large, es_append('large-1', 'Large', data, -1, data, event_id => 'c0000000-0000-0000-0000-000000000001');
CREATE TABLE copied AS SELECT * FROM es_read_stream('large-1');
SELECT c.data = l.data AS intact FROM copied AS c, large AS l;

--
-- A stream's own limits, set by the owner in es_streams, hold for reads of the
-- stream. Versions are not renumbered, and the log keeps everything.
--
UPDATE es_streams SET truncate_before = 3 WHERE name = 'count-1';
SELECT array_agg(version) FROM es_read_stream('count-1');
SELECT array_agg(version) FROM es_read_stream('count-1', 5, backward => true);
SELECT array_agg(version) FROM es_read_stream('count-1', 2, backward => true);
UPDATE es_streams SET max_count = 4 WHERE name = 'count-1';
SELECT array_agg(version) FROM es_read_stream('count-1');
SELECT array_agg(version) FROM es_read_stream('count-1', 1, 2);
SELECT array_agg(version) FROM es_read_stream('count-1', 7, backward => true);
SELECT version FROM es_append('count-1', 'N', '10', 9);
SELECT array_agg(version) FROM es_read_stream('count-1');
UPDATE es_streams SET truncate_before = NULL, max_count = 100, max_age = '1 hour' WHERE name = 'count-1';
SELECT count(*) FROM es_read_stream('count-1');
UPDATE es_streams SET max_age = '0 seconds' WHERE name = 'count-1';
SELECT count(*) FROM es_read_stream('count-1');
SELECT es_stream_version('count-1');
SELECT count(*) FROM es_read_category('count', 0, 100) WHERE stream = 'count-1';

-- A deleted stream refuses both; its events stay in the log.
UPDATE es_streams SET deleted = true WHERE name = 'retry-2';
SELECT * FROM es_read_stream('retry-2');
\set VERBOSITY sqlstate
SELECT * FROM es_append('retry-2', 'T', '{}');
SELECT * FROM es_append('retry-2', 'T', '{}', es_no_stream());
SELECT es_stream_version('retry-2');
\set VERBOSITY default
SELECT count(*) FROM es_read_category('retry') WHERE stream = 'retry-2';

--
-- An event is a fact. Nobody changes it: not the owner, not in the chunk, not
-- as a replication role.
--
UPDATE es_events SET type = 'Other';
\set VERBOSITY sqlstate
DELETE FROM es_events;
TRUNCATE es_events;
UPDATE es_events SET type = 'Other' WHERE false;
UPDATE es_chunks.es_events_0 SET type = 'Other';
DELETE FROM es_chunks.es_events_0;
TRUNCATE es_chunks.es_events_0;
INSERT INTO es_chunks.es_events_0 SELECT * FROM es_events WHERE position = 1
    ON CONFLICT (position) DO UPDATE SET type = 'Other';
MERGE INTO es_events AS e USING (VALUES (1)) AS v (position) ON e.position = v.position WHEN MATCHED THEN DELETE;
SET session_replication_role = replica;
UPDATE es_events SET type = 'Other';
DELETE FROM es_events;
TRUNCATE es_events;
UPDATE es_chunks.es_events_0 SET type = 'Other';
DELETE FROM es_chunks.es_events_0;
TRUNCATE es_chunks.es_events_0;
RESET session_replication_role;
\set VERBOSITY default
SELECT version, type FROM es_read_stream('order-42');

-- Reading and writing is a right that the functions carry; the tables give none.
CREATE ROLE es_pg_stranger;
SET ROLE es_pg_stranger;
\set VERBOSITY sqlstate
SELECT * FROM es_append('order-42', 'T', '{}');
SELECT * FROM es_append_batch('order-42', '{T}', '{1}');
SELECT * FROM es_append_json('order-42', '[{"type": "T", "data": 1}]');
SELECT * FROM es_read_stream('order-42');
SELECT * FROM es_read_category('order');
SELECT * FROM es_read_all();
SELECT * FROM es_read_event('a0000000-0000-0000-0000-000000000001');
SELECT es_stream_version('order-42');
SELECT FROM es_events;
INSERT INTO es_events SELECT;
UPDATE es_streams SET deleted = true;
\set VERBOSITY default
SELECT es_category('order-42'), es_any(), es_uuid('shop', '1') IS NOT NULL AS harmless;
RESET ROLE;
-- Who may execute es_append needs no right on the tables.
GRANT EXECUTE ON FUNCTION es_append, es_read_stream TO es_pg_stranger;
SET ROLE es_pg_stranger;
SELECT version FROM es_append('stranger-1', 'T', '{}', -1);
SELECT version, type FROM es_read_stream('stranger-1');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION es_append, es_read_stream FROM es_pg_stranger;
DROP ROLE es_pg_stranger;
