-- projection_bad_input: what is refused, and how.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
CREATE TABLE t (k text PRIMARY KEY, n bigint);
CREATE TABLE other (k text);

--
-- Bodies.
--
SELECT es_create_projection(NULL, 'SELECT FROM es_batch');
SELECT es_create_projection('p');
SELECT es_create_projection('p', 'SELECT 1', 'lower(text)');
SELECT es_create_projection('p', 'INSERT INTO t SELEC stream FROM es_batch');
SELECT es_create_projection('p', 'INSERT INTO nowhere SELECT stream FROM es_batch');
SELECT es_create_projection('p', 'INSERT INTO t SELECT wrong FROM es_batch');
SELECT es_create_projection('p', 'INSERT INTO t VALUES (1)');
SELECT es_create_projection('p', 'CREATE TABLE u AS SELECT * FROM es_batch');
SELECT es_create_projection('p', 'INSERT INTO t SELECT stream FROM es_batch; COMMIT');
SELECT es_create_projection('p', 'DELETE FROM es_batch');
SELECT es_create_projection('p', 'INSERT INTO other SELECT stream FROM es_batch', tables => '{t}');
SELECT es_create_projection('p', 'WITH w AS (INSERT INTO other SELECT stream FROM es_batch RETURNING *) INSERT INTO t SELECT k FROM w', tables => '{t}');
SELECT es_create_projection('p', 'INSERT INTO t SELECT stream FROM es_batch', tables => '{nowhere}');
SELECT es_create_projection('p', 'INSERT INTO es_marks SELECT position FROM es_batch', source => 'outbox', tables => '{t}');
-- Handlers.
CREATE FUNCTION wrong_result(event es_event) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION wrong_argument(event jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION many(event es_event) RETURNS SETOF void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION of_event(event es_event) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION of_delivery(event es_delivery) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE PROCEDURE a_procedure(event es_event) LANGUAGE sql AS 'SELECT';
SELECT es_create_projection('p', handler => 'nothing(es_event)');
SELECT es_create_projection('p', handler => 'wrong_result(es_event)');
SELECT es_create_projection('p', handler => 'wrong_argument(jsonb)');
SELECT es_create_projection('p', handler => 'many(es_event)');
SELECT es_create_projection('p', handler => 'a_procedure(es_event)');
SELECT es_create_projection('p', handler => 'of_event(es_event)', source => 'outbox');
-- The rest.
SELECT es_create_projection('p', handler => 'of_event(es_event)', mode => 'sometimes');
SELECT es_create_projection('p', handler => 'of_event(es_event)', source => 'nowhere');
SELECT es_create_projection('p', handler => 'of_event(es_event)', on_error => 'cry');
SELECT es_create_projection('p', handler => 'of_event(es_event)', batch_size => 0);
SELECT es_create_projection('p', handler => 'of_event(es_event)', start => 'yesterday');
SELECT es_create_projection('p', handler => 'of_event(es_event)', mode => 'inline', start => 'beginning');
SELECT es_create_projection('p', handler => 'of_event(es_event)', mode => 'inline', on_error => 'park');
SELECT es_create_projection('p', handler => 'of_event(es_event)', categories => '{a,NULL}');
SELECT es_create_projection('p', handler => 'of_event(es_event)', max_attempts => 0);
SELECT es_create_projection('', handler => 'of_event(es_event)');
-- An unknown category is allowed, and remarked on; so are untyped parameters and an explicit NULL for a default.
SELECT es_create_projection('p', 'INSERT INTO t SELECT stream, count(*) FROM es_batch GROUP BY 1 ON CONFLICT (k) DO UPDATE SET n = t.n + EXCLUDED.n',
    NULL, NULL, NULL, '{nothing}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
PREPARE create_it AS SELECT es_create_projection($1, handler => $2, mode => $3, categories => $4);
EXECUTE create_it('d', 'of_delivery(es_delivery)', 'async', NULL);
SELECT es_create_projection('p', handler => 'of_event(es_event)');
SELECT es_create_subscription('p', 'end');
SELECT es_create_subscription('s', 'end');
SELECT es_create_projection('s', handler => 'of_event(es_event)');
SELECT name, tables, mode, source, on_error, batch_size FROM es_projections ORDER BY 1;

--
-- Names that are none, and states that do not allow it.
--
SELECT es_drop_projection('nobody');
SELECT es_drop_projection(NULL);
SELECT es_pause_projection('nobody');
SELECT es_pause_projection('p', true);
SELECT es_resume_projection('p', true);
SELECT es_cancel_rebuild('p');
SELECT es_swap_projection('p');
SELECT es_run_projections('nobody');
SELECT es_run_projections('p', 0);
SELECT es_run_projections('p', 1000001);
SELECT es_rebuild_projection('nobody');
SELECT es_rebuild_projection('d');
SELECT es_rebuild_projection('p', 'SELECT 1', 'of_event(es_event)');
SELECT es_rebuild_projection('p', 'INSERT INTO public.t SELECT stream FROM es_batch');
SELECT es_rebuild_projection('p', 'INSERT INTO other SELECT stream FROM es_batch');
SELECT es_rebuild_projection('p');
SELECT es_rebuild_projection('p');
SELECT es_cancel_rebuild('p');
SELECT es_pause_projection('p');
SELECT es_run_projections('p');
SELECT es_run_projections();
SELECT es_resume_projection('p');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_run_projections('p');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_run_projections('p');
ROLLBACK;
BEGIN READ ONLY;
SELECT es_drop_projection('p');
ROLLBACK;
-- What hangs on a table by its number keeps it from being swapped.
CREATE TABLE refers (k text REFERENCES t);
SELECT es_rebuild_projection('p');
DROP TABLE refers;
CREATE MATERIALIZED VIEW mv AS SELECT k FROM t;
SELECT es_rebuild_projection('p');
DROP MATERIALIZED VIEW mv;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
SELECT es_rebuild_projection('p');
ALTER TABLE t DISABLE ROW LEVEL SECURITY;
CREATE FUNCTION by_number() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM t; END;
SELECT es_rebuild_projection('p');
DROP FUNCTION by_number();
CREATE TABLE heir () INHERITS (t);
SELECT es_rebuild_projection('p');
DROP TABLE heir;
CREATE FUNCTION own_path(event es_event) RETURNS void LANGUAGE sql SET search_path = public AS 'SELECT';
SELECT es_rebuild_projection('p', handler => 'own_path(es_event)');
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'es\_shadow%';

--
-- Waiting.
--
SELECT es_wait_for(NULL, 1);
SELECT es_wait_for('p', NULL);
SELECT es_wait_for('p', -1);
SELECT es_wait_for('nobody', 1);
SELECT es_wait_for('p', 1, '-1 s');
SELECT es_wait_for('p', 1, '1 month');
SELECT es_wait_for('p', 0, NULL), es_wait_for('s', 0);
SELECT es_wait_for('p', 9223372036854775807, '10 ms');
BEGIN;
SELECT es_append('a-1', 'E', '{}') IS NOT NULL;
SELECT es_wait_for('p', 1);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_wait_for('p', 1);
ROLLBACK;
SELECT es_watch_projection('nobody');
SELECT es_watch_projection(NULL);

--
-- Inside a body nothing of projections can be changed or run.
--
CREATE FUNCTION meddle(event es_event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE event.data->>'sql'; END $$;
SELECT es_create_projection('meddler', handler => 'meddle(es_event)', mode => 'inline', categories => '{meddle}');
SELECT es_append('meddle-1', 'E', '{"sql": "SELECT es_drop_projection(''meddler'')"}');
SELECT es_append('meddle-1', 'E', '{"sql": "SELECT es_run_projections()"}');
SELECT es_append('meddle-1', 'E', '{"sql": "SET ROLE pg_monitor"}');
SELECT es_append('meddle-1', 'E', '{"sql": "CREATE TEMP TABLE x ()"}');
SELECT es_append('meddle-1', 'E', '{"sql": "LISTEN x"}');
SELECT es_append('meddle-1', 'E', '{"sql": "COMMIT"}');
-- It may append, and what it appends is taken by inline projections, too.
SELECT es_append('meddle-1', 'E', '{"sql": "SELECT es_append(''meddle-2'', ''E'', ''{\"sql\": \"INSERT INTO t VALUES (''''deep'''', 1)\"}'')"}') IS NOT NULL;
SELECT * FROM t;
-- A temporary table of the appender's is not taken for the projection's.
CREATE TEMP TABLE t (k text, n bigint);
SELECT es_append('meddle-1', 'E', '{"sql": "INSERT INTO t VALUES (''not temporary'', 2)"}') IS NOT NULL;
SELECT * FROM public.t ORDER BY 1;
-- A handler that is gone.
DROP TABLE t;
DROP FUNCTION meddle(es_event);
SELECT es_append('meddle-1', 'E', '{}');
SELECT es_drop_projection('meddler');
SELECT es_append('meddle-1', 'E', '{}') IS NOT NULL;

-- Settings that a body changes come back.
CREATE TABLE told (rebuilding boolean, stream text);
CREATE FUNCTION tell(event es_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('work_mem', '77MB', false);
    INSERT INTO told VALUES (es_rebuilding(), event.stream);
    IF event.type = 'Always' OR NOT es_rebuilding() THEN PERFORM es_append('answer-1', 'E', '{}'); END IF;
END $$;
SELECT es_create_projection('tell', handler => 'tell(es_event)', mode => 'inline', categories => '{tell}', tables => '{told}');
SELECT es_append('tell-1', 'E', '{}') IS NOT NULL;
SELECT current_setting('work_mem');
-- What a body appends was appended when it was live: a rebuild leaves it out, or stops.
SELECT es_rebuild_projection('tell');
SELECT es_run_projections('tell'), es_run_projections('tell');
SELECT es_stream_version('answer-1'), es_rebuilding();
SELECT * FROM told;
SELECT es_append('tell-1', 'Always', '{}') IS NOT NULL;
SELECT es_rebuild_projection('tell');
SELECT es_run_projections('tell');
SELECT version, live, state, last_error FROM es_projection_status WHERE projection = 'tell' ORDER BY version;
SELECT es_swap_projection('tell');
SELECT es_cancel_rebuild('tell');
-- Nor is a rebuild swapped in by a transaction whose own events would be missing.
SELECT es_rebuild_projection('tell', handler => 'of_event(es_event)');
BEGIN;
SELECT es_append('tell-1', 'E', '{}') IS NOT NULL;
SELECT es_run_projections('tell') > 0, es_run_projections('tell');
SELECT count(*) FROM es_projections WHERE name = 'tell';
SELECT es_swap_projection('tell');
ROLLBACK;
SELECT es_drop_projection('tell');

--
-- Whose it is.
--
CREATE ROLE es_pg_projector;
CREATE ROLE es_pg_stranger;
SELECT es_grant('es_pg_projector', 'project'), es_grant('es_pg_projector', 'append', 'mine'), es_grant('es_pg_stranger', 'project'), es_grant('es_pg_stranger', 'append');
GRANT CREATE, USAGE ON SCHEMA public TO es_pg_projector;
CREATE TABLE secret (k text);
SET ROLE es_pg_stranger;
SELECT es_drop_projection('p');
SELECT es_rebuild_projection('p');
RESET ROLE;
SET ROLE es_pg_projector;
CREATE TABLE mine (k text PRIMARY KEY, who text);
SELECT es_create_projection('mine', 'INSERT INTO mine SELECT stream || version, current_user FROM es_batch', categories => '{mine}', mode => 'inline');
SELECT es_create_projection('thief', 'INSERT INTO mine SELECT k FROM secret, es_batch', categories => '{mine}');
SELECT es_append('mine-1', 'E', '{}') IS NOT NULL;
SELECT es_run_projections('thief');
RESET ROLE;
SET ROLE es_pg_stranger;
SELECT es_append('mine-1', 'E', '{}') IS NOT NULL;
SELECT current_user, current_setting('search_path');
RESET ROLE;
SELECT * FROM mine ORDER BY 1;
SELECT projection, state, last_sqlstate, owner FROM es_projection_status WHERE owner = 'es_pg_projector'::regrole ORDER BY 1;
SET ROLE es_pg_projector;
SELECT es_rebuild_projection('mine');
SELECT es_run_projections('mine'), es_run_projections('mine');
SELECT es_drop_projection('mine'), es_drop_projection('thief');
RESET ROLE;
SELECT tableowner FROM pg_tables WHERE tablename = 'mine';
DROP OWNED BY es_pg_projector, es_pg_stranger;
DROP ROLE es_pg_projector, es_pg_stranger;
