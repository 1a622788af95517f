-- es_pg: what must hold of every object of the extension.
CREATE EXTENSION es_pg;
SELECT plan(17);

-- The members, as pg_depend has them; without the row types of tables and the arrays of types, which nobody
-- names and which only some versions list.
CREATE VIEW member AS
    SELECT classid, objid, (pg_identify_object(classid, objid, 0)).* FROM pg_depend
     WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'es_pg') AND deptype = 'e'
       AND NOT (classid = 'pg_type'::regclass AND EXISTS
                (SELECT FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
                  WHERE t.oid = objid AND (t.typelem <> 0 OR c.relkind <> 'c')));
CREATE VIEW member_function AS SELECT p.* FROM member JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND objid = p.oid;
CREATE VIEW member_relation AS SELECT c.* FROM member JOIN pg_class AS c ON classid = 'pg_class'::regclass AND objid = c.oid;

SELECT cmp_ok(count(*), '>', 20::bigint, 'there are functions') FROM member_function;
SELECT cmp_ok(count(*), '>', 5::bigint, 'and tables') FROM member_relation WHERE relkind IN ('r', 'p');
SELECT is_empty($$SELECT type, identity FROM member WHERE coalesce(split_part(name, '.', 1), identity) NOT LIKE 'es\_%' AND type IN ('function', 'table', 'view', 'type', 'sequence', 'schema')
                     AND NOT (type = 'function' AND identity LIKE '%.es\_%')$$, 'every name begins with es_');

-- Comments are the manual.
SELECT is_empty($$SELECT identity FROM member WHERE type IN ('function', 'table', 'view', 'type', 'composite type', 'schema')
                     AND coalesce(obj_description(objid, classid::regclass::name), '') = ''$$,
    'every function, type, table, view and schema has a comment');
SELECT is_empty($$SELECT oid::regprocedure FROM member_function WHERE obj_description(oid, 'pg_proc') NOT LIKE '%Example: SELECT %' AND proname NOT LIKE 'es\_refuse\_%'$$,
    'every function''s comment has an example');
SELECT is_empty($$SELECT oid::regclass FROM member_relation WHERE relkind IN ('r', 'p') AND obj_description(oid, 'pg_class') NOT LIKE 'es\_pg: %'$$,
    'a table''s comment says whose it is');

-- The rules of the SQL surface.
SELECT is_empty('SELECT oid::regprocedure FROM member_function WHERE proisstrict', 'no function is STRICT');
SELECT is_empty('SELECT proname FROM member_function GROUP BY proname HAVING count(*) > 1', 'one name, one signature');
SELECT is_empty($$SELECT f.oid::regprocedure FROM member_function AS f JOIN pg_language AS l ON l.oid = prolang WHERE lanname = 'c' AND proname <> prosrc$$,
    'a C function has one name');
SELECT is_empty($$SELECT oid::regprocedure FROM member_function WHERE prosecdef AND NOT coalesce(proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false)$$,
    'SECURITY DEFINER comes with a fixed search_path');
SELECT is_empty($$SELECT oid::regprocedure FROM member_function WHERE provolatile = 'v' AND proparallel <> 'u' AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)$$,
    'what is volatile is parallel unsafe');

-- Rights.
SELECT set_eq($$SELECT proname FROM member_function, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a WHERE a.grantee = 0$$,
    ARRAY['es_any', 'es_no_stream', 'es_stream_exists', 'es_category', 'es_category_id', 'es_protocol_version', 'es_uuid', 'es_reducer', 'es_fold', 'es_given', 'es_rebuilding']::name[],
    'PUBLIC may execute what reads and writes nothing');
SELECT is_empty($$SELECT oid::regclass FROM member_relation, aclexplode(relacl) AS a WHERE a.grantee = 0$$, 'PUBLIC has no right on a table, view or sequence');
SELECT is_empty($$SELECT nspname FROM pg_namespace, aclexplode(nspacl) AS a WHERE nspname = 'es_chunks' AND a.grantee = 0$$, 'nor on the chunks');

-- Dumps.
SELECT set_eq($$SELECT unnest(extconfig)::regclass FROM pg_extension WHERE extname = 'es_pg'$$,
    $$SELECT oid::regclass FROM member_relation WHERE relkind IN ('r', 'S')$$,
    'what is dumped is every table that is not partitioned and every sequence');
SELECT is_empty($$SELECT oid::regclass FROM member_relation AS r WHERE relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = r.oid AND indisprimary)$$,
    'every such table has a primary key');
SELECT is_empty($$SELECT FROM pg_inherits WHERE inhparent IN ('es_events'::regclass, 'es_outbox'::regclass)$$, 'the install script makes no chunk');
SELECT * FROM finish();
