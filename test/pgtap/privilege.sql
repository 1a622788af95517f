-- privilege: what must hold of rights, whoever was granted what.
CREATE EXTENSION es_pg;
SELECT plan(18);

CREATE VIEW member_function AS
    SELECT p.* FROM pg_depend AS d JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'es_pg') AND d.deptype = 'e';

-- Every function has its place. A new one belongs into the list of es_privilege_objects, unless it reads and writes
-- nothing (then PUBLIC may have it) or only the extension itself calls it.
SELECT is_empty($$SELECT oid::regprocedure FROM member_function AS f
                   WHERE obj_description(oid, 'pg_proc') NOT LIKE 'es\_pg: %'	-- internal
                     AND NOT has_function_privilege('public', oid, 'EXECUTE')
                     AND NOT EXISTS (SELECT FROM es_privilege_objects AS o WHERE o.is_function AND o.name = f.proname)$$,
    'every function is in a privilege, or PUBLIC''s, or internal');
SELECT is_empty($$SELECT o.what FROM es_privilege_objects AS o JOIN member_function AS f ON o.is_function AND o.name = f.proname
                   WHERE has_function_privilege('public', f.oid, 'EXECUTE') OR obj_description(f.oid, 'pg_proc') LIKE 'es\_pg: %'$$,
    'and not two of these');
SELECT is_empty($$SELECT m[1] FROM regexp_matches(pg_get_viewdef('es_privilege_objects'), '\(''\w+''(?:::text)?, *''(\w+)''', 'g') AS m
                   WHERE m[1] NOT IN (SELECT name FROM es_privilege_objects)$$, 'the list names nothing that is not there');
SELECT is_empty($$SELECT name FROM es_privilege_objects WHERE privilege <> 'admin' AND NOT is_function$$, 'only administrators look at tables and views');

-- Nobody but the owner has anything to begin with.
SELECT is_empty('SELECT * FROM es_privileges', 'nobody has a privilege');
SELECT is_empty('SELECT * FROM es_limited', 'nobody has a limit');
SELECT es_append('apple-1', 'T', '{}');
SELECT is_empty($$SELECT oid::regclass FROM pg_class WHERE relnamespace = 'es_chunks'::regnamespace AND relacl IS NOT NULL$$, 'nobody has a right on a chunk');

-- No function of a privilege that has limits forgets to look at them: of another scope than the role's it refuses
-- before it does anything else. What the limit is about is its first argument, or the one called consumer of a command.
CREATE ROLE es_pg_tap_other;
SELECT es_grant('es_pg_tap_other', privilege, 'other') FROM (SELECT DISTINCT privilege FROM es_privilege_objects WHERE privilege IN ('append', 'publish', 'consume', 'inbox')) AS p;
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE call;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE VIEW limited_call AS
    SELECT format('SELECT %s(%s)', f.oid::regproc, (SELECT string_agg(CASE i WHEN CASE WHEN f.proname LIKE 'es\_command\_%' THEN array_position(f.proargnames, 'consumer') ELSE 1 END THEN '''mine''' ELSE 'NULL::' || t::regtype END, ', ')
                                                        FROM unnest(f.proargtypes::oid[]) WITH ORDINALITY AS a (t, i))) AS call
      FROM es_privilege_objects AS o JOIN member_function AS f ON o.is_function AND o.name = f.proname
     WHERE privilege IN ('append', 'publish', 'consume', 'inbox') AND proargtypes[0] = 'text'::regtype;
GRANT SELECT ON limited_call TO es_pg_tap_other;
SELECT cmp_ok(count(*), '>=', 5::bigint, 'there are functions with limits') FROM limited_call;
SELECT is_empty($$SELECT name FROM es_privilege_objects JOIN member_function ON proname = name
                   WHERE privilege IN ('append', 'publish', 'consume', 'inbox') AND NOT shared AND proargtypes[0] IS DISTINCT FROM 'text'::regtype$$,
    'and all functions of such a privilege alone are of that form');
CREATE TABLE answer AS SELECT call, ''::text AS answer FROM limited_call;
GRANT ALL ON answer TO es_pg_tap_other;
SET ROLE es_pg_tap_other;
UPDATE answer SET answer = outcome(call);
RESET ROLE;
SELECT is_empty($$SELECT * FROM answer WHERE answer NOT LIKE '42501 permission denied for % "mine"'$$, 'each refuses what is not within the limits');
SELECT es_revoke('es_pg_tap_other', privilege) FROM (SELECT DISTINCT privilege FROM es_privilege_objects WHERE privilege IN ('append', 'publish', 'consume', 'inbox')) AS p;

-- Random grants and revokes, beside a model of what they mean.
CREATE VIEW acls AS
    SELECT 'f' AS kind, oid, proacl::text AS acl FROM pg_proc WHERE proname LIKE 'es\_%'
    UNION ALL SELECT 'r', oid, coalesce(relacl, acldefault('r', relowner))::text FROM pg_class WHERE relname LIKE 'es\_%'
    UNION ALL SELECT 't', oid, typacl::text FROM pg_type WHERE typname LIKE 'es\_%\_limit';
SELECT is_empty('SELECT * FROM es_privileges', 'what was granted was taken back');
CREATE TABLE acls_before AS SELECT * FROM acls;
CREATE ROLE es_pg_tap_a;
CREATE ROLE es_pg_tap_b;
CREATE ROLE es_pg_tap_ab IN ROLE es_pg_tap_a, es_pg_tap_b;
CREATE TABLE model (role text, privilege text, scope text);    -- scope NULL: no limits
CREATE TABLE difference (step int, what text);
CREATE TABLE shown (scopes text[]);
GRANT SELECT ON model TO PUBLIC;
GRANT ALL ON difference TO PUBLIC;
CREATE FUNCTION may_append(role text, category text) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM model AS m WHERE m.privilege = 'append' AND pg_has_role(may_append.role, m.role, 'USAGE')
                      AND (m.scope IS NULL OR m.scope = category OR m.scope = 'p*' AND category LIKE 'p%'))
$$;
DO $$
DECLARE
    r text;
    p text;
    s text;
    unlimited boolean;
    want text;
    got text;
    category text;
BEGIN
    PERFORM setseed(0.3);
    FOR step IN 1..200 LOOP
        r := (ARRAY['es_pg_tap_a', 'es_pg_tap_b'])[1 + floor(random() * 2)];
        p := (ARRAY['append', 'append', 'append', 'consume', 'read', 'admin'])[1 + floor(random() * 6)];
        s := CASE WHEN p IN ('append', 'consume') AND random() < 0.8 THEN (ARRAY['apple', 'pear', 'p*'])[1 + floor(random() * 3)] END;
        unlimited := EXISTS (SELECT FROM model AS m WHERE m.role = r AND m.privilege = p AND m.scope IS NULL);
        IF random() < 0.5 THEN
            want := CASE WHEN s IS NOT NULL AND unlimited THEN '0LP01' ELSE 'done' END;
            got := left(outcome(format('SELECT es_grant(%L, %L, %L)', r, p, s)), 5);
            IF got = 'done' THEN
                DELETE FROM model AS m WHERE m.role = r AND m.privilege = p AND (s IS NULL OR m.scope = s);
                INSERT INTO model VALUES (r, p, s);
            END IF;
        ELSE
            want := CASE WHEN s IS NOT NULL AND NOT EXISTS (SELECT FROM model AS m WHERE m.role = r AND m.privilege = p AND m.scope = s) THEN '42704' ELSE 'done' END;
            got := left(outcome(format('SELECT es_revoke(%L, %L, %L)', r, p, s)), 5);
            IF got = 'done' THEN
                DELETE FROM model AS m WHERE m.role = r AND m.privilege = p AND (s IS NULL OR m.scope = s);
            END IF;
        END IF;
        IF want <> got THEN
            INSERT INTO difference VALUES (step, format('%s %s %s: %s instead of %s', r, p, s, got, want));
        END IF;
        INSERT INTO difference
            SELECT step, d::text FROM (
                (SELECT role::text, privilege, scopes FROM es_privileges WHERE missing = '{}'
                 EXCEPT ALL SELECT m.role, m.privilege, array_agg(m.scope ORDER BY m.scope) FILTER (WHERE m.scope IS NOT NULL) FROM model AS m GROUP BY 1, 2)
                UNION ALL
                (SELECT m.role, m.privilege, array_agg(m.scope ORDER BY m.scope) FILTER (WHERE m.scope IS NOT NULL) FROM model AS m GROUP BY 1, 2
                 EXCEPT ALL SELECT role::text, privilege, scopes FROM es_privileges WHERE missing = '{}')) AS d;
        INSERT INTO shown SELECT scopes FROM es_privileges;
        r := (ARRAY['es_pg_tap_a', 'es_pg_tap_b', 'es_pg_tap_ab'])[1 + floor(random() * 3)];
        category := (ARRAY['apple', 'pear', 'plum', 'cherry'])[1 + floor(random() * 4)];
        want := CASE WHEN may_append(r, category) THEN 'done' ELSE '42501' END;
        EXECUTE format('SET LOCAL ROLE %I', r);
        got := left(outcome(format('SELECT es_append(%L, ''T'', ''{}'')', category || '-1')), 5);
        RESET ROLE;
        IF want <> got THEN
            INSERT INTO difference VALUES (step, format('%s appends to %s: %s instead of %s', r, category, got, want));
        END IF;
        IF random() < 0.5 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;
SELECT is_empty('SELECT * FROM difference ORDER BY step LIMIT 10', 'es_privileges shows what was granted, and so it is');
SELECT ok(bool_or(scopes IS NULL) AND bool_or(cardinality(scopes) > 1), 'there were roles with and without limits') FROM shown;
SELECT set_eq('SELECT role::text, privilege, scope FROM es_grants', 'SELECT role, privilege, scope FROM model WHERE scope IS NOT NULL', 'nothing is left in es_grants that means nothing');
SELECT lives_ok($$SELECT es_revoke(role::regrole, privilege) FROM (SELECT DISTINCT role, privilege FROM model) AS m$$, 'all of it can be taken back');
SELECT set_eq('SELECT * FROM acls', 'SELECT * FROM acls_before', 'and every ACL is as it was');
SELECT is_empty('SELECT * FROM es_grants', 'nothing is in es_grants');
REVOKE ALL ON limited_call, answer FROM es_pg_tap_other;
SELECT lives_ok('DROP ROLE es_pg_tap_a, es_pg_tap_b, es_pg_tap_ab, es_pg_tap_other', 'no role has anything left');
SELECT * FROM finish();
