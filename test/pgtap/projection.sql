-- projection: what must hold of read models, however their events came and however they were run.
\ir history.inc
SELECT plan(25);
SET jit = off;

-- One statement as the truth, and read models that must be what it says.
CREATE VIEW truth AS
    SELECT stream, count(*) AS n, max(version) AS version, string_agg(type, ',' ORDER BY version) AS types FROM es_read_all(0, 1000000) GROUP BY stream;
CREATE TABLE by_set (stream text PRIMARY KEY, n bigint, version bigint, types text);
CREATE TABLE by_handler (LIKE by_set INCLUDING ALL);
CREATE TABLE by_inline (LIKE by_set INCLUDING ALL);
CREATE TABLE by_park (LIKE by_set INCLUDING ALL);
CREATE FUNCTION handle(event es_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO by_handler VALUES (event.stream, 1, event.version, event.type)
        ON CONFLICT (stream) DO UPDATE SET n = by_handler.n + 1, version = EXCLUDED.version, types = by_handler.types || ',' || EXCLUDED.types;
END $$;
CREATE FUNCTION body(target text, extra text DEFAULT '') RETURNS text LANGUAGE sql AS $$
    SELECT format('INSERT INTO %1$I AS t SELECT stream, count(*), max(version), string_agg(type, '','' ORDER BY version) FROM es_batch %2$s GROUP BY stream
        ON CONFLICT (stream) DO UPDATE SET n = t.n + EXCLUDED.n, version = EXCLUDED.version, types = t.types || '','' || EXCLUDED.types', target, extra)
$$;
SELECT es_create_projection('by_set', body('by_set'));
SELECT es_create_projection('by_handler', handler => 'handle(es_event)', tables => '{by_handler}');
SELECT es_create_projection('by_inline', body('by_inline'), mode => 'inline');
SELECT es_rebuild_projection('by_inline');
-- This one fails at one event in a thousand, now at these and now at those, and tries again at once.
CREATE TABLE luck (bad bigint);
INSERT INTO luck VALUES (0);
CREATE FUNCTION fails(n bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN IF n % 1000 = (SELECT bad FROM luck) THEN RAISE EXCEPTION 'bad luck'; END IF; RETURN true; END $$;
CREATE TABLE seen_parked (n bigint);
SELECT es_create_projection('by_park', body('by_park', 'WHERE fails(position)'), on_error => 'park', max_attempts => 1000, retry_base => '1 us', retry_max => '1 us');

-- Batches of every size, some rolled back, while events are appended.
SET client_min_messages = error;
DO $$
DECLARE
    before bigint;
BEGIN
    PERFORM setseed(0.4);
    FOR i IN 1..300 LOOP
        UPDATE luck SET bad = i % 2;
        PERFORM es_run_projections((ARRAY['by_set', 'by_handler', 'by_inline', 'by_park', NULL])[1 + floor(random() * 5)], 1 + floor(random() * 200)::int);
        IF random() < 0.5 THEN
            PERFORM es_append((ARRAY['apple', 'pear', 'plum'])[1 + floor(random() * 3)] || '-' || floor(random() * 5), 'During', '{}');
        END IF;
        IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
        INSERT INTO seen_parked SELECT count(*) FROM es_parked;
    END LOOP;
    FOR i IN 1..500 LOOP
        UPDATE luck SET bad = 1 - bad;
        before := es_run_projections();
        COMMIT;
        EXIT WHEN before = 0 AND NOT EXISTS (SELECT FROM es_parked);
    END LOOP;
END $$;
RESET client_min_messages;
SELECT cmp_ok(count(*), '>', 100::bigint, 'there were events') FROM es_events;
SELECT set_eq('SELECT * FROM by_set', 'SELECT * FROM truth', 'a set-based body: each event once, in order');
SELECT set_eq('SELECT * FROM by_handler', 'SELECT * FROM truth', 'a handler: the same');
SELECT set_eq('SELECT * FROM by_inline', 'SELECT * FROM truth', 'an inline one, rebuilt under way: the same');
SELECT set_eq('SELECT * FROM by_park', 'SELECT * FROM truth', 'one that fails here and there, and parks: the same');
SELECT cmp_ok(max(n), '>', 1::bigint, 'there were parked events') FROM seen_parked;
SELECT is((SELECT version FROM es_projections WHERE name = 'by_inline' AND live), 2, 'the rebuild took the live one''s place');
SELECT is_empty('SELECT FROM es_projection_status WHERE state <> ''active'' OR lag_messages <> 0', 'nobody is behind');
SELECT is_empty('SELECT FROM es_projections AS p, es_read_all(0, 1000000) AS e WHERE NOT es_wait_for(name, e.position, ''0'')', 'all have passed every event');

-- A rebuild of each gives what is there.
CREATE TABLE before AS SELECT 'set' AS which, * FROM by_set UNION ALL SELECT 'handler', * FROM by_handler UNION ALL SELECT 'inline', * FROM by_inline;
SELECT es_rebuild_projection(name) FROM es_projections WHERE live AND name <> 'by_park';
SELECT is(count(*), 3::bigint, 'three are built beside the live ones') FROM es_projections WHERE NOT live;
DO $$ BEGIN WHILE EXISTS (SELECT FROM es_projections WHERE NOT live) LOOP PERFORM es_run_projections(max_count => 77); COMMIT; END LOOP; END $$;
SELECT set_eq('SELECT ''set'', * FROM by_set UNION ALL SELECT ''handler'', * FROM by_handler UNION ALL SELECT ''inline'', * FROM by_inline', 'SELECT * FROM before',
    'a rebuild makes the same read models');
SELECT is_empty('SELECT FROM pg_namespace WHERE nspname LIKE ''es\_shadow%''', 'and leaves nothing beside them');

-- What hangs on a table goes along.
CREATE ROLE es_pg_tap_reader;
CREATE TABLE rich (id bigserial PRIMARY KEY, stream text UNIQUE, n int CHECK (n > 0), note text DEFAULT 'x', g bigint GENERATED ALWAYS AS (n * 2) STORED) WITH (fillfactor = 70);
CREATE INDEX rich_by_n ON rich (n) WHERE n > 1;
COMMENT ON TABLE rich IS 'a comment';
GRANT SELECT ON rich TO es_pg_tap_reader;
CREATE VIEW rich_view WITH (security_barrier) AS SELECT stream, n FROM rich;
GRANT SELECT ON rich_view TO es_pg_tap_reader;
CREATE VIEW rich_view_view AS SELECT * FROM rich_view;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'by trigger'; RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE UPDATE ON rich FOR EACH ROW EXECUTE FUNCTION noted();
SELECT es_create_projection('rich', 'INSERT INTO rich (stream, n) SELECT stream, count(*) FROM es_batch GROUP BY 1 ON CONFLICT (stream) DO UPDATE SET n = rich.n + EXCLUDED.n');
SELECT es_run_projections('rich', 1000000);
CREATE VIEW facts AS
    SELECT 'column' AS what, attname::text AS a, format_type(atttypid, atttypmod) || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '') || coalesce(attacl::text, '') AS b
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = to_regclass('rich') AND attnum > 0
    UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass('rich')
    UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = to_regclass('rich')
    UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = to_regclass('rich')
    UNION ALL SELECT 'table', relname, reloptions::text || relacl::text || obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass('rich')
    UNION ALL SELECT 'view', relname, reloptions::text || relacl::text || pg_get_viewdef(oid) FROM pg_class WHERE oid = to_regclass('rich_view')
    UNION ALL SELECT 'sequence', pg_get_serial_sequence('rich', 'id'), '';
GRANT SELECT (stream) ON rich TO es_pg_tap_reader;
CREATE TABLE facts_before AS SELECT * FROM facts;
CREATE TABLE old_oid AS SELECT to_regclass('rich')::oid AS oid;
SELECT es_rebuild_projection('rich');
DO $$ BEGIN WHILE EXISTS (SELECT FROM es_projections WHERE NOT live) LOOP PERFORM es_run_projections(); COMMIT; END LOOP; END $$;
SELECT isnt(to_regclass('rich')::oid, oid, 'another table is in its place') FROM old_oid;
SELECT set_eq('SELECT * FROM facts', 'SELECT * FROM facts_before', 'which looks the same, with all that hung on it');
SELECT set_eq('SELECT stream, n::bigint FROM rich_view_view', 'SELECT stream, n FROM truth', 'views show the new one');
SELECT lives_ok('INSERT INTO rich (stream, n) VALUES (''more'', 1)', 'its sequence goes on');
-- A body that writes to what is not its own by a function of another path cannot be seen; by name it can.
SELECT throws_ok($$SELECT es_rebuild_projection('rich', 'INSERT INTO public.rich (stream) SELECT stream FROM es_batch')$$, '22023');

-- What is done to a table while another one is filled for it is not lost in silence.
SELECT es_rebuild_projection('rich');
CREATE INDEX rich_late ON rich (n);
DO $$ BEGIN WHILE EXISTS (SELECT FROM es_projections WHERE NOT live AND state = 'active') LOOP PERFORM es_run_projections(); COMMIT; END LOOP; END $$;
SELECT is((SELECT state || ': ' || error FROM es_projections WHERE NOT live), 'stopped: tables of projection "rich" were altered since its rebuild began', 'a table that was altered is not swapped');
SELECT es_cancel_rebuild('rich');
SELECT isnt(to_regclass('rich_late'), NULL, 'and stays');

SELECT es_rebuild_projection('rich');
ALTER TABLE rich ENABLE ROW LEVEL SECURITY;
DO $$ BEGIN WHILE EXISTS (SELECT FROM es_projections WHERE NOT live AND state = 'active') LOOP PERFORM es_run_projections(); COMMIT; END LOOP; END $$;
SELECT is((SELECT state || ': ' || error FROM es_projections WHERE NOT live), 'stopped: table public.rich of projection "rich" cannot be swapped', 'nor is one whose rows are protected since');
SELECT es_cancel_rebuild('rich');

-- What a body makes of a time does not depend on who appends.
CREATE TABLE written (at text);
SET TimeZone = 'UTC';
SELECT es_create_projection('written', 'INSERT INTO written SELECT occurred_at::text FROM es_batch', mode => 'inline', categories => '{time}');
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SELECT es_append('time-1', 'E', '{}', occurred_at => '2026-01-01 23:00:00Z');
SELECT is((SELECT at FROM written), '2026-01-01 23:00:00+00', 'a body runs with the settings of its creation');
RESET TimeZone;
RESET DateStyle;

-- A transaction of many appends has one thing to tell those who watch, not many.
SET es_pg.event_chunk_size = 1000000;
BEGIN;
SELECT es_append('time-1', 'E', '{}') FROM generate_series(1, 500);
CREATE TEMPORARY TABLE used AS SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext';
SELECT es_append('time-1', 'E', '{}') FROM generate_series(1, 2000);
SELECT ok(m.used_bytes - used.used_bytes < 20000, 'an append with an inline projection leaves nothing in memory') FROM pg_backend_memory_contexts AS m, used WHERE m.name = 'TopTransactionContext';
ROLLBACK;

-- No event is a dead letter because the handler is not there.
CREATE FUNCTION passing(event es_event) RETURNS void LANGUAGE sql AS '';
SELECT es_create_projection('passing', handler => 'passing(es_event)', on_error => 'skip');
DROP FUNCTION passing(es_event);
SELECT is(es_run_projections('passing'), 0::bigint, 'a handler that is gone');
SELECT is((SELECT (state, dead, parked)::text FROM es_projection_status WHERE projection = 'passing'), '(stopped,0,0)', 'stops its projection, whatever its policy');

SELECT es_drop_projection(name) FROM es_projections;
SELECT is((SELECT count(*) FROM es_subscriptions) + (SELECT count(*) FROM es_cursors) + (SELECT count(*) FROM es_parked), 0::bigint, 'dropped projections leave nothing');
DROP OWNED BY es_pg_tap_reader;
DROP ROLE es_pg_tap_reader;
SELECT * FROM finish();
