-- projection_rebuild.sql: a new version of a projection beside the live one, and the swap.
--
-- The new version is a row of es_projections that is not live, with a subscription of its own from the beginning and with
-- tables of the same names in a schema of its own, which stands first in its search_path. It is run like any other. Once it
-- is where the live one is, one short transaction, in which neither of the two runs and nobody uses the live tables, swaps:
-- the tables change their schemas, the subscription takes the name. Until then the live one knows nothing of it.
--
-- Of an inline projection nothing else says how far it is than what has committed; so the swap keeps appends out (SHARE
-- ROW EXCLUSIVE on es_projections), and runs the new version to the end of the log.
--
-- What is done to the tables is done as the projection's owner (es_run_as_owner), for it may run code of his.

CREATE FUNCTION @extschema@.es_run_version(projection_id integer)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_run_version(integer) IS
'es_pg: runs a batch of a version that this transaction has locked; how many events there were.
Example: SELECT es_run_version(1);';

CREATE FUNCTION @extschema@.es_run_as_owner(role oid, statement text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_run_as_owner(oid, text) IS
'es_pg: runs a statement as a role, as a security-restricted operation.
Example: SELECT es_run_as_owner(10, ''SELECT 1'');';

-- Why a table cannot be swapped for another one: what hangs on its number and not on its name.
CREATE FUNCTION @extschema@.es_swap_obstacle(relation regclass, owner oid)
RETURNS text LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT CASE
        WHEN c.relkind <> 'r' OR c.relispartition OR EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE relation IN (i.inhparent, i.inhrelid))
            THEN 'It is not an ordinary table.'
        WHEN NOT pg_catalog.pg_has_role(es_swap_obstacle.owner, c.relowner, 'USAGE') THEN 'The owner of the projection does not own it.'
        WHEN c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy AS y WHERE y.polrelid = relation) THEN 'It has row security.'
        WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.contype = 'f' AND relation IN (k.conrelid, k.confrelid))
            THEN 'It has foreign keys, or foreign keys refer to it.'
        WHEN EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS b WHERE b.prrelid = relation) THEN 'A publication names it.'
        WHEN EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class
                     WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = relation
                       AND (v.relkind <> 'v' OR v.oid = relation OR NOT pg_catalog.pg_has_role(es_swap_obstacle.owner, v.relowner, 'USAGE')))
            THEN 'A materialized view, a rule or somebody else''s view uses it.'
        WHEN EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = relation)
            THEN 'A function with an SQL-standard body uses it.'
        END
      FROM pg_catalog.pg_class AS c WHERE c.oid = relation;
END;
COMMENT ON FUNCTION @extschema@.es_swap_obstacle(regclass, oid) IS
'es_pg: why a projection of this owner cannot swap a table in a rebuild; NULL: it can.
Example: SELECT es_swap_obstacle(''orders'', 10);';

CREATE FUNCTION @extschema@.es_check_swap(name text, tables text[], owner oid)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT u.t, @extschema@.es_swap_obstacle(u.t::regclass, es_check_swap.owner) AS obstacle FROM pg_catalog.unnest(tables) AS u (t) LOOP
        IF r.obstacle IS NOT NULL THEN
            RAISE EXCEPTION 'table % of projection "%" cannot be swapped', r.t, name
                USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = r.obstacle;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.es_check_swap(text, text[], oid) IS
'es_pg: refuses tables that a projection of this owner cannot swap in a rebuild.
Example: SELECT es_check_swap(''order_count'', ''{public.orders}'', 10);';

-- An empty table like another one, in the shadow schema, with its indexes under their names.
CREATE FUNCTION @extschema@.es_make_shadow(relation regclass, shadow text, owner oid)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    c pg_catalog.pg_class;
    made oid;
    i record;
BEGIN
    SELECT t.* INTO c FROM pg_catalog.pg_class AS t WHERE t.oid = relation;
    PERFORM @extschema@.es_run_as_owner(owner, pg_catalog.format('CREATE %sTABLE %I.%I (LIKE %s INCLUDING ALL)%s',
        CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END, shadow, c.relname, relation,
        ' WITH (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')'));
    made := pg_catalog.format('%I.%I', shadow, c.relname)::regclass;
    FOR i IN
        SELECT new.oid::regclass AS index, old.relname
          FROM (SELECT x.indexrelid, x.indkey::text AS key, x.indisunique, x.indisprimary, pg_catalog.row_number() OVER (ORDER BY x.indexrelid) AS n
                  FROM pg_catalog.pg_index AS x WHERE x.indrelid = relation) AS o
          JOIN (SELECT x.indexrelid, x.indkey::text AS key, x.indisunique, x.indisprimary, pg_catalog.row_number() OVER (ORDER BY x.indexrelid) AS n
                  FROM pg_catalog.pg_index AS x WHERE x.indrelid = made) AS m USING (n, key, indisunique, indisprimary)
          JOIN pg_catalog.pg_class AS old ON old.oid = o.indexrelid
          JOIN pg_catalog.pg_class AS new ON new.oid = m.indexrelid
         WHERE old.relname <> new.relname
    LOOP
        PERFORM @extschema@.es_run_as_owner(owner, pg_catalog.format('ALTER INDEX %s RENAME TO %I', i.index, i.relname));
    END LOOP;
    IF c.relowner <> owner THEN
        PERFORM @extschema@.es_run_as_owner(owner, pg_catalog.format('ALTER TABLE %s OWNER TO %s', made::regclass, c.relowner::regrole));
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_make_shadow(regclass, text, oid) IS
'es_pg: makes an empty table like another one in a schema, for a rebuild.
Example: SELECT es_make_shadow(''orders'', ''es_shadow_1'', 10);';

-- Columns, indexes and constraints: what ALTER TABLE and CREATE INDEX change, and the tables that are being filled do not get.
CREATE FUNCTION @extschema@.es_tables_shape(tables text[])
RETURNS text LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT md5(string_agg(s.what, E'\n' ORDER BY s.what COLLATE "C"))
      FROM unnest(tables) AS u (t),
   LATERAL (SELECT format('%s %s %s %s %s', u.t, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)) AS what
              FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = u.t::regclass AND a.attnum > 0 AND NOT a.attisdropped
             UNION ALL
            SELECT pg_get_indexdef(i.indexrelid) FROM pg_index AS i WHERE i.indrelid = u.t::regclass
             UNION ALL
            SELECT format('%s %s %s', u.t, k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint AS k WHERE k.conrelid = u.t::regclass) AS s
$$;
COMMENT ON FUNCTION @extschema@.es_tables_shape(text[]) IS
'es_pg: a hash of the columns, indexes and constraints of tables.
Example: SELECT es_tables_shape(''{public.orders}'');';

CREATE FUNCTION @extschema@.es_rebuild_projection(
    name text, body text DEFAULT NULL, handler regprocedure DEFAULT NULL, swap boolean DEFAULT true)
RETURNS integer LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_rebuild_projection(text, text, regprocedure, boolean) IS
'Begins a new version of a projection, with its body or handler or with a new one; returns the version. Empty tables like its own are filled from the beginning of the log, by the worker or es_run_projections, in schema es_shadow_N, while the live ones serve; then they take their place in one short transaction. es_projection_status shows progress; es_pause_projection(name, true), es_resume_projection(name, true), es_cancel_rebuild. A crash loses nothing of it.
swap: false leaves both versions side by side, both kept up, until es_swap_projection.
Views and triggers on the tables, their privileges and serial sequences go along. Tables that are altered meanwhile are not swapped: the rebuild stops. Refused where more hangs on a table: foreign keys, row security, materialized views, publications, SQL-standard function bodies, partitions.
Errors: 42704, 42501 not its owner, 55000 it is being rebuilt already, has no tables, or one of them cannot be swapped; 22023 the body writes elsewhere, 42P13, 22004.
Example: SELECT es_rebuild_projection(''order_count'');';

CREATE FUNCTION @extschema@.es_rebuild_projection_as(name text, body text, handler regprocedure, swap boolean, caller oid, path text)
RETURNS integer LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    p @extschema@.es_projections := @extschema@.es_take_projection($1, true, $5, false);
    s @extschema@.es_subscriptions;
    f pg_catalog.pg_proc;
    id integer;
BEGIN
    IF EXISTS (SELECT FROM @extschema@.es_projections AS t WHERE t.name = $1 AND NOT t.live) THEN
        RAISE EXCEPTION 'projection "%" is being rebuilt already', $1 USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Wait for its end, or use es_cancel_rebuild.';
    ELSIF COALESCE(pg_catalog.cardinality(p.tables), 0) = 0 THEN
        RAISE EXCEPTION 'it is not known which tables projection "%" fills', $1 USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Create it with "tables".';
    END IF;
    IF $2 IS NOT NULL OR $3 IS NOT NULL THEN
        p.body := $2;
        p.handler := $3::text;
    END IF;
    PERFORM @extschema@.es_check_projection(p, $5);
    SELECT t.* INTO f FROM pg_catalog.pg_proc AS t WHERE t.oid = pg_catalog.to_regprocedure(p.handler);
    IF f.prosqlbody IS NOT NULL OR EXISTS (SELECT FROM pg_catalog.unnest(f.proconfig) AS u (c) WHERE c LIKE 'search\_path=%') THEN
        RAISE EXCEPTION 'projection "%" cannot be rebuilt with function %', $1, p.handler
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'It would write to the live tables: it has a search_path of its own, or an SQL-standard body.';
    END IF;
    INSERT INTO @extschema@.es_projections AS t (
        name, version, live, mode, state, owner, path, settings, source, categories, types, topics, "where", body, handler, tables, on_error, batch_size, swap, began_at)
    VALUES ($1, p.version + 1, false, p.mode, 'active', p.owner, p.path, p.settings, p.source, p.categories, p.types, p.topics, p."where",
            p.body, p.handler, p.tables, p.on_error, p.batch_size, COALESCE($4, true), pg_catalog.clock_timestamp())
    RETURNING t.projection_id INTO id;
    UPDATE @extschema@.es_projections AS t SET shadow = 'es_shadow_' || id WHERE t.projection_id = id;
    EXECUTE pg_catalog.format('CREATE SCHEMA %I AUTHORIZATION %s', 'es_shadow_' || id, p.owner);
    PERFORM @extschema@.es_check_swap($1, p.tables, p.owner);
    PERFORM @extschema@.es_make_shadow(u.t::regclass, 'es_shadow_' || id, p.owner) FROM pg_catalog.unnest(p.tables) AS u (t);
    UPDATE @extschema@.es_projections AS t SET shape = @extschema@.es_tables_shape(p.tables) WHERE t.projection_id = id;
    SELECT t.* INTO s FROM @extschema@.es_subscriptions AS t WHERE t.name = $1;
    PERFORM @extschema@.es_create_subscription($1 || '@' || (p.version + 1), 'beginning', p.source, p.categories, p.types, p.topics, p."where",
        max_attempts => s.max_attempts, retry_base => s.retry_base, retry_max => s.retry_max, on_dead => s.on_dead,
        max_lag_messages => s.max_lag_messages, max_lag_bytes => s.max_lag_bytes, max_lag_age => s.max_lag_age);
    -- It begins far behind; its limits are for when it is live.
    UPDATE @extschema@.es_subscriptions AS t SET max_lag_messages = NULL, max_lag_bytes = NULL, max_lag_age = NULL
     WHERE t.name = $1 || '@' || (p.version + 1);
    PERFORM @extschema@.es_check_tables(id), @extschema@.es_projections_changed(), @extschema@.es_wake_consumers();
    RETURN p.version + 1;
END $$;
COMMENT ON FUNCTION @extschema@.es_rebuild_projection_as(text, text, regprocedure, boolean, oid, text) IS
'es_pg: es_rebuild_projection for this role.
Example: SELECT es_rebuild_projection_as(''order_count'', NULL, NULL, true, 10, ''public'');';

CREATE FUNCTION @extschema@.es_cancel_rebuild(name text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_cancel_rebuild(text) IS
'Gives a rebuild up: its tables, its subscription and its version go. The live projection is not touched. Waits for a batch in progress.
Errors: 42704, 42501 not its owner, 55000 it is not being rebuilt; 22004.
Example: SELECT es_cancel_rebuild(''order_count'');';

CREATE FUNCTION @extschema@.es_cancel_rebuild_as(name text, caller oid, path text)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    p @extschema@.es_projections := @extschema@.es_take_projection($1, false, $2, true);
    relation text;
BEGIN
    PERFORM @extschema@.es_drop_subscription(p.name || '@' || p.version);
    FOREACH relation IN ARRAY p.tables LOOP
        PERFORM @extschema@.es_run_as_owner(p.owner, pg_catalog.format('DROP TABLE IF EXISTS %I.%I', p.shadow, (pg_catalog.parse_ident(relation))[2]));
    END LOOP;
    PERFORM @extschema@.es_run_as_owner(p.owner, pg_catalog.format('DROP SCHEMA IF EXISTS %I CASCADE', p.shadow));
    DELETE FROM @extschema@.es_projections AS t WHERE t.projection_id = p.projection_id;
    PERFORM @extschema@.es_projections_changed();
END $$;
COMMENT ON FUNCTION @extschema@.es_cancel_rebuild_as(text, oid, text) IS
'es_pg: es_cancel_rebuild for this role.
Example: SELECT es_cancel_rebuild_as(''order_count'', 10, ''public'');';

-- Statements that give a table what hung on another one of the same name: taken before the swap, run after it.
CREATE FUNCTION @extschema@.es_hangers_on(relation regclass)
RETURNS SETOF text LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT pg_catalog.format('GRANT %s ON %s TO %s%s', a.privilege_type, relation,
                             CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a WHERE c.oid = relation AND a.grantee <> c.relowner
    UNION ALL
    SELECT pg_catalog.format('COMMENT ON TABLE %s IS %L', relation, pg_catalog.obj_description(relation, 'pg_class'))
     WHERE pg_catalog.obj_description(relation, 'pg_class') IS NOT NULL
    UNION ALL
    SELECT pg_catalog.format('GRANT %s (%I) ON %s TO %s%s', a.privilege_type, t.attname, relation,
                             CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM pg_catalog.pg_attribute AS t, pg_catalog.aclexplode(t.attacl) AS a WHERE t.attrelid = relation AND NOT t.attisdropped
    UNION ALL
    SELECT pg_catalog.pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE
               pg_catalog.format('; ALTER TABLE %s %s TRIGGER %I', relation,
                                 CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, t.tgname) END
      FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = relation AND NOT t.tgisinternal
    UNION ALL
    SELECT pg_catalog.format('CREATE OR REPLACE VIEW %s%s AS %s', v.oid::regclass,
                             ' WITH (' || pg_catalog.array_to_string(v.reloptions, ', ') || ')', pg_catalog.pg_get_viewdef(v.oid))
      FROM pg_catalog.pg_class AS v
     WHERE v.oid IN (SELECT r.ev_class FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
                      WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = relation);
END;
COMMENT ON FUNCTION @extschema@.es_hangers_on(regclass) IS
'es_pg: statements that make the privileges, the comment, the triggers and the views of a table.
Example: SELECT es_hangers_on(''orders'');';

-- A serial column's sequence belongs to the new table's column then.
CREATE FUNCTION @extschema@.es_hand_sequences(old regclass, new regclass, owner oid)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    s record;
BEGIN
    FOR s IN
        SELECT d.objid::regclass AS sequence, a.attname, n.nspname
          FROM pg_catalog.pg_depend AS d
          JOIN pg_catalog.pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
          JOIN pg_catalog.pg_class AS t ON t.oid = new JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
         WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
           AND d.refobjid = old AND d.deptype = 'a'
    LOOP
        PERFORM @extschema@.es_run_as_owner(owner, pg_catalog.format('ALTER SEQUENCE %s OWNED BY NONE', s.sequence));
        PERFORM @extschema@.es_run_as_owner(owner, pg_catalog.format('ALTER SEQUENCE %s SET SCHEMA %I', s.sequence, s.nspname));
        PERFORM @extschema@.es_run_as_owner(owner, pg_catalog.format('ALTER SEQUENCE %s OWNED BY %s.%I', s.sequence, new, s.attname));
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.es_hand_sequences(regclass, regclass, oid) IS
'es_pg: sequences of a table''s columns become another table''s.
Example: SELECT es_hand_sequences(''a'', ''b'', 10);';

-- The tables of the new version take the place of the live ones, which go.
CREATE FUNCTION @extschema@.es_swap_tables(p @extschema@.es_projections)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    statements text[];
    relation text;
    part text[];
    old oid;
    new oid;
BEGIN
    FOREACH relation IN ARRAY p.tables LOOP
        PERFORM @extschema@.es_run_as_owner(p.owner, format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', relation));
    END LOOP;
    PERFORM @extschema@.es_check_swap(p.name, p.tables, p.owner);
    IF p.shape <> @extschema@.es_tables_shape(p.tables) THEN
        RAISE EXCEPTION 'tables of projection "%" were altered since its rebuild began', p.name
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'The tables that were filled would take their place without that.',
                  HINT = 'Use es_cancel_rebuild, and es_rebuild_projection anew.';
    END IF;
    SELECT array_agg(DISTINCT h) INTO statements FROM unnest(p.tables) AS u (t), @extschema@.es_hangers_on(u.t::regclass) AS h;
    EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %s', p.shadow || '_old', p.owner);
    FOREACH relation IN ARRAY p.tables LOOP
        part := parse_ident(relation);
        old := relation::regclass;
        new := format('%I.%I', p.shadow, part[2])::regclass;
        PERFORM @extschema@.es_run_as_owner(p.owner, format('ALTER TABLE %s SET SCHEMA %I', old::regclass, p.shadow || '_old'));
        PERFORM @extschema@.es_run_as_owner(p.owner, format('ALTER TABLE %s SET SCHEMA %I', new::regclass, part[1]));
        PERFORM @extschema@.es_hand_sequences(old, new, p.owner);
    END LOOP;
    FOREACH relation IN ARRAY COALESCE(statements, '{}') LOOP
        PERFORM @extschema@.es_run_as_owner(p.owner, relation);
    END LOOP;
    FOREACH relation IN ARRAY p.tables LOOP
        PERFORM @extschema@.es_run_as_owner(p.owner, format('DROP TABLE %I.%I', p.shadow || '_old', (parse_ident(relation))[2]));
    END LOOP;
    PERFORM @extschema@.es_run_as_owner(p.owner, format('DROP SCHEMA %I', p.shadow || '_old'));
    PERFORM @extschema@.es_run_as_owner(p.owner, format('DROP SCHEMA %I', p.shadow));
END $$;
COMMENT ON FUNCTION @extschema@.es_swap_tables(@extschema@.es_projections) IS
'es_pg: puts the tables of a version that was built into the place of the live ones.
Example: SELECT es_swap_tables(p) FROM es_projections AS p WHERE NOT live;';

CREATE FUNCTION @extschema@.es_swap_version(projection_id integer)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    p @extschema@.es_projections;
    live @extschema@.es_projections;
    target bigint;
    n bigint;
BEGIN
    SELECT t.* INTO p FROM @extschema@.es_projections AS t WHERE t.projection_id = $1;
    IF p.mode = 'inline' THEN
        LOCK TABLE @extschema@.es_projections IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    SELECT t.* INTO STRICT live FROM @extschema@.es_projections AS t WHERE t.name = p.name AND t.live;
    PERFORM @extschema@.es_lock_projection(p.projection_id), @extschema@.es_lock_projection(live.projection_id);
    SELECT t.* INTO STRICT live FROM @extschema@.es_projections AS t WHERE t.projection_id = live.projection_id FOR UPDATE;
    -- To where the live one is, or in an inline one, which nobody writes to now, to the end.
    SELECT pg_catalog.min(c."position") INTO target FROM @extschema@.es_lane_cursors AS c JOIN @extschema@.es_subscriptions AS s USING (subscription_id) WHERE s.name = live.name;
    LOOP
        n := @extschema@.es_run_version(p.projection_id);
        SELECT t.* INTO p FROM @extschema@.es_projections AS t WHERE t.projection_id = $1;
        IF p.state <> 'active' THEN
            RAISE EXCEPTION 'the rebuild of projection "%" is %', p.name, p.state
                USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = p.error, HINT = 'Use es_resume_projection(name, true).';
        END IF;
        EXIT WHEN n = 0 OR (SELECT pg_catalog.min(c."position") >= target FROM @extschema@.es_lane_cursors AS c JOIN @extschema@.es_subscriptions AS s USING (subscription_id)
                             WHERE s.name = p.name || '@' || p.version);
    END LOOP;
    PERFORM @extschema@.es_swap_tables(p);
    IF p.mode = 'inline' THEN
        PERFORM @extschema@.es_drop_subscription(p.name || '@' || p.version);
    ELSE
        UPDATE @extschema@.es_subscriptions AS t
           SET max_lag_messages = s.max_lag_messages, max_lag_bytes = s.max_lag_bytes, max_lag_age = s.max_lag_age
          FROM @extschema@.es_subscriptions AS s WHERE t.name = p.name || '@' || p.version AND s.name = p.name;
        PERFORM @extschema@.es_drop_subscription(p.name);
        UPDATE @extschema@.es_subscriptions AS t SET name = p.name WHERE t.name = p.name || '@' || p.version;
    END IF;
    DELETE FROM @extschema@.es_projections AS t WHERE t.projection_id = live.projection_id;
    UPDATE @extschema@.es_projections AS t SET live = true, shadow = NULL,
        state = CASE live.state WHEN 'paused' THEN 'paused' ELSE 'active' END WHERE t.projection_id = p.projection_id;
    PERFORM @extschema@.es_projections_changed(), @extschema@.es_wake_consumers();
END $$;
COMMENT ON FUNCTION @extschema@.es_swap_version(integer) IS
'es_pg: makes the version that was built the live one.
Example: SELECT es_swap_version(2);';

-- Called when a version that is built has nothing left to do. Nobody waits long for it: if a lock is not had soon, later.
CREATE FUNCTION @extschema@.es_try_swap(projection_id integer)
RETURNS boolean LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET lock_timeout = '200ms' AS $$
#variable_conflict use_column
DECLARE
    message text;
    code text;
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.es_projections AS t WHERE t.projection_id = $1 AND NOT t.live AND t.swap) THEN
        RETURN false;
    END IF;
    PERFORM @extschema@.es_swap_version($1);
    RETURN true;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN false;
    WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, code = RETURNED_SQLSTATE;
        UPDATE @extschema@.es_projections AS t
           SET state = 'stopped', error = message, error_sqlstate = code, error_position = NULL, failed_at = pg_catalog.clock_timestamp()
         WHERE t.projection_id = $1;
        RAISE WARNING 'the rebuild of a projection stopped: %', message USING ERRCODE = code;
        RETURN false;
END $$;
COMMENT ON FUNCTION @extschema@.es_try_swap(integer) IS
'es_pg: swaps a version in that was built, if that is wanted and can be done soon.
Example: SELECT es_try_swap(2);';

CREATE FUNCTION @extschema@.es_swap_projection(name text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_swap_projection(text) IS
'Runs the version that es_rebuild_projection began to where the live one is, and makes it the live one, in the caller''s transaction; waits for those who use the live tables, and readers wait for it. Of an inline projection appends wait, too.
Errors: 42704, 42501 not its owner, 55000 it is not being rebuilt, or the rebuild is stopped; 22004.
Example: SELECT es_swap_projection(''order_count'');';

CREATE FUNCTION @extschema@.es_swap_projection_as(name text, caller oid, path text)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
    IF EXISTS (SELECT FROM @extschema@.es_projections AS t WHERE t.name = $1 AND t.mode = 'inline') THEN
        PERFORM @extschema@.es_keep_appends_out();
    END IF;
    PERFORM @extschema@.es_swap_version((@extschema@.es_take_projection($1, false, $2, true)).projection_id);
END $$;
COMMENT ON FUNCTION @extschema@.es_swap_projection_as(text, oid, text) IS
'es_pg: es_swap_projection for this role.
Example: SELECT es_swap_projection_as(''order_count'', 10, ''public'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_run_version(integer),
    @extschema@.es_run_as_owner(oid, text),
    @extschema@.es_swap_obstacle(regclass, oid),
    @extschema@.es_check_swap(text, text[], oid),
    @extschema@.es_make_shadow(regclass, text, oid),
    @extschema@.es_rebuild_projection(text, text, regprocedure, boolean),
    @extschema@.es_rebuild_projection_as(text, text, regprocedure, boolean, oid, text),
    @extschema@.es_cancel_rebuild(text),
    @extschema@.es_cancel_rebuild_as(text, oid, text),
    @extschema@.es_tables_shape(text[]),
    @extschema@.es_hangers_on(regclass),
    @extschema@.es_hand_sequences(regclass, regclass, oid),
    @extschema@.es_swap_tables(@extschema@.es_projections),
    @extschema@.es_swap_version(integer),
    @extschema@.es_try_swap(integer),
    @extschema@.es_swap_projection(text),
    @extschema@.es_swap_projection_as(text, oid, text)
FROM PUBLIC;
