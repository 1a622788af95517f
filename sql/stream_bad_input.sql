-- stream_bad_input: what append and the reads refuse, how, and that nothing came of it.
CREATE EXTENSION es_pg;

-- Runs a statement; returns SQLSTATE and message of its refusal.
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || replace(SQLERRM, repeat('x', 100), 'x...x');
END $$;

--
-- es_append
--
SELECT call, refusal('SELECT FROM es_append(' || call || ')') FROM (VALUES
    -- the stream's name
    ($$NULL, 'T', '{}'$$),
    ($$'', 'T', '{}'$$),
    ($$repeat('x', 1025), 'T', '{}'$$),
    ($$repeat('ä', 513), 'T', '{}'$$),
    ($$E'a\tb-1', 'T', '{}'$$),
    ($$E'a-1\n', 'T', '{}'$$),
    ($$E'\x01', 'T', '{}'$$),
    ($$E'a-\x7f', 'T', '{}'$$),
    ($$'-1', 'T', '{}'$$),
    ($$'-', 'T', '{}'$$),
    -- the type
    ($$'a-1', NULL, '{}'$$),
    ($$'a-1', '', '{}'$$),
    ($$'a-1', repeat('x', 1025), '{}'$$),
    ($$'a-1', E'T\r', '{}'$$),
    -- the data
    ($$'a-1', 'T', NULL$$),
    ($$'a-1', 'T', 'no json'$$),
    ($$'a-1', 'T', '"\u0000"'$$),
    -- the expected version
    ($$'a-1', 'T', '{}', -3$$),
    ($$'a-1', 'T', '{}', -5$$),
    ($$'a-1', 'T', '{}', -9223372036854775808$$),
    ($$'a-1', 'T', '{}', 9223372036854775807$$),
    -- the rest
    ($$'a-1', 'T', '{}', event_id => 'no uuid'$$),
    ($$'a-1', 'T', '{}', schema_version => ''$$),
    ($$'a-1', 'T', '{}', schema_version => repeat('x', 1025)$$),
    ($$'a-1', 'T', '{}', schema_version => E'\b'$$),
    ($$'a-1', 'T', '{}', correlation_id => repeat('x', 1025)$$),
    ($$'a-1', 'T', '{}', correlation_id => E'a\nb'$$),
    ($$'a-1', 'T', '{}', causation_id => repeat('x', 1025)$$),
    ($$'a-1', 'T', '{}', causation_id => E'a\nb'$$),
    ($$'a-1', 'T', '{}', occurred_at => 'no time'$$),
    ($$NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL$$)) AS t (call);

--
-- es_append_batch
--
SELECT call, refusal('SELECT FROM es_append_batch(' || call || ')') FROM (VALUES
    ($$NULL, '{T}', '{1}'$$),
    ($$'', '{T}', '{1}'$$),
    ($$'-1', '{T}', '{1}'$$),
    ($$'a-1', NULL, '{1}'$$),
    ($$'a-1', '{T}', NULL$$),
    ($$'a-1', '{T}', '{1}', -3$$),
    -- no events, or too many
    ($$'a-1', '{}', '{}'$$),
    ($$'a-1', array_fill('T'::text, ARRAY[1000001]), array_fill('1'::jsonb, ARRAY[1000001])$$),
    -- nulls, empty names
    ($$'a-1', '{T,NULL}', '{1,2}'$$),
    ($$'a-1', '{T,""}', '{1,2}'$$),
    ($$'a-1', ARRAY['T', repeat('x', 1025)], '{1,2}'$$),
    ($$'a-1', '{T,T}', '{1,NULL}'$$),
    ($$'a-1', '{T,T}', '{1,2}', event_ids => ARRAY[es_uuid('e', '1'), NULL]$$),
    ($$'a-1', '{T,T}', '{1,2}', schema_versions => '{1,""}'$$),
    -- lengths that differ
    ($$'a-1', '{T,T}', '{1}'$$),
    ($$'a-1', '{T}', '{1,2}'$$),
    ($$'a-1', '{T}', '{}'$$),
    ($$'a-1', '{}', '{1}'$$),
    ($$'a-1', '{T,T}', '{1,2}', metadata => '{1}'$$),
    ($$'a-1', '{T,T}', '{1,2}', event_ids => ARRAY[es_uuid('e', '1')]$$),
    ($$'a-1', '{T,T}', '{1,2}', schema_versions => '{1}'$$),
    ($$'a-1', '{T,T}', '{1,2}', occurred_at => '{}'$$),
    -- dimensions
    ($$'a-1', '{{T,T},{T,T}}', '{1,2,3,4}'$$),
    ($$'a-1', '{T,T}', '{{1},{2}}'$$),
    -- one id twice
    ($$'a-1', '{T,U,T}', '{1,2,3}', event_ids => ARRAY[es_uuid('e', '1'), es_uuid('e', '2'), es_uuid('e', '1')]$$),
    ($$'a-1', '{T}', '{1}', correlation_id => E'a\nb'$$),
    ($$'a-1', '{T}', '{1}', causation_id => repeat('x', 1025)$$),
    ($$NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL$$)) AS t (call);

--
-- es_append_json
--
\set event '{"type": "T", "data": 1, "id": "00000000-0000-0000-0000-000000000001"}'
SELECT call, refusal('SELECT FROM es_append_json(' || replace(call, ':id', quote_literal(:'event')) || ')') FROM (VALUES
    ($$NULL, '[{"type": "T", "data": 1}]'$$),
    ($$'', '[{"type": "T", "data": 1}]'$$),
    ($$'-1', '[{"type": "T", "data": 1}]'$$),
    ($$'a-1', NULL$$),
    ($$'a-1', '[{"type": "T", "data": 1}]', -3$$),
    -- not an array of objects
    ($$'a-1', '{"type": "T", "data": 1}'$$),
    ($$'a-1', '"T"'$$),
    ($$'a-1', 'null'$$),
    ($$'a-1', '[]'$$),
    ($$'a-1', '[1]'$$),
    ($$'a-1', '[null]'$$),
    ($$'a-1', '[[{"type": "T", "data": 1}]]'$$),
    ($$'a-1', '[{"type": "T", "data": 1}, []]'$$),
    -- keys
    ($$'a-1', '[{}]'$$),
    ($$'a-1', '[{"type": "T"}]'$$),
    ($$'a-1', '[{"data": 1}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "date": 2}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "Type": "T"}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "%s%n": "T"}]'$$),
    -- values
    ($$'a-1', '[{"type": null, "data": 1}]'$$),
    ($$'a-1', '[{"type": "", "data": 1}]'$$),
    ($$'a-1', '[{"type": 1, "data": 1}]'$$),
    ($$'a-1', '[{"type": ["T"], "data": 1}]'$$),
    ($$'a-1', '[{"type": "T\n", "data": 1}]'$$),
    ($$'a-1', '[{"type": "T", "data": null}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "id": 7}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "id": "no uuid"}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "schema_version": 2}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "source": {}}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "occurred_at": 0}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "occurred_at": "no time"}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "correlation_id": 1}]'$$),
    ($$'a-1', '[{"type": "T", "data": 1, "causation_id": "a\tb"}]'$$),
    -- ids for some, or the same for two
    ($$'a-1', jsonb_build_array('{"type": "T", "data": 1}'::jsonb, :id::jsonb)$$),
    ($$'a-1', jsonb_build_array(:id::jsonb, :id::jsonb)$$),
    ($$NULL, NULL, NULL$$)) AS t (call);
-- A traceparent is of the W3C's form, here as in the setting.
SELECT left(refusal($$SELECT FROM es_append_json('a-1', '[{"type": "T", "data": 1, "traceparent": "rubbish"}]')$$), 5) AS sqlstate;

--
-- Settings are checked when they are set.
--
SELECT setting, refusal('SET LOCAL es_pg.' || setting) FROM (VALUES
    ($$traceparent = 'rubbish'$$),
    ($$traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7'$$),
    ($$traceparent = '00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01'$$),
    ($$traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g'$$),
    ($$traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 '$$),
    ($$correlation_id = E'a\nb'$$),
    ($$causation_id = E'\x7f'$$),
    ($$event_chunk_size = 99$$),
    ($$outbox_chunk_size = 0$$),
    ($$event_chunk_size = 'many'$$)) AS t (setting);
SELECT refusal(format('SET LOCAL es_pg.correlation_id = %L', repeat('x', 1025))) LIKE '22023 %' AS too_long;
SHOW es_pg.traceparent;

--
-- Reads
--
SELECT call, refusal('SELECT FROM ' || call) FROM (VALUES
    ($$es_read_stream(NULL)$$),
    ($$es_read_stream('')$$),
    ($$es_read_stream(repeat('x', 1025))$$),
    ($$es_read_stream(E'a\nb')$$),
    ($$es_read_stream('a-1', -2)$$),
    ($$es_read_stream('a-1', -9223372036854775808)$$),
    ($$es_read_stream('a-1', 0, -1)$$),
    ($$es_read_stream(NULL, NULL, NULL, NULL)$$),
    ($$es_read_category(NULL)$$),
    ($$es_read_category('')$$),
    ($$es_read_category(repeat('x', 1025))$$),
    ($$es_read_category('a', -1)$$),
    ($$es_read_category('a', 0, -1)$$),
    ($$es_read_category('a', types => '{T,NULL}')$$),
    ($$es_read_category('a', types => '{""}')$$),
    ($$es_read_category(NULL, NULL, NULL, NULL)$$),
    ($$es_read_all(-1)$$),
    ($$es_read_all(0, -1)$$),
    ($$es_read_all(categories => '{a,NULL}')$$),
    ($$es_read_all(categories => '{a,""}')$$),
    ($$es_read_all(types => '{NULL}')$$),
    ($$es_read_event(NULL)$$),
    ($$es_read_event('no uuid')$$),
    ($$es_stream_version(NULL)$$),
    ($$es_stream_version('')$$),
    ($$es_stream_version(repeat('x', 1025))$$),
    ($$es_category(NULL)$$),
    ($$es_category('')$$),
    ($$es_category('-1')$$),
    ($$es_category_id(NULL)$$),
    ($$es_category_id('')$$),
    ($$es_uuid(NULL, 'a')$$),
    ($$es_uuid('a', NULL)$$)) AS t (call);
SELECT call, refusal('SELECT FROM ' || call) FROM (VALUES
    ($$es_prepare_chunks(-1)$$),
    ($$es_prepare_chunks(1001)$$),
    ($$es_refuse_change()$$)) AS t (call);

-- NULL for everything that may be left out is no error.
SELECT count(*) FROM es_read_all(NULL, NULL, NULL, NULL);

--
-- Nothing was written, and not even a position drawn.
--
SELECT (SELECT count(*) FROM es_events) AS events, (SELECT count(*) FROM es_streams) AS streams,
       (SELECT count(*) FROM es_stream_chunks) AS stream_chunks, (SELECT count(*) FROM es_chunk_list) AS chunks,
       es_last_position(), es_horizon();

--
-- A conflict writes nothing either, nor does a batch of which one event's id was used.
--
SELECT version FROM es_append('a-1', 'T', '1', -1, event_id => es_uuid('e', '1'));
SELECT call, left(refusal('SELECT FROM ' || call), 5) AS sqlstate FROM (VALUES
    ($$es_append('a-1', 'T', '2', -1)$$),
    ($$es_append('a-1', 'T', '2', 1)$$),
    ($$es_append('a-2', 'T', '2', 0)$$),
    ($$es_append('a-2', 'T', '2', es_stream_exists())$$),
    ($$es_append('a-1', 'T', '2', event_id => es_uuid('e', '1'))$$),
    ($$es_append_batch('a-1', '{T,T}', '{1,2}', event_ids => ARRAY[es_uuid('e', '1'), es_uuid('e', '2')])$$),
    ($$es_append_batch('a-1', '{T,T}', '{2,1}', event_ids => ARRAY[es_uuid('e', '2'), es_uuid('e', '1')])$$)) AS t (call);
SELECT stream, version, data FROM es_read_all();
SELECT count(*) FROM es_streams;

-- A bad setting that was made before the library was loaded is not used.
\c -
SET es_pg.traceparent = 'rubbish';
SELECT version FROM es_append('a-1', 'T', '2', 0);
SELECT version, traceparent FROM es_read_stream('a-1');
