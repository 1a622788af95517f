-- outbox_bad_input: what publish refuses, how, and that nothing came of it.
CREATE EXTENSION es_pg;

-- Runs a statement; returns SQLSTATE and message of its refusal, where a setting's range has a unit only from 17 on.
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || regexp_replace(replace(SQLERRM, repeat('x', 100), 'x...x'), ' s( \.\.|\))', '\1', 'g');
END $$;

SELECT call, refusal('SELECT es_publish(' || call || ')') FROM (VALUES
    -- the topic
    ($$NULL, 'T', '1'$$),
    ($$'', 'T', '1'$$),
    ($$repeat('x', 1025), 'T', '1'$$),
    ($$repeat('ä', 513), 'T', '1'$$),
    ($$E'a\tb', 'T', '1'$$),
    ($$E'a\x7f', 'T', '1'$$),
    -- the type
    ($$'t', NULL, '1'$$),
    ($$'t', '', '1'$$),
    ($$'t', repeat('x', 1025), '1'$$),
    ($$'t', E'T\n', '1'$$),
    -- the payload
    ($$'t', 'T', NULL$$),
    ($$'t', 'T', 'no json'$$),
    ($$'t', 'T', '"\u0000"'$$),
    -- the key
    ($$'t', 'T', '1', key => ''$$),
    ($$'t', 'T', '1', key => repeat('x', 1025)$$),
    ($$'t', 'T', '1', key => E'a\r'$$),
    -- the headers
    ($$'t', 'T', '1', headers => '[]'$$),
    ($$'t', 'T', '1', headers => '"a"'$$),
    ($$'t', 'T', '1', headers => 'null'$$),
    ($$'t', 'T', '1', headers => '{'$$),
    -- the rest
    ($$'t', 'T', '1', message_id => 'no uuid'$$),
    ($$'t', 'T', '1', deliver_after => 'infinity'$$),
    ($$'t', 'T', '1', deliver_after => '-infinity'$$),
    ($$'t', 'T', '1', deliver_after => 'some day'$$),
    ($$'t', 'T', '1', deliver_after => '294277-01-01'$$),
    ($$'t', 'T', '1', correlation_id => repeat('x', 1025)$$),
    ($$'t', 'T', '1', correlation_id => E'a\nb'$$),
    ($$'t', 'T', '1', causation_id => repeat('x', 1025)$$),
    ($$'t', 'T', '1', nonsense => 1$$)) AS v(call);

SELECT call, refusal('SELECT es_publish_binary(' || call || ')') FROM (VALUES
    ($$NULL, 'T', '', 'text/plain'$$),
    ($$'t', NULL, '', 'text/plain'$$),
    ($$'t', 'T', NULL, 'text/plain'$$),
    ($$'t', 'T', '\x0', 'text/plain'$$),
    ($$'t', 'T', '', NULL$$),
    ($$'t', 'T', '', ''$$),
    ($$'t', 'T', '', repeat('x', 1025)$$),
    ($$'t', 'T', '', E'text/plain\n'$$),
    ($$'t', 'T', '', 'text/plain', key => ''$$),
    ($$'t', 'T', '', 'text/plain', headers => '1'$$),
    ($$'t', 'T', '', 'text/plain', deliver_after => 'infinity'$$),
    ($$'t', 'T', ''$$)) AS v(call);

SELECT call, refusal('SELECT es_publish_batch(' || call || ')') FROM (VALUES
    ($$NULL, '{A}', '{1}'$$),
    ($$'t', NULL, '{1}'$$),
    ($$'t', '{A}', NULL$$),
    ($$'t', '{}', '{}'$$),
    ($$'t', '{}', '{1}'$$),
    ($$'t', '{A}', '{}'$$),
    ($$'t', '{A,NULL}', '{1,2}'$$),
    ($$'t', '{A,B}', '{1,NULL}'$$),
    ($$'t', '{A,B}', '{1,2,3}'$$),
    ($$'t', '{A,""}', '{1,2}'$$),
    ($$'t', ARRAY['A', repeat('x', 1025)], '{1,2}'$$),
    ($$'t', '{{A,B},{C,D}}', '{1,2,3,4}'$$),
    ($$'t', '{A,B,C,D}', '{{1,2},{3,4}}'$$),
    ($$'t', '{A,B}', '{1,2}', '{1}'$$),
    ($$'t', '{A,B}', '{1,2}', '{1,""}'$$),
    ($$'t', '{A,B}', '{1,2}', ARRAY['1', repeat('x', 1025)]$$),
    ($$'t', '{A,B}', '{1,2}', '{{1},{2}}'$$),
    ($$'t', '{A,B}', '{1,2}', headers => ARRAY['{}']::jsonb[]$$),
    ($$'t', '{A,B}', '{1,2}', headers => ARRAY['{}', '[]']::jsonb[]$$),
    ($$'t', '{A,B}', '{1,2}', message_ids => ARRAY[gen_random_uuid()]$$),
    ($$'t', array_fill('A'::text, '{1000001}'), array_fill('1'::jsonb, '{1000001}')$$)) AS v(call);

SELECT call, refusal('SELECT ' || call) FROM (VALUES
    ('es_publish_due(0)'), ('es_publish_due(-1)'), ('es_publish_due(1000001)'),
    ($$es_cancel_delayed(NULL, gen_random_uuid())$$), ($$es_cancel_delayed('t', NULL)$$), ($$es_cancel_delayed('t', 'no uuid')$$),
    ($$set_config('es_pg.outbox_retention', '-2', true)$$),
    ($$set_config('es_pg.outbox_chunk_interval', 'soon', true)$$),
    ($$set_config('es_pg.max_outbox_backlog', '-1', true)$$)) AS v(call);

-- Nothing came of it, and no position was drawn.
SELECT (SELECT count(*) FROM es_outbox) AS messages, (SELECT count(*) FROM es_delayed) AS delayed, es_last_position();

-- Arrays may begin anywhere.
SELECT es_publish_batch('t', '[5:6]={A,B}', '{1,2}');
-- The longest names there may be.
SELECT es_publish(repeat('x', 1024), repeat('ä', 512), '1', key => repeat('x', 1024), correlation_id => repeat('x', 1024));
SELECT octet_length(topic), octet_length(type), octet_length(key), octet_length(correlation_id) FROM es_outbox WHERE position = 3;

-- Not where nothing may be written.
BEGIN READ ONLY;
SELECT es_publish('t', 'T', '1');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_publish_batch('t', '{T}', '{1}');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_publish_binary('t', 'T', '', 'text/plain');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_publish_due();
ROLLBACK;
BEGIN READ ONLY;
SELECT es_cancel_delayed('t', gen_random_uuid());
ROLLBACK;
BEGIN READ ONLY;
SELECT es_retire_chunks();
ROLLBACK;

-- Not into a table that needs more than a direct insert gives.
ALTER TABLE es_chunks.es_outbox_0 ADD CHECK (topic <> 'x');
SELECT es_publish('t', 'T', '1');
ALTER TABLE es_chunks.es_outbox_0 DROP CONSTRAINT es_outbox_0_topic_check;
SELECT es_publish('t', 'T', '1') IS NOT NULL AS published;
