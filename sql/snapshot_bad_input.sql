-- snapshot_bad_input: what folds, states and snapshots refuse, and how.
CREATE EXTENSION es_pg;

-- Runs a statement; returns SQLSTATE and message of its refusal.
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN SQLSTATE || ' ' || replace(message, repeat('x', 100), 'x...x') || coalesce(': ' || nullif(replace(detail, repeat('x', 100), 'x...x'), ''), '');
END $$;
\set example '[{"type": "A", "data": {"x": 1, "s": "text", "o": {}}}, {"type": "B", "data": {"x": 2}}, {"type": "C", "data": {"x": 3}}]'
CREATE TABLE given AS SELECT e FROM es_given(:'example') AS e;
SELECT es_append_json('given-1', :'example') IS NOT NULL AS appended;

--
-- Reducers
--
CREATE FUNCTION f_strict(state jsonb, event es_event) RETURNS jsonb STRICT LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION f_text(state jsonb, event es_event) RETURNS text LANGUAGE sql AS 'SELECT 1::text';
CREATE FUNCTION f_set(state jsonb, event es_event) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION f_arguments(state jsonb, event jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE PROCEDURE f_procedure(state jsonb, event es_event) LANGUAGE sql AS '';
CREATE FUNCTION f_fails(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 1 THEN
        RAISE EXCEPTION 'it does not like %', event.type;
    END IF;
    RETURN '1';
END $$;
CREATE FUNCTION f_null(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT left(reducer, 60) AS reducer, refusal(format('SELECT es_fold(e, %L) FROM given', reducer)) FROM (VALUES
    (NULL), (''), ('none'), ('no.such'), ('a.b.c.d'), ('f('), ('sum'), ('sum {}'), ('sum {"path": 1}'), ('sum {"path": ""}'), ('sum {"path": "amount"}'), ('sum {"path": "$."}'), ('sum {"path": "$.a."}'),
    ('sum {"path": "$.a b"}'), ('sum {"path": "$[x]"}'), ('sum {"path": "$[-1]"}'), ('sum {"path": "$[1"}'), ('sum {"path": "$[*"}'), ('sum {"path": "$[99999999999]"}'), ('sum {"path": "$.\"a"}'), ('sum {"path": "metadatax"}'),
    ('sum {"path": "$.x", "minus": "A"}'), ('sum {"path": "$.x", "minus": [1]}'), ('sum {"path": "$.x", "types": ["A"], "minus": ["B"]}'),
    ('sum {"path": "$.x", "at": "$.y"}'), ('sum {"path": "$.x", "typo": "$.y"}'), ('sum []'), ('sum 1'), ('sum {'), ('count {"path": "$.x"}'),
    ('sum {"path": "$.s"}'), ('sum {"path": "$.o"}'), ('sum {"path": "type"}'), ('count {"by": "$.o"}'),
    ('last_write {"at": "$.none"}'), ('last_write {"at": "$.o"}'), ('pn_counter'), ('pn_counter {"node": "type", "p": "$.s"}'),
    ('combine'), ('combine {"a": 1}'), ('combine {"a": {}}'), ('combine {"a": {"reducer": "f_null"}}'), ('combine {"a": {"reducer": "sum"}}'), ('combine {"a": {"reducer": "combine"}}'),
    ('count {"by": "$.' || repeat('x', 1600) || '"}'),
    ('f_strict'), ('f_text'), ('f_set'), ('f_arguments'), ('f_procedure'), ('lower'), ('f_fails'), ('f_null')) AS r (reducer);
SELECT call, refusal('SELECT es_reducer(' || call || ')') FROM (VALUES
    ('NULL'), ($$NULL, '{}'$$), ($$'none', '{}'$$), ($$'f_null', '{}'$$), ($$'sum', '[]'$$), ($$'sum', '{"path": "$.x"}'$$), ($$'f_null'$$)) AS c (call);
-- Where it failed is told.
\set VERBOSITY default
\set SHOW_CONTEXT always
SELECT es_fold(e, 'f_fails') FROM given;
SELECT state FROM es_state('given-1', 'sum {"path": "$.s"}');
\set SHOW_CONTEXT errors
-- EXECUTE is the caller's.
CREATE ROLE es_pg_regress_reader;
GRANT SELECT ON given TO es_pg_regress_reader;
REVOKE EXECUTE ON FUNCTION f_null FROM PUBLIC;
SELECT es_grant('es_pg_regress_reader', 'read');
CREATE FUNCTION f_who(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(current_user)';
SET ROLE es_pg_regress_reader;
SELECT es_fold(e, 'f_null') FROM given;
SELECT state FROM es_state('given-1', 'f_null');
SELECT es_reducer('f_null');
SELECT state FROM es_state('given-1', 'f_who');
RESET ROLE;

--
-- Folds
--
SELECT es_fold(e ORDER BY (e).version DESC, 'count') FROM given;
SELECT es_fold(e, 'count' ORDER BY (e).version DESC) FROM given;
SELECT es_fold(e, 'count') FROM given WHERE (e).version <> 1;
SELECT es_fold(e, 'count') FROM given WHERE (e).version > 0;
SELECT es_fold(e, 'count') FROM (SELECT e FROM given UNION ALL SELECT e FROM given) AS e;
SELECT es_fold(e, 'count') FROM (SELECT e FROM given UNION ALL SELECT e FROM es_given('[{"type": "T", "data": {}}]', 'other-1', 3) AS e) AS e;
SELECT (e).stream, es_fold(e, 'count') FROM (SELECT e FROM given UNION ALL SELECT e FROM es_given('[{"type": "T", "data": {}}]', 'other-1', 3) AS e) AS e GROUP BY 1 ORDER BY 1;
SELECT es_fold(e, (e).type) FROM given;
SELECT es_fold(e, CASE WHEN (e).version = 0 THEN 'count' ELSE 'last_value' END) FROM given;
SELECT es_fold(NULL, 'count');
SELECT es_fold(e, NULL) FROM given;
SELECT es_fold(ROW(1, NULL, 1, NULL, 'T', NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL)::es_event, 'count');
SELECT es_fold_step(NULL, e, 'count') FROM given;

--
-- es_given
--
SELECT call, refusal('SELECT FROM es_given(' || call || ')') FROM (VALUES
    ('NULL'), ($$'{}'$$), ($$'1'$$), ($$'[1]'$$), ($$'[{"type": "T"}]'$$), ($$'[{"data": {}}]'$$), ($$'[{"type": "T", "data": {}, "typo": 1}]'$$),
    ($$'[]', ''$$), ($$'[]', '-1'$$), ($$'[]', from_version => -1$$), ($$'[]', from_version => 9223372036854775807$$), ($$'[]'$$)) AS c (call);

--
-- es_state, es_snapshot
--
SELECT call, refusal('SELECT FROM es_state(' || call || ')') FROM (VALUES
    ($$NULL, 'count'$$), ($$'', 'count'$$), ($$'given-1', NULL$$), ($$'given-1', 'none'$$), ($$'given-1', 'count', -2$$), ($$'given-1', 'count', 3$$),
    ($$'given-1', 'count', 2, now()$$), ($$'other-1', 'count', 0$$), ($$'other-1', 'none'$$), ($$'given-1', 'count', at_time => 'infinity'$$), ($$'given-1', 'count', at_time => '-infinity'$$)) AS c (call);
SELECT call, refusal('SELECT FROM es_snapshot(' || call || ')') FROM (VALUES
    ($$NULL, 'count'$$), ($$'', 'count'$$), ($$'-', 'count'$$), ($$'given-1', NULL$$), ($$'given-1', 'none'$$), ($$'given-1', 'count', -1$$), ($$'given-1', 'count', -2$$),
    ($$'given-1', 'count', 3$$), ($$'given-1', 'count', 3, '1'$$), ($$'given-1', 'count', NULL, '1'$$), ($$'other-1', 'count'$$), ($$'other-1', 'count', 0, '1'$$)) AS c (call);
SELECT count(*) AS snapshots FROM es_snapshots;
BEGIN READ ONLY;
SELECT es_snapshot('given-1', 'count');
ROLLBACK;
-- A state that is none of the reducer's.
SELECT es_snapshot('given-1', 'count', 0, '"one"'), es_snapshot('given-1', 'count {"by": "type"}', 0, '{"B": []}');
SELECT state FROM es_state('given-1', 'count');
SELECT state FROM es_state('given-1', 'count {"by": "type"}');
SELECT state FROM es_state('given-1', 'count {"by": "type"}', 0);
SELECT es_snapshot('given-1', 'combine {"n": {"reducer": "count"}}', 0, '1'), es_snapshot('given-1', 'last_write', 0, '[]'), es_snapshot('given-1', 'last_write {"at": "$.x"}', 0, '{"at": {}}');
SELECT state FROM es_state('given-1', 'combine {"n": {"reducer": "count"}}');
SELECT state FROM es_state('given-1', 'last_write');
SELECT state FROM es_state('given-1', 'last_write {"at": "$.x"}');
SELECT es_prune_snapshots(0, category => 'given');
SELECT es_snapshot('given-1', 'count', 0, '"one"');
-- One that is ahead of its stream, or of another history, is as if it were not there.
UPDATE es_snapshots SET version = 7, state = '100';
SELECT state, snapshot FROM es_state('given-1', 'count');
UPDATE es_snapshots SET version = 1, position = 3;
SELECT state, snapshot FROM es_state('given-1', 'count');
UPDATE es_snapshots SET position = 2;
SELECT state, snapshot FROM es_state('given-1', 'count');

--
-- Policies, pruning
--
SELECT call, refusal('SELECT es_set_snapshot_policy(' || call || ')') FROM (VALUES
    ($$NULL, 'count'$$), ($$'', 'count'$$), ($$'a-b', 'count'$$), ($$'a', NULL$$), ($$'a', 'none'$$), ($$'a', 'count', 0$$), ($$'a', 'count', -1$$), ($$'a', 'count', 1, 0$$), ($$'a', 'count', 1, -2$$), ($$'a', 'count', 7, -1$$), ($$'b', 'count', NULL, NULL$$)) AS c (call);
SELECT * FROM es_snapshot_policies ORDER BY 1;
SELECT refusal('SELECT es_drop_snapshot_policy(NULL)'), refusal('SELECT es_prune_snapshots(-1)');

--
-- Rights: who may append may say what a state is, within the same limits
--
SELECT es_append('mine-1', 'T', '{}') IS NOT NULL AS appended;
SET ROLE es_pg_regress_reader;
SELECT es_snapshot('mine-1', 'count');
SELECT es_set_snapshot_policy('mine', 'count');
SELECT es_drop_snapshot_policy('mine');
SELECT es_prune_snapshots();
SELECT * FROM es_snapshots;
RESET ROLE;
SELECT es_grant('es_pg_regress_reader', 'append', 'other');
SET ROLE es_pg_regress_reader;
SELECT es_snapshot('mine-1', 'count');
RESET ROLE;
-- So a reader's state by a function is not kept, for it may be the reader's own; a built-in's is.
SELECT es_set_snapshot_policy('mine', 'f_who', 1), es_set_snapshot_policy('mine', 'count', 1);
SET ROLE es_pg_regress_reader;
SELECT state, snapshot FROM es_state('mine-1', 'f_who');
SELECT state, snapshot FROM es_state('mine-1', 'count');
RESET ROLE;
SELECT reducer, state FROM es_snapshots WHERE reducer IN ('public.f_who', 'count') AND state <> '100';
SELECT es_grant('es_pg_regress_reader', 'append', 'mine');
SET ROLE es_pg_regress_reader;
SELECT state, snapshot FROM es_state('mine-1', 'f_who');
RESET ROLE;
SELECT state, snapshot FROM es_state('mine-1', 'f_who');
DROP OWNED BY es_pg_regress_reader;
DROP ROLE es_pg_regress_reader;
